"""`make bench-ike`: our IKEv2 against charon's, the same handshakes over a real wire, in one run."""
