"""Every primitive, one contract a file."""
