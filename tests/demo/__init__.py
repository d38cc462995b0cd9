"""`make demo`: the whole of Hauberk on real kernels, told as a story whose every claim is checked."""
