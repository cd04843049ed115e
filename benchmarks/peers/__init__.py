"""One small adapter per subject: the same few classes over psync and over what it is compared with.

An adapter has those of these that its library has, and nothing more:

    Store(folder)      set get keys clear incr forget close        a mapping of str to python values
    Category(folder)   fill hset hget hdict hcompress close        one dict that grows
    Mailbox(folder)    open fill post get close                    letters that are written once
    Signal(folder)     open wait send send_elsewhere               someone waits for a name to get a value
    Flag(folder)       open lower wait send send_elsewhere         someone waits for a flag to go up
    Queue(folder)      open put take fill close                    `take` claims, and acknowledges where it can
    Lock(folder)       open acquire release close
    Semaphore(folder, value), Barrier(folder, parties)             open acquire release close; open wait close
    Pool(folder, workers)  map submit_all close                          calls are made by other processes
    IMPORT, READY                                                  the statements that import it, and all of it

All that has an `open()` is made before the processes that share it part ways; each then calls it. Where a library's
own method has the right shape it is the attribute itself, so the adapter costs nothing.
"""

from __future__ import annotations

import importlib.util
import shutil

FLOOR = "plain"
"""The adapter with nothing in it but the system calls: what there is to be reached."""

NEEDS: dict[str, tuple[str, ...]] = {
    "psync": ("psync",),
    "plain": (),
    "pickleshare": ("pickleshare",),
    "diskcache": ("diskcache",),
    "sqlitedict": ("sqlitedict",),
    "lmdb": ("lmdb",),
    "redis": ("redis",),
    "redis_strict": ("redis",),
    "huey": ("huey",),
    "huey_redis": ("huey", "redis"),
    "rq": ("rq",),
    "multiprocessing": (),
    "multiprocessing_queue": (),
    "persistqueue": ("persistqueue",),
    "dirq": ("dirq",),
    "processpool": (),
    "joblib": ("joblib",),
    "dask": ("distributed",),
    "filelock": ("filelock",),
    "fasteners": ("fasteners",),
    "tcpstore": ("torch",),
    "filestore": ("torch",),
}
"""What has to be importable for each adapter."""

SERVERS = dict.fromkeys(("redis", "redis_strict", "huey_redis", "rq"), "redis-server")
"""Programs that have to be there besides."""


def missing(subject: str) -> str | None:
    """What is not installed for `subject`, or None when all is there."""
    for module in NEEDS[subject]:
        if importlib.util.find_spec(module) is None:
            return f"the module {module} is not installed"
    server = SERVERS.get(subject)
    if server and shutil.which(server) is None:
        return f"the program {server} is not installed"
    return None
