"""Starts the parser service: `python -m services.parser`."""

from __future__ import annotations

import asyncio
import sys

from services.kit import logs
from services.kit.server import serve
from services.kit.settings import Settings
from services.parser.service import ParserService


def main() -> int:
    """Serves until SIGTERM; returns the exit status."""
    settings = Settings()
    logs.configure(settings.log_level, settings.log_format)
    return asyncio.run(serve(ParserService(settings), settings))


if __name__ == "__main__":
    sys.exit(main())
