"""What the mark of a log's record may become, in whatever engine it is kept. Pure: nothing is read or changed."""

from __future__ import annotations

from psync.engine.contract import FINAL, Mark, State


def check_change(held: Mark, new: Mark) -> None:
    """Raise ValueError for what the contract forbids whatever the log holds."""
    if held.state in FINAL:
        raise ValueError(f"{held.state.name} is final; it can't become {new.state.name}")
    if (new.owner != 0) != (new.state is State.CLAIMED) and new.state is not State.DELAYED:
        raise ValueError(f"a mark has an owner if and only if it is CLAIMED, not {new}")
    if held.state is State.WAITING and new.state is State.DELAYED:
        raise ValueError("what is WAITING may be taken at any moment, so it can't become DELAYED")
    if new.attempt < held.attempt - (new.state is State.WAITING):  # less by one: as if it had not been taken
        raise ValueError(f"attempts only grow, and {new.attempt} is less than {held.attempt}")
