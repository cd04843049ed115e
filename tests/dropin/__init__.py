"""psync.pickleshare in the place of pickleshare: its own tests, both IPythons, and directories passed to and fro."""
