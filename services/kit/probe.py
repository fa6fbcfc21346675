"""Asks a service on this machine for its health: `python -m services.kit.probe trainer`; status 0 when it is SERVING.

What a container's health check runs. It shows this process's certificate where TLS is on, as every caller does.
"""

from __future__ import annotations

import asyncio
import sys

from services.kit.channel import dial, wait_until_serving
from services.kit.errors import P2MError
from services.kit.settings import Settings, port_of

_WITHIN_S = 4.0


async def probe(service: str, settings: Settings, within_s: float = _WITHIN_S) -> int:
    """0 when the service at its port is SERVING, 1 when not."""
    async with dial(f"localhost:{settings.port or port_of(service)}", settings) as channel:
        try:
            await wait_until_serving(channel, within_s)
        except P2MError as error:
            print(f"{service}: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(probe(sys.argv[1], Settings())))
