"""The command line: each command is one function, with its options, its work and its output."""
