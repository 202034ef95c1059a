"""The command line: one file per command, and shared modules (terminal, parameters, runs)."""
