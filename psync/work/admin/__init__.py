"""Administration gives an overview of a whole store, and copies it to another place."""
