"""Serves RunService alone, beside services that run elsewhere: `python -m orchestrator.serve`.

Any number of them may share one database: they share its runs, and take over those of one that died.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys

from orchestrator.service import RunService
from services.kit import logs
from services.kit.server import serve
from services.kit.settings import Settings


def main() -> int:
    """Serves until SIGTERM; returns the exit status."""
    settings = Settings()
    logs.configure(settings.log_level, settings.log_format)
    return asyncio.run(_serve(settings))


async def _serve(settings: Settings) -> int:
    status = await serve(RunService(settings), settings)
    logging.shutdown()
    # All is closed. Threads of the workflow engine that still ask a database which is away must not keep the process.
    os._exit(status)


if __name__ == "__main__":
    sys.exit(main())
