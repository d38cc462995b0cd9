"""A real API server of its own, without nodes: for tests of admission, RBAC and the operator."""

from tests.apiserver.server import ApiServer

__all__ = ["ApiServer"]
