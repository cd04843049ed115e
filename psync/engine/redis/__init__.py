"""Redis engine: keeps the contract on a Redis or Valkey server, for stores that outgrow a shared directory.

Every verb is one round trip: one short script that runs alone on the server, or one plain read. The server pushes what
ends a wait (pub/sub). Liveness is a lease on the server's clock, which a thread renews, and for processes of the same
host their process table.

``url`` reads the URL; ``connections`` and ``client`` send commands, and repeat them; ``lua`` are the verbs as the
server runs them; ``encoding`` is what the bytes look like there; ``sessions`` says which processes are alive, ``locks``
excludes others. ``store`` is what ``bucket``, ``log``, ``mutex``, ``register`` and ``pubsub`` share, and ``engine``
composes these. ``scan``, ``read_only``, ``server_info`` and ``doctor`` look at the whole. Nothing here touches files.

A lease does not promise that its holder learns of its end in time. A process that the server does not hear of for the
length of its lease (stopped, or cut off) counts as dead: its locks are free, and its claims go to others. Its
later changes are refused by its token or its claim. It goes on as a new owner.
"""

from __future__ import annotations
