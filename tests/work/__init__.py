"""Calls that travel."""
