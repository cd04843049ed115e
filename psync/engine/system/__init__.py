"""The host: process identity, clocks, hooks that run at a fork and at the end of the process.

This folder may ask the kernel and psutil; it knows nothing of stores.
"""
