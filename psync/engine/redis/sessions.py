"""Sessions: give each process a key with a lease, which a thread renews; the process table tells more on the same host.

The fact that decides: whether the key is there. The server's clock ends a lease that was not renewed. If the process
table of its own host proves a process dead, whoever asks ends its session at once. A key that is gone never comes back:
a process that was cut off for longer than its lease goes on as a new owner.

Each owner has three keys: ``o:`` while it is an owner, ``s:`` while its locks count. Closing an engine removes the
first, and the second once no lock is held any more. ``w:`` says who it was, for people, and outlives both.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import threading
import weakref

from psync.engine.contract.report import Identity
from psync.engine.contract.values import Alive
from psync.engine.redis import lua
from psync.engine.redis.client import Server
from psync.engine.system import clock, fork_hooks
from psync.engine.system.process_identity import examine, myself
from psync.engine.system.reentry import Section
from psync.errors import StoreFailed

RENEWALS_PER_LEASE = 4
"""How often a lease is renewed within its length."""
MAX_KNOWN_IDENTITIES = 1000
"""More identities than these are not remembered."""


class Sessions:
    def __init__(self, server: Server) -> None:
        self._server = server
        self.number = 0
        """This process's number; 0 as long as it has none."""
        self.lost = 0
        """How often this process was taken for dead."""
        self._leases: dict[int, set[bytes]] = {}
        """The numbers whose leases are renewed, with the locks held under each."""
        self._doubtful: list[tuple[bytes, int, bytes]] = []
        """Locks that the server may have for us though no thread knows of them, because a signal's handler raised or no
        answer came. The renewer releases them."""
        self._era = server.era
        self._known: dict[int, Identity] = {}
        self._section = Section("the session with the server")
        self._awake: queue.SimpleQueue[None] = queue.SimpleQueue()
        """An item in it wakes the renewer. The garbage collector puts one, too, wherever that interrupts."""
        self._renewer: threading.Thread | None = None
        fork_hooks.remember(self)

    def after_fork(self) -> None:
        """A child is another owner, holds nothing, and renews nothing of its parent's."""
        self.number, self._leases, self._doubtful, self._renewer = 0, {}, [], None
        self._section, self._awake = Section(self._section.what), queue.SimpleQueue()

    # -- this process --------------------------------------------------------------------------------

    def mine(self) -> int:
        if self._era != self._server.era:
            self._after_a_loss()
        return self.number or self._arrive()

    def _after_a_loss(self) -> None:
        """Go on as another owner: the server may have lost what this process claimed, locked or settled, and may have
        given it to others. So its claims are refused when it comes to settle them."""
        with self._section, self._section.lock:
            self._era, numbers = self._server.era, list(self._leases)
        for number in numbers:
            self.expired(number)
            self._server.run(lua.LEAVE, number, 1)

    def _arrive(self) -> int:
        with self._section, self._section.lock:
            if not self.number:
                self._server.info()
                number = int.from_bytes(os.urandom(8), "little") >> 1 or 1
                who = json.dumps(myself(clock.wall_ns() / 1e9)._asdict())
                self._server.run(lua.ARRIVE, number, who, self._milliseconds())
                self._leases[number] = set()
                self.number = number
                self._keep()
            return self.number

    def _milliseconds(self) -> int:
        return int(self._server.address.lease * 1000)

    def _keep(self) -> None:
        if self._renewer is None or not self._renewer.is_alive():
            awake = self._awake = queue.SimpleQueue()
            forgotten = weakref.ref(self, lambda _: awake.put(None))
            self._renewer = threading.Thread(
                target=_keep_alive, args=(forgotten, awake), name="psync leases", daemon=True
            )
            self._renewer.start()

    def renew(self) -> bool:
        """Renew all leases, release doubtful locks; returns whether there is a lease left to renew."""
        self._release_doubtful()
        numbers = list(self._leases)
        if numbers:
            _, gone = self._server.run(lua.RENEW, self._milliseconds(), *numbers)
            for number in map(int, gone):
                self.expired(number)
            if self._era != self._server.era:
                self._after_a_loss()
        return bool(self._leases)

    def expired(self, number: int) -> None:
        """Forget `number`, which counts as dead: the server did not hear of it. This process is another owner now."""
        with self._section, self._section.lock:
            if self._leases.pop(number, None) is not None:
                self.lost += 1
            if self.number == number:
                self.number = 0
            if not self._leases:
                self._awake.put(None)

    def add(self, number: int, proof: bytes) -> None:
        """Note a lock under `number`, whose lease is renewed as long as it has any."""
        with self._section, self._section.lock:
            if number in self._leases:
                self._leases[number].add(proof)

    def remove(self, number: int, proof: bytes) -> None:
        """Note that a lock is not held any more."""
        with self._section, self._section.lock:
            if number not in self._leases:
                return
            self._leases[number].discard(proof)
            over = number != self.number and not self._leases[number]
            if over:
                del self._leases[number]
                if not self._leases:
                    self._awake.put(None)
        if over:
            self._server.run(lua.LEAVE, number, 1)

    def release(self, what: bytes, number: int, proof: bytes) -> bool:
        """Release a lock; returns whether it was still held. If this is interrupted, or the server is away, the renewer
        releases it later."""
        try:
            return self._free(what, number, proof)
        except BaseException:
            self._doubtful.append((what, number, proof))
            raise

    def _free(self, what: bytes, number: int, proof: bytes) -> bool:
        _, was = self._server.run(lua.RELEASE, what, proof)
        self.remove(number, proof)
        return bool(was)

    def undo(self, what: bytes, number: int, proof: bytes, *, later: bool) -> None:
        """Release a lock whose acquisition was interrupted, so that it may or may not be there. It may even come late,
        on the connection that was given up, so the renewer releases it once more."""
        self._doubtful.append((what, number, proof))
        if not later:
            self._free(what, number, proof)

    def _release_doubtful(self) -> None:
        with contextlib.suppress(IndexError):  # another thread may be at it
            while True:
                self.release(*self._doubtful.pop())

    def is_ours(self, number: int) -> bool:
        """Whether the lease of `number` is still ours."""
        return number in self._leases

    def close(self) -> None:
        """End the ownership of this process; its locks are held until it releases them or ends."""
        self._release_doubtful()
        with self._section, self._section.lock:
            number, self.number = self.number, 0
            if not number:
                return
            free = not self._leases.get(number)
            if free:
                self._leases.pop(number, None)
            if not self._leases:
                self._awake.put(None)
        self._server.run(lua.LEAVE, number, int(free))

    # -- others --------------------------------------------------------------------------------------

    def identity(self, owner: int) -> Identity | None:
        """None if there is no such owner (any more)."""
        data = self._server.get(b"o:", b"%d" % owner) or self._server.get(b"s:", b"%d" % owner)
        if data is None:
            self._known.pop(owner, None)
            return None
        if len(self._known) >= MAX_KNOWN_IDENTITIES:
            self._known.clear()
        found = self._known[owner] = Identity(**json.loads(data))
        return found

    def alive(self, owner: int) -> Alive:
        """One read, and the process table if the owner is on this host. Changes nothing."""
        data = self._server.get(b"o:", b"%d" % owner)
        if data is None:
            return Alive.NO
        here = owner == self.number or examine(Identity(**json.loads(data))) is not Alive.NO
        return Alive.YES if here else Alive.NO

    def end_if_dead(self, session: int) -> None:
        """Free the locks of `session` if it is proved dead."""
        known = self._known.get(session) or self.identity(session)
        if known is not None and examine(known) is Alive.NO:
            self.end(session)

    def living(self, session: int) -> int:
        """Return `session`, or 0 if it is proved dead. Changes nothing."""
        if not session or session in self._leases:
            return session
        known = self.identity(session)
        return 0 if known is None or examine(known) is Alive.NO else session

    def end(self, owner: int) -> None:
        self._known.pop(owner, None)
        self._server.run(lua.LEAVE, owner, 1)

    def describe(self, owner: int) -> str:
        """For people. A dead owner is still known for a day."""
        data = self._server.get(b"w:", b"%d" % owner)
        return f"a process that is gone ({owner:016x})" if data is None else str(Identity(**json.loads(data)))

    def sweep(self) -> int:
        """End the sessions that are proved dead; returns how many."""
        buried = 0
        for owner in {int(key) for key in self._server.keys(b"s:")}:
            found = self.identity(owner) if owner not in self._leases else None
            if found is not None and examine(found) is Alive.NO:
                self.end(owner)
                buried += 1
        return buried


def _keep_alive(owners: weakref.ref[Sessions], awake: queue.SimpleQueue[None]) -> None:
    """Renew until there is nothing left to renew, or the sessions are garbage."""
    while True:
        one = owners()
        if one is None:
            return
        pause = one._server.address.lease / RENEWALS_PER_LEASE
        try:
            if not one.renew() and not one.number:
                with one._section, one._section.lock:
                    if not one._leases and one._renewer is threading.current_thread():
                        one._renewer = None
                        one._server.close()  # no other thread may be left to do it
                        return
        except StoreFailed:
            pass  # the server is away; when it is back it says whether we were taken for dead
        del one
        with contextlib.suppress(queue.Empty):
            awake.get(timeout=pause)
