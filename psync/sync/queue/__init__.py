"""Floor 2, the work queue: tasks that are put, claimed, and acknowledged; `work_queue.WorkQueue` is the primitive.

Putting: `put` (producers), `priorities`, `delays`, `task_id`. Claiming: `consumer`, `prefetch`, `claims`. Ending a
claim: `task`, `ack_buffer`, `claims` (with the recovery of dead workers' claims). Reading: `task_index` (ids, history,
dead letters), `results`. `migrate` copies a queue to another store.

A module imports only those that stand before it in this order: task_id, priorities, delays, task_index, claims,
ack_buffer, prefetch, task, results, put, consumer, work_queue, migrate.
"""
