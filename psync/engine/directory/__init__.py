"""The engine that keeps everything in one directory: what it does to the file system, one idea a file.

``names`` builds every path; ``files`` opens, replaces and links; ``probe`` looks at the file system once;
``cells``, ``buckets`` and ``logs`` are the three shapes (a log's files: ``segment_files``, with ``records`` and
``mark_file``; its numbers: ``block``, with ``copies``); ``wake`` (with ``inotify``) is how waiting
ends; ``engine`` puts them together.
"""

from __future__ import annotations

from psync.engine.directory.engine import DirectoryEngine

__all__ = ["DirectoryEngine"]
