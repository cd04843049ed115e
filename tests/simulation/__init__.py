"""Thousands of seeded schedules of each primitive: actors take turns verb by verb, some die, and time is virtual.

`schedule` is the scheduler, `explore` runs a scenario under many seeds. A scenario says who does what and what must
hold, by a witness that knows nothing of the primitive. ``replay(scenario, 17, ...)`` does what seed 17 did again. Each
primitive has 3,000 schedules, in one test or in several; PSYNC_TEST_SCALE makes them more.

A primitive is not only shown to pass: bugs are planted (`plants`, and at the end of each file), and must be found.
"""
