"""Exec with a parent: runs one program, passes signals on to it, and ends together with it.

The program has this process's terminal, input, output and process group. When this process is killed, so is the
program (`prctl`), though not what it has started itself.

run: fork, execvpe; rt_sigwaitinfo and kill for each signal; waitpid.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Mapping, Sequence

NOT_ALLOWED, NOT_FOUND = 126, 127
"""Exit codes, as `env` and the shell give them."""
PASSED_ON = {
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
}
_FROM_KERNEL = 0x80  # SI_KERNEL: a key of the terminal, whose signal its whole foreground gets
_SET_DEATH_SIGNAL = 1


def run(argv: Sequence[str], more: Mapping[str, str]) -> int:
    """Run a program, with `more` in its environment, and return its exit code, or 128 plus the signal's number.

    Returns NOT_FOUND or NOT_ALLOWED if it can't be started, and says so on stderr. Signals for this process go to the
    program instead, except those that this process ignores. For a process with one thread.
    """
    passed_on = {number for number in PASSED_ON if signal.getsignal(number) is not signal.SIG_IGN}
    children = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a process that ignores it gets no exit codes
    held_back = {signal.SIGCHLD, *passed_on}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held_back)
    try:
        parent = os.getpid()
        child = os.fork()
        if not child:
            _become(argv, {**os.environ, **more}, parent, before)
        while True:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
            came = signal.sigwaitinfo(held_back)
            if came.si_signo != signal.SIGCHLD and came.si_code != _FROM_KERNEL:
                os.kill(child, came.si_signo)
    finally:
        while signal.sigtimedwait({signal.SIGCHLD}, 0) is not None:
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        signal.signal(signal.SIGCHLD, children)


def _become(argv: Sequence[str], environment: Mapping[str, str], parent: int, mask: set[int]) -> None:
    """Become the program, in the child. Never returns."""
    code = NOT_ALLOWED
    try:
        end_with(parent, signal.SIGKILL)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and the program would inherit that
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.execvpe(argv[0], list(argv), environment)
    except FileNotFoundError as error:
        code = NOT_FOUND
        _complain(argv[0], error)
    except BaseException as error:
        _complain(argv[0], error)
    finally:
        os._exit(code)


def _complain(name: str, error: BaseException) -> None:
    why = error.strerror if isinstance(error, OSError) else error
    os.write(2, f"{name}: {why}\n".encode(errors="surrogateescape"))


def end_with(parent: int, number: signal.Signals) -> None:
    """Ask the kernel to send this process the signal `number` when its `parent` ends, in whatever way.

    Sends it at once if the parent has ended already.
    """
    ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, int(number), 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)
