"""Mutexes: exclusion that ends with its holder."""
