"""Each remedy that an `UnsafeStore` proposes is carried out here, and then the store opens."""

from __future__ import annotations

import contextlib
import grp  # noqa: F401  loaded before a process becomes somebody who may not get at the library
import io
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

import psync.engine.directory.fs.remedies  # noqa: F401
from psync import PickleShareDB, UnsafeStore
from psync.cli.main import main
from tests.security.test_directories import ANN, BOB, TEAM, as_user
from tests.support import files

pytestmark = [files, pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")]
KEY = b"k" * 32


class Situation(NamedTuple):
    """A directory, and the user who opens it in vain."""

    path: Path
    me: int = BOB
    groups: tuple[int, ...] = ()
    options: Mapping[str, Any] = MappingProxyType({})
    do: Callable[[Any], Any] = lambda db: db.get("value")
    """What is refused, if it is not the opening."""
    needs: Mapping[str, Any] = MappingProxyType({})
    """The options with which its owner opens it."""


def folder(path: Path, owner: int, mode: int, group: int | None = None) -> Path:
    path.mkdir(exist_ok=True)
    os.chown(path, owner, owner if group is None else group)
    path.chmod(mode)
    return path


def used(path: Path, owner: int, **options: Any) -> Path:
    as_user(owner, [], lambda: PickleShareDB(path, umask=0o022, **options).__setitem__("value", 1))
    return path


def plant(path: Path, owner: int, mode: int) -> Path:
    """A value at `path` that `owner` put there."""
    path.write_bytes(b"\x80\x02K\x01.")
    os.chown(path, owner, owner)
    path.chmod(mode)
    return path


def mine(root: Path, mode: int = 0o755) -> Path:
    return folder(root / "mine", BOB, mode)


def with_link(root: Path) -> Path:
    sticky = folder(root / "sticky", 0, 0o1777)
    mine(root)
    (sticky / "link").symlink_to(root / "mine")
    os.lchown(sticky / "link", ANN, ANN)
    return sticky / "link"


def with_planted(root: Path, name: str, owner: int, mode: int) -> Path:
    used(mine(root), BOB)
    plant(root / "mine" / name, owner, mode)
    return root / "mine"


def with_folder(root: Path, name: str, owner: int, mode: int, of: int = BOB) -> Path:
    used(folder(root / "mine", of, 0o755), of)
    folder(root / "mine" / name, owner, mode)
    return root / "mine"


def closed_parent(root: Path, owner: int, mode: int, me: int = BOB) -> Path:
    """A folder of one's own below one that is not."""
    return folder(folder(root / "parent", owner, mode) / "own", me, 0o700)


def own_as(root: Path, what: str) -> Path:
    store = mine(root)
    if what == "file":
        (store / ".psync").write_bytes(b"")
    else:
        (store / ".psync").symlink_to(root)
    os.lchown(store / ".psync", BOB, BOB)
    return store


SITUATIONS: dict[str, Callable[[Path], Situation]] = {
    "root and a user's new directory": lambda root: Situation(folder(root / "ann", ANN, 0o755), 0),
    "root and a user's store": lambda root: Situation(used(folder(root / "ann", ANN, 0o755), ANN), 0),
    "root and a user's directory, as a team": lambda root: Situation(
        folder(root / "ann", ANN, 0o755), 0, (), {"trust_group": True}
    ),
    "root and a user's directory that all can write to": lambda root: Situation(folder(root / "ann", ANN, 0o777), 0),
    "root and his own that all can write to": lambda root: Situation(folder(root / "own", 0, 0o777), 0),
    "root and his own of another group": lambda root: Situation(folder(root / "own", 0, 0o775, TEAM), 0),
    "root and a parent of a user": lambda root: Situation(closed_parent(root, ANN, 0o755, 0), 0),
    "root and a user's, as a team's with a setgid bit": lambda root: Situation(
        folder(root / "ann", ANN, 0o2777), 0, (), {"trust_group": True}
    ),
    "a volume of root's": lambda root: Situation(folder(root / "volume", 0, 0o777)),
    "a volume of root's and a group": lambda root: Situation(folder(root / "volume", 0, 0o777), BOB, (TEAM,)),
    "a volume with a group": lambda root: Situation(folder(root / "volume", 0, 0o2775, TEAM), BOB, (TEAM,)),
    "a volume with a group of others": lambda root: Situation(folder(root / "volume", 0, 0o2775, TEAM)),
    "a folder of one's own in a volume": lambda root: Situation(closed_parent(root, 0, 0o777)),
    "a folder that is not yet there in a volume": lambda root: Situation(folder(root / "volume", 0, 0o777) / "b"),
    "a sticky volume": lambda root: Situation(folder(root / "tmp", 0, 0o1777)),
    "one's own that all can write to": lambda root: Situation(mine(root, 0o777)),
    "one's own store that all can write to": lambda root: Situation(
        folder(used(mine(root), BOB), BOB, 0o777)
    ),
    "one's own that a group can write to": lambda root: Situation(folder(root / "b", BOB, 0o770, TEAM), BOB, (TEAM,)),
    "one's own team": lambda root: Situation(folder(root / "b", BOB, 0o2770, TEAM), BOB, (TEAM,)),
    "a team of others": lambda root: Situation(folder(root / "ann", ANN, 0o2775, TEAM)),
    "another's team": lambda root: Situation(folder(root / "ann", ANN, 0o2770, TEAM), BOB, (TEAM,)),
    "another's team, used": lambda root: Situation(
        used(folder(root / "ann", ANN, 0o2755, TEAM), ANN), BOB, (TEAM,)
    ),
    "another's directory": lambda root: Situation(folder(root / "ann", ANN, 0o755)),
    "another's store": lambda root: Situation(used(folder(root / "ann", ANN, 0o755), ANN)),
    "another's sealed store": lambda root: Situation(
        used(folder(root / "ann", ANN, 0o755), ANN, key=KEY), needs={"key": KEY}
    ),
    "another's store of JSON": lambda root: Situation(used(folder(root / "ann", ANN, 0o755), ANN, serializer="json")),
    "another's parent": lambda root: Situation(closed_parent(root, ANN, 0o755)),
    "one's own parent": lambda root: Situation(closed_parent(root, BOB, 0o777)),
    "both open": lambda root: Situation(folder(folder(root / "b", BOB, 0o777) / "b", BOB, 0o777)),
    "another's link": lambda root: Situation(with_link(root)),
    "one's own as a team": lambda root: Situation(mine(root), BOB, (TEAM,), {"trust_group": True}),
    "one's own without a group as a team": lambda root: Situation(mine(root), BOB, (), {"trust_group": True}),
    "another's as a team": lambda root: Situation(
        folder(root / "ann", ANN, 0o775, TEAM), BOB, (TEAM,), {"trust_group": True}
    ),
    "psync's own folder that all can write to": lambda root: Situation(with_folder(root, ".psync/tmp", BOB, 0o777)),
    "psync's own folder of another": lambda root: Situation(with_folder(root, ".psync/tmp", ANN, 0o755)),
    "psync's own folder of another, for root": lambda root: Situation(
        with_folder(root, ".psync/tmp", ANN, 0o755, 0), 0
    ),
    "a file where psync's folder should be": lambda root: Situation(own_as(root, "file")),
    "a link where psync's folder should be": lambda root: Situation(own_as(root, "link")),
    "a value of another": lambda root: Situation(
        with_planted(root, "planted", ANN, 0o644), do=lambda db: db.get("planted")
    ),
    "a value that all can write to": lambda root: Situation(
        with_planted(root, "planted", BOB, 0o666), do=lambda db: db.get("planted")
    ),
    "a folder of another": lambda root: Situation(
        with_folder(root, "folder", ANN, 0o755), do=lambda db: db.__setitem__("folder/a", 1)
    ),
    "a folder that all can write to": lambda root: Situation(
        with_folder(root, "folder", BOB, 0o777), do=lambda db: db.__setitem__("folder/a", 1)
    ),
}  # fmt: skip


def opens(situation: Situation, path: Path | None = None, me: int | None = None, **options: Any) -> None:
    """The store opens and does what it did not, with a warning if it is exposed."""
    user = situation.me if me is None else me
    place = situation.path if path is None else path

    def job() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore" if "key" in options or "serializer" in options else "error")
            with PickleShareDB(place, **options) as db:
                situation.do(db)

    as_user(user, list(situation.groups) if user == situation.me else [], job)


def refusal(situation: Situation) -> UnsafeStore:
    with pytest.raises(UnsafeStore) as caught:
        opens(situation, **situation.options)
    return caught.value


def remedies(error: UnsafeStore) -> list[str]:
    return str(error).partition(". Remedy: ")[2].split("; or ")


def shell(command: str, situation: Situation, who: str = "") -> None:
    """Run a command that a remedy proposes, as the user who would run it."""
    users = {"": situation.me, "user root": 0, f"user {ANN}": ANN, f"user {BOB}": BOB}
    groups = [TEAM] if users[who] != situation.me else situation.groups
    drop = ["setpriv", f"--reuid={users[who]}", f"--regid={users[who]}", f"--groups={','.join(map(str, groups)) or 0}"]
    if not users[who]:
        drop = []
    elif not groups:
        drop[-1] = "--clear-groups"
    subprocess.run([*drop, "sh", "-ec", command], check=True)


def carry_out(remedy: str, situation: Situation, root: Path) -> None:
    """Do what a remedy says, and open the store."""
    options = dict(situation.options)
    team = {"trust_group": True}
    if found := re.fullmatch(
        r"(?:for a team: )?((?:(?:have (user \w+) run )?ch\w+ .+?))(, and open it with trust_group=True)?", remedy
    ):
        for part in found[1].removesuffix(", if you know what is in it").split(" and have "):
            who, _, command = part.removeprefix("have ").rpartition(" run ")
            shell(command, situation, who)
        opens(situation, **(options | (team if found[3] else {})))
    elif remedy.startswith("open it with trust_group=True"):
        opens(situation, trust_group=True)
    elif remedy == "open it without trust_group=True":
        opens(situation)
    elif found := re.match(r"do it as user (\w+)", remedy):
        opens(situation, me=int(found[1]), **situation.needs)
    elif found := re.match(r"copy it: sudo -u #(\d+) psync dump '(.+)' \| psync load", remedy):
        copy = folder(root / "copy", situation.me, 0o700)

        def dump() -> str:
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                assert main(["dump", str(situation.path)]) == 0
            return out.getvalue()

        dump_text = as_user(int(found[1]), [], dump)

        def load() -> int:
            sys.stdin = io.StringIO(dump_text)
            return main(["load", str(copy)])

        assert as_user(situation.me, list(situation.groups), load) == 0
        opens(situation, copy)
        assert as_user(situation.me, [], lambda: PickleShareDB(copy)["value"]) == 1
    elif remedy.startswith("begin it with key= (PSYNC_KEY_FILE) or"):
        opens(situation, key=KEY)
        subprocess.run(["rm", "-rf", str(situation.path / ".psync")], check=True)
        opens(situation, serializer="json")
    elif remedy.startswith("open it with its key"):
        opens(situation, key=KEY)
    elif remedy.startswith('open it with serializer="json"'):
        opens(situation, serializer="json")
    elif found := re.match(r"open '(.+)', to which it leads", remedy):
        opens(situation, Path(found[1]), **options)
    elif found := re.match(r"use a folder of your own in it: (mkdir -m 700 '(.+)')", remedy):
        shell(found[1], situation)
        opens(situation, Path(found[2]), **options)
    elif remedy == "use a directory of your own":
        opens(situation, folder(root / "new", situation.me, 0o700))
    elif found := re.match(r"(?:put it aside: )?((?:mv|rm) '.+')", remedy):
        shell(found[1], situation)
        opens(situation, **options)
    else:
        raise AssertionError(f"what is to be done? {remedy}")


@pytest.fixture(scope="module", autouse=True)
def all_is_imported(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The users that a process becomes may not get at the library of Python."""
    store = tmp_path_factory.mktemp("warm") / "store"
    for number, options in enumerate(({}, {"key": KEY}, {"serializer": "json"})):
        with PickleShareDB(f"{store}{number}", **options) as db:  # type: ignore[arg-type]
            db["a"] = 1
    Path(f"{store}0/foreign").write_bytes(b"\x80\x02K\x01.")
    assert PickleShareDB(f"{store}0")["foreign"] == 1
    with contextlib.redirect_stdout(io.StringIO()):
        main(["dump", f"{store}0"])
    before, sys.stdin = sys.stdin, io.StringIO("{'a': 1}")
    main(["load", f"{store}0"])
    sys.stdin = before


@pytest.mark.parametrize("name", SITUATIONS)
def test_each_remedy_that_is_proposed_helps(name: str, root: Path) -> None:
    root.chmod(0o755)
    proposed = remedies(refusal(SITUATIONS[name](folder(root / "first", 0, 0o755))))
    assert proposed and len(set(proposed)) == len(proposed)
    for number in range(len(proposed)):
        where = folder(root / str(number), 0, 0o755)
        situation = SITUATIONS[name](where)
        again = remedies(refusal(situation))
        assert len(again) == len(proposed)
        carry_out(again[number], situation, where)


def test_trust_group_is_proposed_for_a_setgid_folder_of_ones_group_alone(root: Path) -> None:
    root.chmod(0o755)
    for number, (name, make) in enumerate(SITUATIONS.items()):
        situation = make(folder(root / str(number), 0, 0o755))
        status = situation.path.stat() if situation.path.exists() else None
        of_ones_own = status is not None and bool(status.st_mode & 0o2000) and status.st_gid in situation.groups
        proposed = any(each.startswith("open it with trust_group=True") for each in remedies(refusal(situation)))
        assert proposed <= (of_ones_own and not situation.options), name


@pytest.mark.parametrize("options", [{"key": KEY}, {"serializer": "json"}], ids=["key", "json"])
@pytest.mark.parametrize("name", ["a volume of root's", "a folder of one's own in a volume", "another's directory"])
def test_where_nothing_planted_can_run_a_store_opens_with_one_warning(
    name: str, options: dict[str, Any], root: Path
) -> None:
    root.chmod(0o755)
    situation = SITUATIONS[name](root)
    if name == "another's directory":
        situation.path.chmod(0o777)

    def job() -> tuple[list[tuple[type, str, str]], Any]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with PickleShareDB(situation.path, **options) as db:
                db["a/b"] = 1
                db.hset("category", "item", 2)
                found = db["a/b"], db.hdict("category")
        return [(each.category, str(each.message), each.filename) for each in caught], found

    caught, found = as_user(BOB, [], job)
    [(kind, text, where)] = caught
    assert kind is RuntimeWarning and "can run no code" in text and where == __file__
    assert found == (1, {"item": 2})


@pytest.mark.parametrize("options", [{"key": KEY}, {"serializer": "json"}], ids=["key", "json"])
def test_what_is_planted_there_is_refused_before_it_is_unpickled(root: Path, options: dict[str, Any]) -> None:
    root.chmod(0o755)
    volume = folder(root / "volume", 0, 0o777)

    def use(job: Callable[[Any], Any]) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with PickleShareDB(volume, **options) as db:
                return job(db)

    as_user(BOB, [], lambda: use(lambda db: db.__setitem__("a", 1)))
    marker = root / "ran"
    evil = b"\x80\x04cos\nsystem\n(V" + f"touch {marker}".encode() + b"\ntR."
    plant(volume / "a", ANN, 0o644)
    (volume / "a").write_bytes(evil)
    plant(volume / "b", ANN, 0o666)
    (volume / "b").write_bytes(evil)
    for key in "ab":
        with pytest.raises(Exception, match=r"damaged|seal|JSON|key"):
            as_user(BOB, [], lambda: use(lambda db: db[key]))  # noqa: B023
    assert not marker.exists()


def test_links_of_others_are_not_written_through_there(root: Path) -> None:
    root.chmod(0o755)
    volume = folder(root / "volume", 0, 0o777)
    outside = folder(root / "outside", BOB, 0o700)
    (volume / "folder").symlink_to(outside)
    os.lchown(volume / "folder", ANN, ANN)

    def job() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            PickleShareDB(volume, serializer="json")["folder/a"] = 1

    with pytest.raises(UnsafeStore):
        as_user(BOB, [], job)
    assert list(outside.iterdir()) == []


def test_an_engine_for_an_exposed_directory_serves_no_pickles(root: Path) -> None:
    from psync import DirectoryEngine

    engine = DirectoryEngine(root, unpickles=False)
    with pytest.raises(ValueError, match="nothing is unpickled"):
        PickleShareDB(engine)
