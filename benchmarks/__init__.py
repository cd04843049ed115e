"""How fast psync is beside what one would otherwise pick, measured in the same run.

    python -m benchmarks [--quick] [--fs tmpfs,ext4,DIR] [question ...]

One file per question (`store category wake queues barrier locks startup floor`), one adapter per peer in `peers/`.
Every measurement is a fresh process; psync and its peers take turns in shuffled order, round after round, so that
whatever else the machine does hits all of them alike. Only the ratios mean anything on another machine. `targets.py`
says which ratios are wanted.
"""
