"""``psync top DIR``: what `status` shows, again and again, in a terminal. q or Ctrl-C ends it."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from psync.cli import status
from psync.cli.arguments import above, directory

if TYPE_CHECKING:
    from psync.work.admin.overview import Observer

CLEAR, HOME, REST, END_OF_LINE = "\x1b[2J", "\x1b[H", "\x1b[J", "\x1b[K"
ENTER, LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
"""To another screen, without a cursor, and back."""


def options(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Show what `psync status` shows, again and again, with the processor time used in between; q or Ctrl-C ends "
        "it. Prints once if the output is no terminal. Nothing is changed by looking."
    )
    parser.epilog = (
        "exit codes: 0 ended by q, Ctrl-C or the end of the terminal, 1 psync was never used there, 2 wrong use"
    )
    directory(parser, made=False)
    parser.add_argument(
        "--interval", type=above(0), default=1.0, metavar="S", help="seconds between two looks (default 1)"
    )


def run(args: argparse.Namespace) -> int:
    observer = status.observe(args)
    try:
        if not sys.stdout.isatty() or not sys.stdin.isatty():
            print("\n".join(status.shown(observer.look())))
            return 0
        with _screen(), contextlib.suppress(KeyboardInterrupt):
            _show(observer, args.interval)
    finally:
        observer.close()
    return 0


def _show(observer: Observer, interval: float) -> None:
    import termios

    from psync.engine.system import clock

    before, then = None, 0.0
    while True:
        now = clock.monotonic()
        overview = observer.look()
        lines = status.shown(overview, before, now - then)
        lines += [f"psync status: {trouble.name}: {trouble.why}" for trouble in overview.troubles]
        before, then = overview, now
        height, width = termios.tcgetwinsize(sys.stdout)
        head = f"psync top {overview.root}, every {interval:g} s; q ends"
        body = [line[: width - 1] for line in [head, "", *lines]]
        if len(body) > height:
            body = [*body[: height - 1], f"... {len(body) - height + 1} lines more"]
        sys.stdout.write(HOME + "\n".join(line + END_OF_LINE for line in body) + REST)
        sys.stdout.flush()
        if _pressed(interval):
            return


@contextlib.contextmanager
def _screen() -> Iterator[None]:
    """Another screen, and keys as they are pressed; all as it was afterwards."""
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    sys.stdout.write(ENTER + CLEAR)
    try:
        yield
    finally:
        sys.stdout.write(LEAVE)
        sys.stdout.flush()
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _pressed(seconds: float) -> bool:
    """Wait for a key that ends it; True if it came, or the terminal has gone."""
    import selectors

    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin, selectors.EVENT_READ)
        if not selector.select(seconds):
            return False
    return sys.stdin.read(1) in ("q", "Q", "", "\x04")
