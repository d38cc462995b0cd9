"""What can go wrong between this package and the kernel.

    XfrmError                 a request failed: which one, about what, errno, and the kernel's own words
    |-- PolicyExists          NEWPOLICY: somebody has a policy in that slot
    |-- StateExists           NEWSA: there is a state with that destination and SPI
    |-- NotFound              no such policy or state (any more)
    |-- NotSupported          this kernel cannot do that: no XFRM, no ESP, no such algorithm or mode
    `-- PermissionDenied      CAP_NET_ADMIN is missing, or CAP_NET_RAW where packets are watched

Local misuse (families that differ, a key missing) is a `ValueError`.
"""

import os
from errno import EACCES, EAFNOSUPPORT, ENOENT, ENOPROTOOPT, ENOSYS, EOPNOTSUPP, EPERM, EPROTONOSUPPORT, ESRCH


class XfrmError(Exception):
    """The kernel refused `operation` on `subject` with `errno`; `reason` is the kernel's extended message, if any."""

    def __init__(self, operation: str, subject: str, errno: int, reason: str | None = None) -> None:
        super().__init__(operation, subject, errno, reason)
        self.operation = operation
        self.subject = subject
        self.errno = errno
        self.reason = reason

    def __str__(self) -> str:
        what = f"{self.operation}: {self.subject}" if self.subject else self.operation
        words = os.strerror(self.errno)
        return f"{what}: {words} ({self.reason})" if self.reason else f"{what}: {words}"


class PolicyExists(XfrmError):  # noqa: N818
    """Another policy lies in the same slot. It may be somebody else's: look before updating."""


class StateExists(XfrmError):  # noqa: N818
    """A state with the same destination, SPI and protocol exists already."""


class NotFound(XfrmError):  # noqa: N818
    """There is no such state or policy."""


class NotSupported(XfrmError):  # noqa: N818
    """The kernel lacks what the request needs."""


class PermissionDenied(XfrmError):  # noqa: N818
    """The process lacks CAP_NET_ADMIN in the user namespace that owns its network namespace.

    To watch packets CAP_NET_RAW.
    """


_KINDS: dict[int, type[XfrmError]] = {
    EPERM: PermissionDenied,
    EACCES: PermissionDenied,
    ESRCH: NotFound,
    ENOENT: NotFound,
    EPROTONOSUPPORT: NotSupported,
    EOPNOTSUPP: NotSupported,
    EAFNOSUPPORT: NotSupported,
    ENOPROTOOPT: NotSupported,
    ENOSYS: NotSupported,
}


def error_from_errno(operation: str, subject: str, errno: int, reason: str | None) -> XfrmError:
    """The kind of error that an errno means, whatever the request was."""
    return _KINDS.get(errno, XfrmError)(operation, subject, errno, reason)
