"""Floor 4: the `psync` command. `main` parses the command line and runs one sub command.

Each sub command has a module of its own, with `options` and `run`; `psync.cli.main.COMMANDS` lists them. Its errors and
exit codes are in `errors`, the arguments that several of them take in `arguments`, and what they print in `text`,
`literal` and `tables`. This floor is the only one that prints.
"""
