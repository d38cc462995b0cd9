"""Tests of hauberk_ike: whole conversations between two endpoints in memory, and each part by itself."""
