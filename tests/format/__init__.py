"""The format on disk: its version, a store of each version that every later psync opens, and each file's bytes."""
