"""What is promised of a `DoubleBarrier` beyond what its barrier promises."""

from __future__ import annotations

from pathlib import Path

import pytest

from psync import BrokenBarrierError, DoubleBarrier
from psync.engine import open_engine
from tests.concurrency.simultaneous import together
from tests.sync.kinds import everything_in


def test_to_ask_whether_one_is_inside_writes_nothing(root: Path) -> None:
    step = DoubleBarrier(open_engine(root), "step", 2)
    before = everything_in(root)
    assert not step.inside
    assert everything_in(root) == before


def test_nobody_is_inside_before_all_are_and_nobody_outside_before_all_have_left(root: Path, tmp_path: Path) -> None:
    def work(me: int) -> list[set[str]]:
        step, seen = DoubleBarrier(root, "step", 3), []
        for turn in range(10):
            (tmp_path / f"here {turn} {me}").touch()
            step.enter()
            seen.append({path.name for path in tmp_path.glob(f"here {turn} *")})
            assert step.inside
            (tmp_path / f"left {turn} {me}").touch()
            step.leave()
            assert not step.inside
            seen.append({path.name for path in tmp_path.glob(f"left {turn} *")})
        return seen

    for seen in together([lambda me=me: work(me) for me in range(3)]):
        assert seen == [{f"{what} {turn} {me}" for me in range(3)} for turn in range(10) for what in ("here", "left")]


def test_who_is_inside_can_not_enter_and_who_is_not_can_not_leave(root: Path) -> None:
    step = DoubleBarrier(root, "step", 1)
    with pytest.raises(RuntimeError, match="has not entered 'step'"):
        step.leave()
    with step, pytest.raises(RuntimeError, match=r"has entered 'step' already: leave\(\) comes first"):
        step.enter()
    assert not step.inside


def test_who_leaves_by_an_error_breaks_it_for_all_until_it_is_reset(root: Path) -> None:
    step, other = DoubleBarrier(root, "step", 1), DoubleBarrier(root, "step", 1)
    with pytest.raises(ZeroDivisionError), step:
        raise ZeroDivisionError
    assert not step.inside
    with pytest.raises(BrokenBarrierError):
        other.enter()
    step.reset()
    with other:
        assert other.inside


def test_who_enters_too_late_breaks_it_for_who_waited(root: Path) -> None:
    step = DoubleBarrier(root, "step", 2)
    with pytest.raises(BrokenBarrierError, match=r"somebody waited 0\.02 seconds"):
        step.enter(timeout=0.02)
    assert not step.inside
