"""Many processes at once: what they did is recorded with times, and then judged.

`history` records, `linearizable` judges, `simultaneous` starts the processes; the tests here touch psync by its
public names only, and every one of them would notice an answer that no single-file order of events explains.
"""
