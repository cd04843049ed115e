"""Snippets are no tests: nothing imports them."""

collect_ignore = ["snippets"]
