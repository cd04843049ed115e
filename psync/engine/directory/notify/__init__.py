"""Wake-ups: who waits for a name is woken by inotify on one host, and polls on a network file system."""
