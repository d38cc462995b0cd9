"""Hostile bytes, found by a machine: `make fuzz SECONDS=600` looks for them, `test_corpus.py` goes over known ground.

A *target* is a function of bytes that raises if anything is wrong with what the code makes of them.
"""
