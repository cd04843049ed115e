"""Store addresses: tells the URL of a server from a path, without loading what opens either."""

from __future__ import annotations

SCHEMES = ("redis", "rediss", "unix")
KEY_FILE = "PSYNC_KEY_FILE"
"""The environment variable that names a file with keys, for every store that a caller opens without a key."""
SIGNED_MARKER = ".psync/seal"
"""The cell that says that a store is signed. `psync.engine.store_marker` describes its bytes."""


def is_address(root: object) -> bool:
    return isinstance(root, str) and root.partition("://")[0] in SCHEMES and "://" in root
