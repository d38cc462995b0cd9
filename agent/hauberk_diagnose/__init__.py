"""The diagnostic command `hauberk-ike`: IKEv2 from a shell, against any daemon.

`initiate` and `respond` drive an `hauberk_ike` endpoint on real sockets, say what happens, and install the SAs in the
kernel if asked to; `decode` prints what is in a capture. Start reading at hauberk_diagnose.cli.
"""
