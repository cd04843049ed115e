"""How fast psync is beside what one would otherwise pick, measured in the same run.

    python -m benchmarks                      all of it: about 12 minutes, results in benchmarks/results/full
    python -m benchmarks --quick              under two minutes, results in benchmarks/results/quick
    python -m benchmarks store locks.rivals   these questions, or cases, only
    python -m benchmarks --minutes 5 --fs tmpfs,disk,ext4,/mnt/nfs

    python -m benchmarks.security             what a key costs, beside psync without one
    python -m benchmarks.redis                psync on a Redis server, beside redis-py by hand, rq and huey

One file per question, one adapter per peer in `peers/`; a peer that is not installed is left out, and that is said.
Every measurement is a fresh process. Cases come in shuffled order, round after round, until each had its rounds or the
time is up; psync and its peers take turns within a case, so that whatever else the machine does hits all of them
alike. Only ratios mean anything on another machine. The floor beside them is the same system calls from plain Python.
`targets.py` says which ratios are wanted.

Each run writes what it measured (`run.jsonl`), a table (`table.md`) and pictures; `--redraw` makes these anew.
"""
