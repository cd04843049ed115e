"""A line between a client and a server, that can be cut, and that can lose an answer."""

from __future__ import annotations

import contextlib
import select
import socket
import threading


class Proxy:
    """Listens on a port of its own, and hands on what is said to the server's socket."""

    def __init__(self, to: str) -> None:
        self._to = to
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._bell, self._ears = socket.socketpair()
        self._ends: dict[socket.socket, socket.socket] = {}
        """Each end of a line, and the other one."""
        self._clients: set[socket.socket] = set()
        self._cut = self._over = False
        self._needle: bytes | None = None
        self._doomed: socket.socket | None = None
        """The server's end whose next answer is lost."""
        self.lost = 0
        """How many answers were lost."""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def url(self, prefix: str, **options: object) -> str:
        more = "".join(f"&{key}={value}" for key, value in options.items())
        return f"redis://127.0.0.1:{self.port}/0?prefix={prefix}{more}"

    def cut(self) -> None:
        """Nothing comes through any more, and nobody is told; what is said waits."""
        self._cut = True
        self._bell.send(b".")

    def mend(self) -> None:
        """What was said meanwhile comes through."""
        self._cut = False
        self._bell.send(b".")

    def lose_the_answer_to(self, needle: bytes) -> None:
        """The next request with `needle` in it is done; its answer is lost, and the line with it."""
        self._needle = needle

    def close(self) -> None:
        self._over = True
        self._bell.send(b".")
        self._thread.join()
        for one in (self._bell, self._ears, self._listener, *self._ends):
            one.close()

    # -- the thread ----------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._over:
            lines = [] if self._cut else [self._listener, *self._ends]
            for one in select.select([self._ears, *lines], [], [])[0]:
                if one is self._ears:
                    one.recv(100)
                elif one is self._listener:
                    self._connect()
                elif one in self._ends and not self._cut:
                    self._hand_on(one)

    def _connect(self) -> None:
        client, _ = self._listener.accept()
        server = socket.socket(socket.AF_UNIX)
        try:
            server.connect(self._to)
        except OSError:
            client.close()
            server.close()
            return
        self._ends |= {client: server, server: client}
        self._clients.add(client)

    def _hand_on(self, one: socket.socket) -> None:
        other = self._ends[one]
        try:
            data = one.recv(1 << 16)
            if one in self._clients and self._needle is not None and self._needle in data:
                self._needle, self._doomed = None, other
            elif one is self._doomed:
                self._doomed, data = None, b""
                self.lost += 1
            if data:
                other.sendall(data)
                return
        except OSError:
            pass
        self._hang_up(one, other)

    def _hang_up(self, *ends: socket.socket) -> None:
        for one in ends:
            self._ends.pop(one, None)
            self._clients.discard(one)
            with contextlib.suppress(OSError):
                one.close()
