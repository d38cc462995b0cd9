"""IKEv2's bytes (RFC 7296 section 3): each payload a frozen dataclass with `parse()` and `build()` side by side.

`parse()` takes any bytes from anybody, and returns or raises `MalformedMessage` (`UnsupportedCritical` for whole
messages): lengths are checked before anything is interpreted, and the number of items is capped.
"""
