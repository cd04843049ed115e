"""Environment variables: choose the key, the serializer and the allowed names for every store opened without them."""

from __future__ import annotations

KEY_FILE = "PSYNC_KEY_FILE"
"""A file with the keys, one a line."""
SERIALIZER = "PSYNC_SERIALIZER"
ALLOW = "PSYNC_ALLOW"
UMASK = "PSYNC_UMASK"
"""Who else may read what is made: an octal number, as for the shell's umask."""
