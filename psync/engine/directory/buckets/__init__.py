"""Buckets: a pickled dict in one file that grows at its end, and appends to several of them at one instant."""
