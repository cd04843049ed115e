"""Category folder: tells whether a folder holds buckets, before a value comes to a name at which one may come."""

from __future__ import annotations

import contextlib

from psync.engine.contract.bucket import is_bucket_segment
from psync.engine.directory.fs.atomic import AtomicFiles
from psync.engine.directory.fs.errors import BucketMet
from psync.engine.directory.fs.syscalls import read_small
from psync.engine.encoding.framing import BUCKET_HEAD, CELL_HEAD, DICT_HEAD, header_of, is_bucket, is_dict


def check_no_category(fs: AtomicFiles, root: str, path: str) -> None:
    """Raise `BucketMet` if the folder of `path` holds a bucket. The look ends at the first value that is no dict.

    Not promised: that no bucket comes a moment later. Both are there then, and the category's verbs name the value.
    """
    folder = path[: path.rindex("/")]
    if len(folder) <= len(root) or not is_bucket_segment(path[len(folder) + 1 :]):
        return
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), fs.scan(folder) as entries:
        for name in [entry.name for entry in entries if is_bucket_segment(entry.name)]:
            with contextlib.suppress(OSError):
                head = read_small(f"{folder}/{name}", CELL_HEAD + DICT_HEAD)
                if is_bucket(head):
                    raise BucketMet(f"{folder}/{name}")
                if header_of(head[:CELL_HEAD]) is not None and not is_dict(head[CELL_HEAD:]):
                    return


def check_bucket_head(path: str, head: bytes) -> None:
    """Raise `BucketMet` if the file at `path` begins as a bucket."""
    if is_bucket_segment(path[path.rindex("/") + 1 :]) and is_bucket(head[:BUCKET_HEAD]):
        raise BucketMet(path)
