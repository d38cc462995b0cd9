"""Faults without end under steady traffic: `make soak`, or `python -m tests.soak --help`."""
