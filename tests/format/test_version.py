"""The version of the format stands in the store: another one is refused, with what to do, and nothing is changed."""

from __future__ import annotations

import pickle
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from psync import (
    Counter,
    DirectoryEngine,
    Event,
    FormatMismatch,
    MemoryEngine,
    PickleShareDB,
    PsyncError,
    WorkQueue,
    copy_store,
)
from psync.engine.directory.admin.doctor import diagnose
from psync.engine.directory.admin.read_only import ReadOnlyEngine
from psync.engine.directory.fs import format_version
from psync.engine.directory.fs.format_version import POSITION_BLOCK_BYTES, decoded, encoded
from psync.engine.directory.layout import FORMAT_VERSION, Layout
from psync.engine.directory.registers.register import HEAD_BYTES, MAGIC, MAX_INLINE_BYTES
from psync.engine.encoding.framing import Unreadable
from tests.crash import mounts
from tests.store.test_corruption import quarantined
from tests.support import files

pytestmark = files

FILE = ".psync/format"
SIZE = "size=4m"
NEWER = encoded(FORMAT_VERSION + 1)


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def fill(root: Path) -> None:
    with PickleShareDB(root) as db:
        db["a"] = 1
        db.hset("category", "item", 2)
        Event(db, "ready").set()
        WorkQueue(db, "jobs").put("task")


def check(root: Path) -> None:
    with PickleShareDB(root) as db:
        assert (db["a"], db.hget("category", "item")) == (1, 2)
        assert Event(db, "ready").is_set() and WorkQueue(db, "jobs").get(timeout=0).value == "task"


def forget(root: Path) -> None:
    """As psync 0.1.0 left a store: without the file."""
    (root / FILE).unlink()


# -- stating it -------------------------------------------------------------------------------------


def test_a_new_store_states_its_version_and_any_reader_of_pickles_can_read_it(root: Path) -> None:
    DirectoryEngine(root).close()
    assert (root / FILE).read_bytes() == encoded(FORMAT_VERSION)
    with (root / FILE).open("rb") as file:
        assert pickle.load(file) == b"psync format 1\n"
    assert (root / FILE).stat().st_mode & 0o777 == 0o600


def test_it_is_nothing_that_was_stored(root: Path) -> None:
    with PickleShareDB(root, key=b"a key of thirty-two bytes or more") as db:  # which takes an empty store
        assert [*db] == [] and [name for _, name in db.engine.walk()] == []
    with PickleShareDB(root / "json", serializer="json") as db:
        assert [*db] == []
    with PickleShareDB(root / "old") as old, PickleShareDB(root / "new") as new:
        old["a"] = 1
        assert copy_store(old, new).differences == ()
        assert dict(new) == {"a": 1}


def test_it_is_read_once_at_each_opening_and_never_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    PickleShareDB(root).engine.close()
    reads = []
    read = format_version.read_small
    monkeypatch.setattr(format_version, "read_small", lambda *args: reads.append(args) or read(*args))
    with PickleShareDB(root) as db:
        db["a"] = 1
        WorkQueue(db, "jobs", durability="power").put("task")
        assert len(reads) == 1
    with PickleShareDB(root):
        assert len(reads) == 2


OPEN = """
import sys, pathlib, time
from psync import PickleShareDB, WorkQueue
while time.time() < float(sys.argv[2]):
    pass
for number in range(20):
    with PickleShareDB(pathlib.Path(sys.argv[1]) / str(number)) as db:
        WorkQueue(db, "jobs").put(number)
"""


def test_processes_that_open_a_fresh_directory_at_once_all_work_there(root: Path) -> None:
    begin = str(time.time() + 1)
    running = [subprocess.Popen([sys.executable, "-W", "error", "-c", OPEN, root, begin]) for _ in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    for number in range(20):
        assert (root / str(number) / FILE).read_bytes() == encoded(FORMAT_VERSION)
        with PickleShareDB(root / str(number)) as db:
            assert WorkQueue(db, "jobs").qsize() == 3


# -- another version --------------------------------------------------------------------------------


def test_a_newer_store_is_refused_with_both_versions_and_what_to_do(root: Path) -> None:
    fill(root)
    (root / FILE).write_bytes(NEWER)
    before = contents(root)
    for how in (PickleShareDB, DirectoryEngine, ReadOnlyEngine):
        with pytest.raises(
            FormatMismatch, match=r"has format 2, and this psync works with format 1.*upgrade"
        ) as caught:
            how(root)
        error = caught.value
        assert (error.path, error.found, error.supported) == (str(root), 2, 1)
        assert isinstance(error, PsyncError) and pickle.loads(pickle.dumps(error)).found == 2
    assert contents(root) == before
    assert [(one.state, one.says) for one in diagnose(str(root)) if one.what == "format"] == [
        ("wrong", "format 2; this psync works with 1")
    ]


# -- no version -------------------------------------------------------------------------------------


def test_a_store_of_this_format_without_the_file_gets_it(root: Path) -> None:
    fill(root)
    forget(root)
    check(root)
    assert (root / FILE).read_bytes() == encoded(FORMAT_VERSION)


def test_a_store_that_a_power_cut_left_without_the_file_gets_it(root: Path) -> None:
    fill(root)
    forget(root)
    (root / ".psync/queue/jobs/log/tail").write_bytes(b"")
    DirectoryEngine(root).close()
    assert (root / FILE).exists()


def test_plain_pickles_and_psyncs_own_folders_get_it_in_silence(root: Path) -> None:
    (root / "a").write_bytes(pickle.dumps(1, protocol=2))
    with PickleShareDB(root) as db:
        db.engine.owner()
        with db.engine.guard("x"):
            pass
    forget(root)
    with PickleShareDB(root) as db:
        assert db["a"] == 1
    assert (root / FILE).exists()


def old_log(root: Path) -> str:
    """As a log looked when its numbers stood there once, and not in two copies."""
    fill(root)
    (root / ".psync/queue/jobs/log/tail").write_bytes(b"psync#1\n" + bytes(76))
    return ".psync/queue/jobs"


def old_register(root: Path) -> str:
    """As a register looked when a value might fill its page."""
    fill(root)
    path = root / ".psync/event/ready"
    path.write_bytes(MAGIC + struct.pack("<QII", 1, HEAD_BYTES, MAX_INLINE_BYTES + 1) + path.read_bytes()[24:])
    return ".psync/event/ready"


@pytest.mark.parametrize("make", [old_log, old_register])
def test_an_older_store_is_refused_and_its_values_can_be_had_as_the_error_says(root: Path, make: object) -> None:
    name = make(root)  # type: ignore[operator]
    forget(root)
    before = contents(root)
    with pytest.raises(FormatMismatch, match=rf"has format 0 \('{name}' is of it\), and .* format 1") as caught:
        PickleShareDB(root)
    assert (caught.value.found, caught.value.supported) == (0, 1)
    assert contents(root) == before
    remedy = str(caught.value).rpartition("works there, ")[2].partition(" removes")[0]
    assert remedy.startswith("rm -r ")
    subprocess.run(remedy, shell=True, check=True)
    with PickleShareDB(root) as db:
        assert (db["a"], db.hget("category", "item")) == (1, 2)
        Event(db, "ready").set()


def test_the_sizes_that_tell_this_format_from_older_ones_are_what_is_written(root: Path) -> None:
    fill(root)
    check(root)
    for part in ("tail", "front"):
        assert (root / ".psync/queue/jobs/log" / part).stat().st_size == POSITION_BLOCK_BYTES
    assert (format_version.INLINE_OFFSET, format_version.MAX_INLINE_BYTES) == (HEAD_BYTES, MAX_INLINE_BYTES)


# -- a damaged file ---------------------------------------------------------------------------------


def test_no_flipped_bit_and_no_cut_makes_it_another_version() -> None:
    data = encoded(FORMAT_VERSION)
    for at in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[at] ^= 1 << bit
            with pytest.raises(Unreadable):
                decoded(bytes(flipped))
        with pytest.raises(Unreadable):
            decoded(data[:at])
    assert [decoded(encoded(version)) for version in (0, 1, 9, 10, 123456)] == [0, 1, 9, 10, 123456]


@pytest.mark.parametrize("left", [b"", bytes(42)])
def test_what_a_power_cut_leaves_of_it_is_written_anew_in_silence(root: Path, left: bytes) -> None:
    fill(root)
    (root / FILE).write_bytes(left)
    check(root)
    assert (root / FILE).read_bytes() == encoded(FORMAT_VERSION) and not (root / ".psync/quarantine").exists()


def test_bytes_behind_its_end_mean_nothing(root: Path) -> None:
    fill(root)
    (root / FILE).write_bytes(encoded(FORMAT_VERSION) + b"more")
    check(root)
    (root / FILE).write_bytes(NEWER + b"more")
    with pytest.raises(FormatMismatch):
        PickleShareDB(root)


def test_damage_is_kept_and_told_and_the_store_goes_on(root: Path) -> None:
    fill(root)
    (root / FILE).write_bytes(b"#" * 40)
    with pytest.warns(RuntimeWarning, match=r"format was damaged, .* its bytes are kept at"):
        PickleShareDB(root).engine.close()
    assert quarantined(root) == [b"#" * 40]
    assert (root / FILE).read_bytes() == encoded(FORMAT_VERSION)
    check(root)
    (root / FILE).write_bytes(b"#" * 40)
    engine = ReadOnlyEngine(root)
    assert engine.read("a") is not None
    engine.close()
    assert (root / FILE).read_bytes() == b"#" * 40


def test_a_directory_in_its_place_is_an_error_in_words(root: Path) -> None:
    (root / FILE).mkdir(parents=True, mode=0o700)
    with pytest.raises(PsyncError, match="not a regular file"):
        DirectoryEngine(root)


# -- where it can't be written -----------------------------------------------------------------------


def test_a_directory_that_is_only_read_needs_none_and_is_refused_if_it_is_newer(root: Path) -> None:
    with mounts.tmpfs(root / "disk", SIZE) as disk:
        for name in ("bare", "newer"):
            (disk / name).mkdir(mode=0o700)
            fill(disk / name)
        forget(disk / "bare")
        (disk / "newer" / FILE).write_bytes(NEWER)
        mounts.read_only(disk, SIZE)
        with PickleShareDB(disk / "bare") as db:
            assert db["a"] == 1 and Event(db, "ready").is_set()
        assert not (disk / "bare" / FILE).exists()
        with pytest.raises(FormatMismatch):
            PickleShareDB(disk / "newer")


def test_a_disk_without_room_for_it_keeps_nobody_from_his_values(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(root)
    forget(root)

    def full(*_: object, **__: object) -> bool:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("psync.engine.directory.fs.atomic.AtomicFiles.make", full)
        engine = DirectoryEngine(root)
    assert engine.read("a") is not None and not (root / FILE).exists()
    engine.close()
    check(root)
    assert (root / FILE).exists()


# -- other engines -----------------------------------------------------------------------------------


def test_the_memory_of_a_process_has_no_format() -> None:
    engine = MemoryEngine()
    Counter(PickleShareDB(engine), "count").add()
    assert [name for name in engine.list(hidden=True) if "format" in name] == []


def test_the_file_stands_where_the_layout_says(root: Path) -> None:
    assert Layout(str(root)).format == str(root / FILE)
