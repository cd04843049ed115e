"""What only a store on a server can be asked: cut lines, a server that dies, URLs, and everything above the engine."""
