"""A second process with a handle of its own, driven over a pipe: ``Rival(root).call("pop", "key")``.

``python -m tests.store.rival`` is that process: pickled calls come in, pickled answers go out.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from psync import PickleShareDB


class Rival:
    """One process for many stores; it works on the one that was opened last."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-m", "tests.store.rival"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)

    def open(self, root: Path) -> None:
        self._ask("open", (root,), {})

    def call(self, verb: str, *args: Any, **kwargs: Any) -> Any:
        """What ``getattr(db, verb)(*args)`` gives over there; its exception is raised here."""
        return self._ask(verb, args, kwargs)

    def _ask(self, verb: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        assert self.process.stdin is not None and self.process.stdout is not None
        pickle.dump((verb, args, kwargs), self.process.stdin, protocol=5)
        self.process.stdin.flush()
        worked, result = pickle.load(self.process.stdout)
        if not worked:
            raise result
        return result

    def __enter__(self) -> Rival:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(20)
        self.process.stdout.close()


def main() -> None:
    db: PickleShareDB | None = None
    answers = sys.stdout.buffer
    while True:
        try:
            verb, args, kwargs = pickle.load(sys.stdin.buffer)
        except EOFError:
            break
        answer: tuple[bool, Any]
        try:
            if verb == "open":
                if db is not None:
                    db.close()
                db = PickleShareDB(*args)
                answer = True, None
            else:
                answer = True, getattr(db, verb)(*args, **kwargs)
        except Exception as error:
            answer = False, error
        pickle.dump(answer, answers, protocol=5)
        answers.flush()
    if db is not None:
        db.close()


if __name__ == "__main__":
    main()
