"""Segments on a network file system: an open segment may have been cleared away by another host.

The NFS client then answers ESTALE, or still shows the file, which is as good: all its records are final. A verb that
meets ESTALE opens the files anew by name, and finds that the segment is gone.
"""

from __future__ import annotations

import errno
import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

from psync.engine.directory.log.segments import Segments

_Verb = TypeVar("_Verb", bound=Callable[..., Any])


def _retry_stale(verb: _Verb) -> _Verb:
    @functools.wraps(verb)
    def retried(self: Segments, *args: Any) -> Any:
        try:
            return verb(self, *args)
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
        self.close()
        return verb(self, *args)

    return cast(_Verb, retried)


class NfsSegments(Segments):
    """`exchange` may call `before` twice, as after a crash."""

    status = _retry_stale(Segments.status)
    batch = _retry_stale(Segments.batch)
    read = _retry_stale(Segments.read)
    exchange = _retry_stale(Segments.exchange)
    claim = _retry_stale(Segments.claim)
    final_up_to = _retry_stale(Segments.final_up_to)
