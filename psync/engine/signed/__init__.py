"""Signed engine: authenticates every payload of another engine with a key (HMAC); it does not encrypt.

A reader never gets bytes that no holder of the key wrote. ``signature`` puts a tag before a payload and verifies
it, ``shapes`` and ``engine`` put the contract's verbs around that, ``keys`` finds the keys. Nothing here knows a path
or a file of the store.
"""
