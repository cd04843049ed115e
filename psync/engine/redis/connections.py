"""Connections: lead to the host that serves the store: one server, the cluster node of its slot, a sentinels' master.

A cluster node without the slot names the one that has it (MOVED), which is used from then on. If the URL names several
hosts, the next one is tried when one does not answer. All keys of a store carry the tag ``{prefix}``, so they are in
one slot, on one node.
"""

from __future__ import annotations

import threading
from typing import Any

from psync.engine.redis.url import Address
from psync.engine.system import fork_hooks

ANSWER_TIMEOUT_S = 5.0
"""How long an answer may take; for a server that is busy for longer, give ``socket_timeout`` in the URL."""

LENGTHS = [b"$%d\r\n" % size for size in range(256)]
"""The beginnings of short words in a request, by their length."""


class Connections:
    def __init__(self, address: Address) -> None:
        self.address = address
        self.moves = 0
        """How often this process has seen another server take the place of the one before."""
        self._place: tuple[str, int] | None = None
        """Host and port that connections lead to; None before the first one, and for a socket."""
        self._last: tuple[str, int] | None = None
        self._pool: Any = None
        self._made = threading.RLock()
        fork_hooks.remember(self)

    def after_fork(self) -> None:
        self._pool, self._made = None, threading.RLock()

    def new(self) -> Any:
        """Make a connection. The pool only says how, so that its limit does not count."""
        with self._made:
            if self._pool is None:
                self._pool = self._open_pool()
        return self._pool.connection_class(**self._pool.connection_kwargs)

    def aim(self, connection: Any) -> None:
        """Point a connection that is not open to the present server. Raises redis-py's ConnectionError if no
        sentinel knows."""
        hosts = self.address.hosts
        if socket_of(connection) is not None or not hosts:
            return
        place = self._place or self._go_to(self._named_by_sentinels() if self.address.sentinel else hosts[0])
        connection.host, connection.port = place

    def failed(self, connection: Any, error: Exception) -> None:
        """Decide by `error` whether another host is used from now on."""
        if self._place is None or self._place != (connection.host, connection.port):
            return
        if isinstance(error, redis_py().exceptions.MovedError):
            self._go_to((error.host or self._place[0], error.port))
        elif self.address.sentinel:
            self._place = None
        elif not isinstance(error, redis_py().exceptions.ResponseError):
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
            return redis_py().ConnectionPool.from_url(self.address.to(0), **_options())
        except (ValueError, TypeError) as error:
            raise ValueError(f"{self.address.shown} can't be opened: {error}") from error

    def _named_by_sentinels(self) -> tuple[str, int]:
        """Ask the sentinels for the master. TLS and its options hold for them too, user and password do not."""
        redis = redis_py()
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
    """Encodes commands of bytes, str, int and float for redis-py, instead of hiredis. The C code of hiredis ignores
    errors of Python while it turns numbers into text, so a signal's handler that raised just then would end the
    process."""

    def pack(self, name: str | bytes, *arguments: Any) -> tuple[bytes]:
        words = (*name.split(), *arguments)
        parts = [b"*%d\r\n" % len(words)]
        for word in words:
            text = word if type(word) is bytes else str(word).encode()
            size = len(text)
            parts += (LENGTHS[size] if size < len(LENGTHS) else b"$%d\r\n" % size, text, b"\r\n")
        return (b"".join(parts),)


def _options() -> dict[str, Any]:
    """Return the options of a connection. RESP 2, because in RESP 3 redis-py skips pushed messages and reads on."""
    never = redis_py().retry.Retry(redis_py().backoff.NoBackoff(), 0)
    waits = {"socket_timeout": ANSWER_TIMEOUT_S, "socket_connect_timeout": ANSWER_TIMEOUT_S}
    return {**waits, "protocol": 2, "retry": never, "command_packer": Packer()}


def socket_of(connection: Any) -> Any:
    """Return the socket of a connection of redis-py, None while that is not open. The oldest redis-py that will do has
    no public name for it, and no version has one that gives a descriptor to poll."""
    return connection._sock


def redis_py() -> Any:
    """Return redis-py. Raises ImportError with the remedy where it is not installed."""
    try:
        import redis  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise ImportError("a store on a server needs redis-py: pip install 'psync[redis]'") from error
    return redis


def no_answer() -> tuple[type[Exception], ...]:
    """Return the errors that mean that there was no answer, or that another try, here or elsewhere, may get one."""
    errors = redis_py().exceptions
    return (
        errors.ConnectionError, errors.TimeoutError, errors.ReadOnlyError, errors.BusyLoadingError,
        errors.TryAgainError, errors.ClusterDownError, errors.MasterDownError, errors.AskError, OSError,
    )  # fmt: skip


def is_refusal(error: Exception) -> bool:
    """Whether another try changes nothing: wrong password, wrong certificate."""
    if isinstance(error, redis_py().exceptions.AuthenticationError):
        return True
    return isinstance(error.__context__ or error.__cause__, OSError) and "CERTIFICATE" in str(error)
