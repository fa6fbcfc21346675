"""Starts the trainer service: `python -m services.trainer`."""

from __future__ import annotations

import asyncio
import sys

from services.kit import logs
from services.kit.server import serve
from services.kit.settings import Settings
from services.trainer.service import TrainerService


def main() -> int:
    """Serves until SIGTERM; returns the exit status."""
    settings = Settings()
    logs.configure(settings.log_level, settings.log_format)
    return asyncio.run(serve(TrainerService(settings), settings))


if __name__ == "__main__":
    sys.exit(main())
