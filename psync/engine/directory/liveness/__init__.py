"""Liveness: one locked file per process tells which owners live."""
