"""A Redis server of our own, on a socket in a temporary directory; and the reason why there is none."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psutil

MISSING = "there is no redis-server or valkey-server on PATH (apt-get install --no-install-recommends redis-server)"
AOF = ("--appendonly", "yes", "--appendfsync", "always")


def why_not() -> str | None:
    """Why no server can be had here; None if one can."""
    try:
        import redis  # noqa: F401
    except ImportError:
        return "redis-py is not installed (pip install 'psync[redis]')"
    return None if binary() else MISSING


def binary() -> str | None:
    return shutil.which("redis-server") or shutil.which("valkey-server")


class RedisServer:
    """Starts at once; `kill` and `start` again as often as wanted. Its data live as long as it does."""

    def __init__(self, *options: str, port: int = 0) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="psync-redis-"))
        self.socket = self.folder / "socket"
        self.port = port
        self._options = options
        self._pid = 0
        self.start()

    def url(self, prefix: str, **options: object) -> str:
        more = "".join(f"&{key}={value}" for key, value in options.items())
        return f"unix://{self.socket}?db=0&prefix={prefix}{more}"

    def start(self) -> None:
        """The server is nobody's child: it serves many tests, each of which has to leave no process behind."""
        program = binary()
        assert program
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", str(self.socket)]
        options += ["--dir", str(self.folder), "--save", "", "--daemonize", "yes", "--logfile", str(self._log)]
        subprocess.run([program, *options, *self._options], check=True, timeout=30, stdout=subprocess.DEVNULL)
        end = time.monotonic() + 30
        while not self._answers():
            assert time.monotonic() < end, self._log.read_text()
            time.sleep(0.02)

    @property
    def _log(self) -> Path:
        return self.folder / "log"

    def _answers(self) -> bool:
        import redis

        try:
            with redis.Redis(unix_socket_path=str(self.socket)) as client:
                self._pid = int(client.info("server")["process_id"])
                return True
        except redis.RedisError:
            return False

    def signal(self, number: int) -> None:
        os.kill(self._pid, number)

    def kill(self) -> None:
        """kill -9; returns once it is gone."""
        if not self._pid:
            return
        self.signal(signal.SIGKILL)
        end = time.monotonic() + 30
        while psutil.pid_exists(self._pid) and psutil.Process(self._pid).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < end
            time.sleep(0.01)
        self._pid = 0

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
