"""Scan: lists all that a server keeps of one store: values, registers, logs, mutexes and processes."""

from __future__ import annotations

from collections.abc import Iterator

from psync.engine.contract.report import Facts, Process, Shape
from psync.engine.contract.values import Alive
from psync.engine.redis.client import Server
from psync.engine.redis.encoding import BUCKET
from psync.engine.redis.sessions import Sessions
from psync.engine.system.process_identity import usage

HIDDEN = ".psync"


def is_used(server: Server) -> bool:
    """Whether anything was ever stored here, or there is an owner."""
    return any(next(server.keys(kind), None) is not None for kind in (b"n:", b"r:", b"l:", b"o:", b"t"))


def walk(server: Server, folder: str) -> Iterator[tuple[Shape, str]]:
    """See `Engine.walk`. The names in each folder are kept in a set; registers and logs are found by their keys."""
    for name in _names(server, folder):
        yield (Shape.BUCKET if _is_bucket(server, name) else Shape.CELL), name
    below = f"{folder}/".encode() if folder else b""
    for kind, shape in ((b"r:", Shape.REGISTER), (b"l:", Shape.LOG)):
        for key in server.keys(kind, below):
            yield shape, key.decode()


def _names(server: Server, folder: str) -> Iterator[str]:
    waiting = [folder]
    while waiting:
        folder = waiting.pop()
        below = f"{folder}/" if folder else ""
        for name in server.members(b"d:" + folder.encode()):
            yield below + name.decode()
        inner = [below + name.decode() for name in server.members(b"f:" + folder.encode())]
        waiting += [name for name in inner if name != f"{HIDDEN}/quarantine"]
        if not folder:
            waiting.append(HIDDEN)


def _is_bucket(server: Server, name: str) -> bool:
    """One read; none for a name whose last segment has not two characters, as it is no bucket's."""
    if name[-3:-2] != "/":
        return False
    begin: bytes = server.ask("GETRANGE", server.prefix + b"n:" + name.encode(), 0, 0)
    return begin == BUCKET


def facts(server: Server, name: str) -> Facts | None:
    """One read. The server does not keep when a key was changed."""
    size = int(server.ask("STRLEN", server.prefix + b"n:" + name.encode()))
    return Facts(size, None) if size else None


def mutexes(server: Server) -> list[str]:
    """Return the names of the mutexes that are held."""
    return [key.decode() for key in server.keys(b"h:m:")]


def processes(server: Server, sessions: Sessions) -> list[Process]:
    found = []
    for number in sorted({int(key) for key in server.keys(b"o:")}):
        identity, alive = sessions.identity(number), sessions.alive(number)
        if alive is not Alive.NO or identity is not None:
            used = usage(identity) if identity is not None and alive is not Alive.NO else None
            found.append(Process(number, identity, alive, used))
    return found
