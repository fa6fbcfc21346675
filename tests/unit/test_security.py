"""Who may talk to whom: loopback, certificates, the token of RunService."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from p2m.generator.v1.generator_pb2_grpc import GeneratorServiceStub
from p2m.run.v1 import run_pb2 as pb
from p2m.run.v1 import run_pb2_grpc

from services.kit.authority import Authority
from services.kit.channel import dial, stream, token_metadata, unary, wait_until_serving
from services.kit.errors import FailedPrecondition, P2MError, Unauthenticated, Unimplemented
from services.kit.server import Server
from services.kit.settings import Settings
from tests.conftest import ROOT
from tests.support.toy import Toy, ask, hosted


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def with_tls(settings: Settings, folder: Path, **changes: Any) -> Settings:
    """Settings that show the certificate in `folder`."""
    own = {
        "tls_ca": folder / "ca.pem",
        "tls_certificate": folder / "certificate.pem",
        "tls_key": folder / "key.pem",
        "host": "0.0.0.0",
    }
    return settings.model_copy(update=own | changes)


async def test_the_right_certificates_talk(settings: Settings, authority: Authority) -> None:
    """With TLS a service binds any address, and a caller with a certificate of the same authority is answered."""
    server_settings = with_tls(settings, authority.issue("generator"))
    caller = with_tls(settings, authority.issue("orchestrator"))
    async with hosted(Toy(server_settings)) as server, dial(f"localhost:{server.port}", caller) as channel:
        assert (await stream(GeneratorServiceStub(channel).Generate, ask("answer"), timeout_s=10)).llm == "toy"


async def test_wrong_certificates_are_refused(settings: Settings, authority: Authority, tmp_path: Path) -> None:
    """Nobody without a certificate, with another authority's, or in plaintext reaches a service, nor its health."""
    own = with_tls(settings, authority.issue("generator"))
    stranger = Authority(tmp_path / "other").issue("orchestrator")
    ca = (authority.issue("x") / "ca.pem").read_bytes()
    theirs = [(stranger / name).read_bytes() for name in ("key.pem", "certificate.pem")]
    credentials = {
        "no certificate": grpc.ssl_channel_credentials(ca),
        "another authority's certificate": grpc.ssl_channel_credentials(ca, *theirs),
        "trust in another authority": grpc.ssl_channel_credentials((stranger / "ca.pem").read_bytes(), *theirs),
    }
    async with hosted(Toy(own)) as server:
        address = f"localhost:{server.port}"
        channels = {name: grpc.aio.secure_channel(address, given) for name, given in credentials.items()}
        channels["plaintext"] = grpc.aio.insecure_channel(address)
        for name, channel in channels.items():
            for refused in (_generate(channel), _health(channel)):
                with pytest.raises(grpc.RpcError) as raised:
                    await refused
                assert raised.value.code() is grpc.StatusCode.UNAVAILABLE, name  # type: ignore[attr-defined]
            await channel.close()
        right = with_tls(settings, authority.issue("orchestrator"))
        async with dial(address, right) as channel:
            assert (await stream(GeneratorServiceStub(channel).Generate, ask("answer"), timeout_s=10)).llm == "toy"


async def test_a_server_for_another_name_is_refused(settings: Settings, authority: Authority) -> None:
    """A caller does not talk to a server whose certificate, of the right authority, is for another name."""
    async with hosted(Toy(with_tls(settings, authority.issue("generator")))) as server:
        caller = with_tls(settings, authority.issue("orchestrator"))
        async with dial(f"ipv4:127.0.0.2:{server.port}", caller) as channel:
            with pytest.raises(P2MError):
                await stream(GeneratorServiceStub(channel).Generate, ask("answer"), timeout_s=2)


SERVE = """
import asyncio, sys
from pathlib import Path
from services.kit import logs
from services.kit.refused import COUNTS
from services.kit.server import serve
from services.kit.settings import Settings
from tests.conftest import ROOT
from tests.support.toy import Toy
logs.configure("INFO")
status = asyncio.run(serve(Toy(Settings()), Settings()))
print(dict(COUNTS), flush=True)
sys.exit(status)
"""


async def test_refused_connections_are_logged_and_counted(
    settings: Settings, authority: Authority, tmp_path: Path
) -> None:
    """A served process tells of each caller without a certificate, with a wrong one, in plaintext; and serves on."""
    folder, other = authority.issue("generator"), Authority(tmp_path / "other").issue("orchestrator")
    ca = (folder / "ca.pem").read_bytes()
    port = free_port()
    told = {
        "P2M_HOME": str(tmp_path), "P2M_PORT": str(port), "P2M_TLS_CA": str(folder / "ca.pem"),
        "P2M_TLS_CERTIFICATE": str(folder / "certificate.pem"), "P2M_TLS_KEY": str(folder / "key.pem"),
    }  # fmt: skip
    with (tmp_path / "said").open("wb") as said:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", SERVE, env=os.environ | told, stdout=said, stderr=said, cwd=ROOT
        )
        caller = with_tls(settings, authority.issue("orchestrator"))
        try:
            async with dial(f"localhost:{port}", caller) as channel:
                await wait_until_serving(channel, 120)
            wrong = [(other / name).read_bytes() for name in ("key.pem", "certificate.pem")]
            for credentials in (grpc.ssl_channel_credentials(ca), grpc.ssl_channel_credentials(ca, *wrong), None):
                address = f"localhost:{port}"
                refused = (
                    grpc.aio.secure_channel(address, credentials) if credentials else grpc.aio.insecure_channel(address)
                )
                with pytest.raises(grpc.RpcError):
                    await _health(refused)
                await refused.close()
            async with dial(f"localhost:{port}", caller) as channel:
                await wait_until_serving(channel, 120)
        finally:
            process.terminate()
            assert await asyncio.wait_for(process.wait(), 60) == 0
    text = (tmp_path / "said").read_text()
    for reason in ("NO_CERTIFICATE", "BAD_CERTIFICATE", "NO_TLS"):
        assert f"refused a connection to generator: {reason}" in text, text[-2_000:]
        assert f"'{reason}': " in text.splitlines()[-1]
    assert "generator is SERVING" in text and "generator drains" in text


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("host", ["0.0.0.0", "10.1.2.3", "::", "example.org"])
async def test_plaintext_stays_on_loopback(settings: Settings, host: str) -> None:
    """Without TLS an address that others can reach is refused, and the settings that are missing are named."""
    own = settings.model_copy(update={"host": host})
    server = Server(Toy(own), own)
    with pytest.raises(FailedPrecondition, match="P2M_TLS_CA"):
        await server.start(0)
    await server.stop()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost"])
async def test_loopback_needs_no_tls(settings: Settings, host: str) -> None:
    """Every loopback address may be bound in plaintext."""
    async with hosted(Toy(settings.model_copy(update={"host": host}))) as server:
        assert server.port


async def test_half_of_tls_is_none(settings: Settings, authority: Authority, tmp_path: Path) -> None:
    """A part of the three TLS settings, or a file that is not there, is said by its name before anything is bound."""
    folder = authority.issue("generator")
    for changes, said in (({"tls_key": None}, "P2M_TLS_KEY"), ({"tls_key": tmp_path / "absent.pem"}, "absent.pem")):
        own = with_tls(settings, folder, **changes)
        server = Server(Toy(own), own)
        with pytest.raises(FailedPrecondition, match=said):
            await server.start(0)
        await server.stop()


class Runs(run_pb2_grpc.RunServiceServicer):
    """A RunService that answers Get and Watch."""

    name = "run"
    full_name = "p2m.run.v1.RunService"

    def register(self, server: grpc.aio.Server) -> None:
        run_pb2_grpc.add_RunServiceServicer_to_server(self, server)

    async def warm(self) -> None: ...

    async def close(self) -> None: ...

    async def Get(self, request: Any, context: Any) -> Any:
        return pb.GetResponse(run=pb.Run(name=request.name))

    async def Watch(self, request: Any, context: Any) -> Any:
        yield pb.WatchResponse(sequence=1)


async def test_run_service_asks_for_its_token(settings: Settings) -> None:
    """With a token set, RunService answers those who bear it and nobody else; health is open to all."""
    own = Settings.model_validate(settings.reveal() | {"token": "right"})
    server = Server(Runs(), own)
    await server.start(0)
    async with dial(f"127.0.0.1:{server.port}", own) as channel:
        stub: Any = run_pb2_grpc.RunServiceStub(channel)
        wrong = Settings.model_validate(settings.reveal() | {"token": "wrong"})
        for metadata in (
            (),
            token_metadata(wrong),
            (("authorization", "right"),),
            (("authorization", "Bearer Right"),),
        ):
            with pytest.raises(Unauthenticated, match="P2M_TOKEN"):
                await unary(stub.Get, pb.GetRequest(name="r"), 5, metadata)
            with pytest.raises(grpc.RpcError) as raised:
                await stub.Watch(pb.WatchRequest(), metadata=metadata, timeout=5).read()
            assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED  # type: ignore[attr-defined]
        assert (await unary(stub.Get, pb.GetRequest(name="r"), 5, token_metadata(own))).run.name == "r"
        assert (await stub.Watch(pb.WatchRequest(), metadata=token_metadata(own), timeout=5).read()).sequence == 1
        with pytest.raises(Unimplemented):
            await unary(channel.unary_unary("/p2m.run.v1.RunService/Nothing"), b"", 5)
        assert await _health(channel)
    await server.stop()


def test_secrets_do_not_show(settings: Settings) -> None:
    """Printing the settings, as a log or a traceback does, shows no secret; a child gets them all the same."""
    own = Settings.model_validate(settings.reveal() | {"token": "hush-token", "openai_api_key": "hush-key"})
    assert "hush" not in f"{own} {own!r} {own.model_dump()}"
    assert Settings.model_validate(own.reveal()) == own


def test_the_authority_keeps_its_key(tmp_path: Path) -> None:
    """Keys are readable by their owner only; issuing again, from another process too, keeps the authority."""
    first = Authority(tmp_path)
    folder = first.issue("trainer")
    for key in (tmp_path / "ca.key", folder / "key.pem"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
    ca, certificate = (tmp_path / "ca.pem").read_bytes(), (folder / "certificate.pem").read_bytes()
    command = [sys.executable, "-m", "services.kit.authority", str(tmp_path), "trainer", "10.0.0.7"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert (tmp_path / "ca.pem").read_bytes() == ca == (tmp_path / "10.0.0.7" / "ca.pem").read_bytes()
    assert (folder / "certificate.pem").read_bytes() != certificate


async def _generate(channel: grpc.aio.Channel) -> Any:
    return await GeneratorServiceStub(channel).Generate(ask("answer"), timeout=5).read()


async def _health(channel: grpc.aio.Channel) -> Any:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    return await stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
