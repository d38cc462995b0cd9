"""Tests against a real API server without nodes."""

from tests.apiserver.fixtures import apiserver

__all__ = ["apiserver"]
