"""Who was refused: one line in the log and a count for each, and never what they showed.

    refused(reason, where, who)      a caller without a right token, with another's run, without a certificate
    COUNTS                           how many so far, by reason
    LISTENERS                        called with each reason, for a metric

Reasons: BAD_TOKEN, NOT_YOURS, BAD_PASSWORD, NO_CERTIFICATE, BAD_CERTIFICATE, NO_TLS.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

log = logging.getLogger(__name__)

COUNTS: Counter[str] = Counter()
LISTENERS: list[Callable[[str], None]] = []


def refused(reason: str, where: str, who: str = "") -> None:
    """Logs and counts one refusal. `where`: the call or the page; `who`: an address or a known name."""
    COUNTS[reason] += 1
    log.warning("refused %s: %s%s", where, reason, f" ({who})" if who else "")
    for listener in LISTENERS:
        listener(reason)
