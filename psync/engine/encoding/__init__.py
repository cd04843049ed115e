"""Bytes as they are stored: framing with length and checksum, and a scan of pickles that psync did not write.

Pure functions: no I/O, no unpickling.
"""
