"""Thousands of seeded schedules of each primitive: actors take turns verb by verb, some die, and time is virtual.

`schedule` is the scheduler, `explore` runs a scenario under many seeds. A scenario says who does what and what must
hold, by a witness that knows nothing of the primitive. ``explore(scenario, seeds=[17])`` replays what seed 17 did.
"""
