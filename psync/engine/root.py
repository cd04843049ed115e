"""Roots: tell the path of a directory from the URL of a server, and refuse a URL that nothing here can open."""

from __future__ import annotations

import os
import re

Root = str | os.PathLike[str]
SCHEMES = ("redis", "rediss", "unix")


def is_address(root: object) -> bool:
    """Whether `root` is the URL of a server."""
    return isinstance(root, str) and root.partition("://")[0] in SCHEMES and "://" in root


def check_path(root: Root) -> None:
    """Raise ValueError for a URL that nothing here can open."""
    if isinstance(root, str) and "://" in root and re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", root):
        raise ValueError(
            f"{root!r} is the URL of nothing that psync knows: it begins with redis://, rediss:// or unix://. If a "
            f"directory has this name, write ./{root}"
        )
