"""Group membership: processes join and leave, and a process that dies is no member any more.

The fact that decides: the change of the shared value that adds a member. A reader leaves out the dead.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, NamedTuple

from psync.engine.system import fork_hooks
from psync.engine.system.reentry import Section, takes_effect
from psync.errors import WaitTimeout
from psync.store.sentinels import NOT_YET
from psync.sync.primitive import Place, Primitive
from psync.sync.shared_state import SharedState
from psync.sync.wait import Waiter, dead_of, some_seconds


class _Members(NamedTuple):
    joined: int = 0
    """How many ever joined."""
    members: tuple[tuple[int, int, Any], ...] = ()
    """(number, owner, information), in the order of joining."""


class Member(NamedTuple):
    """One member of a group."""

    number: int
    """A number that grows from member to member, and is never used again."""
    who: str
    """The process, for people: pid, host, start time."""
    information: Any
    """The value that the member gave to `join`."""


class GroupStatistics(NamedTuple):
    """Snapshot of a group: see `Group.statistics`."""

    members: tuple[Member, ...]
    joined: int
    """How many ever joined."""


class Group(Primitive):
    """The live processes (or threads) that joined under one name.

    >>> import tempfile
    >>> crew = Group(tempfile.mkdtemp(), "crew")
    >>> with crew:
    ...     len(crew.members())
    1
    """

    _kind = "group"

    def __init__(self, db: Place, name: str) -> None:
        super().__init__(db, name)
        self._shared = SharedState(self._engine, self._where, _Members())
        self._waiter = Waiter(self._engine, self._where)
        self._mine = (0, 0)
        """Number and owner of the membership through this handle; a forked child has none."""
        self._joining = Section(f"the membership in {name!r}")
        fork_hooks.remember(self)

    def after_fork(self) -> None:
        """Make a new lock for a forked child: a thread that does not exist there may hold the old one."""
        self._joining = Section(self._joining.what)

    def join(self, information: Any = None) -> Member:
        """Join the group, once through each handle; a second call changes the `information`, any picklable value."""
        me = self._engine.owner()
        gone = set(dead_of(self._engine, {owner for _, owner, _ in self._shared.look().members}))

        with self._joining, self._joining.lock:  # threads that join by this handle at once become one member, not two
            mine, owner = self._mine

            def join(all_: _Members) -> _Members:
                number = mine
                if owner != me or all((mine, owner) != member[:2] for member in all_.members):
                    number = all_.joined + 1
                others = (other for other in all_.members if other[0] != number and other[1] not in gone)
                return _Members(max(all_.joined, number), (*others, (number, me, information)))

            number = self._shared.change(join).members[-1][0]
            self._mine = number, me
        return Member(number, self._engine.describe(me), information)

    @takes_effect
    def leave(self) -> None:
        """Leave the group. Raises RuntimeError if this handle is no member."""
        number, owner = self._mine
        if not number or owner != self._engine.owner():
            raise RuntimeError(f"this handle did not join the group {self.name!r}, so it can't leave it")
        self._mine = (0, 0)
        self._shared.change(lambda all_: all_._replace(members=tuple(m for m in all_.members if m[0] != number)))

    def members(self) -> list[Member]:
        """Return the members that are not proven dead, in the order of joining. Changes nothing."""
        members = self._shared.look().members
        dead = set(dead_of(self._engine, {owner for _, owner, _ in members}))
        here = (member for member in members if member[1] not in dead)
        return [Member(number, self._engine.describe(owner), information) for number, owner, information in here]

    def __len__(self) -> int:
        return len(self.members())

    def wait_for(self, n: int, timeout: float | None = None) -> list[Member]:
        """Wait for `n` members or more and return them. Raises `WaitTimeout` after `timeout` seconds (None: never)."""

        def look() -> Any:
            members = self.members()
            return members if len(members) >= n else NOT_YET

        found: list[Member] = self._waiter.until(look, timeout)
        if found is NOT_YET:
            raise WaitTimeout(
                f"the group {self.name!r} had not {n} members within {some_seconds(timeout)}, but {len(self)}; are the "
                "others running?",
                key=self.name,
                waited=timeout,
            )
        return found

    def __enter__(self) -> Group:
        self.join()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.leave()

    def statistics(self) -> GroupStatistics:
        """Return a snapshot; changes nothing."""
        return GroupStatistics(tuple(self.members()), self._shared.look().joined)

    def _state(self) -> str:
        return f"{len(self)} members"
