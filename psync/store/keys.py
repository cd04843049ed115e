"""Which strings can be names in the store, and which bucket of a hashed category holds a key.

Both answers are pure: no disk, no clock, the same in every process, on every platform and version.
`check` runs before any I/O, so a bad key never becomes a path.
"""

from __future__ import annotations

import enum
import functools
import numbers
import re
import sys
from datetime import date, datetime, timedelta
from pathlib import PurePath
from typing import Any
from zlib import crc32

from psync.errors import InvalidKey

LONGEST_SEGMENT = 255
"""Bytes (in UTF-8) between two slashes: what file systems agree on."""

LONGEST_KEY = 3000
"""Bytes of a whole key: leaves room for the root below PATH_MAX (4,096)."""

HIDDEN = ".psync"
"""The folder under the root where psync keeps its own files."""

_GOOD = "a key is one or more names joined by single slashes, like 'results/run 7'"

# Most keys are short and plain; one match says so. Anything else is looked at closely.
_plain = re.compile(r"(?!\.)[\w. =,:+@-]{1,255}(?:/(?!\.)[\w. =,:+@-]{1,255}){0,7}", re.ASCII).fullmatch
_nfs = re.compile(r"\.nfs[0-9a-fA-F]+").fullmatch
_replacing = re.compile(r"\.psync-n(?:ew|ow)").match


def check(key: Any) -> str:
    """The key as a plain str, if it can be a name in the store; raises `InvalidKey`, which says why not."""
    if type(key) is str:
        return _checked(key)
    if not isinstance(key, str):
        raise InvalidKey(f"a key must be a str, not {type(key).__name__}: {_shown(key)}; {_GOOD}", key=key)
    return _checked(str.__str__(key))  # a subclass (an enum, say) may show itself as something else


@functools.lru_cache(4096)  # programs name the same keys again and again
def _checked(key: str) -> str:
    if not _plain(key) and (wrong := _fault(key)):
        raise InvalidKey(f"{_shown(key)} can't be a key: {wrong}; {_GOOD}", key=key)
    return key


def segment_fault(segment: str) -> str | None:
    """What keeps `segment` from being one name between two slashes; None if nothing does."""
    if segment in ("", ".", ".."):
        return f"it has the segment {segment!r}" if segment else "it has an empty segment"
    if "\0" in segment:
        return "it contains a NUL character"
    try:
        data = segment.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return "it contains a lone surrogate, which no file name can hold"
    if not segment.isascii() and data.decode("utf-8", "surrogateescape") != segment:
        # Two keys for one file: escaped bytes that together are a character.
        return "it spells a character as escaped bytes; write the character itself"
    if len(data) > LONGEST_SEGMENT:
        return f"it has a segment of {len(data)} bytes, the longest is {LONGEST_SEGMENT}"
    return None


def _fault(key: str) -> str | None:
    if not key:
        return "it is empty"
    if key[0] == "/":
        return "it begins with a slash"
    if key[-1] == "/":
        return "it ends with a slash"
    segments = key.split("/")
    for segment in segments:
        if wrong := segment_fault(segment):
            return wrong
        if _nfs(segment):
            return f"{segment!r} is a name that NFS keeps for deleted files"
        if _replacing(segment):
            return f"{segment!r} is a name that psync gives to files that replace others"
    if segments[0] == HIDDEN:
        return f"{HIDDEN!r} holds psync's own files"
    size = len(key.encode("utf-8", "surrogateescape"))
    if size > LONGEST_KEY:
        return f"it is {size} bytes long, the longest is {LONGEST_KEY}"
    return None


def _shown(key: Any) -> str:
    try:
        text = repr(key)
    except Exception:
        text = object.__repr__(key)
    return text if len(text) <= 120 else f"{text[:80]}...{text[-20:]}"


# -- buckets ---------------------------------------------------------------------------------------

_NAMES = tuple(f"{number:02x}" for number in range(256))
_PRIME = 2**61 - 1
_SAME_HASH = sys.hash_info.modulus == _PRIME


def gethashfile(key: Any) -> str:
    """Two hex digits: the bucket of a hashed category that holds `key`. Equal keys have the same one.

    A number has the bucket that PickleShare gave it; a str or bytes goes by its CRC-32; tuples and
    frozensets go by their members, enum members and classes by their name, paths, UUIDs, dates and
    durations by their value. All instances of any other class share a bucket, because nothing is
    known of them that stays the same in the next process: right, but slow for many keys.
    Raises TypeError for what can't be a dict's key.
    """
    if type(key) is str:
        try:
            return _NAMES[crc32(key.encode()) & 255]
        except UnicodeEncodeError:
            pass
    return _NAMES[_code(key) & 255]


def _code(key: Any) -> int:
    """Like ``hash(key)``, but the same in every process."""
    hash(key)  # raises for a list and its like
    if isinstance(key, str):
        return _text(str.__str__(key))
    if isinstance(key, numbers.Number):
        return _number(key)
    if isinstance(key, bytes | memoryview):
        return crc32(key)
    if isinstance(key, tuple):
        return _text(str([_code(part) for part in key]))
    if isinstance(key, frozenset):
        return _text(str(sorted(map(_code, key))))
    if isinstance(key, datetime):
        return _text(str(_since_year_one(key)) if key == key else "never")  # noqa: PLR0124 (pandas' NaT)
    if isinstance(key, PurePath):
        return _text(str(key).lower())  # Windows paths that differ in case only are equal
    if isinstance(key, date | timedelta):
        return _text(str(key))
    return _text(_name(key))


def _text(text: str) -> int:
    return crc32(text.encode("utf-8", "surrogatepass"))


def _name(key: Any) -> str:
    """A name for what pickles by name, else the name of the class that decides what `key` is equal to."""
    kind = type(key)
    if isinstance(key, type):
        return f"{key.__module__}.{key.__qualname__}"
    judge = next(base for base in kind.__mro__ if "__eq__" in vars(base))
    if (judge.__module__, judge.__name__) == ("uuid", "UUID"):
        return str(key)  # known by name, because importing uuid takes milliseconds
    if judge is not object:
        kind = judge  # an instance of a subclass may be equal to one of its base class
    elif isinstance(key, enum.Flag):
        return f"{kind.__module__}.{kind.__qualname__}.{key.value}"  # A|B has no name before Python 3.11
    elif isinstance(key, enum.Enum):
        return f"{kind.__module__}.{kind.__qualname__}.{key.name}"
    return f"{kind.__module__}.{kind.__qualname__}"


def _since_year_one(moment: datetime) -> timedelta:
    """Moments that are equal are equally far from it, in whatever zone they are told."""
    day = datetime(moment.year, moment.month, moment.day, moment.hour, moment.minute, moment.second, moment.microsecond)
    offset = moment.replace(fold=0).utcoffset()
    return day - datetime.min - (offset or timedelta())


def _number(key: Any) -> int:
    """The hash that 64-bit CPython gives a number: equal numbers of all types share it."""
    if key != key:  # noqa: PLR0124
        return 0  # the hash of a NaN is its address since Python 3.10
    if isinstance(key, int):
        return int.__hash__(key) if _SAME_HASH else portable_hash(int(key))
    return hash(key) if _SAME_HASH else portable_hash(key)


def portable_hash(key: Any) -> int:
    """``hash(key)`` of a number as 64-bit CPython computes it (numeric types, "Hashing of numeric types").

    Only for interpreters with another word size, so that they find what others stored.
    """
    if isinstance(key, numbers.Complex) and not isinstance(key, numbers.Real):
        value = (portable_hash(key.real) + 1000003 * portable_hash(key.imag) + 2**63) % 2**64 - 2**63
    elif key in (float("inf"), float("-inf")):
        value = 314159 if key > 0 else -314159
    else:
        above, below = (int(key), 1) if isinstance(key, int) else key.as_integer_ratio()
        # A denominator divisible by the prime has no inverse; such a number hashes like infinity.
        value = 314159 if below % _PRIME == 0 else abs(above) % _PRIME * pow(below, -1, _PRIME) % _PRIME
        value = -value if above < 0 else value
    return -2 if value == -1 else value
