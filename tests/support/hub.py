"""A Hugging Face hub on loopback: the edge where tests fake the world.

    async with Hub() as hub:
        hub.add("models", "acme/tiny", {"config.json": b"...", "model.safetensors": b"..."})
        hub.add("datasets", "acme/rows", {"data/train.jsonl": b"..."}, branches={"refs/convert/parquet": {...}})
        hub.fault("*/resolve/*train.jsonl", Fault(status=429, retry_after=1), times=2)
        Settings(hub_url=hub.url, hub_cache=tmp_path, hub_offline=False)

It speaks what `huggingface_hub` and `datasets` ask of a hub for reading:

    /api/{kind}/{name}[/revision/{revision}]      facts: commit, files, card, gated
    /api/{kind}/{name}/tree/{revision}[/{path}]   files and folders, in pages (Link: <...>; rel="next")
    /api/{kind}/{name}/paths-info/{revision}      facts of some paths
    /api/{kind}/{name}/refs                       branches, and what was converted to Parquet
    /[datasets/]{name}/resolve/{revision}/{path}  302 to the other host for a large file, with X-Linked-ETag,
                                                  X-Linked-Size, X-Repo-Commit; 307 to /api/resolve-cache for another
    /cdn/{digest}/{path}                          on a port of its own: the bytes, by Range where asked

Who may not read gets 401 or 403 (GatedRepo), who names nothing that is there 401 without a token and 404 with one
(RepoNotFound, RevisionNotFound, EntryNotFound), as on the real one. More addresses are added by `route`, before it is
entered. `requests` lists what was asked ("GET /path"), `asked` the same with ranges and tokens.
"""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import functools
import hashlib
import json
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_LARGE = (".parquet", ".gz", ".zst", ".zip", ".arrow", ".bin", ".safetensors")
_LARGE_BYTES = 10 << 20


@dataclass
class Repository:
    """One repository. `files` are bytes by path, on the branch "main"; `branches` the others'."""

    kind: str
    name: str
    files: dict[str, bytes]
    gated: bool = False
    private: bool = False
    downloads: int = 0
    card: dict[str, Any] = field(default_factory=dict)
    branches: dict[str, dict[str, bytes]] = field(default_factory=dict)

    @property
    def commit(self) -> str:
        """The name of main's commit: it follows from the files."""
        return commit_of(self.files)

    def at(self, revision: str) -> dict[str, bytes] | None:
        """The files at a branch or a commit; None where there is none."""
        for branch, files in {"main": self.files, **self.branches}.items():
            if revision in (branch, commit_of(files)):
                return files
        return None


@dataclass(frozen=True)
class Fault:
    """What goes wrong with an answer. One field says which fault it is; `retry_after` goes with `status`."""

    status: int = 0
    """Answer this instead, for example 429 or 503."""
    retry_after: int | None = None
    """Seconds, in the headers Retry-After and RateLimit."""
    cut: int | None = None
    """The connection ends after so many bytes of the body."""
    short: int | None = None
    """A body that is whole by its own length, and shorter than what was asked for."""
    no_range: bool = False
    """The whole file, though a part was asked for."""
    bytes_per_s: float = 0.0
    """The body drips."""
    silent_s: float = 0.0
    """No answer for so long."""
    etag: str = ""
    """Another ETag: the file is said to have changed."""


_FAULT = web.RequestKey("fault", Fault)


@dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    path: str
    query: str
    range: str
    token: str
    cdn: bool


@dataclass
class _Planned:
    pattern: str
    method: str
    fault: Fault
    times: int


class Hub:
    """The server. `url` is known once it is entered, `cdn_url` too."""

    page_size = 1000

    def __init__(self) -> None:
        self.url = self.cdn_url = ""
        self.requests: list[str] = []
        self.asked: list[Asked] = []
        self.tokens: dict[str, set[str]] = {}
        """{token: names of the gated and private repositories that it opens}. Any other token is refused."""
        self.aliases: dict[str, str] = {}
        """{old name: name}: a repository that was renamed, answered with a redirect."""
        self.repositories: dict[tuple[str, str], Repository] = {}
        self._faults: list[_Planned] = []
        self._routes: list[tuple[str, str, Handler]] = []
        self._runners: list[web.AppRunner] = []

    def add(self, kind: str, name: str, files: dict[str, bytes], **facts: Any) -> Repository:
        """Puts a repository of `kind` "models" or "datasets" on the hub; `facts` are the other fields."""
        repository = Repository(kind, name, files, **facts)
        self.repositories[kind, name] = repository
        return repository

    def fault(self, pattern: str, fault: Fault, *, times: int = 1, method: str = "GET") -> None:
        """The next `times` requests whose path fits the pattern ("*/resolve/*a.csv", "/cdn/*") go wrong."""
        self._faults.append(_Planned(pattern, method, fault, times))

    def route(self, method: str, path: str, handler: Handler) -> None:
        """Another address, before the hub is entered; `path` is aiohttp's ("/api/models")."""
        self._routes.append((method, path, handler))

    def ranges(self, pattern: str = "*") -> list[str]:
        """The Range headers of the requests whose path fits, in their order."""
        return [one.range for one in self.asked if one.range and fnmatch.fnmatch(one.path, pattern)]

    async def __aenter__(self) -> Hub:
        hub, cdn = self._application(cdn=False), self._application(cdn=True)
        for method, path, handler in self._routes:
            hub.router.add_route(method, path, handler)
        for kind in ("models", "datasets"):
            api = f"/api/{kind}/{{name:[^/]+/[^/]+}}"
            hub.router.add_get(f"{api}/tree/{{revision}}", self._tree)
            hub.router.add_get(f"{api}/tree/{{revision}}/{{path:.*}}", self._tree)
            hub.router.add_post(f"{api}/paths-info/{{revision}}", self._paths)
            hub.router.add_get(f"{api}/revision/{{revision}}", self._facts)
            hub.router.add_get(f"{api}/refs", self._refs)
            hub.router.add_get(api, self._facts)
        hub.router.add_get("/datasets/{name:[^/]+/[^/]+}/resolve/{revision}/{path:.*}", self._file)
        hub.router.add_get("/api/resolve-cache/{kind}/{name:[^/]+/[^/]+}/{revision}/{path:.*}", self._small)
        hub.router.add_get("/{name:[^/]+/[^/]+}/resolve/{revision}/{path:.*}", self._file)
        cdn.router.add_get("/cdn/{digest}/{path:.*}", self._large)
        self.url, self.cdn_url = await self._listen(hub), await self._listen(cdn)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for runner in self._runners:
            await runner.cleanup()

    # -- around every request

    def _application(self, *, cdn: bool) -> web.Application:
        @web.middleware
        async def around(request: web.Request, handler: Handler) -> web.StreamResponse:
            self.requests.append(f"{request.method} {request.path}")
            token = request.headers.get("Authorization", "").removeprefix("Bearer ")
            spread = request.headers.get("Range", "")
            self.asked.append(Asked(request.method, request.path, request.query_string, spread, token, cdn))
            fault = self._next_fault(request)
            request[_FAULT] = fault
            if fault.silent_s:
                await asyncio.sleep(fault.silent_s)
            if fault.status:
                raise _faulty(fault)
            for old, new in () if cdn else self.aliases.items():
                for before in ("/api/datasets/", "/api/models/", "/datasets/"):
                    if request.path.startswith((f"{before}{old}/", f"{before}{old}?")) or request.path == before + old:
                        return _redirect(307, request.path_qs.replace(before + old, before + new, 1))
            if not cdn and token and token not in self.tokens:
                # No X-Error-Code: that is how the real one tells a bad token from a repository that is not there.
                raise _refused(401, "", "Invalid credentials in Authorization header")
            return await handler(request)

        return web.Application(middlewares=[around], client_max_size=64 << 20)

    async def _listen(self, app: web.Application) -> str:
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        self._runners.append(runner)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        assert site._server is not None
        return f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"

    def _next_fault(self, request: web.Request) -> Fault:
        for planned in self._faults:
            fits = planned.method in (request.method, "*") and fnmatch.fnmatch(request.path, planned.pattern)
            if planned.times and fits:
                planned.times -= 1
                return planned.fault
        return Fault()

    # -- facts

    def found(self, request: web.Request, *, open_to_all: bool = False) -> tuple[Repository, dict[str, bytes]]:
        """The repository and the files at the revision that a request names; raises what the hub answers instead."""
        cached = request.match_info.get("kind")
        kind = cached or ("datasets" if request.path.startswith(("/api/datasets/", "/datasets/")) else "models")
        name = request.match_info["name"]
        repository = self.repositories.get((kind, name))
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        may = name in self.tokens.get(token, ())
        if repository is None or (repository.private and not may):
            raise _refused(404 if token else 401, "RepoNotFound", "Repository not found")
        revision = request.match_info.get("revision") or "main"
        files = repository.at(revision)
        if files is None:
            raise _refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if repository.gated and not open_to_all and not may:
            raise _refused(403 if token else 401, "GatedRepo", f"Access to {kind} {name} is restricted")
        return repository, files

    async def _facts(self, request: web.Request) -> web.Response:
        repository, files = self.found(request, open_to_all=True)
        siblings: list[dict[str, Any]] = []
        for path, data in files.items():
            siblings.append({"rfilename": path, "size": len(data), "blobId": blob_id(data)})
            if is_large(path, data):
                siblings[-1]["lfs"] = {"sha256": sha256(data), "size": len(data), "pointerSize": 130}
        commit = commit_of(files)
        facts = {
            "_id": commit[:24], "id": repository.name, "modelId": repository.name, "sha": commit,
            "private": repository.private, "gated": "auto" if repository.gated else False, "disabled": False,
            "tags": [], "downloads": repository.downloads, "likes": 0, "siblings": siblings,
            "cardData": repository.card, "lastModified": "2024-01-01T00:00:00.000Z",
            "createdAt": "2024-01-01T00:00:00.000Z",
        }  # fmt: skip
        return web.json_response(facts)

    async def _refs(self, request: web.Request) -> web.Response:
        repository, _ = self.found(request, open_to_all=True)
        branches, converts = [{"name": "main", "ref": "refs/heads/main", "targetCommit": repository.commit}], []
        for name, files in repository.branches.items():
            one = {"name": name, "ref": f"refs/heads/{name}", "targetCommit": commit_of(files)}
            if name.startswith("refs/convert/"):
                converts.append(one | {"name": name.removeprefix("refs/convert/"), "ref": name})
            else:
                branches.append(one)
        return web.json_response({"branches": branches, "tags": [], "converts": converts})

    async def _tree(self, request: web.Request) -> web.Response:
        _, files = self.found(request)
        under = request.match_info.get("path", "").strip("/")
        if under and not any(path.startswith(f"{under}/") for path in files):
            raise _refused(404, "EntryNotFound", f"{under} does not exist on {request.match_info['revision']}")
        deep = request.query.get("recursive", "").lower() in ("1", "true")
        entries = _entries(files, under, deep)
        begin = int(request.query.get("cursor", "0"))
        headers = {}
        if begin + self.page_size < len(entries):
            after = request.rel_url.update_query(cursor=str(begin + self.page_size))
            headers["Link"] = f'<{self.url}{after}>; rel="next"'
        return web.json_response(entries[begin : begin + self.page_size], headers=headers)

    async def _paths(self, request: web.Request) -> web.Response:
        _, files = self.found(request)
        form = await (request.json() if request.content_type == "application/json" else request.post())
        asked: Iterable[Any] = form["paths"] if isinstance(form["paths"], list) else form.getall("paths")
        everything = {entry["path"]: entry for entry in _entries(files, "", deep=True)}
        return web.json_response([everything[path] for path in asked if path in everything])

    # -- files

    async def _file(self, request: web.Request) -> web.StreamResponse:
        repository, files = self.found(request)
        path, commit = request.match_info["path"], commit_of(files)
        data = files.get(path)
        if data is None:
            raise _refused(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": commit})
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        etag = request[_FAULT].etag
        if is_large(path, data):
            headers["X-Linked-ETag"] = f'"{etag or sha256(data)}"'
            headers["X-Linked-Size"] = str(len(data))
            return _redirect(302, f"{self.cdn_url}/cdn/{sha256(data)}/{path}?signature=x", headers)
        headers["ETag"] = f'"{etag or blob_id(data)}"'
        inside = f"{repository.kind}/{repository.name}/{commit}/{path}"
        return _redirect(307, f"/api/resolve-cache/{inside}?etag={blob_id(data)}", headers)

    async def _small(self, request: web.Request) -> web.StreamResponse:
        _, files = self.found(request)
        data = files[request.match_info["path"]]
        etag = request[_FAULT].etag or blob_id(data)
        return await _body(request, data, {"ETag": f'"{etag}"', "X-Repo-Commit": request.match_info["revision"]})

    async def _large(self, request: web.Request) -> web.StreamResponse:
        digest = request.match_info["digest"]
        for repository in self.repositories.values():
            for files in (repository.files, *repository.branches.values()):
                data = files.get(request.match_info["path"], b"")
                if data and sha256(data) == digest:
                    # The other host has ETags of its own.
                    return await _body(request, data, {"ETag": f'"{hashlib.md5(data).hexdigest()}"'})
        raise web.HTTPForbidden(text="AccessDenied")


async def _body(request: web.Request, data: bytes, headers: dict[str, str]) -> web.StreamResponse:
    """The bytes, or the part that was asked for, with the fault that was planned."""
    fault: Fault = request[_FAULT]
    headers["Accept-Ranges"] = "bytes"
    status, part, asked = 200, data, request.http_range
    if (asked.start is not None or asked.stop is not None) and not fault.no_range:
        start, stop, _ = asked.indices(len(data))
        if start >= len(data):
            raise web.HTTPRequestRangeNotSatisfiable(headers={"Content-Range": f"bytes */{len(data)}"})
        stop = min(stop, start + fault.short) if fault.short is not None else stop
        status, part = 206, data[start:stop]
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
    elif fault.short is not None:
        part = data[: fault.short]
    response = web.StreamResponse(status=status, headers=headers)
    response.content_type = "application/octet-stream"
    response.content_length = len(part)
    await response.prepare(request)
    if request.method == "HEAD":
        return response
    with contextlib.suppress(ConnectionError):
        for piece in _pieces(part, fault):
            await response.write(piece)
            if fault.bytes_per_s:
                await asyncio.sleep(len(piece) / fault.bytes_per_s)
        if fault.cut is not None and request.transport is not None:
            request.transport.close()
        else:
            await response.write_eof()
    return response


def _pieces(part: bytes, fault: Fault) -> list[bytes]:
    if fault.cut is not None:
        part = part[: fault.cut]
    size = max(1, int(fault.bytes_per_s / 10)) if fault.bytes_per_s else max(1, len(part))
    return [part[begin : begin + size] for begin in range(0, len(part), size)]


def _entries(files: dict[str, bytes], under: str, deep: bool) -> list[dict[str, Any]]:
    prefix = f"{under}/" if under else ""
    entries: dict[str, dict[str, Any]] = {}
    for path, data in sorted(files.items()):
        if not path.startswith(prefix):
            continue
        parts = path.removeprefix(prefix).split("/")
        for depth in range(1, len(parts) if deep else min(len(parts), 2)):
            folder = prefix + "/".join(parts[:depth])
            entries.setdefault(
                folder, {"type": "directory", "path": folder, "oid": blob_id(folder.encode()), "size": 0}
            )
        if deep or len(parts) == 1:
            entries[path] = {"type": "file", "path": path, "oid": blob_id(data), "size": len(data)}
            if is_large(path, data):
                entries[path]["lfs"] = {"oid": sha256(data), "size": len(data), "pointerSize": 130}
    return list(entries.values())


def is_large(path: str, data: bytes) -> bool:
    """Whether a file lies on the other host."""
    return path.endswith(_LARGE) or len(data) > _LARGE_BYTES


@functools.cache
def blob_id(data: bytes) -> str:
    """Git's name for these bytes, the ETag of a small file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@functools.cache
def sha256(data: bytes) -> str:
    """The name of a large file's bytes, its X-Linked-ETag."""
    return hashlib.sha256(data).hexdigest()


def commit_of(files: dict[str, bytes]) -> str:
    """A name for a commit with these files."""
    digest = hashlib.sha1()
    for path in sorted(files):
        digest.update(f"{path}\0{blob_id(files[path])}\0".encode())
    return digest.hexdigest()


def _redirect(status: int, location: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(status=status, headers={"Location": location, **(headers or {})})


def _faulty(fault: Fault) -> web.HTTPException:
    headers = {}
    if fault.retry_after is not None:
        headers = {"Retry-After": str(fault.retry_after), "RateLimit": f'"resolvers";r=0;t={fault.retry_after}'}
    return _answer(fault.status, headers, "It went wrong, as was planned.")


def _refused(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> web.HTTPException:
    told = {"X-Error-Code": code} if code else {}
    return _answer(status, {**told, "X-Error-Message": message, **(headers or {})}, message)


def _answer(status: int, headers: dict[str, str], message: str) -> web.HTTPException:
    class Answer(web.HTTPException):
        status_code = status

    return Answer(headers=headers, text=json.dumps({"error": message}), content_type="application/json")
