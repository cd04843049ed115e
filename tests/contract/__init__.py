"""The contract of `psync.engine.contract`, one file per shape, run on every engine."""
