"""Key hashing: `gethashfile` tells which bucket of a hashed category holds a key.

The answer is the same in every process, on every platform and version.
"""

from __future__ import annotations

import enum
import numbers
import sys
from datetime import date, datetime, timedelta
from pathlib import PurePath
from typing import Any
from zlib import crc32

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
