"""The log: records in segments, a mutable status for each, and the cursors that claims move.

`log.DirectoryLog` is the handle. It binds the verbs of `append`, `claim`, `settle` and `inspect`; below them are
`requeue`, `repair` and `recovery`, and all share one `state`. `nfs_log` and `nfs_segments` have what differs on a
network file system. The other modules are the files on disk: `header` and `double_buffer` (``tail``, ``front``,
``sync``), `segments` and `segment_files` with `record_format`, `status_file` and `status_batch`, `position_file`,
`lost_ranges`.
"""
