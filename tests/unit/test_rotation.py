"""Certificates are renewed, and their authority replaced, while calls go on."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from p2m.generator.v1.generator_pb2_grpc import GeneratorServiceStub

from services.kit import certificates
from services.kit.authority import Authority, main
from services.kit.certificates import Certificates
from services.kit.channel import dial, stream
from services.kit.errors import FailedPrecondition
from services.kit.settings import Settings
from tests.support.toy import Toy, ask, hosted


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An authority with certificates for a service and its caller."""
    assert main([str(tmp_path / "authority"), "generator", "orchestrator"]) == 0
    return tmp_path / "authority"


def own(settings: Settings, folder: Path, name: str) -> Settings:
    """Settings that show the certificate of `name`."""
    return settings.model_copy(
        update={
            "tls_ca": folder / name / "ca.pem",
            "tls_certificate": folder / name / "certificate.pem",
            "tls_key": folder / name / "key.pem",
            "connection_age_s": 0.5,
        }
    )


async def test_calls_go_on_over_a_rotation(settings: Settings, folder: Path, tmp_path: Path) -> None:
    """Over all three steps each call is answered, one under way is not cut, and the old certificate is refused then."""
    toy = Toy(own(settings, folder, "generator"))
    shutil.copytree(folder / "orchestrator", tmp_path / "stolen")
    stolen = own(settings, tmp_path, "stolen")
    done = asyncio.Event()
    answered: list[int] = []
    async with (
        hosted(toy) as server,
        dial(f"localhost:{server.port}", own(settings, folder, "orchestrator")) as channel,
    ):
        generate = GeneratorServiceStub(channel).Generate
        assert await refusal(server.port, stolen) is None
        long = asyncio.ensure_future(stream(generate, ask("wait", "run/long"), timeout_s=120))
        calling = asyncio.ensure_future(call_on(generate, answered, done))
        for step in ("--new-authority", "", "--retire"):
            before = len(answered)
            # As a person runs it, beside the services.
            command = [sys.executable, "-m", "services.kit.authority", str(folder), *([step] if step else [])]
            process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL)
            assert await process.wait() == 0
            await until(lambda before=before: len(answered) >= before + 5)
        assert await refusal(server.port, stolen) is grpc.StatusCode.UNAVAILABLE
        done.set()
        await calling
        assert not long.done()
        toy.release.set()
        assert (await long).llm == "toy"
    assert answered == [*range(len(answered))]


async def test_a_renewed_certificate_is_shown_to_the_next_connection(settings: Settings, folder: Path) -> None:
    """A new connection after a renewal meets the new certificate: the old one may run out meanwhile."""
    async with hosted(Toy(own(settings, folder, "generator"))) as server:
        before = await shown(server.port, folder)
        assert main([str(folder)]) == 0
        after = await shown(server.port, folder)
    assert before != after
    assert after in (folder / "generator" / "certificate.pem").read_text()


def test_files_that_do_not_fit_are_not_used(settings: Settings, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Between the writing of key and certificate, and where one is gone or broken, the last good ones are kept."""
    mine, other = folder / "generator", folder / "orchestrator"
    used = Certificates(own(settings, folder, "generator"))
    first = used.current()
    key, certificate = (mine / "key.pem").read_bytes(), (mine / "certificate.pem").read_bytes()
    (mine / "key.pem").write_bytes((other / "key.pem").read_bytes())
    assert used.current() == first
    (mine / "key.pem").unlink()
    assert used.current() == first
    (mine / "key.pem").write_bytes(b"no key")
    assert used.current() == first and "not used yet" in caplog.text
    assert key.decode().splitlines()[1] not in caplog.text
    (mine / "key.pem").write_bytes((other / "key.pem").read_bytes())
    (mine / "certificate.pem").write_bytes((other / "certificate.pem").read_bytes())
    second = used.current()
    assert second.number == first.number + 1 and second.certificate != certificate == first.certificate
    assert used.current() is second


def test_files_that_do_not_fit_at_first_are_said(settings: Settings, folder: Path) -> None:
    """A service does not start with a key that is not its certificate's; it names the files."""
    shutil.copy(folder / "orchestrator" / "key.pem", folder / "generator" / "key.pem")
    with pytest.raises(FailedPrecondition, match=r"key\.pem"):
        Certificates(own(settings, folder, "generator"))


async def test_a_channel_that_is_no_longer_used_is_closed(
    settings: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a change the old channel is kept for the calls under way on it, and closed after the last one."""
    monkeypatch.setattr(certificates, "_CLOSE_AFTER_S", 0.0)
    toy = Toy(own(settings, folder, "generator"))
    async with (
        hosted(toy) as server,
        dial(f"localhost:{server.port}", own(settings, folder, "orchestrator")) as channel,
    ):
        old: Any = channel._opened[0].channel  # type: ignore[attr-defined]
        generate = GeneratorServiceStub(channel).Generate
        long = asyncio.ensure_future(stream(generate, ask("wait", "run/long"), timeout_s=120))
        await until(lambda: toy.worked == 1)
        Authority(folder).issue("orchestrator")
        assert (await stream(generate, ask("answer", "run/next"), timeout_s=60)).llm == "toy"
        assert old.get_state() is not grpc.ChannelConnectivity.SHUTDOWN
        toy.release.set()
        await long
        await until(lambda: old.get_state() is grpc.ChannelConnectivity.SHUTDOWN)


def test_the_steps_say_what_they_need(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without an authority there is nothing to renew; a new authority changes no certificate before the next step."""
    with pytest.raises(SystemExit):
        main([str(tmp_path / "empty")])
    assert "no authority yet" in capsys.readouterr().err and not (tmp_path / "empty").exists()
    certificate = (folder / "generator" / "certificate.pem").read_bytes()
    old = (folder / "ca.pem").read_text()
    main([str(folder), "--new-authority"])
    assert (folder / "generator" / "certificate.pem").read_bytes() == certificate
    new = (folder / "ca.pem").read_text()
    assert (folder / "generator" / "ca.pem").read_text() == new + old != old
    main([str(folder), "--retire"])
    assert (folder / "generator" / "ca.pem").read_text() == new


async def call_on(generate: Any, answered: list[int], done: asyncio.Event) -> None:
    """One call after another; each must be answered."""
    while not done.is_set():
        number = len(answered)
        assert (await stream(generate, ask("answer", f"run/{number}"), timeout_s=60)).llm == "toy"
        answered.append(number)
        await asyncio.sleep(0.05)


async def refusal(port: int, settings: Settings) -> grpc.StatusCode | None:
    """The status that a caller with these files gets; None where it is answered."""
    async with dial(f"localhost:{port}", settings) as channel:
        call = GeneratorServiceStub(channel).Generate(ask("answer", "run/other"), timeout=20)
        try:
            await call.read()
        except grpc.RpcError as error:
            return error.code()  # type: ignore[attr-defined]
    return None


async def shown(port: int, folder: Path) -> str:
    """The certificate that a server shows to a new connection."""
    import ssl

    context = ssl.create_default_context(cafile=str(folder / "orchestrator" / "ca.pem"))
    context.load_cert_chain(folder / "orchestrator" / "certificate.pem", folder / "orchestrator" / "key.pem")
    context.set_alpn_protocols(["h2"])
    _, writer = await asyncio.open_connection("localhost", port, ssl=context)
    try:
        return ssl.DER_cert_to_PEM_cert(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
    finally:
        writer.close()


async def until(holds: Callable[[], bool], within_s: float = 60.0) -> None:
    """Waits until it holds."""
    async with asyncio.timeout(within_s):
        while not holds():
            await asyncio.sleep(0.05)
