"""Serves RunService alone, beside services that run elsewhere: `python -m orchestrator.serve`.

Any number of them may share one database: they share its runs, and take over those of one that died.
"""

from __future__ import annotations

import asyncio
import sys

from orchestrator.service import RunService
from services.kit import logs
from services.kit.server import serve
from services.kit.settings import Settings


def main() -> int:
    """Serves until SIGTERM; returns the exit status."""
    settings = Settings()
    logs.configure(settings.log_level, settings.log_format)
    return asyncio.run(serve(RunService(settings), settings))


if __name__ == "__main__":
    sys.exit(main())
