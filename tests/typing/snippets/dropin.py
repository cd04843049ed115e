"""The drop-in module for programs that used PickleShare."""

from typing import Any, assert_type

import psync
from psync.pickleshare import PickleShareDB, PickleShareLink, gethashfile

db = PickleShareDB("~/testpickleshare")
the_same: psync.PickleShareDB = db
db["hello"] = 15
assert_type(db["hello"], Any)
assert_type(db.keys(), list[str])
assert_type(db.getlink("folder"), PickleShareLink)
assert_type(gethashfile("key"), str)
db.hset("hash", "aku", 12)
db.uncache("hello")

db.nothing()  # error: [attr-defined]
