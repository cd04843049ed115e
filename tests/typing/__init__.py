"""What a type checker sees of psync from the outside; the snippets are read by mypy, and run by nobody."""
