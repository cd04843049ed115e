"""Wake-ups: inotify wakes waiters on one host; on a network file system they poll."""
