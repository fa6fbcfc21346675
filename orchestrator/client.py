"""A small client of RunService: what the CLI speaks to, local or `--connect HOST:PORT`.

    async with RunClient(target, settings) as runs:
        run = await runs.start("dates", prompt, options)
        async for change in runs.watch(run.name): ...

Errors are those of `services.kit.errors`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType

import grpc
from p2m.run.v1 import run_pb2, run_pb2_grpc

from services.kit.channel import STREAM_TIMEOUT_S, dial, token_metadata, unary
from services.kit.errors import Unavailable
from services.kit.settings import Settings
from services.kit.status import from_rpc_error

FINAL = (run_pb2.RUN_STATE_SUCCEEDED, run_pb2.RUN_STATE_FAILED, run_pb2.RUN_STATE_CANCELLED)

_CALL_TIMEOUT_S = 60.0
_DATA_TIMEOUT_S = 900.0  # a million stored answers are read
_RECONNECTS = 10


class RunClient:
    """RunService at `target` ("host:port"), with the settings' TLS and token."""

    def __init__(self, target: str, settings: Settings) -> None:
        self._channel = dial(target, settings)
        self._stub = run_pb2_grpc.RunServiceStub(self._channel)
        self._metadata = token_metadata(settings)

    async def start(self, name: str, prompt: str, options: run_pb2.RunOptions) -> run_pb2.Run:
        """Starts a run or goes on with it; `name` "" takes the hash of prompt and options.

        A finished run is returned as it stands. AlreadyExists where the name is taken by other content, Aborted where
        another live process is at it, InvalidArgument for a prompt or an option that cannot be.
        """
        request = run_pb2.StartRequest(name=name, prompt=prompt, options=options)
        response = await unary(self._stub.Start, request, _CALL_TIMEOUT_S, self._metadata)
        return response.run  # type: ignore[no-any-return]

    async def get(self, name: str) -> run_pb2.Run:
        """The run as it stands, with its stages. NotFound for an unknown one."""
        request = run_pb2.GetRequest(name=name)
        return (await unary(self._stub.Get, request, _CALL_TIMEOUT_S, self._metadata)).run  # type: ignore[no-any-return]

    async def watch(self, name: str, after: int = 0) -> AsyncIterator[run_pb2.WatchResponse]:
        """Every change from `after` on; ends after the one whose run state is final.

        A broken connection is made anew and nothing is missed; Unavailable after some fruitless tries.
        """
        failures = 0
        while True:
            request = run_pb2.WatchRequest(name=name, after=after)
            call = self._stub.Watch(
                request, timeout=STREAM_TIMEOUT_S, wait_for_ready=failures == 0, metadata=self._metadata
            )
            try:
                async for change in call:
                    after, failures = change.sequence, 0
                    yield change
                    if change.HasField("run") and change.run.state in FINAL:
                        return
            except grpc.RpcError as rpc_error:
                error = from_rpc_error(rpc_error)
                failures += 1
                if not isinstance(error, Unavailable) or failures > _RECONNECTS:
                    raise error from rpc_error
                await asyncio.sleep(0.5)
            finally:
                call.cancel()  # leaving the loop alone does not

    async def cancel(self, name: str) -> run_pb2.Run:
        """Stops a run; what it has is kept, and `start` goes on with it."""
        request = run_pb2.CancelRequest(name=name)
        return (await unary(self._stub.Cancel, request, _CALL_TIMEOUT_S, self._metadata)).run  # type: ignore[no-any-return]

    async def data(self, name: str) -> list[run_pb2.RunDataset]:
        """The datasets that a run has, unfinished generation too. FailedPrecondition where there is none yet."""
        request = run_pb2.DataRequest(name=name)
        response = await unary(self._stub.Data, request, _DATA_TIMEOUT_S, self._metadata)
        return [*response.datasets]

    async def list(self, page_size: int = 50, page_token: str = "") -> tuple[list[run_pb2.Run], str]:
        """Runs without their stages, newest first, and the token of the next page ("": there is none)."""
        request = run_pb2.ListRequest(page_size=page_size, page_token=page_token)
        response = await unary(self._stub.List, request, _CALL_TIMEOUT_S, self._metadata)
        return [*response.runs], response.next_page_token

    async def choose(self, name: str, question: str, value: str) -> run_pb2.Run:
        """Answers the question that a run waits for. FailedPrecondition where it waits for none or another."""
        request = run_pb2.ChooseRequest(name=name, question=question, value=value)
        return (await unary(self._stub.Choose, request, _CALL_TIMEOUT_S, self._metadata)).run  # type: ignore[no-any-return]

    async def close(self) -> None:
        """Closes the channel; calls in flight are cancelled."""
        await self._channel.close()

    async def __aenter__(self) -> RunClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
