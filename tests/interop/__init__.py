"""Hauberk's IKEv2 against the daemons that others wrote, over real ESP; `python -m tests.interop` runs all of it."""
