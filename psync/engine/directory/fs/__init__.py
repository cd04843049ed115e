"""The file system: system calls, atomic files, permissions, capabilities, and what NFS needs besides.

The one folder that opens, links and renames; the folders beside it are written on it.
"""
