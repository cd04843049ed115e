"""How many neighbours predict best? Each number of them is tried by joblib, on psync's workers.

To `joblib`, and so to scikit-learn, psync is a backend: the two lines around the search are all there is to it. With
a directory, other processes may help: ``psync worker DIR --queue joblib``. The same is then done by this process
alone: both must agree.
"""

from __future__ import annotations

import math
import random
import sys
import tempfile

import joblib

import psync.joblib  # makes the backend known

POINTS, MOST = 400, 20
Points = list[tuple[float, float]]


def sample() -> Points:
    draw = random.Random(7)
    return [(x, math.sin(x) + draw.gauss(0, 0.4)) for x in (draw.uniform(0, 10) for _ in range(POINTS))]


def error(points: Points, neighbours: int) -> float:
    """The mean squared error when each point is predicted by those that are nearest to it."""
    total = 0.0
    for place, (x, y) in enumerate(points):
        others = points[:place] + points[place + 1 :]
        nearest = sorted(others, key=lambda other: abs(other[0] - x))[:neighbours]
        total += (y - sum(other[1] for other in nearest) / neighbours) ** 2
    return total / len(points)


def search(points: Points) -> list[float]:
    return list(joblib.Parallel()(joblib.delayed(error)(points, count) for count in range(1, MOST + 1)))


def main() -> int:
    points = sample()
    with tempfile.TemporaryDirectory() as shared, joblib.parallel_config("psync", dir=shared, n_jobs=2):
        errors = search(points)
        psync.joblib.shutdown()  # or they wait for more to do, and the directory is to be gone
    best = min(range(MOST), key=errors.__getitem__)
    print(f"{best + 1} neighbours predict best: their error is {errors[best]:.3f}, that of one {errors[0]:.3f}")
    if errors != [error(points, count) for count in range(1, MOST + 1)]:
        print("the errors differ", file=sys.stderr)
        return 1
    print("the errors agree")
    return 0


if __name__ == "__main__":
    sys.exit(main())
