"""An engine whose every payload is sealed with a key: what was not written by who has the key is never handed out.

It goes around any other engine. `sealer` says what a seal looks like, `engine` and `shapes` put the contract's verbs
around it, `marker` knows whether a store is sealed, and with which keys. Nothing here knows a path or a file.
"""

from __future__ import annotations

from psync.engine.signed.engine import SignedEngine
from psync.engine.store_marker import opened

__all__ = ["SignedEngine", "opened"]
