"""A part's short name, as deploy/ gives it: a cluster's name server knows the long one alone."""

from __future__ import annotations

import os
import time
from contextlib import AsyncExitStack
from typing import Any

import pytest
from p2m.generator.v1.generator_pb2_grpc import GeneratorServiceStub

from services.kit.channel import dial, stream
from services.kit.server import Server
from services.kit.settings import Settings
from tests.support.nameserver import Nameserver, nameserver
from tests.support.seaweed import free_ports
from tests.support.toy import Toy, ask

DOMAIN = "p2m.svc.cluster.local"


def asked_name(question: bytes) -> str:
    """The name in a DNS question (RFC 1035: each label after its length)."""
    labels, at = [], 12
    while question[at]:
        labels.append(question[at + 1 : at + 1 + question[at]].decode())
        at += 1 + question[at]
    return ".".join(labels).lower()


async def test_a_short_name_finds_every_replica_by_the_pods_search_domain(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a pod's search domains "generator:PORT" finds both addresses of the headless Service; both are called."""
    # What a pod's /etc/resolv.conf says, as the resolver also takes it.
    monkeypatch.setenv("LOCALDOMAIN", f"{DOMAIN} svc.cluster.local cluster.local")
    monkeypatch.setenv("RES_OPTIONS", "ndots:5")
    names: set[str] = set()
    answer = Nameserver.datagram_received

    def only_the_long_name(self: Nameserver, data: bytes, addr: Any) -> None:
        name = asked_name(data)
        names.add(name)
        self.addresses = ["127.0.0.1", "127.0.0.2"] if name == f"generator.{DOMAIN}" else []
        answer(self, data, addr)

    monkeypatch.setattr(Nameserver, "datagram_received", only_the_long_name)
    (port,) = free_ports(1)
    async with AsyncExitStack() as stack:
        server_of_names = await stack.enter_async_context(nameserver())
        for number in (1, 2):
            own = settings.model_copy(update={"host": f"127.0.0.{number}", "grace_s": 1.0})
            server = Server(Toy(own, f"replica {number}"), own)
            stack.push_async_callback(server.stop)
            await server.start(port)
        channel = dial(f"{server_of_names.target}/generator:{port}", settings)
        stack.push_async_callback(channel.close)
        stub = GeneratorServiceStub(channel)
        answered: set[str] = set()
        deadline = time.monotonic() + 60
        while len(answered) < 2 and time.monotonic() < deadline:
            answer_of = await stream(stub.Generate, ask("answer", f"run/{os.urandom(6).hex()}"), timeout_s=60)
            answered.add(answer_of.llm)
    assert answered == {"replica 1", "replica 2"}, names
