"""Who was refused: one line in the log and a count for each, and never what they showed.

    refused(reason, where, who)      a caller without a right token, with another's run, without a certificate
    COUNTS                           how many so far in this process, by reason

Reasons: BAD_TOKEN and NOT_YOURS of calls (which `telemetry` counts as refused calls too); BAD_PASSWORD of the page,
NO_CERTIFICATE, BAD_CERTIFICATE and NO_TLS of connections, which never become calls and are added to the same metric.
"""

from __future__ import annotations

import logging
from collections import Counter

from services.kit.telemetry import metrics

log = logging.getLogger(__name__)

COUNTS: Counter[str] = Counter()


def refused(reason: str, where: str, who: str = "", part: str = "") -> None:
    """Logs and counts one refusal. `where`: the call or the page; `who`: an address or a known name.

    `part` names the service, of what is no call.
    """
    COUNTS[reason] += 1
    log.warning("refused %s: %s%s", where, reason, f" ({who})" if who else "")
    if part:
        metrics.CALLS_REFUSED.add(1, part, reason)
