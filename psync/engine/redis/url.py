"""A URL says where a store is: the server, how to log in, and the prefix that all keys of the store begin with."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import SplitResult, parse_qs, urlencode, urlsplit

from psync.engine.address import SCHEMES

LEASE = 10.0
"""Seconds for which a process that the server does not hear of counts as alive."""
PORT, SENTINEL_PORT = 6379, 26379
PATIENCE = 30.0
"""Seconds for which a server that does not answer is tried again."""


class Address(NamedTuple):
    """Where a store is. `url` is what was given, without the options that are psync's own."""

    url: str
    prefix: str
    lease: float
    patience: float
    sentinel: str
    """The name of the master that the hosts of the URL, which are sentinels then, know; else empty."""

    @property
    def hosts(self) -> list[tuple[str, int]]:
        """Host and port of each that the URL names; none for a socket."""
        parts = urlsplit(self.url)
        if parts.scheme == "unix":
            return []
        port = SENTINEL_PORT if self.sentinel else PORT
        return [_host(one, port) for one in parts.netloc.rpartition("@")[2].split(",")]

    def to(self, number: int) -> str:
        """The URL of the host of that number alone, for redis-py."""
        parts = urlsplit(self.url)
        if not parts.netloc:
            return self.url
        login, at, hosts = parts.netloc.rpartition("@")
        return parts._replace(netloc=login + at + hosts.split(",")[number]).geturl()

    @property
    def shown(self) -> str:
        """For messages: without the password, with the prefix."""
        parts = urlsplit(self.url)
        place = parts.netloc.rpartition("@")[2]
        db = "".join(f"db={number}&" for number in parse_qs(parts.query).get("db", [])[-1:])
        return f"{parts.scheme}://{place}{parts.path}?{db}prefix={self.prefix}"

    @property
    def whole(self) -> str:
        """The URL that leads here again."""
        parts = urlsplit(self.url)
        options = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        own = {"prefix": self.prefix, "lease": repr(self.lease), "patience": repr(self.patience)}
        if self.sentinel:
            own["sentinel"] = self.sentinel
        return _joined(parts, {**options, **own})


def parse(url: str) -> Address:
    """Raises ValueError for an option that can't be."""
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise ValueError(f"a server's URL begins with {', '.join(f'{one}://' for one in SCHEMES)}, not {url!r}")
    options = {key: values[-1] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
    prefix = options.pop("prefix", "psync")
    if not prefix or any(character in prefix for character in "{}:") or not prefix.isprintable():
        raise ValueError(f"prefix must be printable, not empty, and without braces and colons, not {prefix!r}")
    sentinel = options.pop("sentinel", "")
    lease = _seconds(options, "lease", LEASE)
    patience = _seconds(options, "patience", PATIENCE)
    if lease < 0.5:
        raise ValueError(f"lease must be at least half a second, not {lease!r}: its holder renews it four times")
    address = Address(_joined(parts, options), prefix, lease, patience, sentinel)
    if address.sentinel and not address.hosts:
        raise ValueError("sentinel=... is for the URL of sentinels: redis://host,host,host/0?sentinel=name")
    return address


def _host(text: str, port: int) -> tuple[str, int]:
    """Raises ValueError for a port that can't be."""
    parts = urlsplit(f"//{text}")
    return parts.hostname or "localhost", parts.port or port


def _joined(parts: SplitResult, options: dict[str, str]) -> str:
    return f"{parts.scheme}://{parts.netloc}{parts.path}{'?' if options else ''}{urlencode(options)}"


def _seconds(options: dict[str, str], name: str, default: float) -> float:
    text = options.pop(name, None)
    if text is None:
        return default
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e6:
        raise ValueError(f"{name} is a number of seconds, not {text!r}")
    return seconds
