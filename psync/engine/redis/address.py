"""A URL says where a store is: the server, how to log in, and the prefix that all keys of the store begin with."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import SplitResult, parse_qs, urlencode, urlsplit

SCHEMES = ("redis", "rediss", "unix")
LEASE = 10.0
"""Seconds for which a process that the server does not hear of counts as alive."""
PATIENCE = 30.0
"""Seconds for which a server that does not answer is tried again."""


class Address(NamedTuple):
    """Where a store is. `url` goes to redis-py, without the options that are psync's own."""

    url: str
    prefix: str
    lease: float
    patience: float

    @property
    def shown(self) -> str:
        """For messages: without the password, with the prefix."""
        parts = urlsplit(self.url)
        place = parts.netloc.rpartition("@")[2]
        return f"{parts.scheme}://{place}{parts.path}?prefix={self.prefix}"

    @property
    def whole(self) -> str:
        """The URL that leads here again."""
        parts = urlsplit(self.url)
        options = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        own = {"prefix": self.prefix, "lease": repr(self.lease), "patience": repr(self.patience)}
        return _joined(parts, {**options, **own})


def is_address(root: object) -> bool:
    return isinstance(root, str) and root.partition("://")[0] in SCHEMES and "://" in root


def parse(url: str) -> Address:
    """Raises ValueError for an option that can't be."""
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise ValueError(f"a server's URL begins with {', '.join(f'{one}://' for one in SCHEMES)}, not {url!r}")
    options = {key: values[-1] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
    prefix = options.pop("prefix", "psync")
    if not prefix or any(character in prefix for character in "{}:") or not prefix.isprintable():
        raise ValueError(f"prefix must be printable, not empty, and without braces and colons, not {prefix!r}")
    lease = _seconds(options, "lease", LEASE)
    patience = _seconds(options, "patience", PATIENCE)
    if lease < 0.5:
        raise ValueError(f"lease must be at least half a second, not {lease!r}: its holder renews it four times")
    return Address(_joined(parts, options), prefix, lease, patience)


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
