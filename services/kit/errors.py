"""The exception tree. A message says what was wrong, what was wanted and what was given.

    P2MError
    ├── InvalidArgument      the request itself is wrong; `field` names the part
    ├── NotFound             no such run, dataset, model, artifact
    ├── AlreadyExists        the id or name is taken by other content
    ├── FailedPrecondition   the request is right and the world is not: a gated dataset, too few rows
    ├── Unauthenticated      a wrong or missing key, token or certificate
    ├── PermissionDenied     a right key that may not do this
    ├── ResourceExhausted    something is used up
    │   ├── NoFreeSlot       this replica is busy: try a sibling, then wait `retry_after` seconds
    │   ├── BudgetExhausted  the allowance is spent
    │   └── DiskFull         no space left where artifacts or checkpoints go
    ├── Aborted              somebody else is doing this
    ├── Cancelled            stopped on request
    ├── DeadlineExceeded     it took longer than it may
    ├── Unavailable          a server is out of reach; trying again may help
    ├── DataLoss             stored bytes are not what was stored
    ├── Unimplemented        this implementation does not offer it
    └── Internal             a bug of ours

`status` maps them to and from google.rpc.Status; nothing here knows gRPC.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import ClassVar


class P2MError(Exception):
    """An error a caller can act on.

    `reason` is machine-readable (UPPER_SNAKE); `message` is for a person; `field` is the request's field that was
    wrong; `retry_after` is in seconds.
    """

    code: ClassVar[str] = "INTERNAL"

    def __init__(self, reason: str, message: str, *, field: str = "", retry_after: float | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.field = field
        self.retry_after = retry_after

    def __str__(self) -> str:
        return self.message


class InvalidArgument(P2MError):
    """The request itself is wrong, whatever the state of the system."""

    code = "INVALID_ARGUMENT"


class NotFound(P2MError):
    """What was named does not exist."""

    code = "NOT_FOUND"


class AlreadyExists(P2MError):
    """The id or name is taken by other content."""

    code = "ALREADY_EXISTS"


class FailedPrecondition(P2MError):
    """The system must change before this can work; trying again alone does not help."""

    code = "FAILED_PRECONDITION"


class Unauthenticated(P2MError):
    """A wrong or missing key, token or certificate."""

    code = "UNAUTHENTICATED"


class PermissionDenied(P2MError):
    """A right key that may not do this."""

    code = "PERMISSION_DENIED"


class ResourceExhausted(P2MError):
    """Something is used up."""

    code = "RESOURCE_EXHAUSTED"


class NoFreeSlot(ResourceExhausted):
    """Every slot of this replica is taken."""

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__("NO_FREE_SLOT", message, retry_after=retry_after)


class BudgetExhausted(ResourceExhausted):
    """The allowance does not pay for another request."""

    def __init__(self, message: str) -> None:
        super().__init__("BUDGET_EXHAUSTED", message)


class DiskFull(ResourceExhausted):
    """No space left on the device."""

    def __init__(self, message: str) -> None:
        super().__init__("DISK_FULL", message)


class Aborted(P2MError):
    """Somebody else is doing this."""

    code = "ABORTED"


class Cancelled(P2MError):
    """Stopped on request."""

    code = "CANCELLED"


class DeadlineExceeded(P2MError):
    """It took longer than it may."""

    code = "DEADLINE_EXCEEDED"


class Unavailable(P2MError):
    """A server is out of reach or overloaded."""

    code = "UNAVAILABLE"


class DataLoss(P2MError):
    """Stored bytes are not what was stored."""

    code = "DATA_LOSS"


class Unimplemented(P2MError):
    """This implementation does not offer it."""

    code = "UNIMPLEMENTED"


class Internal(P2MError):
    """A bug of ours."""

    code = "INTERNAL"


_BY_REASON: dict[str, Callable[[str], P2MError]] = {"BUDGET_EXHAUSTED": BudgetExhausted, "DISK_FULL": DiskFull}
_BY_CODE: dict[str, type[P2MError]] = {
    cls.code: cls
    for cls in (
        InvalidArgument, NotFound, AlreadyExists, FailedPrecondition, Unauthenticated, PermissionDenied,
        ResourceExhausted, Aborted, Cancelled, DeadlineExceeded, Unavailable, DataLoss, Unimplemented, Internal,
    )
}  # fmt: skip


def rebuild(code: str, reason: str, message: str, *, field: str = "", retry_after: float | None = None) -> P2MError:
    """The exception with these parts, of the tree's own class; an unknown code becomes Internal."""
    if reason == "NO_FREE_SLOT":
        return NoFreeSlot(message, 1.0 if retry_after is None else retry_after)
    if reason in _BY_REASON:
        return _BY_REASON[reason](message)
    return _BY_CODE.get(code, Internal)(reason, message, field=field, retry_after=retry_after)


def from_os_error(error: OSError, doing: str) -> P2MError:
    """What an OSError means to a caller; `doing` says what was tried, for example "Writing the checkpoint"."""
    if isinstance(error, TimeoutError):
        return DeadlineExceeded("TIMEOUT", f"{doing}: it took longer than it may. {error}".rstrip())
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return DiskFull(f"{doing}: {error.strerror}. Free some space and run the same command again.")
    if isinstance(error, PermissionError):
        return PermissionDenied("FILE_PERMISSION", f"{doing}: permission denied for {error.filename}.")
    if isinstance(error, FileNotFoundError):
        return NotFound("NO_SUCH_FILE", f"{doing}: there is no file {error.filename}.")
    return Unavailable("IO_ERROR", f"{doing}: {error}")
