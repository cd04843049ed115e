"""Runs a function in a forked child and strikes at the system call you name: kill, fail, cut short, hold up.

    run(act)                        which calls does it make?
    run(act, fault=Kill(7))         kill -9 instead of the 7th call (after=True: just after it)
    run(act, fault=Torn(7))         kill -9 in the middle of the 7th call, a write, where a page of the file ends
    run(act, fault=Halfway(7))      kill -9 in the middle of the 7th call, a rename, as an NFS client makes it
    run(act, fault=Fail(7, ENOSPC)) the 7th call says ENOSPC and was not made (what gives back does it: close, unlock)
    run(act, fault=Short(7))        the 7th call, a write, stops at the last page boundary, and says so
    run(act, fault=Interrupt(7))    SIGINT instead of the 7th call (after=True: when it is made); its handler raises
    run(act, fault=Pause(7, look))  look() runs here while the child stands before the 7th call
    run(act, asleep=look)           look() runs here whenever the child has slept for a while: it waits for somebody

Only calls between two marks count: the child makes a senseless `prctl` before and after `act`, so what the
interpreter does to get there is left out, as is what it does for its own memory (`UNCOUNTED`). Threads and processes
that `act` starts are followed, those that were there before are not; calls are counted in the order in which they come.
"""

from __future__ import annotations

import ctypes
import dataclasses
import errno
import fcntl
import gc
import os
import pickle
import platform
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from tests.crash.syscalls import DESCRIPTORS, PATHS, UNCOUNTED, name_of

PAGE = 4096
ASLEEP = 15
"""So many looks in a row, a millisecond apart, at a process that sleeps: it waits for somebody."""
_TRACEME, _CONT, _GETREGS, _SETREGS, _SYSCALL = 0, 7, 12, 13, 24
_SETOPTIONS, _GET_SYSCALL_INFO = 0x4200, 0x420E
_OPTIONS = 0x1 | 0x2 | 0x4 | 0x8 | 0x100000  # SYSGOOD, FORK, VFORK, CLONE, EXITKILL
_SYSCALL_STOP = signal.SIGTRAP | 0x80
_WALL = 0x40000000  # wait for threads, too
_PARENT_DEATH_SIGNAL = 1
_BEGIN, _END = 0x70737962, 0x70737965  # no option of prctl has these numbers


class _Registers(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_ulonglong)
        for name in (
            "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss "
            "fs_base gs_base ds es fs gs"
        ).split()
    )


class _SyscallInfo(ctypes.Structure):
    _fields_ = (
        ("stage", ctypes.c_uint8),  # 1 entry, 2 exit
        ("arch", ctypes.c_uint32),
        ("ip", ctypes.c_uint64),
        ("sp", ctypes.c_uint64),
        ("number", ctypes.c_uint64),  # at exit: the result
        ("arguments", ctypes.c_uint64 * 6),
        ("rest", ctypes.c_uint64 * 2),
    )


_libc = ctypes.CDLL(None, use_errno=True)
if sys.platform == "linux":
    _libc.ptrace.restype = ctypes.c_long
    _libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


@dataclasses.dataclass(frozen=True)
class Kill:
    n: int
    after: bool = False


@dataclasses.dataclass(frozen=True)
class Torn:
    """What a kill can leave of a write: the kernel stops between two pages of the file, never within one."""

    n: int
    last: bool = False
    """Cut at the last page boundary that the write crosses, not at the first."""


@dataclasses.dataclass(frozen=True)
class Halfway:
    """An NFS client renames over a file that its host has open in two requests: first that file loses its name, and
    goes with its last close; then the other one gets the name. The kill comes in between."""

    n: int


@dataclasses.dataclass(frozen=True)
class Fail:
    n: int
    errno: int


@dataclasses.dataclass(frozen=True)
class Short:
    """A full disk stops a write where a page of the file ends; the next write says why."""

    n: int


@dataclasses.dataclass(frozen=True)
class Interrupt:
    n: int
    after: bool = False


@dataclasses.dataclass(frozen=True)
class Pause:
    n: int
    look: Callable[[], object]
    halfway: bool = False
    """If the call is a rename over a file, that has lost its name already (see `Halfway`)."""


Fault = Kill | Torn | Halfway | Fail | Short | Interrupt | Pause


@dataclasses.dataclass
class Run:
    """What became of the child."""

    calls: list[str]
    """The calls made, up to the fault; the last one is the one that was struck, with its path if it has one."""
    struck: bool = False
    """False when `act` was over before the fault's call (or the call was no write that could be cut)."""
    killed: bool = False
    hung: bool = False
    error: BaseException | None = None
    """What `act` raised."""
    report: Any = None
    """What `after` returned."""

    def __str__(self) -> str:
        return f"call {len(self.calls)}, {self.calls[-1]}" if self.calls else "no call"


def sleeps(pid: int) -> bool:
    """Whether the process waits in a system call for something to happen."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b") ")[2][:1] == b"S"
    except (FileNotFoundError, ProcessLookupError):
        return False


class ChildBroke(AssertionError):
    """The child failed outside of the part that is watched."""


def unavailable() -> str | None:
    """Why nothing can be traced here, or None."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return f"the tracer knows the registers of x86_64 Linux only, not {sys.platform} on {platform.machine()}"
    try:
        calls = run(os.getcwd).calls
    except OSError as error:
        return f"ptrace is not permitted here: {error}"
    return None if len(calls) == 1 else f"ptrace saw {calls} instead of one getcwd"


def run(
    act: Callable[..., object],
    *,
    ready: Callable[[], object] | None = None,
    after: Callable[[Any, BaseException | None], object] | None = None,
    fault: Fault | None = None,
    asleep: Callable[[], object] | None = None,
    seconds: int = 20,
) -> Run:
    """``act(ready())`` in a child, watched, then ``after(ready's result, act's error)``, not watched.

    Without `ready`, ``act()``. After `seconds` the child is killed, and the run is `hung`.
    """
    report = os.memfd_create("report")
    try:
        child = os.fork()
        if child == 0:
            _child(act, ready, after, report, seconds)
        tracer = _Tracer(child, fault, asleep, every_path=fault is None)
        tracer.trace()
        told = os.pread(report, os.fstat(report).st_size, 0)
    finally:
        os.close(report)
    result = tracer.run
    if told:
        broke, result.error, result.report = pickle.loads(told)
        if broke:
            raise ChildBroke(broke)
    elif not result.killed and not result.hung:
        raise ChildBroke(f"the child died without a word, at {result}")
    return result


def _child(act: Any, ready: Any, after: Any, report: int, seconds: int) -> None:
    """Never returns."""
    broke, error, value = "", None, None
    try:
        os.setpgid(0, 0)  # so that the tracer waits for this child's threads and children, and for nobody else's
        _libc.prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)  # a child that stands at a call must not outlive its tracer
        gc.disable()  # what a collection closes would be other calls in every run
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        arguments = () if ready is None else (ready(),)
        if _libc.ptrace(_TRACEME, 0, None, None) != 0:
            os._exit(ctypes.get_errno())
        os.kill(os.getpid(), signal.SIGSTOP)
        mark = _libc.prctl
        mark(_BEGIN)
        try:
            error = _raised_by(act, arguments)
        except KeyboardInterrupt as late:  # the signal's handler runs a moment after the call
            error = late
        mark(_END)
        if after is not None:
            value = after(*(arguments or (None,)), error)
    except BaseException:
        broke = traceback.format_exc()
    try:
        told = pickle.dumps((broke, error, value))
        pickle.loads(told)
    except BaseException:
        told = pickle.dumps((f"what the child had to say can't be pickled:\n{traceback.format_exc()}", None, None))
    os.pwrite(report, told, 0)
    os._exit(0)


def _raised_by(act: Any, arguments: Any) -> BaseException | None:
    try:
        act(*arguments)
    except BaseException as raised:
        return raised
    return None


class _Tracer:
    """Follows one child to its end."""

    def __init__(self, child: int, fault: Fault | None, asleep: Callable[[], object] | None, every_path: bool) -> None:
        self.child = child
        self.fault = fault
        self.asleep = asleep
        self.every_path = every_path
        self.run = Run([])
        self.watching = False
        self.over = False
        self.known: set[int] = set()
        self.pending: dict[int, Kill | Fail | Interrupt] = {}  # what is to be done when the thread's call returns

    def trace(self) -> None:
        _, status = os.waitpid(self.child, 0)
        if not os.WIFSTOPPED(status):
            self.run.hung = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM
            if code := os.WIFEXITED(status) and os.WEXITSTATUS(status):
                raise OSError(code, os.strerror(code))
            return
        self.known.add(self.child)
        self._ptrace(_SETOPTIONS, self.child, _OPTIONS)
        self._ptrace(_SYSCALL, self.child)
        while True:
            try:
                thread, status = self._next_stop()
            except ChildProcessError:
                return
            if os.WIFSTOPPED(status):
                try:
                    self._stopped(thread, status)
                except ProcessLookupError:
                    pass  # killed meanwhile: its end is reported by the next wait

    def _next_stop(self) -> tuple[int, int]:
        if self.asleep is None:
            return os.waitpid(-self.child, _WALL)
        looks = 0
        while (stop := os.waitpid(-self.child, _WALL | os.WNOHANG)) == (0, 0):
            looks = looks + 1 if sleeps(self.child) else 0
            if looks % ASLEEP == ASLEEP - 1:
                self.asleep()
            time.sleep(0.001 if looks else 0.0001)
        return stop

    def _stopped(self, thread: int, status: int) -> None:
        deliver = 0
        what = os.WSTOPSIG(status)
        if what == _SYSCALL_STOP:
            self._at_call(thread)
        elif thread not in self.known:
            self.known.add(thread)  # new here; stands at the SIGSTOP that a traced birth begins with
        elif what == signal.SIGALRM:
            self.run.hung = True
            self._kill()
        elif status >> 16 == 0:
            deliver = what
        done = self.over or (self.run.struck and not self.pending)
        self._ptrace(_CONT if done else _SYSCALL, thread, deliver)

    def _at_call(self, thread: int) -> None:
        info = _SyscallInfo()
        self._ptrace(_GET_SYSCALL_INFO, thread, ctypes.sizeof(info), ctypes.addressof(info))
        if info.stage == 1:
            self._entering(thread, info)
        elif thread in self.pending:
            fault = self.pending.pop(thread)
            if isinstance(fault, Fail):
                self._set(thread, rax=-fault.errno)
            elif isinstance(fault, Interrupt):
                os.kill(thread, signal.SIGINT)
                if not fault.after:
                    self._set(thread, rax=-errno.EINTR)
            else:
                self._kill()

    def _entering(self, thread: int, info: _SyscallInfo) -> None:
        name = name_of(info.number)
        if name == "prctl" and info.arguments[0] in (_BEGIN, _END):
            self.watching = info.arguments[0] == _BEGIN
            self.over = not self.watching
        elif self.watching and name not in UNCOUNTED:
            fault = self.fault
            here = fault is not None and len(self.run.calls) + 1 == fault.n
            self.run.calls.append(self._described(thread, name, info) if here or self.every_path else name)
            if here and fault is not None:
                self.run.struck = self._strike(thread, name, info, fault)

    def _strike(self, thread: int, name: str, info: _SyscallInfo, fault: Fault) -> bool:
        if isinstance(fault, Pause):
            if fault.halfway:
                self._take_name(thread, name, info)
            fault.look()
        elif isinstance(fault, Fail | Interrupt):
            gives_back = name == "close" or (name == "flock" and info.arguments[1] == fcntl.LOCK_UN)
            # a descriptor is free, and so is its lock, even when that fails
            if not gives_back and not (isinstance(fault, Interrupt) and fault.after):
                self._set(thread, orig_rax=-1)  # no such call: the kernel makes none
            self.pending[thread] = fault
        elif isinstance(fault, Kill):
            if fault.after:
                self.pending[thread] = fault
            else:
                self._kill()
        elif isinstance(fault, Halfway):
            if not self._take_name(thread, name, info):
                return False
            self._kill()
        elif name not in ("write", "pwrite64"):
            return False
        else:
            part = self._to_page_end(thread, name, info, last=isinstance(fault, Short) or fault.last)
            if not part:
                return False
            self._set(thread, rdx=part)
            if isinstance(fault, Torn):
                self.pending[thread] = Kill(fault.n, after=True)
        return True

    def _take_name(self, thread: int, name: str, info: _SyscallInfo) -> bool:
        """The first half of a rename over a file; False if it is none."""
        target = self._text(thread, info.arguments[1]) if name == "rename" else ""
        if not os.path.isfile(target):
            return False
        os.unlink(target)
        return True

    def _to_page_end(self, thread: int, name: str, info: _SyscallInfo, last: bool) -> int:
        """How many bytes of a write stand before the first (last) page boundary that it crosses; 0 without one."""
        descriptor, size = info.arguments[0], info.arguments[2]
        with open(f"/proc/{thread}/fdinfo/{descriptor}", encoding="ascii") as file:
            facts = dict(line.split(":\t", 1) for line in file if ":\t" in line)
        start = info.arguments[3] if name == "pwrite64" else int(facts["pos"])
        if int(facts["flags"], 8) & os.O_APPEND:
            start = os.stat(f"/proc/{thread}/fd/{descriptor}").st_size
        first_cut = (start // PAGE + 1) * PAGE
        last_cut = (start + size - 1) // PAGE * PAGE
        cut = last_cut if last else first_cut
        return cut - start if start < cut < start + size else 0

    def _described(self, thread: int, name: str, info: _SyscallInfo) -> str:
        try:
            paths = [] if name in DESCRIPTORS else [self._text(thread, info.arguments[at]) for at in PATHS[name]]
            if not any(paths):
                paths = [os.readlink(f"/proc/{thread}/fd/{info.arguments[0]}")]
            return f"{name}({', '.join(paths)})"
        except (OSError, KeyError):
            return name

    def _text(self, thread: int, address: int) -> str:
        with open(f"/proc/{thread}/mem", "rb", buffering=0) as memory:
            memory.seek(address)
            return memory.read(PAGE - address % PAGE).split(b"\0", 1)[0].decode(errors="replace")

    def _kill(self) -> None:
        self.run.killed = not self.run.hung
        os.killpg(self.child, signal.SIGKILL)

    def _set(self, thread: int, **registers: int) -> None:
        now = _Registers()
        self._ptrace(_GETREGS, thread, None, ctypes.addressof(now))
        for name, value in registers.items():
            setattr(now, name, value & 0xFFFFFFFFFFFFFFFF)
        self._ptrace(_SETREGS, thread, None, ctypes.addressof(now))

    def _ptrace(self, request: int, thread: int, address: int | None = None, data: int | None = None) -> None:
        """`data` of the requests that resume is a signal; those pass it as `address` here for brevity."""
        if request in (_SETOPTIONS, _CONT, _SYSCALL):
            address, data = None, address
        if _libc.ptrace(request, thread, address, data) < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
