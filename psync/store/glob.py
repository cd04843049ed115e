"""Glob: finds the keys that match a pattern, and lists only the folders that could hold one.

It walks the tree once, with the set of pattern segments that may come next. So it lists a folder at most once, whatever
the pattern, and not at all while only literal segments can come next.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from psync.errors import InvalidKey
from psync.store.keys import HIDDEN, MAX_KEY_BYTES, segment_fault

Entries = Callable[[str], tuple[list[str], list[str]]]
"""Lists (names, folders) directly in a folder, both bare: a verb of the engine."""

_Step = tuple[str, set[int]]
"""A folder, and the numbers of the segments that may match a name in it."""

_magic = re.compile(r"[*?[]").search
_GOOD = "a pattern is relative to the root, like 'results/*' or '**/*.log'"


def matching(entries: Entries, pattern: str) -> Iterator[str]:
    """Yield every key that matches `pattern`, each once, in no order.

    It follows ``Path(root).glob(pattern)`` of Python 3.13: ``*``, ``?`` and ``[...]`` match within a segment, ``**``
    any number of folders, and a last ``**`` every key below. A pattern that ends with a slash means folders, so it
    matches no key. Nothing below ``.psync`` matches. Raises `InvalidKey` for a pattern that can match no key of any
    store.
    """
    segments = _segments(pattern)
    if pattern.endswith("/") or segments[0] == HIDDEN:
        return iter(())
    return _walk(entries, [_Segment(text) for text in segments])


class _Segment:
    """One part of a pattern, compiled once for many names."""

    __slots__ = ("all", "any_depth", "keep", "literal")

    def __init__(self, text: str) -> None:
        self.any_depth = text == "**"
        self.all = text.strip("*") == ""
        self.literal = None if _magic(text) else text
        self.keep: Callable[[Iterable[str]], Iterable[str]]
        if self.all:
            self.keep = iter
        elif self.literal is not None:
            self.keep = lambda names: (text,) if text in names else ()
        else:
            match = re.compile(fnmatch.translate(text)).match
            self.keep = lambda names: filter(match, names)


def _walk(entries: Entries, segments: list[_Segment]) -> Iterator[str]:
    last = len(segments) - 1
    steps = [("", _reachable(segments, {0}))]
    while steps:
        folder, states = steps.pop()
        prefix = f"{folder}/" if folder else ""
        literals = [segments[state].literal for state in states if state != last]
        if last not in states and None not in literals:
            # only names from the pattern lead on, so the folder need not be listed
            folders = [name for name in set(literals) if name is not None]
        else:
            names, folders = entries(folder)
            if not folder:
                names = [name for name in names if name != HIDDEN]
                folders = [name for name in folders if name != HIDDEN]
            if last in states:
                yield from [prefix + name for name in segments[last].keep(names)]
        steps += _next(segments, prefix, folders, states)


def _next(segments: list[_Segment], prefix: str, folders: list[str], states: set[int]) -> Iterator[_Step]:
    """Yield the folders that a match may go through, each with the segments that may come next in it."""
    last = len(segments) - 1
    ahead: dict[str, set[int]] = {}
    for state in states:
        segment = segments[state]
        step = state if segment.any_depth else state + 1
        if step > last:
            continue
        for name in segment.keep(folders):
            ahead.setdefault(name, set()).add(step)
    for name, steps in ahead.items():
        yield prefix + name, _reachable(segments, steps)


def _reachable(segments: list[_Segment], states: set[int]) -> set[int]:
    """Return `states`, and the segments behind each ``**`` among them that stands for no folder at all."""
    reached = set(states)
    for state, segment in enumerate(segments[:-1]):
        if segment.any_depth and state in reached:
            reached.add(state + 1)
    return reached


def _segments(pattern: Any) -> list[str]:
    if not isinstance(pattern, str):
        raise InvalidKey(f"a glob pattern must be a str, not {type(pattern).__name__}; {_GOOD}", key=pattern)
    segments = [segment for segment in pattern.split("/") if segment not in ("", ".")]
    if wrong := _fault(pattern, segments):
        raise InvalidKey(f"{pattern[:120]!r} can't be a pattern: {wrong}; {_GOOD}", key=pattern)
    return segments


def _fault(pattern: str, segments: list[str]) -> str | None:
    if pattern.startswith("/"):
        return "it begins with a slash"
    if not segments:
        return "it names nothing"
    if ".." in segments:
        return "it has the segment '..'"
    if "\0" in pattern:
        return "it contains a NUL character"
    if len(pattern) > MAX_KEY_BYTES:
        return f"it is longer than {MAX_KEY_BYTES} characters"
    return next(filter(None, map(segment_fault, (text for text in segments if not _magic(text)))), None)
