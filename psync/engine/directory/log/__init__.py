"""The log: records in segments, a status for each, and the cursors that claims move.

`log.DirectoryLog` is the handle; `state` holds what it knows, and each other file is one of its verbs or one of its
files on disk.
"""
