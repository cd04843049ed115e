"""Registers: a small state changed under its lock by one write; slots that each have a single writer."""
