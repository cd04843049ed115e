"""Gathers what `sweep.py` computes, as it arrives, and checks it: started before, beside or long after the sweep."""

from __future__ import annotations

import math
import sys

from sweep import POINTS, RATES

from psync import WorkQueue


def main(shared: str) -> int:
    worst = dict.fromkeys(RATES, math.inf)
    for name, left in WorkQueue(shared, "sweep").results.collect(POINTS, timeout=60):
        rate, steps = POINTS[name]
        error = abs(left - math.exp(-rate))
        worst[rate] = min(worst[rate], error * steps)
        print(f"{name:28} {left:.6f}, off by {error:.1e}")
    if max(worst.values()) > 1:  # Euler's error shrinks as the steps do
        print("this is not how things decay", file=sys.stderr)
        return 1
    print(f"{len(POINTS)} points, all as they should be")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
