"""A real SeaweedFS server on free loopback ports: the S3 server of the tests and of docker-compose.yml.

    with seaweed(folder) as server:
        server.settings(home)       settings of a store in its bucket
        server.kill()               and start() again

It keeps its data in `folder` and ends with the block. security.toml gives its parts keys to sign what they ask of each
other; without it the filer, which lies under the S3 gateway, gives every object to anyone who asks.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from services.kit.settings import Settings

READY_WITHIN_S = 60.0


@dataclass(frozen=True)
class Seaweed:
    """Where the server listens, and the keys of an identity that may do everything."""

    endpoint: str
    filer: str
    access_key: str
    secret_key: str
    folder: Path = Path()
    ports: tuple[int, ...] = ()
    _running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self) -> None:
        """Returns once it answers; RuntimeError with the end of its log when it does not come up."""
        log = self.folder / "weed.log"
        with log.open("ab") as out:
            command = _command(self.folder, [*self.ports])
            process = subprocess.Popen(command, cwd=self.folder, stdout=out, stderr=subprocess.STDOUT)
        self._running.append(process)
        _wait_until_ready(self, process, log)

    def kill(self) -> None:
        """Ends it as kill -9 does."""
        while self._running:
            process = self._running.pop()
            process.kill()
            process.wait()

    def settings(self, home: Path, **changes: object) -> Settings:
        """Settings whose store is a bucket of this server."""
        own: dict[str, object] = {
            "home": home,
            "store": "s3://p2m-tests",
            "s3_endpoint": self.endpoint,
            "s3_access_key": self.access_key,
            "s3_secret_key": self.secret_key,
            "openai_base_url": "",
            "openai_api_key": "",
            "hub_offline": True,
        }
        return Settings(**(own | changes))  # type: ignore[arg-type]


@contextlib.contextmanager
def seaweed(folder: Path, configuration: Path | None = None) -> Iterator[Seaweed]:
    """A server with its data in `folder`; raises RuntimeError with the end of its log when it does not come up.

    `configuration` is a folder with an s3.json and a security.toml of one's own.
    """
    ports = free_ports(8)
    server = Seaweed(
        f"127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[1]}", "p2m-tests", secrets.token_hex(16), folder, tuple(ports)
    )
    if configuration is None:
        _write_configuration(folder, server)
    else:
        for name in ("s3.json", "security.toml"):
            shutil.copyfile(configuration / name, folder / name)
    try:
        server.start()
        yield server
    finally:
        # SIGTERM would take it ten seconds, and its data is thrown away.
        server.kill()


def free_ports(number: int) -> list[int]:
    """`number` different loopback ports that nothing listens on at this moment."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _command(folder: Path, ports: list[int]) -> list[str]:
    s3, filer, filer_grpc, master, master_grpc, volume, volume_grpc, s3_grpc = ports
    weed = shutil.which("weed") or str(Path(sys.executable).with_name("weed"))
    data = folder / "data"
    data.mkdir(exist_ok=True)
    return [
        weed, "server", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3",
        f"-s3.port={s3}", f"-s3.port.grpc={s3_grpc}", f"-s3.config={folder / 's3.json'}", "-s3.iam=false",
        f"-filer.port={filer}", f"-filer.port.grpc={filer_grpc}", f"-filer.localSocket={folder / 'filer.sock'}",
        f"-master.port={master}", f"-master.port.grpc={master_grpc}", "-master.telemetry=false",
        "-master.volumeSizeLimitMB=64", f"-volume.port={volume}", f"-volume.port.grpc={volume_grpc}",
        "-volume.max=2000", f"-s3.localSocket={folder / 's3.sock'}", "-s3.port.iceberg=0", "-s3.port.lance=0",
    ]  # fmt: skip


def _write_configuration(folder: Path, server: Seaweed) -> None:
    keys = {"accessKey": server.access_key, "secretKey": server.secret_key}
    everything = {"name": "p2m", "credentials": [keys], "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [everything]}))
    sections = ("jwt.signing", "jwt.signing.read", "jwt.filer_signing", "jwt.filer_signing.read")
    (folder / "security.toml").write_text("".join(f'[{name}]\nkey = "{secrets.token_hex(16)}"\n' for name in sections))


def _wait_until_ready(server: Seaweed, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline and process.poll() is None:
        if _answers(server.endpoint):
            return
        time.sleep(0.1)
    raise RuntimeError(f"SeaweedFS did not come up in {READY_WITHIN_S:.0f} s:\n{log.read_text()[-3000:]}")


def _answers(endpoint: str) -> bool:
    try:
        urllib.request.urlopen(f"http://{endpoint}/status", timeout=1)
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True
