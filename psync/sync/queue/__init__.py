"""The work queue: put, claim, answer, retry; task ids, priorities, delays, results and dead letters."""
