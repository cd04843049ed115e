"""Cells: one value a file, replaced whole; on one host (`local`), and on NFS (`nfs`)."""
