"""Administration: reading without writing, the doctor, leftovers of killed processes, quarantine.

Loaded on first use; no verb of an engine needs it.
"""
