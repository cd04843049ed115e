"""The engine on a Redis or Valkey server: the contract for those who outgrow a shared directory.

Every verb is one round trip: one short script that runs alone on the server, or one plain read. Waits are pushed by
the server (pub/sub). Liveness is a lease on the server's clock, kept alive by a thread, and the table of processes
for who is on the same host.

``address`` reads the URL; ``server`` sends and repeats; ``scripts`` are the verbs as the server runs them; ``stored``
is what the bytes look like there; ``owners`` and ``holds`` are who is alive and who keeps others out; ``engine``,
``bucket``, ``log``, ``mutex``, ``register`` and ``watch`` are the contract. Nothing here touches files.

What a lease does not promise: that its holder knows in time. A process that the server does not hear of for the length
of its lease (stopped, or cut off) counts as dead; what it held is free, what it claimed goes to others, and what it
says later is refused by its token or its claim. It goes on as a new owner.
"""

from __future__ import annotations
