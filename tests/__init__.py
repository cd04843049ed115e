"""The contract of psync, sentence by sentence."""
