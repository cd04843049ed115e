"""Commands: `psync run` starts programs, one for each line of input, in process groups of their own."""
