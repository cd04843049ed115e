"""Key validation: `check` refuses strings that can't be names in a store.

The answer is the same in every process, on every platform and version. `check` runs before any I/O, so a bad key never
becomes a path.
"""

from __future__ import annotations

import functools
import re
from typing import Any

from psync.errors import InvalidKey

MAX_SEGMENT_BYTES = 255
"""Bytes, in UTF-8, between two slashes: the limit of most file systems."""

MAX_KEY_BYTES = 3000
"""Bytes of a whole key: leaves room for the root below PATH_MAX (4,096)."""

HIDDEN = ".psync"
"""The folder under the root where psync keeps its own files."""

_GOOD = "a key is one or more names joined by single slashes, like 'results/run 7'"
_LONG = "shorten it, or make it the key of an item, which may be of any length: hset('category', key, value)"
_PLAIN = r"(?!\.)[\w. =,:+@-]{1,255}(?:/(?!\.)[\w. =,:+@-]{1,255}){0,7}"
"""Most keys are short and plain, and cost one match; any other is examined part by part."""
_HEX_DIGITS = frozenset("0123456789abcdefABCDEF")
_REPLACING = (".psync-new", ".psync-now")


def check(key: Any) -> str:
    """Return the key as a plain str if it can be a name in the store. Raises `InvalidKey`, which says why not."""
    if type(key) is str:
        return _checked(key)
    if not isinstance(key, str):
        raise InvalidKey(f"a key must be a str, not {type(key).__name__}: {_shown(key)}; {_GOOD}", key=key)
    return _checked(str.__str__(key))  # a subclass (an enum, say) may show itself as something else


@functools.lru_cache(4096)  # programs use the same keys again and again
def _checked(key: str) -> str:
    # `re` keeps the compiled pattern; it is compiled by the first key, not by the opening of a store
    if not re.fullmatch(_PLAIN, key, re.ASCII) and (wrong := _fault(key)):
        raise InvalidKey(f"{_shown(key)} can't be a key: {wrong}; {_GOOD}", key=key)
    return key


def is_bucket_name(key: str) -> bool:
    """Tell whether a bucket of a category would have this name; a value may have it, too."""
    return re.fullmatch(r".+/(?:[0-9a-f]{2}|xx)", key, re.DOTALL) is not None


def segment_fault(segment: str) -> str | None:
    """Say why `segment` can't be a name between two slashes; None if it can."""
    if segment in ("", ".", ".."):
        return f"it has the segment {segment!r}" if segment else "it has an empty segment"
    if "\0" in segment:
        return "it contains a NUL character"
    try:
        data = segment.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return "it contains a lone surrogate, which no file name can hold"
    if not segment.isascii() and data.decode("utf-8", "surrogateescape") != segment:
        # escaped bytes that together are a character would be a second key for the same file
        return "it spells a character as escaped bytes; write the character itself"
    if len(data) > MAX_SEGMENT_BYTES:
        return f"it has a segment of {len(data)} bytes, the longest is {MAX_SEGMENT_BYTES}; {_LONG}"
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
        if segment.startswith(".nfs") and len(segment) > 4 and _HEX_DIGITS.issuperset(segment[4:]):
            return f"{segment!r} is a name that NFS keeps for deleted files"
        if segment.startswith(_REPLACING):
            return f"{segment!r} is a name that psync gives to files that replace others"
    if segments[0] == HIDDEN:
        return f"{HIDDEN!r} holds psync's own files"
    size = len(key.encode("utf-8", "surrogateescape"))
    if size > MAX_KEY_BYTES:
        return f"it is {size} bytes long, the longest is {MAX_KEY_BYTES}; {_LONG}"
    return None


def _shown(key: Any) -> str:
    try:
        text = repr(key)
    except Exception:
        text = object.__repr__(key)
    return text if len(text) <= 120 else f"{text[:80]}...{text[-20:]}"
