"""Connections that a server refused because of their certificate: told in the log and counted.

gRPC refuses them before there is a call, and says so only in its own log on standard error. So while a server with TLS
runs, that log is read on its way: what is no such line goes where it went.

    with watched("trainer"): ...     file descriptor 2 goes through here
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator

from services.kit.refused import refused

_FAILED = b"Handshake failed"
_REASONS = {b"PEER_DID_NOT_RETURN_A_CERTIFICATE": "NO_CERTIFICATE", b"WRONG_VERSION_NUMBER": "NO_TLS"}
_END_WITHIN_S = 2.0


def reason_of(line: bytes) -> str | None:
    """Why gRPC's line says that a handshake failed; None where it says no such thing."""
    if _FAILED not in line or b"ssl_transport_security" not in line:
        return None
    return next((reason for said, reason in _REASONS.items() if said in line), "BAD_CERTIFICATE")


@contextlib.contextmanager
def watched(part: str) -> Iterator[None]:
    """Reads standard error for refused connections of `part`, for as long as it lasts."""
    reads, writes = os.pipe()
    kept = os.dup(2)
    sys.stderr.flush()
    os.dup2(writes, 2)
    os.close(writes)
    reader = threading.Thread(target=_read, args=(reads, kept, part), daemon=True)
    reader.start()
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)  # closes the pipe, unless a child has it still
        reader.join(_END_WITHIN_S)


def _read(reads: int, kept: int, part: str) -> None:
    rest = b""
    while data := os.read(reads, 1 << 16):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            reason = reason_of(line)
            if reason is None:
                _write(kept, line + b"\n")
            else:
                # Not from here: its line goes to standard error, which nobody else reads.
                threading.Thread(target=refused, args=(reason, f"a connection to {part}", "", part)).start()
    _write(kept, rest)


def _write(kept: int, data: bytes) -> None:
    while data:
        with contextlib.suppress(InterruptedError):
            data = data[os.write(kept, data) :]
