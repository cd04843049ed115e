"""A parameter sweep. Start it as often as you like, at once or again after a kill, on whatever sees the directory: each
point is computed once, and what is there is there. `collect.py`, started whenever you like, gathers the results.

    python examples/sweep.py shared & python examples/sweep.py shared & python examples/collect.py shared
"""

from __future__ import annotations

import sys
from itertools import product

from psync import WorkQueue

RATES = [0.1, 0.5, 1.0, 2.0]
STEPS = [10, 100, 1_000, 10_000]
POINTS = {f"rate {rate} in {steps} steps": (rate, steps) for rate, steps in product(RATES, STEPS)}


def decay(rate: float, steps: int) -> float:
    """What is left of 1 after a second of decaying at `rate`, by so many steps of Euler's method."""
    left = 1.0
    for _ in range(steps):
        left -= left * rate / steps
    return left


def main(shared: str) -> int:
    queue = WorkQueue(shared, "sweep")
    for name, point in POINTS.items():
        queue.put(point, id=name)  # put by every script that is started, and yet there once
    for task in queue:
        with task:
            task.done(decay(*task.value))
    if queue.dead():
        print("some points failed for good:", *queue.dead(), file=sys.stderr)
        return 1
    print(f"all {len(POINTS)} points are computed")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
