"""What somebody may plant who can write to a store: each attack is a function of the honest store's directory."""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import socket
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

from psync.engine.directory.log.record_format import encode, size_of
from psync.engine.encoding.framing import End, extension, follow, frame, frame_text, start, whole_bucket
from psync.engine.signed.keys import Keys
from psync.engine.signed.signature import CELL, PIECE, RECORD, REGISTER, Signer

KEY, MALLORYS = b"the key of the honest ones", b"the key of the attacker's"
Attack = Callable[[Path], None]
ATTACKS: dict[str, Attack] = {}
TERABYTE = 1 << 40
LOG = ".psync/queue/jobs/log"


def attack(name: str) -> Callable[[Attack], Attack]:
    def enter(function: Attack) -> Attack:
        ATTACKS[name] = function
        return function

    return enter


class Evil:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (self.path,)


def owned(root: Path) -> Path:
    """What an evil pickle makes, if it is ever loaded."""
    return root.parent / "owned"


def evil(root: Path, protocol: int = 2) -> bytes:
    return pickle.dumps(Evil(str(owned(root))), protocol)


def evil_item(root: Path) -> bytes:
    """Opcodes that set one item of a bucket."""
    return b"X\x04\0\0\0item" + pickle.dumps(Evil(str(owned(root))), 3)[2:-1] + b"s"


def put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    path.write_bytes(data)
    path.chmod(0o600)


def bucket_of(root: Path, category: str) -> Path:
    return next(path for path in sorted((root / category).iterdir()) if path.name != "xx")


def register(data: bytes) -> bytes:
    """A register's file."""
    facts = struct.pack("<QII", 1, 28, len(data))
    return (struct.pack("<8sQIII", b"psync=1\n", 1, 28, len(data), crc32(data, crc32(facts))) + data).ljust(4096, b"\0")


def payload_of(path: Path) -> bytes:
    """What a register's file holds."""
    data = path.read_bytes()
    _, _, offset, size, _ = struct.unpack_from("<8sQIII", data)
    return data[offset : offset + size]


# -- planted pickles ---------------------------------------------------------------------------------------


@attack("a plain pickle at a key")
def _(root: Path) -> None:
    put(root / "key", evil(root))


@attack("a pickle with psync's checksum at a key")
def _(root: Path) -> None:
    put(root / "key", frame(evil(root, 5)))


@attack("a pickle at a key that nobody used")
def _(root: Path) -> None:
    put(root / "folder" / "new", frame(evil(root)))


@attack("a pickle behind the seal's own bytes")
def _(root: Path) -> None:
    data = (root / "key").read_bytes()
    put(root / "key", frame(data[data.index(b"\x80\x05\x8e") :] + evil(root)))


@attack("a pickle in a seal of the attacker's key")
def _(root: Path) -> None:
    put(root / "key", frame(Signer(Keys(MALLORYS), b"\0" * 16).sign(CELL, b"key", evil(root))))


@attack("a pickle in a seal that names the honest key")
def _(root: Path) -> None:
    made = Signer(Keys(MALLORYS), b"\0" * 16).sign(CELL, b"key", evil(root))
    put(root / "key", frame(made.replace(Keys(MALLORYS).names[0], Keys(KEY).names[0])))


@attack("a bucket of plain pickles")
def _(root: Path) -> None:
    put(bucket_of(root, "category"), pickle.dumps({"item": Evil(str(owned(root)))}, 2))


@attack("a bucket with psync's checksum")
def _(root: Path) -> None:
    put(bucket_of(root, "category"), whole_bucket(evil_item(root), 0)[0])


@attack("a compressed bucket that fast reads look into")
def _(root: Path) -> None:
    put(root / "category" / "xx", whole_bucket(evil_item(root), 1)[0])


@attack("an item appended to an honest bucket")
def _(root: Path) -> None:
    append(bucket_of(root, "category"), evil_item(root))


@attack("an item in front of an honest one")
def _(root: Path) -> None:
    path = bucket_of(root, "category")
    ops, _ = follow(path.read_bytes()[6:], start(path.read_bytes()))
    put(path, whole_bucket(evil_item(root) + ops, 0)[0])


@attack("a piece of the attacker's key in a bucket")
def _(root: Path) -> None:
    append(bucket_of(root, "category"), Signer(Keys(MALLORYS), b"\0" * 16).piece(b"category", evil_item(root)))


def append(path: Path, ops: bytes) -> None:
    data = path.read_bytes()
    _, end = follow(data[6:], start(data))
    tail, _ = extension(ops, End(end.end, end.check))
    put(path, data[: end.end - 1] + tail)


@attack("a task")
def _(root: Path) -> None:
    append_record(root, pickle.dumps((None, Evil(str(owned(root)))), 5))


@attack("a task in a seal of the attacker's key")
def _(root: Path) -> None:
    payload = pickle.dumps((None, Evil(str(owned(root)))), 5)
    append_record(root, Signer(Keys(MALLORYS), b"\0" * 16).sign(RECORD, b".psync/queue/jobs", payload))


@attack("a task in place of an honest one")
def _(root: Path) -> None:
    path = root / LOG / f"{0:016x}"
    data = path.read_bytes()
    length = struct.unpack_from("<I", data)[0]
    payload = pickle.dumps((None, Evil(str(owned(root)))), 5).ljust(length, b"\0")[:length]
    put(path, encode(payload, 0) + data[size_of(length) :])


def append_record(root: Path, payload: bytes) -> None:
    path, tail = root / LOG / f"{0:016x}", root / LOG / "tail"
    change = int.from_bytes(tail.read_bytes()[:8], "little")
    numbers = list(struct.unpack_from("<10Q", tail.read_bytes(), 8 + 88 * (change & 1)))
    record = encode(payload, numbers[1])
    data = path.read_bytes()
    put(path, data[: numbers[1]] + record)
    numbers[1] += len(record)
    numbers[3] += 1
    body = struct.pack("<10Q", *numbers)
    put(tail, struct.pack("<Q", change) + 2 * (body + struct.pack("<Q", crc32(body))))


@attack("the priorities of a queue")
def _(root: Path) -> None:
    put(root / ".psync/queue/jobs/levels", register(evil(root)))


@attack("the state of an event")
def _(root: Path) -> None:
    put(root / ".psync/event/ready", register(evil(root)))


@attack("the state of an event, in a seal of the attacker's key")
def _(root: Path) -> None:
    signer = Signer(Keys(MALLORYS), b"\0" * 16)
    put(root / ".psync/event/ready", register(signer.sign(REGISTER, b".psync/event/ready", evil(root), 1 << 62)))


@attack("a letter")
def _(root: Path) -> None:
    put(bucket_of(root, ".psync/mailbox/box"), whole_bucket(evil_item(root), 0)[0])


@attack("a result")
def _(root: Path) -> None:
    put(root / ".psync/queue/jobs/results/xx", whole_bucket(evil_item(root), 1)[0])


@attack("a grave")
def _(root: Path) -> None:
    put(root / ".psync/queue/jobs/dead/xx", whole_bucket(evil_item(root), 1)[0])


# -- swapped and replayed ------------------------------------------------------------------------------------


@attack("one value in another's place")
def _(root: Path) -> None:
    put(root / "key", (root / "other").read_bytes())


@attack("a value of another store with the same key")
def _(root: Path) -> None:
    put(root / "key", (root.parent / "second" / "key").read_bytes())


@attack("a bucket of another category")
def _(root: Path) -> None:
    put(bucket_of(root, "category"), bucket_of(root, "elsewhere").read_bytes())


@attack("a piece of another bucket")
def _(root: Path) -> None:
    data = bucket_of(root, "elsewhere").read_bytes()
    append(bucket_of(root, "category"), follow(data[6:], start(data))[0])


@attack("the state of one primitive as that of another")
def _(root: Path) -> None:
    put(root / ".psync/event/ready", (root / ".psync/counter/count").read_bytes())


@attack("the state of a primitive as a value")
def _(root: Path) -> None:
    put(root / "key", frame(payload_of(root / ".psync/counter/count")))


@attack("a value as a task")
def _(root: Path) -> None:
    append_record(root, (root / "key").read_bytes()[19:])


@attack("a value as a piece of a bucket")
def _(root: Path) -> None:
    sealed = (root / "key").read_bytes()[19:]
    append(bucket_of(root, "category"), sealed[2:-1] + b"0")


# -- damaged seals -------------------------------------------------------------------------------------------


def change(root: Path, offset: int) -> None:
    """One bit of the sealed value, with a checksum that fits."""
    data = bytearray((root / "key").read_bytes()[19:])
    data[offset] ^= 1
    put(root / "key", frame(bytes(data)))


for _part, _offset in {"magic": 12, "name of the key": 16, "generation": 20, "tag": 40, "value": 65, "end": -1}.items():
    ATTACKS[f"a bit of a seal's {_part}"] = lambda root, offset=_offset: change(root, offset)  # type: ignore[misc]


@attack("a seal without a value")
def _(root: Path) -> None:
    put(root / "key", frame((root / "key").read_bytes()[19 : 19 + 60]))


# -- the mark of the store -------------------------------------------------------------------------------------


@attack("no mark that it is sealed")
def _(root: Path) -> None:
    (root / ".psync/seal").unlink()


@attack("a mark by the attacker's key")
def _(root: Path) -> None:
    put(root / ".psync/seal", (root.parent / "mallorys" / ".psync/seal").read_bytes())


@attack("a pickle as the mark")
def _(root: Path) -> None:
    put(root / ".psync/seal", frame(evil(root)))


@attack("a FIFO as the mark")
def _(root: Path) -> None:
    fifo(root / ".psync/seal")


# -- what is no file -------------------------------------------------------------------------------------------


def fifo(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    os.mkfifo(path, 0o600)


def link(root: Path, path: Path) -> None:
    """To a file outside, which would be written to."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    path.symlink_to(root.parent / "outside" / "precious")


PLACES = {
    "a value": "key",
    "a bucket": "category/*",
    "a register": ".psync/event/ready",
    "a log": f"{LOG}/tail",
    "a segment": f"{LOG}/{0:016x}",
    "marks": f"{LOG}/{0:016x}.marks",
    "a lock": ".psync/locks/*door",
    "the flags of who waits": ".psync/wake/armed",
    "a guard": ".psync/guards/category",
}


def place(root: Path, where: str) -> Path:
    found = sorted(root.glob(PLACES[where]))
    return found[0] if found else root / PLACES[where]


def hard_link(root: Path, where: str) -> None:
    path = place(root, where)
    path.unlink(missing_ok=True)
    os.link(root.parent / "outside" / "precious", path)


for _where in PLACES:
    ATTACKS[f"a FIFO in place of {_where}"] = lambda root, where=_where: fifo(place(root, where))  # type: ignore[misc]
    ATTACKS[f"a link in place of {_where}"] = lambda root, where=_where: link(root, place(root, where))  # type: ignore[misc]
    ATTACKS[f"a hard link in place of {_where}"] = lambda root, where=_where: hard_link(root, where)  # type: ignore[misc]


@attack("a socket at a key")
def _(root: Path) -> None:
    (root / "key").unlink()
    here = os.getcwd()
    os.chdir(root)  # the path of a socket must be short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind("key")
    finally:
        os.chdir(here)


@attack("a device at a key")
def _(root: Path) -> None:
    (root / "key").unlink()
    try:
        os.mknod(root / "key", 0o600 | stat.S_IFCHR, os.makedev(1, 5))  # /dev/zero
    except PermissionError:
        os.mkfifo(root / "key", 0o600)  # who is not root can't make a device, nor can an attacker


@attack("psync's folder for what is being written leads elsewhere")
def _(root: Path) -> None:
    shutil.rmtree(root / ".psync/tmp")
    (root / ".psync/tmp").symlink_to(root.parent / "outside")


@attack("psync's own folder leads elsewhere")
def _(root: Path) -> None:
    (root / ".psync").rename(root.parent / "moved")
    (root / ".psync").symlink_to(root.parent / "moved")


# -- too much ----------------------------------------------------------------------------------------------------


def sparse(path: Path, head: bytes = b"") -> None:
    put(path, head)
    os.truncate(path, TERABYTE)


SEALED_HEAD = frame(b"")[:7] + frame(b"")[7:10] + struct.pack("<Q", TERABYTE - 19) + b"0"
for _what, _head in {
    "zeros": b"",
    "a pickle of bytes": b"\x80\x05\x8e" + struct.pack("<Q", TERABYTE - 12),
    "a sealed value": SEALED_HEAD,
}.items():
    ATTACKS[f"a terabyte of {_what}"] = lambda root, head=_head: sparse(root / "key", head)  # type: ignore[misc]


@attack("a bucket of a terabyte")
def _(root: Path) -> None:
    sparse(bucket_of(root, "category"), b"\x80\x05}K\0" + b"0")


@attack("a register of a terabyte")
def _(root: Path) -> None:
    sparse(root / ".psync/event/ready", b"")


@attack("a segment of a terabyte")
def _(root: Path) -> None:
    sparse(root / LOG / f"{0:016x}", b"")


@attack("an owner's record of a terabyte")
def _(root: Path) -> None:
    sparse(root / ".psync/owners/00000000000000aa")


# -- forged records ------------------------------------------------------------------------------------------------


@attack("an owner's record that is none")
def _(root: Path) -> None:
    put(root / ".psync/owners/00000000000000aa", frame_text(b'{"pid": {"a": [' + b"[" * 50_000))


@attack("an owner's record with the pid of init")
def _(root: Path) -> None:
    facts = b'{"boot": "x", "namespace": 1, "pid": 1, "ticks": 1, "host": "h\\u001b[2J", "since": 1e308}'
    put(root / ".psync/owners/00000000000000aa", frame_text(facts))


@attack("an owner's record with a name that is no number")
def _(root: Path) -> None:
    put(root / ".psync/owners/..%2fetc", b"{}")
    put(root / ".psync/queue/jobs/holders/not a number", frame(pickle.dumps(None)))


@attack("an owner's record that is a FIFO")
def _(root: Path) -> None:
    fifo(root / ".psync/owners/00000000000000aa")


@attack("a note of a joint append that leads outside")
def _(root: Path) -> None:
    note = b'{"../outside/precious": [3, 5, 74], "/etc/passwd": [1, 1, 1], "a/../../outside/precious": [3, 5, 74]}'
    put(root / ".psync/pending/00000000000000aa", frame_text(note))


@attack("a note of a joint append that is none")
def _(root: Path) -> None:
    put(root / ".psync/pending/00000000000000aa", frame_text(b'{"a": 5, "b": [1], "c": [1, 2, 999]}'))
    put(root / ".psync/pending/00000000000000ab", frame_text(b"[" * 100_000))
    fifo(root / ".psync/pending/00000000000000ac")


@attack("a reason in quarantine that is a FIFO")
def _(root: Path) -> None:
    put(root / ".psync/quarantine/1-key", evil(root))
    fifo(root / ".psync/quarantine/1-key.why")


assert PIECE  # every shape of a seal is attacked above
