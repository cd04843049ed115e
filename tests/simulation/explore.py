"""A scenario under many seeds, each another history."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.simulation.pool import Pool
from tests.simulation.schedule import Schedule
from tests.support import SCALE, scaled

Scenario = Callable[[Schedule], object]
"""Says who does what (`Schedule.actor`), lets them (`Schedule.run`), and asserts what must hold then."""

SCHEDULES = 3000


def explore(scenario: Scenario, schedules: int = SCHEDULES, **terms: Any) -> None:
    """Raises what went wrong in the first schedule in which anything did, with its seed and all that happened.

    `terms`: what `Schedule` takes beside the seed. An ordinary run plays half of the schedules.
    """
    with Pool() as pool:
        for seed in range(scaled(schedules if SCALE > 1 else schedules / 2)):
            _play(scenario, seed, pool, terms)


def replay(scenario: Scenario, seed: int, **terms: Any) -> Schedule:
    """The same again, of one seed."""
    with Pool() as pool:
        return _play(scenario, seed, pool, terms)


def first_failure(scenario: Scenario, **terms: Any) -> tuple[int, Exception]:
    """The first seed under which the scenario fails, and how. It must be one of the first 3,000."""
    with Pool() as pool:
        for seed in range(SCHEDULES):
            try:
                _play(scenario, seed, pool, terms)
            except Exception as error:
                return seed, error
    raise AssertionError(f"{SCHEDULES} schedules found nothing wrong")


def _play(scenario: Scenario, seed: int, pool: Pool, terms: dict[str, Any]) -> Schedule:
    schedule = Schedule(seed, pool, **terms)
    try:
        scenario(schedule)
    except Exception as error:
        error.add_note(schedule.story())
        raise
    return schedule
