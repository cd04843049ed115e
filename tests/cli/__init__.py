"""The `psync` command as people use it: in a shell, reading what it prints and its exit code."""
