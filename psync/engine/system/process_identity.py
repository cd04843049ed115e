"""Process identity: identifies a process, and asks the process table whether it lives. The one door to that table.

A process is identified by boot id, pid namespace, pid and raw start ticks. It is proved dead if this host has been
booted since, or if its pid is gone, a zombie, or started at another tick. Everything else is unknown, and unknown means
alive.
"""

from __future__ import annotations

import functools
import os

from psync.engine.contract.report import Identity, Usage
from psync.engine.contract.values import Alive

this_pid = os.getpid
"""Return this process's id."""


@functools.cache
def boot_id() -> str:
    """Return the id of this boot; "" where the kernel does not tell it."""
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
    """Return when `pid` started, in the kernel's ticks since boot; None if there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, IndexError):
        return None


def myself(since: float) -> Identity:
    pid = os.getpid()
    return Identity(boot_id(), pid_namespace(), pid, start_ticks(pid) or 0, os.uname().nodename, since)


def usage(identity: Identity) -> Usage | None:
    """Return what a process has used; None if it is not proved to be a living one of this host."""
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
    """Ask the process table about a process, which may be another host's."""
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
    """Return the bytes of memory that this process uses (its resident set)."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def load() -> float:
    """Return how many processes of this host want to run, for each processor: the average of the last minute."""
    import psutil

    return float(psutil.getloadavg()[0]) / (psutil.cpu_count() or 1)
