"""The command line: one module a verb, grouped by whom it serves."""
