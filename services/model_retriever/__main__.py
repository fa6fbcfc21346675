"""Starts the model_retriever service: `python -m services.model_retriever`."""

from __future__ import annotations

import asyncio
import sys

from services.kit import logs
from services.kit.server import serve
from services.kit.settings import Settings
from services.model_retriever.service import ModelRetrieverService


def main() -> int:
    """Serves until SIGTERM; returns the exit status."""
    settings = Settings()
    logs.configure(settings.log_level, settings.log_format)
    return asyncio.run(serve(ModelRetrieverService(settings), settings))


if __name__ == "__main__":
    sys.exit(main())
