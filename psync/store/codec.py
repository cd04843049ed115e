"""Codec selection: `codec_of` returns the codec for what a store keeps as its format.

Values are pickles (`pickles.PICKLES`), pickles that may look up only listed names (`pickles.restricted`), or JSON
(`json_values.JSON`), where nothing is ever unpickled.
"""

from __future__ import annotations

import functools

from psync.engine.contract.values import Format
from psync.store.codec_type import Codec
from psync.store.pickles import PICKLES, restricted


@functools.lru_cache(64)
def codec_of(format: Format | None) -> Codec:
    """Return the codec for an engine's `format`; modules that an ordinary store does not need stay unloaded."""
    if format is None or format == Format():
        return PICKLES
    if format.allowed is not None:
        from psync.store.allowed import Allowed

        return restricted(Allowed(format.allowed).find)
    from psync.store.json_values import JSON

    return JSON
