"""The same contract for every implementation of a proto: ours in this process, or a server that is already running.

    pytest tests/contract                                          hosts each service in this process
    pytest tests/contract --target trainer=10.0.0.7:50055          asks that one instead (repeatable)

A target reads and writes artifacts where this process does: with a target, the settings (P2M_STORE, the S3 keys, TLS)
are taken from the environment and must name the target's store.
"""

from __future__ import annotations

import importlib
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Protocol

import grpc
import pytest

from services.kit.channel import dial, wait_until_serving
from services.kit.server import Server
from services.kit.settings import SERVICES, Settings
from tests.support.seaweed import Seaweed, seaweed

READY_WITHIN_S = 120.0


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--target", action="append", default=[], metavar="NAME=HOST:PORT", help="test this server in the place of ours"
    )


class Connect(Protocol):
    """What the fixture `connect` gives."""

    async def __call__(self, service: str, **settings: Any) -> grpc.aio.Channel:
        """A channel to a service that is SERVING.

        `settings` change those of the hosted one; where a target is given for it, such a test skips, since a target's
        settings are not ours to change.
        """


@pytest.fixture
def targets(request: pytest.FixtureRequest) -> dict[str, str]:
    """host:port of each service that was named by --target."""
    given = dict(option.partition("=")[::2] for option in request.config.getoption("--target", default=[]))
    wrong = [name for name, address in given.items() if name not in SERVICES or ":" not in address]
    assert not wrong, f"--target wants NAME=HOST:PORT with a name of {', '.join(SERVICES)}; given: {', '.join(wrong)}"
    return given


@pytest.fixture(scope="session")
def starter_indexes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first service that needs the starter catalogue's indexes builds them; the others find them there."""
    return tmp_path_factory.mktemp("catalogue")


@pytest.fixture
def settings(targets: dict[str, str], tmp_path: Path, starter_indexes: Path) -> Settings:
    """A home of the test's own; with a target, the environment's settings, so that both see one store."""
    if targets:
        return Settings()
    return Settings(
        home=tmp_path / "home", catalogue=starter_indexes, openai_base_url="", openai_api_key="", hub_offline=True
    )


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """A real S3 server of the session's own."""
    with seaweed(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture
def run_name() -> str:
    """A run that no other test and no earlier session used: for `request_id=f"{run_name}/train"`."""
    return f"contract-{uuid.uuid4().hex[:12]}"


@pytest.fixture
async def connect(settings: Settings, targets: dict[str, str]) -> AsyncIterator[Connect]:
    """`await connect("trainer")`: a channel to the service under test; all is closed when the test ends."""
    async with AsyncExitStack() as stack:

        async def connect_to(service: str, **changes: Any) -> grpc.aio.Channel:
            address = targets.get(service, "")
            if address and changes:
                pytest.skip(f"needs {', '.join(changes)} set in the {service} service; the target's settings are fixed")
            if not address:
                own = Settings.model_validate(settings.reveal() | changes)
                server = Server(_hosted(service, own), own)
                stack.push_async_callback(server.stop)
                await server.start(port=0)
                address = f"127.0.0.1:{server.port}"
            channel = dial(address, settings)
            stack.push_async_callback(channel.close)
            await wait_until_serving(channel, READY_WITHIN_S)
            return channel

        yield connect_to


def _hosted(service: str, settings: Settings) -> Any:
    """Our own implementation: "dataset_retriever" -> services.dataset_retriever.service.DatasetRetrieverService."""
    module = importlib.import_module(f"services.{service}.service")
    return getattr(module, service.title().replace("_", "") + "Service")(settings)
