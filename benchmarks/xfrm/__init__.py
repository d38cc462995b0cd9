"""States and policies programmed in a real kernel: ours against `ip -batch` (`make bench-xfrm`)."""
