"""Elections and groups: one leads at a time, and who is here is known."""

from __future__ import annotations

import pytest

from psync.engine import MemoryEngine
from psync.sync import Election, Group
from tests.simulation.actor import Stuck
from tests.simulation.explore import explore, first_failure
from tests.simulation.occupancy import Occupancy
from tests.simulation.planted_bugs import look_before_watching, read_then_write
from tests.simulation.schedule import Schedule


def campaigns(schedule: Schedule) -> None:
    leading = Occupancy(schedule)
    tokens: list[int] = []

    def work(engine: MemoryEngine) -> None:
        election = Election(engine, "chief")
        for _ in range(2):
            assert election.campaign()
            with leading.entered(engine):
                assert len(leading) == 1 and election.is_leader()
                assert election.leader() == engine.describe(engine.owner())
                tokens.append(election.token)
            election.resign()
            assert not election.token

    for _ in range(3):
        schedule.actor(work)
    schedule.run()
    assert tokens == sorted(set(tokens)) and Election(schedule.engine, "chief").leader() is None


def test_one_leads_at_a_time_and_when_it_dies_another_one_does() -> None:
    explore(campaigns, kills=2, turns=40)


def gather(schedule: Schedule) -> None:
    """Two stay, two come and go; whoever waits for so many sees them."""
    living = Occupancy(schedule)
    numbers: list[int] = []

    def come_and_go(engine: MemoryEngine) -> None:
        crew = Group(engine, "crew")
        numbers.append(crew.join("come and go").number)
        with living.entered(engine):
            before = living.now()
            assert len(crew.members()) >= len(before & living.now())
        crew.leave()

    def stay(engine: MemoryEngine) -> None:
        numbers.append(Group(engine, "crew").join("stay").number)

    def wait(engine: MemoryEngine) -> None:
        assert len(Group(engine, "crew").wait_for(2)) >= 2

    for job in (wait, stay, come_and_go, stay, come_and_go):
        schedule.actor(job, mortal=job is come_and_go)
    schedule.run()
    assert len(numbers) == len(set(numbers))
    assert [member.information for member in Group(schedule.engine, "crew").members()] == ["stay"] * 2


def test_a_group_has_all_who_joined_but_those_who_left_or_died() -> None:
    explore(gather, kills=2, turns=40)


# -- what was planted is found -----------------------------------------------------------------------


class Usurper(Election):
    """Campaigns by looking who leads."""

    def campaign(self, timeout: float | None = None) -> bool:
        while self._engine.read("chief") is not None:
            pass
        self._engine.write("chief", b"N.")
        return True

    def resign(self) -> None:
        self._engine.delete("chief")


def test_an_election_that_looks_before_it_leads_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "Election", Usurper)
    assert not isinstance(first_failure(campaigns)[1], Stuck)


def test_a_member_that_is_read_and_then_written_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    read_then_write(monkeypatch)
    first_failure(gather)


def test_who_looks_before_it_watches_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    look_before_watching(monkeypatch)
    assert isinstance(first_failure(gather)[1], Stuck)
