"""Commands: `psync run` starts programs, one a line of input, in process groups of their own."""
