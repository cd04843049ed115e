"""The directory engine: keep everything in the files of one directory.

``layout`` builds every path. ``fs`` makes the system calls: atomic files, local or on NFS. Each shape has a folder:
``cells``, ``buckets``, ``registers``, ``log``; and so have ``locks``, ``liveness`` (which owners live) and ``notify``
(how a wait ends). ``handles`` keeps one handle a name, ``scan`` lists a directory, ``engine`` composes the parts.
``admin`` is what ``psync doctor`` and observers use.
"""

from __future__ import annotations

from psync.engine.directory.engine import DirectoryEngine

__all__ = ["DirectoryEngine"]
