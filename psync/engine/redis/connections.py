"""Connections to whoever serves the store: one server, the node of a cluster that has its slot, a sentinels' master.

A cluster's node that has not the slot says who has (MOVED), and is believed; of several hosts in the URL the next one
is tried when one does not answer. All keys of a store carry the tag ``{prefix}``, so they are in one slot, on one node.
"""

from __future__ import annotations

import threading
from typing import Any

from psync.engine.redis.url import Address
from psync.engine.system import fork_hooks

ANSWER = 5.0
"""Seconds within which an answer comes; for a server that is busy for longer, give ``socket_timeout`` in the URL."""

LENGTHS = [b"$%d\r\n" % size for size in range(256)]
"""How short texts begin in a request."""


class Connections:
    def __init__(self, address: Address) -> None:
        self.address = address
        self.moves = 0
        """How often another server took the place of the one before, as far as this process has seen."""
        self._place: tuple[str, int] | None = None
        """Where connections lead; None as long as nobody was asked, and for a socket."""
        self._last: tuple[str, int] | None = None
        self._pool: Any = None
        self._made = threading.Lock()
        fork_hooks.remember(self)

    def after_fork(self) -> None:
        self._pool, self._made = None, threading.Lock()

    def new(self) -> Any:
        """A connection, not yet used. The pool knows how it is made, and nothing of it: so it doesn't count them."""
        with self._made:
            if self._pool is None:
                self._pool = self._open_pool()
        return self._pool.connection_class(**self._pool.connection_kwargs)

    def aim(self, connection: Any) -> None:
        """Let a connection that is not open lead to where the server is now. Raises redis-py's ConnectionError if no
        sentinel knows."""
        hosts = self.address.hosts
        if socket_of(connection) is not None or not hosts:
            return
        place = self._place or self._go_to(self._named_by_sentinels() if self.address.sentinel else hosts[0])
        connection.host, connection.port = place

    def failed(self, connection: Any, error: Exception) -> None:
        """What to make of `error`: is somebody else asked from now on?"""
        if self._place is None or self._place != (connection.host, connection.port):
            return
        if isinstance(error, client().exceptions.MovedError):
            self._go_to((error.host or self._place[0], error.port))
        elif self.address.sentinel:
            self._place = None
        elif not isinstance(error, client().exceptions.ResponseError):
            hosts = self.address.hosts
            at = hosts.index(self._place) + 1 if self._place in hosts else 0
            self._go_to(hosts[at % len(hosts)])

    def _go_to(self, place: tuple[str, int]) -> tuple[str, int]:
        if self._last not in (None, place):
            self.moves += 1
        self._place = self._last = place
        return place

    def _open_pool(self) -> Any:
        try:
            return client().ConnectionPool.from_url(self.address.to(0), **_options())
        except (ValueError, TypeError) as error:
            raise ValueError(f"{self.address.shown} can't be opened: {error}") from error

    def _named_by_sentinels(self) -> tuple[str, int]:
        """The master. TLS and its options hold for the sentinels too; user and password are the master's."""
        redis = client()
        given = {**_options(), **redis.connection.parse_url(self.address.to(0))}
        for name in ("host", "port", "connection_class", "username", "password", "db", "command_packer"):
            given.pop(name, None)
        safe = {"ssl": True} if self.address.url.startswith("rediss") else {}
        sentinels = redis.sentinel.Sentinel(self.address.hosts, sentinel_kwargs={**given, **safe})
        try:
            host, port = sentinels.discover_master(self.address.sentinel)
        finally:
            for sentinel in sentinels.sentinels:
                sentinel.close()
        return host, int(port)


class Packer:
    """What is sent for a command, of bytes, str, int and float; for redis-py, instead of hiredis. The C code of that
    looks at none of Python's errors while it turns numbers into text, so a signal's handler that raised just then would
    end the process."""

    def pack(self, name: str | bytes, *arguments: Any) -> tuple[bytes]:
        words = (*name.split(), *arguments)
        parts = [b"*%d\r\n" % len(words)]
        for word in words:
            text = word if type(word) is bytes else str(word).encode()
            size = len(text)
            parts += (LENGTHS[size] if size < len(LENGTHS) else b"$%d\r\n" % size, text, b"\r\n")
        return (b"".join(parts),)


def _options() -> dict[str, Any]:
    """How each connection is: in RESP 2, because in RESP 3 redis-py passes over what is pushed, and reads on."""
    never = client().retry.Retry(client().backoff.NoBackoff(), 0)
    waits = {"socket_timeout": ANSWER, "socket_connect_timeout": ANSWER}
    return {**waits, "protocol": 2, "retry": never, "command_packer": Packer()}


def socket_of(connection: Any) -> Any:
    """Return the socket of a connection of redis-py, None while that is not open. The oldest redis-py that will do has
    no public name for it, and no version has one that gives a descriptor to poll."""
    return connection._sock


def client() -> Any:
    """redis-py, which is there only for who installed it."""
    try:
        import redis  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise ImportError("a store on a server needs redis-py: pip install 'psync[redis]'") from error
    return redis


def lost() -> tuple[type[Exception], ...]:
    """What says that there was no answer, or that it is worth while to ask again, here or elsewhere."""
    errors = client().exceptions
    return (
        errors.ConnectionError, errors.TimeoutError, errors.ReadOnlyError, errors.BusyLoadingError,
        errors.TryAgainError, errors.ClusterDownError, errors.MasterDownError, errors.AskError, OSError,
    )  # fmt: skip


def is_refusal(error: Exception) -> bool:
    """Whether asking again changes nothing: wrong password, wrong certificate."""
    if isinstance(error, client().exceptions.AuthenticationError):
        return True
    return isinstance(error.__context__ or error.__cause__, OSError) and "CERTIFICATE" in str(error)
