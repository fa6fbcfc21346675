"""A small DNS server on loopback, whose one name has the addresses that a test gives it: replicas come and go.

async with nameserver() as names:
    names.addresses = ["127.0.0.1", "127.0.0.2"]
    dial(f"{names.target}/replicas:50053", settings)
"""

from __future__ import annotations

import asyncio
import ipaddress
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

_A, _IN = 1, 1


class Nameserver(asyncio.DatagramProtocol):
    """Answers every question for an IPv4 address with `addresses`, which hold for no time at all."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.asked = 0
        self.target = ""
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self.target = f"dns://127.0.0.1:{transport.get_extra_info('sockname')[1]}"

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """RFC 1035: the header, the question repeated, then an answer for each address."""
        end = data.index(b"\0", 12) + 5
        question = data[12:end]
        kind, _ = struct.unpack("!HH", question[-4:])
        addresses = self.addresses if kind == _A else []
        self.asked += kind == _A
        header = data[:2] + struct.pack("!HHHHH", 0x8580, 1, len(addresses), 0, 0)
        answers = [
            struct.pack("!HHHIH", 0xC00C, _A, _IN, 0, 4) + ipaddress.IPv4Address(address).packed
            for address in addresses
        ]
        self._transport.sendto(header + question + b"".join(answers), addr)


@asynccontextmanager
async def nameserver() -> AsyncIterator[Nameserver]:
    """A name server on a free port."""
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(Nameserver, local_addr=("127.0.0.1", 0))
    try:
        yield protocol
    finally:
        transport.close()
