"""Counters of packets that XFRM dropped: /proc/net/xfrm_stat (Documentation/networking/xfrm_proc.rst)."""

from pathlib import Path

# Of this thread, not of the process: threads may be in different network namespaces.
PROC_FILE = Path("/proc/thread-self/net/xfrm_stat")


def read_statistics() -> dict[str, int]:
    """The counters by the kernel's names; empty where the kernel keeps none (CONFIG_XFRM_STATISTICS)."""
    try:
        text = PROC_FILE.read_text(encoding="ascii")
    except FileNotFoundError:
        return {}
    return parse_statistics(text)


def parse_statistics(text: str) -> dict[str, int]:
    """Lines of a name and a number."""
    pairs = (line.split() for line in text.splitlines() if line.strip())
    return {name: int(number) for name, number in pairs}
