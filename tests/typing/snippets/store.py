"""Values, categories, waits and links."""

from collections.abc import MutableMapping
from pathlib import Path
from typing import Any, assert_type

import psync
from psync import DirectoryEngine, MemoryEngine, PickleShareDB, PickleShareLink, gethashfile

db = PickleShareDB("shared")
assert_type(psync.open("shared"), PickleShareDB)
assert_type(psync.open(db), PickleShareDB)
psync.open("inbox", serializer="json", trust_group=True)
psync.open("shared", allow=[Path, "decimal.Decimal"], categories={"accounts": "power"})
psync.open("inbox", serializer="yaml")  # error: [arg-type]
PickleShareDB(Path("shared"), durability="power", wakeups="poll")
PickleShareDB(MemoryEngine())
PickleShareDB(DirectoryEngine("shared"))
with PickleShareDB("shared") as opened:
    assert_type(opened, PickleShareDB)


def takes_any_mapping(mapping: MutableMapping[str, Any]) -> None: ...


takes_any_mapping(db)
db["key"] = {"any": "value"}
assert_type(db["key"], Any)
assert_type("key" in db, bool)
assert_type(len(db), int)
assert_type(db.keys(), list[str])
assert_type(db.keys("runs/*"), list[str])
assert_type(db.add("key", 1), bool)
assert_type(db.popitem(), tuple[str, Any])
db.modify("hits", lambda hits: hits + 1, default=0)
assert_type(db.waitget("key", maxwaittime=1.5), Any)
assert_type(db.waitany(["a", "b"]), tuple[str, Any])
db.waitgone("key", maxwaittime=None)

db.hset("colours", ("any", "key"), "red")
db.hupdate("colours", {"apple": "red"})
assert_type(db.hdict("colours"), dict[Any, Any])
assert_type(db.hadd("colours", 1, 2), bool)
db.hget("colours", "apple", None, fast_only=False)
assert_type(gethashfile("apple"), str)
assert_type(db.sweep(), int)

link = db.getlink("runs/7")
assert_type(link, PickleShareLink)
link.speed = 3.5

db[7] = "a key is text"  # error: [index]
PickleShareDB("shared", durability="sometimes")  # error: [arg-type]
PickleShareDB(7)  # error: [arg-type]
db.waitget("key", maxwaittime="soon")  # error: [arg-type]
db.modify("hits", 1)  # error: [arg-type]
psync.nothing  # error: [attr-defined]
