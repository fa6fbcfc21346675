"""The listings of a hub stand-in: /api/models and /api/datasets, page by page as the real one answers them.

    listing = Listing(hub)                       before the hub is entered
    listing.add("models", "acme/tiny", downloads=7, pipeline_tag="translation", card="# Tiny")
    listing.cut_page, listing.stall_page         which answer, counted from 1, breaks off or never ends

Sorted by downloads or by the last change, newest first; filtered by `pipeline_tag` and by tags; `expand` says which
facts stand in an item. A page's Link header names the next by a cursor that says after which item it begins, so that it
means the same whatever is added meanwhile. Cards are files of the hub, at the item's commit.
"""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

from aiohttp import web

from tests.support.hub import Hub

CHANGED = "2026-01-01T00:00:00.000Z"


class Listing:
    """What is listed, and what was answered: `answered` has the cursors of the pages that went out whole, "" first."""

    def __init__(self, hub: Hub, page_size: int = 50) -> None:
        self.hub = hub
        self.page_size = page_size
        self.items: dict[str, dict[str, dict[str, Any]]] = {"models": {}, "datasets": {}}
        self.answered: list[str] = []
        self.cut_page = self.stall_page = 0
        self.stalled = asyncio.Event()
        self.strange: bytes | None = None
        """Answered instead of a page."""
        hub.route("GET", "/api/models", self._page)
        hub.route("GET", "/api/datasets", self._page)

    def add(self, kind: str, id: str, *, card: str | bytes | None = None, **facts: Any) -> None:
        """Lists a repository, or changes it; `facts` stand in the item as they are given."""
        files = {} if card is None else {"README.md": card.encode() if isinstance(card, str) else card}
        repository = self.hub.add(kind, id, files)
        item = {"_id": id, "id": id, "downloads": 0, "lastModified": CHANGED, "sha": repository.commit}
        self.items[kind][id] = item | {"tags": [], "gated": False} | facts

    async def _page(self, request: web.Request) -> web.StreamResponse:
        kind = request.path.rpartition("/")[2]
        by = request.query.get("sort", "downloads")
        found = [item for item in self.items[kind].values() if _fits(item, request)]
        found.sort(key=lambda item: (item[by], item["id"]), reverse=True)
        cursor = request.query.get("cursor", "")
        if cursor:
            after = json.loads(base64.urlsafe_b64decode(cursor))
            found = [item for item in found if [item[by], item["id"]] < after]
        size = min(int(request.query.get("limit", self.page_size)), self.page_size)
        page, rest = found[:size], found[size:]
        headers = {}
        if rest:
            following = base64.urlsafe_b64encode(json.dumps([page[-1][by], page[-1]["id"]]).encode()).decode()
            # The real one's links lead to its own host; that of a mirror must not be left for it.
            query = [(key, value) for key, value in request.query.items() if key != "cursor"]
            link = request.url.with_host("hub.invalid").with_query([*query, ("cursor", following)])
            headers["Link"] = f'<{link}>; rel="next"'
        expanded = {"_id", "id", *request.query.getall("expand", [])}
        body = json.dumps([{key: value for key, value in item.items() if key in expanded} for item in page]).encode()
        return await self._send(request, self.strange or body, headers, cursor)

    async def _send(
        self, request: web.Request, body: bytes, headers: dict[str, str], cursor: str
    ) -> web.StreamResponse:
        number = len(self.answered) + 1
        response = web.StreamResponse(headers={**headers, "Content-Length": str(len(body))})
        response.content_type = "application/json"
        await response.prepare(request)
        if number in (self.cut_page, self.stall_page):
            await response.write(body[: len(body) // 2])
            if number == self.stall_page:
                self.stalled.set()
                await asyncio.sleep(600)
            self.cut_page = 0
            assert request.transport is not None
            request.transport.close()
            return response
        await response.write(body)
        await response.write_eof()
        self.answered.append(cursor)
        return response


def _fits(item: dict[str, Any], request: web.Request) -> bool:
    wanted = request.query.get("pipeline_tag")
    if wanted and item.get("pipeline_tag") != wanted:
        return False
    return all(tag in item["tags"] for tag in request.query.getall("filter", []))
