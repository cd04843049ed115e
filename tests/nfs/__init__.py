"""psync on real NFS: a server and clients, each a kernel of its own, on this machine. ``tox -e nfs`` runs it."""
