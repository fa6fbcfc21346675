"""Starts the generator service: `python -m services.generator`."""

from __future__ import annotations

import asyncio
import sys

from services.generator.service import GeneratorService
from services.kit import logs
from services.kit.server import serve
from services.kit.settings import Settings


def main() -> int:
    """Serves until SIGTERM; returns the exit status."""
    settings = Settings()
    logs.configure(settings.log_level, settings.log_format)
    return asyncio.run(serve(GeneratorService(settings), settings))


if __name__ == "__main__":
    sys.exit(main())
