"""Logs: one line a record on standard error, readable by people; the level from P2M_LOG_LEVEL."""

from __future__ import annotations

import logging
import sys


def configure(level: str) -> None:
    """Sends all logs to standard error; keeps chatty libraries at WARNING."""
    logging.basicConfig(
        level=level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    for chatty in (
        "httpx", "httpx2", "httpcore", "openai", "urllib3", "datasets", "sentence_transformers", "bm25s", "dbos",
    ):  # fmt: skip
        logging.getLogger(chatty).setLevel(logging.WARNING)
