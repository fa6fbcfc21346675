"""A scripted teacher that also takes batches: `/v1/files` and `/v1/batches`, as OpenAI's servers do.

    async with BatchServer(answers, ends=["completed", "expired"]) as server: ...

Each look at a batch takes it one status further: validating, in_progress, finalizing, and what `ends` says. A batch
that expires or is cancelled serves half of its requests, a failed one none; `error_share` of a completed one's end in
the error file. What was served, and would be charged, is in `served`: one entry a request.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.support.teacher import ScriptedTeacher, prompt_of

_FURTHER = {"validating": "in_progress", "in_progress": "finalizing", "cancelling": "cancelled"}

# What happens around a call: ("before" or "after" its effect, "POST files" and so on).
Watch = Callable[[str, str], Awaitable[None]]


@dataclass
class ServedBatch:
    """A batch as the server has it."""

    id: str
    requests: list[dict[str, Any]]
    metadata: dict[str, str]
    end: str
    status: str = "validating"
    looks: int = 0
    files: dict[str, str] = field(default_factory=dict)
    created_at: int = field(default_factory=lambda: int(time.time()))
    served: int = 0
    failed: int = 0
    errors: list[dict[str, str]] = field(default_factory=list)


def word(number: int) -> str:
    """A word of its own for each number, without a digit: texts that differ in numbers alone may count as near."""
    letters = ""
    while number or not letters:
        number, letter = divmod(number, 20)
        letters += "bcdfghjklmnpqrstvwxz"[letter] + "aeiou"[letter % 5]
    return letters


class BatchServer(ScriptedTeacher):
    """The server.

    ends            how each batch ends, in order: completed, expired, failed, cancelled; then all are completed
    error_share     of the requests of a batch, those that end in the error file with status 500
    slow            a batch stays in progress, until this is set to False
    takes_batches   False: 404, as servers without the endpoint answer
    lists           False: GET /v1/batches is 404
    watch           told of every call of the protocol, before and after its effect; it may keep the caller waiting
    """

    def __init__(
        self,
        *args: Any,
        ends: Iterable[str] = (),
        error_share: float = 0.0,
        slow: bool = False,
        takes_batches: bool = True,
        lists: bool = True,
        refusal: int = 404,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.ends = list(ends)
        self.error_share = error_share
        self.slow = slow
        self.takes_batches = takes_batches
        self.lists = lists
        self.refusal = refusal
        self.batches: dict[str, ServedBatch] = {}
        self.files: dict[str, str] = {}
        self.served: list[str] = []
        self.calls: list[str] = []
        self.watch: Watch | None = None
        self._numbers = itertools.count(1)

    async def __aenter__(self) -> BatchServer:
        await self.start()
        return self

    async def start(self) -> None:
        app = web.Application(client_max_size=256 << 20)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/files", self._watched("POST files", self._upload))
        app.router.add_get("/v1/files/{id}/content", self._watched("GET content", self._content_of))
        app.router.add_post("/v1/batches", self._watched("POST batches", self._create))
        app.router.add_get("/v1/batches", self._watched("GET batches", self._list))
        app.router.add_get("/v1/batches/{id}", self._watched("GET batch", self._look))
        app.router.add_post("/v1/batches/{id}/cancel", self._watched("POST cancel", self._cancel))
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=False)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, backlog=4096).start()
        self.port = self._runner.addresses[0][1]

    def _watched(self, name: str, handle: Callable[[web.Request], Awaitable[web.Response]]) -> Any:
        async def watched(request: web.Request) -> web.Response:
            if not self.takes_batches:
                error = {"message": "Not Found", "type": "not_found", "code": None}
                return web.json_response({"error": error}, status=self.refusal)
            self.calls.append(name)
            if self.watch:
                await self.watch("before", name)
            response = await handle(request)
            if self.watch:
                await self.watch("after", name)
            return response

        return watched

    async def _upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        assert form["purpose"] == "batch"
        upload: Any = form["file"]
        name = f"file-{next(self._numbers)}"
        self.files[name] = upload.file.read().decode()
        return web.json_response(
            {"id": name, "object": "file", "bytes": len(self.files[name]), "created_at": int(time.time()),
             "filename": upload.filename, "purpose": "batch", "status": "processed"}
        )  # fmt: skip

    async def _content_of(self, request: web.Request) -> web.Response:
        return web.Response(text=self.files[request.match_info["id"]], content_type="application/octet-stream")

    async def _create(self, request: web.Request) -> web.Response:
        given = await request.json()
        assert given["endpoint"] == "/v1/chat/completions"
        assert given["completion_window"] == "24h"
        lines = [json.loads(line) for line in self.files[given["input_file_id"]].splitlines()]
        assert len({line["custom_id"] for line in lines}) == len(lines)
        batch = ServedBatch(
            f"batch_{next(self._numbers)}", lines, given.get("metadata") or {},
            self.ends.pop(0) if self.ends else "completed",
        )  # fmt: skip
        self.batches[batch.id] = batch
        return self._shown(batch)

    async def _list(self, request: web.Request) -> web.Response:
        if not self.lists:
            return web.json_response({"error": {"message": "Not Found"}}, status=404)
        found = [self._plain(batch) for batch in reversed(self.batches.values())]
        return web.json_response({"object": "list", "data": found, "has_more": False})

    async def _look(self, request: web.Request) -> web.Response:
        batch = self.batches[request.match_info["id"]]
        batch.looks += 1
        if not (self.slow and batch.status == "in_progress"):
            self._further(batch)
        return self._shown(batch)

    async def _cancel(self, request: web.Request) -> web.Response:
        batch = self.batches[request.match_info["id"]]
        if batch.status in ("validating", "in_progress", "finalizing"):
            batch.status = "cancelling"
        return self._shown(batch)

    def _further(self, batch: ServedBatch) -> None:
        if batch.status in ("completed", "failed", "expired", "cancelled"):
            return
        if batch.status == "validating" and batch.end == "failed":
            batch.status = "failed"
            batch.errors = [{"code": "token_limit_exceeded", "message": "Enqueued token limit reached."}]
            return
        batch.status = _FURTHER.get(batch.status, batch.end)
        if batch.status in ("completed", "expired", "cancelled"):
            self._serve(batch)

    def _serve(self, batch: ServedBatch) -> None:
        served, failed = [], []
        half = len(batch.requests) if batch.status == "completed" else (len(batch.requests) + 1) // 2
        errors = int(half * self.error_share)
        for place, line in enumerate(batch.requests):
            key = line["custom_id"]
            if place >= half:
                said = {"code": "batch_expired", "message": "This request could not be executed in time."}
                failed.append({"id": f"r{place}", "custom_id": key, "response": None, "error": said})
            elif place < errors:
                body = {"error": {"message": "The server had an error.", "type": "server_error", "code": None}}
                response = {"status_code": 500, "request_id": "x", "body": body}
                failed.append({"id": f"r{place}", "custom_id": key, "response": response, "error": None})
            else:
                response = {"status_code": 200, "request_id": "x", "body": self._completion(line["body"])}
                served.append({"id": f"r{place}", "custom_id": key, "response": response, "error": None})
                self.served.append(f"{batch.id}/{key}")
        batch.served, batch.failed = len(served), len(failed)
        for kind, lines in (("output", served), ("error", failed)):
            if lines:
                name = f"file-{next(self._numbers)}"
                self.files[name] = "".join(f"{json.dumps(line)}\n" for line in reversed(lines))
                batch.files[kind] = name

    def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
        self.requests.append(body)
        content = self._content(body)
        used = {"prompt_tokens": len(prompt_of(body).encode()) // 4, "completion_tokens": len(content.encode()) // 4}
        used = {name: round(self.overcharge * tokens) for name, tokens in used.items()}
        message = {"role": "assistant", "content": content}
        return {
            "id": "chatcmpl-batch", "object": "chat.completion", "created": int(time.time()), "model": body["model"],
            "usage": used | {"total_tokens": sum(used.values())},
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        }  # fmt: skip

    def _shown(self, batch: ServedBatch) -> web.Response:
        return web.json_response(self._plain(batch))

    def _plain(self, batch: ServedBatch) -> dict[str, Any]:
        return {
            "id": batch.id, "object": "batch", "endpoint": "/v1/chat/completions", "completion_window": "24h",
            "input_file_id": "file-0", "created_at": batch.created_at, "status": batch.status,
            "metadata": batch.metadata, "output_file_id": batch.files.get("output"),
            "error_file_id": batch.files.get("error"),
            "errors": {"object": "list", "data": batch.errors} if batch.errors else None,
            "request_counts": {"total": len(batch.requests), "completed": batch.served, "failed": batch.failed},
        }  # fmt: skip
