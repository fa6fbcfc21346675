"""The REST service of a run's model.

    application(answering, record, format, token) -> a FastAPI application
    ├── POST /v1/predict     {"inputs": [...]} -> {"outputs": [...], "seconds": ...}
    ├── GET  /v1/model       what it is: instruction, verdict, scores, how fast it is
    ├── GET  /health         200 once it can answer, 503 before
    └── GET  /openapi.json, /docs

An error is {"error": {"code", "message"}} with 400 (no JSON), 401 (no token), 413 (too large), 422 (other fields than
wanted), 429 (too many wait), 503 (no model yet, or it failed). With a token, /v1 wants "Authorization: Bearer TOKEN".
"""

from __future__ import annotations

import json
import secrets
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from markupsafe import Markup
from pydantic import BaseModel, Field, StringConstraints
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.answering import Answering
from services.kit.errors import P2MError
from services.kit.refused import refused

MAX_INPUTS = 1000
MAX_CHARACTERS = 20_000
MAX_BODY_BYTES = 8 << 20
_STATUS = {"RESOURCE_EXHAUSTED": 429, "UNAVAILABLE": 503, "FAILED_PRECONDITION": 503, "INVALID_ARGUMENT": 422}


class PredictRequest(BaseModel):
    """Inputs to answer."""

    model_config = {"extra": "forbid"}

    inputs: Annotated[
        list[Annotated[str, StringConstraints(strict=True, max_length=MAX_CHARACTERS)]],
        Field(min_length=1, max_length=MAX_INPUTS, description="The inputs, without the instruction."),
    ]


class PredictResponse(BaseModel):
    """The answers."""

    outputs: list[str] = Field(description="One for each input, in their order.")
    seconds: float = Field(description="How long it took, waiting counted.")


class Health(BaseModel):
    """Whether it can answer."""

    status: str = Field(description='"ready", "loading" or "failed".')
    reason: str = Field("", description="Why it failed.")


class Unauthorized(Exception):
    """A request without the token, or with another one."""


def application(answering: Answering, record: dict[str, Any], served: str, token: str = "") -> FastAPI:
    """The application for a run's record. `served`: the format that `answering` holds, "" as trained."""
    app = FastAPI(
        title=record["name"], version="1", description=_instruction(record), docs_url=None, redoc_url=None,
    )  # fmt: skip
    app.add_middleware(BodyLimit)
    _tell_errors(app)
    about = describe(record, served)

    def authorised(request: Request) -> None:
        given = request.headers.get("authorization", "")
        # The bytes as they came: a header's text is read as Latin-1, whatever it was.
        if token and not secrets.compare_digest(given.encode("latin-1"), f"Bearer {token}".encode()):
            raise Unauthorized

    @app.post("/v1/predict", dependencies=[Depends(authorised)], summary="Answer inputs")
    async def predict(request: PredictRequest) -> PredictResponse:
        """One output for each input. Requests that come at the same time are answered together."""
        outputs, seconds = await answering.answer(tuple(request.inputs))
        return PredictResponse(outputs=outputs, seconds=round(seconds, 4))

    @app.get("/v1/model", dependencies=[Depends(authorised)], summary="What the model is")
    async def model() -> dict[str, Any]:
        """Its instruction, verdict, scores with 95 % intervals, licences, and how fast each format is."""
        return about

    @app.get("/health", summary="Whether it can answer")
    async def health() -> JSONResponse:
        found = Health(status=answering.state, reason=answering.reason)
        return JSONResponse(found.model_dump(), 200 if answering.state == "ready" else 503)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(_docs(app.openapi()))

    @app.api_route("/v1/{path:path}", methods=["GET", "POST", "PUT", "DELETE"], include_in_schema=False)
    async def nothing(path: str) -> None:
        if path in ("predict", "model"):
            allowed = "POST" if path == "predict" else "GET"
            raise HTTPException(405, f"/v1/{path} takes {allowed}.", {"Allow": allowed})
        raise HTTPException(404, f"There is no /v1/{path[:80]}; /docs lists what there is.")

    return app


def describe(record: dict[str, Any], served: str) -> dict[str, Any]:
    """What GET /v1/model answers."""
    evaluation, chosen = record.get("evaluation") or {}, record.get("chosen") or {}
    exports = record.get("exports") or {}
    return {
        "name": record["name"],
        "instruction": _instruction(record),
        "format": served or "safetensors",
        "base_model": (chosen.get("model") or {}).get("id"),
        "base_licence": (chosen.get("model") or {}).get("licence"),
        "dataset": (chosen.get("dataset") or {}).get("id"),
        "dataset_licence": (chosen.get("dataset") or {}).get("licence"),
        "verdict": evaluation.get("verdict"),
        "verdict_reason": evaluation.get("verdict_reason"),
        "ceiling": evaluation.get("ceiling"),
        "scores": evaluation.get("scores") or [],
        "exports": exports.get("formats") or [],
        "costs": exports.get("costs"),
        "limits": {"inputs": MAX_INPUTS, "characters": MAX_CHARACTERS, "bytes": MAX_BODY_BYTES},
    }


class BodyLimit:
    """Answers 413 to a request whose body is larger than the limit, before it is read whole."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self._app(scope, receive, send)
            return
        stated = dict(scope["headers"]).get(b"content-length", b"0")
        if stated.isdigit() and int(stated) > MAX_BODY_BYTES:
            await _too_large()(scope, receive, send)
            return
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return  # the caller has gone
            size += len(message.get("body", b""))
            if size > MAX_BODY_BYTES:
                await _too_large()(scope, receive, send)
                return
            parts.append(message.get("body", b""))
            if not message.get("more_body"):
                break
        whole: list[Message] = [{"type": "http.request", "body": b"".join(parts), "more_body": False}]

        async def replayed() -> Message:
            return whole.pop() if whole else await receive()

        await self._app(scope, replayed, send)


def _too_large() -> JSONResponse:
    return _error(413, "TOO_LARGE", f"The request is larger than {MAX_BODY_BYTES:,} bytes; send fewer inputs at once.")


def _error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": {"code": code, "message": message}}, status, headers)


def _tell_errors(app: FastAPI) -> None:
    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return _error(400, "NO_JSON", f"The body is no JSON: {first.get('ctx', {}).get('error', first['msg'])}.")
        where = ".".join(str(part) for part in first["loc"][1:]) or "body"
        wanted = f'{{"inputs": [1 to {MAX_INPUTS} texts of at most {MAX_CHARACTERS:,} characters]}}'
        return _error(422, "BAD_REQUEST", f"{where}: {first['msg']}. Wanted {wanted}, as application/json.")

    @app.exception_handler(Unauthorized)
    async def unauthorised(request: Request, _: Unauthorized) -> JSONResponse:
        refused("BAD_TOKEN", request.url.path, request.client.host if request.client else "")
        told = "The token is missing or wrong; wanted the header Authorization: Bearer TOKEN."
        return _error(401, "NO_TOKEN", told, {"WWW-Authenticate": "Bearer"})

    @app.exception_handler(P2MError)
    async def failed(_: Request, error: P2MError) -> JSONResponse:
        retry = {"Retry-After": str(max(1, round(error.retry_after)))} if error.retry_after else None
        return _error(_STATUS.get(error.code, 500), error.reason, error.message, retry)

    @app.exception_handler(HTTPException)
    async def other(_: Request, error: HTTPException) -> JSONResponse:
        return _error(error.status_code, "HTTP", str(error.detail), dict(error.headers or {}))


def _docs(schema: dict[str, Any]) -> str:
    """The schema as a page that needs no script and nothing from elsewhere."""
    calls = Markup("").join(
        Markup("<h2>{} {}</h2><p>{}</p>").format(method.upper(), path, call.get("description") or call.get("summary"))
        for path, methods in schema["paths"].items()
        for method, call in methods.items()
    )
    example = """curl -s localhost:8000/v1/predict -H 'content-type: application/json' -d '{"inputs": ["..."]}'"""
    return Markup(
        '<!doctype html><meta charset="utf-8"><title>{name}</title>'
        "<style>body{{font:16px system-ui;max-width:50rem;margin:2rem auto;padding:0 1rem}}"
        "pre{{overflow:auto;background:#8882;padding:.8rem}}</style>"
        '<h1>{name}</h1><p>{about}</p><pre>{example}</pre>{calls}<h2>Schema</h2><p><a href="openapi.json">'
        "openapi.json</a></p><pre>{schema}</pre>"
    ).format(
        name=schema["info"]["title"], about=schema["info"].get("description", ""), example=example, calls=calls,
        schema=json.dumps(schema.get("components", {}).get("schemas", {}), indent=2),
    )  # fmt: skip


def _instruction(record: dict[str, Any]) -> str:
    spec = record.get("spec") or {}
    return str(spec.get("original_instruction") or spec.get("instruction") or "")
