"""A sealed file that was damaged gives the right value or none: a hundred thousand mutations, in little memory."""

from __future__ import annotations

import io
import pickle
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from psync import PickleShareDB
from psync.engine.encoding import framing, pickle_scan
from psync.errors import CorruptValue
from tests.store.memory_limit import ROOM, with_memory_limit
from tests.support import files, scaled

Mutation = Callable[[random.Random, bytes], bytes]


def flip_a_bit(chance: random.Random, data: bytes) -> bytes:
    at = chance.randrange(len(data))
    return data[:at] + bytes((data[at] ^ 1 << chance.randrange(8),)) + data[at + 1 :]


def change_bytes(chance: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 8))):
        changed[chance.randrange(len(data))] = chance.randrange(256)
    return bytes(changed)


def change_the_head(chance: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice((1, 2, 3))):
        changed[chance.randrange(min(len(data), framing.CELL_HEAD))] = chance.choice((0, 1, 0x2E, 0x30, 0x80, 0xFF))
    return bytes(changed)


def truncate(chance: random.Random, data: bytes) -> bytes:
    return data[: chance.randrange(len(data))]


def extend(chance: random.Random, data: bytes) -> bytes:
    return data + chance.choice((b"\0" * chance.randrange(1, 99), chance.randbytes(9), data, b".", b"0."))


def cut_out(chance: random.Random, data: bytes) -> bytes:
    first, last = sorted((chance.randrange(len(data)), chance.randrange(len(data) + 1)))
    return data[:first] + data[last:]


def splice(chance: random.Random, data: bytes) -> bytes:
    """A piece of the file stands in another place of it too."""
    first, last = sorted((chance.randrange(len(data)), chance.randrange(len(data) + 1)))
    piece, at = data[first:last], chance.randrange(len(data))
    return data[:at] + piece + data[at + chance.choice((0, len(piece))) :]


def zero_a_run(chance: random.Random, data: bytes) -> bytes:
    first, last = sorted((chance.randrange(len(data)), chance.randrange(len(data) + 1)))
    return data[:first] + b"\0" * (last - first) + data[last:]


def zero_a_page(chance: random.Random, data: bytes) -> bytes:
    size = chance.choice((512, 4096))
    first = chance.randrange(0, len(data), size)
    return data[:first] + bytes(len(data[first : first + size])) + data[first + size :]


MUTATIONS: list[Mutation] = [
    flip_a_bit, change_bytes, change_the_head, truncate, extend, cut_out, splice, zero_a_run, zero_a_page,
]  # fmt: skip


def some_value(chance: random.Random) -> Any:
    return chance.choice(
        (
            chance.randrange(-(2**40), 2**40),
            None,
            {},
            "a word",
            chance.randbytes(chance.randrange(300)),
            [{"run": number, "name": f"run {number}", "loss": number / 7} for number in range(chance.randrange(9))],
            pickle.dumps({"a pickle": "in a pickle"}),
            {"deep": [("x", {1, 2, 3})] * 3, "text": "ä" * chance.randrange(200)},
            chance.randbytes(5000),
        )
    )


class Wrong(NamedTuple):
    """A damaged file that was read without complaint."""

    mutation: str
    file: bytes
    read: Any
    expected: Any


def read(data: bytes) -> Any:
    """What the store makes of a file, without the file. Raises `seal.Unreadable`."""
    payload = framing.unframe(data)
    if payload is not None:
        return pickle.loads(payload)
    pickle_scan.check(data)
    try:
        return pickle.loads(data)
    except MemoryError:
        raise
    except Exception as error:
        raise framing.Unreadable(str(error)) from error


def without_memo(value: Any) -> bytes:
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, protocol=5)
    pickler.fast = True
    pickler.dump(value)
    return buffer.getvalue()


def is_anybodys(file: bytes, value: Any) -> bool:
    """Whether the file is, byte for byte, a plain pickle that another program would have written of this value.

    When all that damage left is that, nobody can tell: the price of reading plain pickles at all.
    """
    return file in (pickle.dumps(value, protocol=5), without_memo(value))


def cells(chance: random.Random) -> Iterator[tuple[bytes, Any]]:
    while True:
        value = some_value(chance)
        file = framing.frame(pickle.dumps(value, protocol=5))
        if chance.random() < 0.2:
            file += framing.frame(pickle.dumps("a longer value stood here before, " * 9))[len(file) :]
        yield file, value


def misread_cells(count: int, seed: int) -> list[Wrong]:
    chance = random.Random(seed)
    files, wrong = cells(chance), []
    for number in range(count):
        if number % 20 == 0:
            file, value = next(files)
        mutation = chance.choice(MUTATIONS)
        damaged = mutation(chance, file)
        try:
            found = read(damaged)
        except framing.Unreadable:
            continue
        if (found != value or type(found) is not type(value)) and not is_anybodys(damaged, found):
            wrong.append(Wrong(mutation.__name__, damaged, found, value))
    return wrong


def opcodes(value: Any) -> bytes:
    """What puts `value` on the stack and can stand behind other such."""
    return without_memo(value)[2:-1]


def bucket_states(chance: random.Random) -> list[tuple[bytes, dict[Any, Any]]]:
    """A bucket as it was after each of some appends: its bytes, and the dict that they hold."""
    file, end = framing.whole_bucket(b"", chance.randrange(2))
    value: dict[Any, Any] = {}
    states = [(file, {})]
    for _ in range(chance.randrange(1, 6)):
        key, item = chance.choice(("a", f"key {chance.randrange(9)}", chance.randrange(9))), some_value(chance)
        tail, end = framing.extension(opcodes(key) + opcodes(item) + b"s", end)
        file = file[:-1] + tail
        value = {**value, key: item}
        states.append((file, value))
    return states


def misread_buckets(count: int, seed: int) -> list[Wrong]:
    chance, wrong = random.Random(seed), []
    states: list[tuple[bytes, dict[Any, Any]]] = []
    for number in range(count):
        if number % 20 == 0:
            states = bucket_states(chance)
        file, value = states[-1]
        mutation = chance.choice(MUTATIONS)
        damaged = mutation(chance, file)
        try:
            found = read(damaged)
        except framing.Unreadable:
            continue
        # With an earlier state in front, the file is what an append leaves that was killed before its last byte.
        right = [state for before, state in states if damaged.startswith(before)] or [value]
        if found not in right and not is_anybodys(damaged, found):
            wrong.append(Wrong(mutation.__name__, damaged, found, value))
    return wrong


@pytest.mark.parametrize("misread", [misread_cells, misread_buckets])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_damaged_file_never_gives_a_wrong_value(misread: Callable[[int, int], list[Wrong]], seed: int) -> None:
    assert with_memory_limit(misread, scaled(25_000), seed)[:3] == []


def outcomes_of_plain(count: int, seed: int) -> dict[str, int]:
    """How plain pickles of somebody else, damaged, were read: any value or `Unreadable` will do, a bomb will not."""
    chance, outcomes = random.Random(seed), {"read": 0, "refused": 0}
    for _ in range(count):
        file = pickle.dumps(some_value(chance), protocol=chance.choice((2, 3, 4, 5)))
        try:
            read(chance.choice(MUTATIONS)(chance, file))
        except framing.Unreadable:
            outcomes["refused"] += 1
        else:
            outcomes["read"] += 1
    return outcomes


def test_a_damaged_plain_pickle_takes_no_more_memory_than_it_has_bytes() -> None:
    outcomes = with_memory_limit(outcomes_of_plain, scaled(20_000), 3)
    assert outcomes["refused"] > 0


def outcomes_of_store(root: Path, count: int, seed: int) -> list[Wrong]:
    """The same with real files: the value as it was written, or `CorruptValue`."""
    chance, wrong = random.Random(seed), []
    with PickleShareDB(root) as db:
        for number in range(count):
            value, key = some_value(chance), f"k{number % 50}"
            db[key] = value
            path, mutation = root / key, chance.choice(MUTATIONS)
            damaged = mutation(chance, path.read_bytes())
            path.write_bytes(damaged)
            try:
                found = db[key]
            except CorruptValue:
                db[key] = "a new value"
            else:
                if found != value and not is_anybodys(damaged, found):
                    wrong.append(Wrong(mutation.__name__, damaged, found, value))
            if db[f"k{chance.randrange(min(number + 1, 50))}"] is wrong:
                raise AssertionError
    return wrong


@files
def test_a_store_reads_a_damaged_file_right_or_not_at_all(root: Path) -> None:
    assert with_memory_limit(outcomes_of_store, root, scaled(3_000), 4)[:3] == []


def test_the_limit_holds() -> None:
    with pytest.raises(MemoryError):
        with_memory_limit(bytearray, ROOM + (1 << 20))
