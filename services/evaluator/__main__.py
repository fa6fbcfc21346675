"""Starts the evaluator service: `python -m services.evaluator`."""

from __future__ import annotations

import asyncio
import sys

from services.evaluator.service import EvaluatorService
from services.kit import logs
from services.kit.server import serve
from services.kit.settings import Settings


def main() -> int:
    """Serves until SIGTERM; returns the exit status."""
    settings = Settings()
    logs.configure(settings.log_level, settings.log_format)
    return asyncio.run(serve(EvaluatorService(settings), settings))


if __name__ == "__main__":
    sys.exit(main())
