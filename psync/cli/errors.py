"""Exit codes of the `psync` command, and the two errors that its sub commands raise.

0: done. 1: refused, failed, or the requested thing is not there (stderr says why, without a traceback). 2: wrong use.
124: a timeout. 130: interrupted.
"""

from __future__ import annotations

TIMED_OUT, INTERRUPTED = 124, 130

EXIT_CODES = "exit codes: 0 done, 1 refused, failed or not found, 2 wrong use, 124 timed out, 130 interrupted"
"""The last line of every help text, unless the sub command has more to say about its exit codes."""


class Failure(Exception):
    """The command can't do what the user asked for. The user sees its text and nothing else."""


class WrongUse(Exception):
    """The user called the command wrongly, in a way that argparse does not see. The text says what to do."""
