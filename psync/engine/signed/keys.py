"""Signing keys: come from the caller or from a file, and are known elsewhere by their names.

A key is at least 16 secret bytes. If there are several, the first one signs, and bytes that
any of them signed are accepted. So a key is replaced by putting the new one first, and dropping the old one when no
bytes are left that it signed. Keys never go
to the store. A pickle holds only their names, unless it goes to a process that is being spawned. The name of a key is a
number made of it; the other process finds the key among those that it has, or in the file PSYNC_KEY_FILE.
"""

from __future__ import annotations

import os
import stat
import sys
import weakref
from collections.abc import Iterable, Sequence

from psync.engine.contract.values import Key
from psync.engine.environment import KEY_FILE
from psync.errors import UnsafeStore

MIN_KEY_BYTES = 16
MAX_FILE_BYTES = 1 << 16
TAG_BYTES = 32
"""The size of a tag: HMAC-SHA256."""

NO_KEY: Sequence[bytes] = ()
"""Given as the key: use none, whatever PSYNC_KEY_FILE says."""


class Keys:
    """One or more keys. Two with the same keys are equal; no repr shows a key."""

    def __init__(self, keys: Key) -> None:
        given = [keys] if isinstance(keys, bytes | bytearray | memoryview) else list(keys)
        if not given or not all(isinstance(key, bytes | bytearray | memoryview) for key in given):
            raise ValueError("key must be bytes, or a list of bytes of which the first one seals")
        self._keys = [bytes(key) for key in given]
        if any(len(key) < MIN_KEY_BYTES for key in self._keys):
            raise ValueError(f"a key has at least {MIN_KEY_BYTES} secret bytes: secrets.token_bytes(32) makes one")
        self.names = tuple(name_of(key) for key in self._keys)
        """Four bytes a key, by which it is known; nothing can be signed or verified with them."""
        self._by_name = dict(zip(self.names, self._keys, strict=True))
        self.signing_key = self._keys[0]
        self.signing_name = self.names[0]
        _known[self.names] = self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Keys) and self._keys == other._keys

    def __hash__(self) -> int:
        return hash(self.names)

    def __repr__(self) -> str:
        return f"<Keys {', '.join(name.hex() for name in self.names)}>"

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the keys only for a process that is being spawned, through a pipe; else only their names."""
        return _arrived, (self.names, self._keys if _is_spawning() else None)

    def named(self, name: bytes) -> bytes | None:
        """The key of that name; None if it is not among these."""
        return self._by_name.get(name)


_known: weakref.WeakValueDictionary[tuple[bytes, ...], Keys] = weakref.WeakValueDictionary()
"""The keys of this process by their names, for handles that are sent to it."""


def name_of(key: bytes) -> bytes:
    import hmac

    return hmac.digest(key, b"psync: the name of a key", "sha256")[:4]


def keys_for(key: Key | Keys | None, root: str | None = None) -> Keys | None:
    """Return the keys that a caller gave; else those in the file PSYNC_KEY_FILE, if there is a `root`."""
    if key is NO_KEY:
        return None
    if key is not None:
        return key if isinstance(key, Keys) else Keys(key)
    path = os.environ.get(KEY_FILE)
    return Keys(read_file(path, root)) if path and root is not None else None


def read_file(path: str, root: str | None = None) -> list[bytes]:
    """Read the keys in a file, one a line. Raises `UnsafeStore` if others can read it, or it is in the store `root`."""
    path = os.path.abspath(os.path.expanduser(path))
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _refused(path, f"can't be read ({error.strerror})", f"make it readable, or unset {KEY_FILE}") from error
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise _refused(path, "is no plain file", "put the key into one")
        if status.st_uid not in (0, os.geteuid()):
            raise _refused(path, f"belongs to user {status.st_uid}, who knows the key", "use a file of your own")
        if status.st_mode & 0o077:
            mode = stat.S_IMODE(status.st_mode)
            raise _refused(path, f"can be used by others (mode {mode:04o})", f"chmod 600 '{path}', and change the key")
        if root is not None and _is_inside(path, root):
            remedy = "move it elsewhere, and change the key"
            raise _refused(path, "lies in the store, so that a copy of the store has the key", remedy)
        data = os.read(fd, MAX_FILE_BYTES)
    finally:
        os.close(fd)
    keys = [line.strip() for line in data.splitlines() if line.strip()]
    if not keys or min(map(len, keys)) < MIN_KEY_BYTES:
        remedy = "write one with: python3 -c 'import secrets; print(secrets.token_hex(32))'"
        raise _refused(path, f"does not hold keys of {MIN_KEY_BYTES} bytes or more, one a line", remedy)
    return keys


def _is_inside(path: str, root: str) -> bool:
    """Whether the file is in the folder, by whatever names the two go."""
    here = os.path.realpath(root).rstrip("/") + "/"
    return os.path.realpath(path).startswith(here) or path.startswith(os.path.abspath(root).rstrip("/") + "/")


def _refused(path: str, reason: str, remedy: str) -> UnsafeStore:
    return UnsafeStore(f"the key file {path} {reason}. Remedy: {remedy}", path=path, reason=reason)


def _is_spawning() -> bool:
    """Whether what is pickled goes to a process that multiprocessing is starting, as for its own secrets."""
    spawning = sys.modules.get("multiprocessing.context")
    return spawning is not None and spawning.get_spawning_popen() is not None


def _arrived(names: tuple[bytes, ...], keys: Iterable[bytes] | None) -> Keys:
    if keys is not None:
        return Keys(list(keys))
    known = _known.get(names)
    if known is None and (path := os.environ.get(KEY_FILE)):
        found = Keys(read_file(path))
        known = found if set(names) <= set(found.names) else None
    if known is None:
        raise UnsafeStore(
            f"a handle of a sealed store was sent here, but its key ({names[0].hex()}) was not: "
            f"keys don't travel. Open the store here with key=... first, or set {KEY_FILE}",
            path=None,
            reason="the key is not known here",
        )
    return known
