"""What encryption leaves of a path's throughput: ours, `ip xfrm` by hand, WireGuard, plain (`make bench-path`)."""
