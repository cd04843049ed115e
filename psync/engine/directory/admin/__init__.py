"""Administration: reading without writing, the doctor, leftovers of killed processes, quarantine.

Loaded when first asked for; no verb of an engine needs it.
"""
