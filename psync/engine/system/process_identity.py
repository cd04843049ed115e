"""Who am I, is that one alive, and how much is used? The one door to the table of processes.

A process is a random number of 64 bits with a file that it keeps locked as long as it lives. A lock
that can be had proves that the process is gone, at once and across pid namespaces of a host. Where
locks prove nothing, boot id, pid namespace, pid and raw start ticks do (`psutil`): another boot of
this host, or the pid gone, a zombie, or started at another tick. Everything else is unknown, and unknown means alive.
"""

from __future__ import annotations

import functools
import os

from psync.engine.contract.values import Alive, Identity, Usage


@functools.cache
def boot_id() -> str:
    """This boot of this kernel; "" where the kernel does not tell."""
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            return file.read().strip().decode()
    except OSError:
        return ""


def pid_namespace() -> int:
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0


def start_ticks(pid: int) -> int | None:
    """When `pid` started, in the kernel's own ticks since boot; None if there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, IndexError):
        return None


def myself(since: float) -> Identity:
    pid = os.getpid()
    return Identity(boot_id(), pid_namespace(), pid, start_ticks(pid) or 0, os.uname().nodename, since)


def usage(identity: Identity) -> Usage | None:
    """None for a process that is not certainly a living one of this host."""
    if examine(identity) is not Alive.YES:
        return None
    import time

    import psutil

    try:
        process = psutil.Process(identity.pid)
        with process.oneshot():
            times = process.cpu_times()
            return Usage(times.user + times.system, process.memory_info().rss, time.time() - process.create_time())
    except psutil.Error:
        return None


def examine(identity: Identity) -> Alive:
    """What the table of processes says about a process that may be another host's."""
    if not identity.boot or identity.boot != boot_id() or identity.namespace != pid_namespace():
        return Alive.UNKNOWN
    import psutil

    try:
        status = psutil.Process(identity.pid).status()
    except psutil.NoSuchProcess:
        return Alive.NO
    except psutil.Error:
        return Alive.UNKNOWN
    if status in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
        return Alive.NO
    ticks = start_ticks(identity.pid)
    if ticks is None:
        return Alive.UNKNOWN
    return Alive.YES if ticks == identity.ticks else Alive.NO


def memory() -> int:
    """Bytes of memory that this process has in use (its resident set)."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def load() -> float:
    """How many processes of this host want to run (the average of the last minute), for each of its processors."""
    import psutil

    return float(psutil.getloadavg()[0]) / (psutil.cpu_count() or 1)
