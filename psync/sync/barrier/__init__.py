"""Barriers: the rounds of `Barrier`, and the fast path of parties that met before."""
