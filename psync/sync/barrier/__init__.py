"""Barriers: `barrier` (the primitive), `state` (one round as a value), `fast_path` (arriving without a lock)."""
