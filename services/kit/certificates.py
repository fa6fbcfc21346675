"""This process's TLS files, read anew where they have changed: a certificate is renewed without a restart.

    Certificates(settings).current()     the files and a number that grows with every change
    server_configuration                 for a server: looked at before every handshake
    RotatingChannel                      for a client: a call that begins after a change goes by a new channel

A connection keeps the certificate that it was made with: calls under way go on over a change, and connections are made
anew after P2M_CONNECTION_AGE_S anyway. Files that are just being written (a key that is not the certificate's, a part
that is missing) are passed over, and the last good ones are kept. What can still be missed: a call that waits for its
first connection while the authority that its channel trusts is retired; so retire one only after it is used no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import grpc

from services.kit.errors import FailedPrecondition
from services.kit.settings import Settings

log = logging.getLogger(__name__)

# A stream's last messages may still wait to be read when its call has ended.
_CLOSE_AFTER_S = 60.0


@dataclass(frozen=True)
class Files:
    """What the three files held, and the how-manieth they are."""

    ca: bytes
    certificate: bytes
    key: bytes
    number: int


class Certificates:
    """The files that the settings name. FailedPrecondition where there are none that can be used at first."""

    def __init__(self, settings: Settings) -> None:
        self._lock = threading.Lock()
        self._paths = [path for path in (settings.tls_ca, settings.tls_certificate, settings.tls_key) if path]
        self._seen = self._stamp()
        self._files = self._read(1)

    def current(self) -> Files:
        """The newest files that fit each other. It may be called from any thread, and costs three looks at the disk."""
        with self._lock:
            stamp = self._stamp()
            if stamp == self._seen:
                return self._files
            try:
                read = self._read(self._files.number + 1)
            except FailedPrecondition as error:
                log.warning("the changed TLS files are not used yet: %s", error.message)
            else:
                if self._stamp() == stamp:
                    self._files, self._seen = read, stamp
                    log.info("the TLS files were changed and are used from now on")
            return self._files

    def _stamp(self) -> list[tuple[int, int, int] | None]:
        def of(path: Path) -> tuple[int, int, int] | None:
            with contextlib.suppress(OSError):
                found = os.stat(path)
                return found.st_mtime_ns, found.st_ino, found.st_size
            return None

        return [of(path) for path in self._paths]

    def _read(self, number: int) -> Files:
        ca, certificate, key = self._paths
        for path in self._paths:
            try:
                path.read_bytes()
            except OSError as error:
                raise FailedPrecondition(
                    "TLS_FILE", f"The TLS file {path} cannot be read: {error.strerror}."
                ) from error
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_verify_locations(ca)
            context.load_cert_chain(certificate, key, password="")
        except (OSError, ValueError) as error:  # SSLError is an OSError
            raise FailedPrecondition(
                "TLS_FILE", f"{ca}, {certificate} and {key} are no authority, certificate and the key to it: {error}."
            ) from error
        return Files(ca.read_bytes(), certificate.read_bytes(), key.read_bytes(), number)


def server_credentials(certificates: Certificates) -> grpc.ServerCredentials:
    """Credentials that ask a client for its certificate, of the files as they are at each handshake."""
    used = certificates.current()

    def newest() -> grpc.ServerCertificateConfiguration | None:
        nonlocal used
        found = certificates.current()
        if found.number == used.number:
            return None  # as before
        used = found
        return _configuration(found)

    # Its types do not know that None is an answer; its documentation does.
    fetcher = cast(Callable[[], grpc.ServerCertificateConfiguration], newest)
    return grpc.dynamic_ssl_server_credentials(_configuration(used), fetcher, require_client_authentication=True)


def _configuration(files: Files) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(files.key, files.certificate)], root_certificates=files.ca)


def channel_credentials(files: Files) -> grpc.ChannelCredentials:
    """Credentials that show this process's certificate."""
    return grpc.ssl_channel_credentials(files.ca, files.key, files.certificate)


class _Opened:
    """One channel of a RotatingChannel, and how many calls it has under way."""

    def __init__(self, channel: grpc.aio.Channel, number: int) -> None:
        self.channel = channel
        self.number = number
        self._methods: dict[Any, Any] = {}
        self._calls = 0
        self._retired = False
        self._closing: asyncio.Task[None] | None = None

    def call(self, kind: str, path: str, codec: dict[str, Any], *args: Any, **options: Any) -> Any:
        known = (kind, path)
        if known not in self._methods:
            self._methods[known] = getattr(self.channel, kind)(path, **codec)
        call = self._methods[known](*args, **options)
        self._calls += 1
        call.add_done_callback(self._ended)
        return call

    def retire(self) -> None:
        """Closes the channel some time after its last call has ended."""
        self._retired = True
        self._close_when_idle()

    def _ended(self, _: Any) -> None:
        self._calls -= 1
        self._close_when_idle()

    def _close_when_idle(self) -> None:
        if self._retired and not self._calls and self._closing is None:
            self._closing = asyncio.ensure_future(self._close_later())

    async def _close_later(self) -> None:
        await asyncio.sleep(_CLOSE_AFTER_S)
        await self.channel.close()

    async def close(self, grace: float | None) -> None:
        if self._closing is not None:
            self._closing.cancel()
        await self.channel.close(grace)


class _Method:
    """A call of a RotatingChannel, made by its newest channel."""

    def __init__(self, channel: RotatingChannel, kind: str, path: str, codec: dict[str, Any]) -> None:
        self._channel = channel
        self._kind = kind
        self._path = path
        self._codec = codec
        self._method = path.encode()  # named as gRPC's own callables name it

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self._channel.newest().call(self._kind, self._path, self._codec, *args, **options)


class RotatingChannel(grpc.aio.Channel):
    """A channel that is opened anew for the calls which begin after the TLS files were changed."""

    def __init__(self, certificates: Certificates, opening: Callable[[Files], grpc.aio.Channel]) -> None:
        self._certificates = certificates
        self._opening = opening
        files = certificates.current()
        self._opened = [_Opened(opening(files), files.number)]

    def newest(self) -> _Opened:
        files = self._certificates.current()
        if files.number != self._opened[-1].number:
            self._opened[-1].retire()
            self._opened.append(_Opened(self._opening(files), files.number))
        return self._opened[-1]

    def unary_unary(self, method: str, **codec: Any) -> Any:  # type: ignore[override]
        return _Method(self, "unary_unary", method, codec)

    def unary_stream(self, method: str, **codec: Any) -> Any:  # type: ignore[override]
        return _Method(self, "unary_stream", method, codec)

    def stream_unary(self, method: str, **codec: Any) -> Any:  # type: ignore[override]
        return _Method(self, "stream_unary", method, codec)

    def stream_stream(self, method: str, **codec: Any) -> Any:  # type: ignore[override]
        return _Method(self, "stream_stream", method, codec)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self.newest().channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self.newest().channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self.newest().channel.channel_ready()

    async def close(self, grace: float | None = None) -> None:
        await asyncio.gather(*(opened.close(grace) for opened in self._opened))

    async def __aenter__(self) -> RotatingChannel:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
