"""What stops the benchmark of IKEv2: one sentence for people."""


class BenchmarkError(Exception):
    """Something that could not be measured, and why."""
