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
import pytest

MISSING = "there is no redis-server or valkey-server on PATH (apt-get install --no-install-recommends redis-server)"
AOF = ("--appendonly", "yes", "--appendfsync", "always")
WARDEN = """while kill -0 $1 && kill -0 $2; do sleep 1; done; kill -0 $1 || { kill -9 $2; rm -rf "$3"; }"""
"""Ends a server whose tests were killed: their process, the server's, its folder."""
SERVERS = {"redis": (), "redis aof": AOF}
"""How a server is started: nothing on a disk, and every command on it before it is answered."""

WHOLE = os.environ.get("PSYNC_TEST_REDIS") == "all"
"""Whether everything is to be as long and as many as it should; else it is scaled down, or left out."""
only_when_asked = pytest.mark.skipif(not WHOLE, reason="only when asked for, with PSYNC_TEST_REDIS=all: tox -e redis")


def why_not() -> str | None:
    """Why no server can be had here; None if one can."""
    try:
        import redis  # noqa: F401
    except ImportError:
        return "redis-py is not installed (pip install 'psync[redis]')"
    return None if binary() else MISSING


def binary() -> str | None:
    return shutil.which("redis-server") or shutil.which("valkey-server")


def contents(url: str) -> dict[bytes, bytes]:
    """Every key of the store at `url` with its value, as the server writes it down."""
    import redis

    from psync.engine.redis.engine import RedisEngine

    server = RedisEngine(url).server
    with redis.Redis.from_url(server.address.url) as client:
        return {key: client.dump(key) for key in client.scan_iter(match=server.prefix + b"*", count=1000)}


class RedisServer:
    """Starts at once; `kill` and `start` again as often as wanted. Its data live as long as it does."""

    def __init__(
        self, *options: str, port: int = 0, password: str | None = None, configuration: Path | None = None
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="psync-redis-"))
        self.socket = self.folder / "socket"
        self.port = port
        self._password = password
        self._before = [str(configuration)] if configuration else []
        self._options = [*options, *(("--requirepass", password) if password else ())]
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
        options += ["--dir", str(self.folder), "--save", "", "--daemonize", "yes", "--logfile", str(self._told)]
        subprocess.run(
            [program, *self._before, *options, *self._options], check=True, timeout=30, stdout=subprocess.DEVNULL
        )
        end = time.monotonic() + 30
        while not self._answers():
            assert time.monotonic() < end, self._told.read_text()
            time.sleep(0.02)
        warden = [str(os.getpid()), str(self._pid), str(self.folder)]
        subprocess.run(
            ["sh", "-c", f"({WARDEN}) > /dev/null 2>&1 &", "warden", *warden], check=True, start_new_session=True
        )

    @property
    def _told(self) -> Path:
        return self.folder / "log"

    def _answers(self) -> bool:
        import redis

        try:
            with redis.Redis(unix_socket_path=str(self.socket), password=self._password) as client:
                self._pid = int(client.info("server")["process_id"])
                return True
        except redis.RedisError:
            return False

    @property
    def log(self) -> Path:
        """The file to which the server appends its commands (appendonly yes)."""
        (found,) = self.folder.glob("appendonlydir/*.incr.aof")
        return found

    def settle(self) -> None:
        """Returns once all that was answered is on the server's disk (appendonly yes)."""
        import redis

        with redis.Redis(unix_socket_path=str(self.socket)) as client:
            end = time.monotonic() + 30
            while True:
                about = client.info("persistence")
                if not about["aof_enabled"] or about["aof_pending_bio_fsync"] == about["aof_buffer_length"] == 0:
                    return
                assert time.monotonic() < end
                time.sleep(0.02)

    def signal(self, number: int) -> None:
        os.kill(self._pid, number)

    def clear(self) -> None:
        """Nothing is on it any more."""
        import redis

        with redis.Redis(unix_socket_path=str(self.socket)) as client:
            client.flushall()

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
