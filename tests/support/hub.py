"""A small Hugging Face hub on a loopback port: the edge where tests fake the world.

    async with Hub() as hub:
        hub.add("models", "acme/tiny", {"config.json": b"...", "model.safetensors": b"..."})
        hub.add("datasets", "acme/rows", {"data/train.jsonl": b"..."}, gated=False)
        Settings(hub_url=hub.url, hub_cache=tmp_path, hub_offline=False)

It speaks what `huggingface_hub` and `datasets` ask of a hub for reading: repository facts, trees, path facts, files
with their ETag and commit, ranges, 401 for what is gated, 404 for what is absent. `hub.requests` lists what was asked.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from aiohttp import web


@dataclass
class Repository:
    """One repository at one commit. `files` are bytes by path."""

    kind: str
    name: str
    files: dict[str, bytes]
    gated: bool = False
    downloads: int = 0
    card: dict[str, Any] = field(default_factory=dict)

    @property
    def commit(self) -> str:
        """A commit's name: it follows from the files."""
        digest = hashlib.sha1()
        for path in sorted(self.files):
            digest.update(path.encode() + b"\0" + self.files[path])
        return digest.hexdigest()


class Hub:
    """The server. `url` is known once it is entered."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[str] = []
        self._repositories: dict[tuple[str, str], Repository] = {}
        self._runner: web.AppRunner | None = None

    def add(self, kind: str, name: str, files: dict[str, bytes], *, gated: bool = False, **facts: Any) -> Repository:
        """Puts a repository of `kind` "models" or "datasets" on the hub."""
        repository = Repository(kind, name, files, gated, **facts)
        self._repositories[kind, name] = repository
        return repository

    async def __aenter__(self) -> Hub:
        app = web.Application(middlewares=[self._noted])
        for kind in ("models", "datasets"):
            api = f"/api/{kind}/{{name:[^/]+/[^/]+}}"
            app.router.add_get(f"{api}/tree/{{revision}}", self._tree)
            app.router.add_get(f"{api}/tree/{{revision}}/{{path:.*}}", self._tree)
            app.router.add_post(f"{api}/paths-info/{{revision}}", self._paths)
            app.router.add_get(f"{api}/revision/{{revision}}", self._facts)
            app.router.add_get(f"{api}/refs", self._refs)
            app.router.add_get(api, self._facts)
        app.router.add_get("/datasets/{name:[^/]+/[^/]+}/resolve/{revision}/{path:.*}", self._file)
        app.router.add_get("/{name:[^/]+/[^/]+}/resolve/{revision}/{path:.*}", self._file)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        assert site._server is not None
        self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[attr-defined]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    @web.middleware
    async def _noted(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path}")
        return await handler(request)  # type: ignore[no-any-return]

    def _repository(self, request: web.Request, *, open_to_all: bool = False) -> Repository:
        kind = "datasets" if request.path.startswith(("/api/datasets/", "/datasets/")) else "models"
        name = request.match_info["name"]
        repository = self._repositories.get((kind, name))
        if repository is None:
            raise _refused(404, "RepoNotFound", "Repository not found")
        revision = request.match_info.get("revision")
        if revision not in (None, "main", repository.commit):
            raise _refused(404, "RevisionNotFound", f"No revision {revision}")
        if repository.gated and not open_to_all:
            raise _refused(401, "GatedRepo", f"Access to {name} is restricted")
        return repository

    async def _facts(self, request: web.Request) -> web.Response:
        repository = self._repository(request, open_to_all=True)
        siblings = [
            {"rfilename": path, "size": len(data), "blobId": _digest(data)} for path, data in repository.files.items()
        ]
        facts = {
            "_id": repository.commit[:24], "id": repository.name, "modelId": repository.name, "sha": repository.commit,
            "private": False, "gated": "auto" if repository.gated else False, "disabled": False, "tags": [],
            "downloads": repository.downloads, "likes": 0, "siblings": siblings, "cardData": repository.card,
            "lastModified": "2024-01-01T00:00:00.000Z", "createdAt": "2024-01-01T00:00:00.000Z",
        }  # fmt: skip
        return web.json_response(facts)

    async def _refs(self, request: web.Request) -> web.Response:
        commit = self._repository(request).commit
        branch = {"name": "main", "ref": "refs/heads/main", "targetCommit": commit}
        return web.json_response({"branches": [branch], "tags": [], "converts": []})

    async def _tree(self, request: web.Request) -> web.Response:
        repository = self._repository(request)
        under = request.match_info.get("path", "").strip("/")
        if under and not any(path.startswith(f"{under}/") for path in repository.files):
            raise _refused(404, "EntryNotFound", f"No folder {under}")
        deep = request.query.get("recursive", "").lower() in ("1", "true")
        return web.json_response(_entries(repository, under, deep))

    async def _paths(self, request: web.Request) -> web.Response:
        repository = self._repository(request)
        form = await (request.json() if request.content_type == "application/json" else request.post())
        asked = form["paths"] if isinstance(form["paths"], list) else form.getall("paths")
        everything = {entry["path"]: entry for entry in _entries(repository, "", deep=True)}
        return web.json_response([everything[path] for path in asked if path in everything])

    async def _file(self, request: web.Request) -> web.Response:
        repository = self._repository(request)
        data = repository.files.get(request.match_info["path"])
        if data is None:
            raise _refused(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": repository.commit})
        headers = {"ETag": f'"{_digest(data)}"', "X-Repo-Commit": repository.commit, "Accept-Ranges": "bytes"}
        part = request.http_range
        if part.start is None and part.stop is None:
            return web.Response(body=data, headers=headers, content_type="application/octet-stream")
        start, stop = part.start or 0, min(part.stop or len(data), len(data))
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
        return web.Response(body=data[start:stop], status=206, headers=headers, content_type="application/octet-stream")


def _entries(repository: Repository, under: str, deep: bool) -> list[dict[str, Any]]:
    prefix = f"{under}/" if under else ""
    entries: dict[str, dict[str, Any]] = {}
    for path, data in sorted(repository.files.items()):
        if not path.startswith(prefix):
            continue
        parts = path.removeprefix(prefix).split("/")
        for depth in range(1, len(parts) if deep else min(len(parts), 2)):
            folder = prefix + "/".join(parts[:depth])
            entries.setdefault(
                folder, {"type": "directory", "path": folder, "oid": _digest(folder.encode()), "size": 0}
            )
        if deep or len(parts) == 1:
            entries[path] = {"type": "file", "path": path, "oid": _digest(data), "size": len(data)}
    return list(entries.values())


def _digest(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


def _refused(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> web.HTTPException:
    kind = {401: web.HTTPUnauthorized, 404: web.HTTPNotFound}[status]
    return kind(headers={"X-Error-Code": code, "X-Error-Message": message, **(headers or {})}, text=message)
