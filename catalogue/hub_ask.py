"""Asks a Hugging Face hub, politely: no faster than it permits, again after what failed, and not past a stop.

    Asker ── page(path)     one page of a listing, and the path of the next
          └─ card(path)     a repository's README.md, its beginning

The hub's own client gives the session, the token's header and the errors. Its iterators over a listing cannot begin at
a page in the middle, so pages are followed here; they are in the same form (Link: <...>; rel="next").

Rates are those of huggingface.co/docs/hub/rate-limits, in requests per five minutes: 500 to the API and 3,000 to files
for anybody, 1,000 and 5,000 with a token; a tenth is left to others. A 429 says how long to wait, and so long all wait.
"""

from __future__ import annotations

import email.utils
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from services.kit.errors import Cancelled, FailedPrecondition, NotFound, Unauthenticated, Unavailable
from services.kit.settings import Settings

_PAGES_PER_S, _CARDS_PER_S = 0.9 * 500 / 300, 0.9 * 3000 / 300
_WITH_A_TOKEN = 1000 / 500
_TIMEOUT_S = 30.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0
# A hub that lets nothing through for longer than this does not want to be asked.
_LONGEST_WAIT_S = 900.0
_PAGE_BYTES = 256 << 20
_CARD_BYTES = 200_000
_AGAIN = (408, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Page:
    """Repositories as the hub lists them; the next page's path, "" after the last; the hub's clock, as
    "2026-11-22T14:00:00" in UTC."""

    items: list[dict[str, Any]]
    next: str
    now: str


class Pace:
    """Lets so many calls through a second, evenly; any thread may ask. 0: any number."""

    def __init__(self, per_second: float) -> None:
        self._gap = 1 / per_second if per_second else 0.0
        self._lock = threading.Lock()
        self._free = 0.0

    def wait_s(self) -> float:
        """Takes the next place; the seconds until it is there."""
        with self._lock:
            now = time.monotonic()
            mine = max(self._free, now)
            self._free = mine + self._gap
            return mine - now

    def hold(self, seconds: float) -> bool:
        """Lets nobody through for so long; whether that is longer than it was held already."""
        with self._lock:
            until = time.monotonic() + seconds
            longer = until > self._free + 0.5
            self._free = max(self._free, until)
            return longer


class Asker:
    """The way to the hub. Setting `stop` ends it with Cancelled at the next request or in a wait.

    `per_second`: most requests a second, 0 for what the hub permits. `say` is told of waits, for a person.
    """

    def __init__(
        self, settings: Settings, stop: threading.Event, per_second: float = 0.0, say: Callable[[str], None] = print
    ) -> None:
        from huggingface_hub.utils import build_hf_headers, get_session

        self._url = settings.hub_url.rstrip("/")
        self._patience_s = settings.hub_patience_s
        self._stop = stop
        self._say = say
        self._session = get_session()
        self._headers = build_hf_headers(token=settings.hub_token.get_secret_value() or None, library_name="p2m")
        more = _WITH_A_TOKEN if "authorization" in self._headers else 1.0
        self._pages = Pace(per_second or more * _PAGES_PER_S)
        self._cards = self._pages if per_second else Pace(more * _CARDS_PER_S)

    def page(self, path: str) -> Page:
        """One page of a listing. FailedPrecondition where the hub refuses the path, Unauthenticated, Unavailable."""
        headers, body = self._get(path, self._pages, _PAGE_BYTES)
        try:
            items = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise Unavailable(
                "HUB_ANSWER", f"{self._url} answered a listing with what is no JSON ({error})."
            ) from error
        if not isinstance(items, list):
            raise Unavailable("HUB_ANSWER", f"{self._url} answered a listing with a {type(items).__name__}.")
        return Page([one for one in items if isinstance(one, dict)], _next(headers), _date(headers))

    def card(self, path: str) -> str:
        """The beginning of a card, "" where there is none or it may not be read. Unavailable."""
        try:
            _, body = self._get(path, self._cards, _CARD_BYTES)
        except (NotFound, FailedPrecondition):
            return ""
        return body.decode("utf-8", "replace")

    def _get(self, path: str, pace: Pace, most_bytes: int) -> tuple[Mapping[str, str], bytes]:
        """Headers and body, of which `most_bytes` are read; asks again while that may help."""
        import httpx2

        pause, failed_s, told_s = _FIRST_PAUSE_S, 0.0, 0.0
        while True:
            self._sleep(pace.wait_s())
            began = time.monotonic()
            told: float | None = None
            try:
                with self._session.stream(
                    "GET", self._url + path, headers=self._headers, timeout=_TIMEOUT_S
                ) as response:
                    if response.status_code not in _AGAIN:
                        self._check(response.status_code, path)
                        return response.headers, _beginning(response, most_bytes)
                    told = _told(response.headers)
                    what = f"it answered {response.status_code}"
            except httpx2.TransportError as error:
                what = str(error) or type(error).__name__
            except httpx2.HTTPError as error:
                raise Unavailable("HUB_UNREACHABLE", f"{self._url} cannot be asked for {path}: {error}") from error
            if told is None:
                failed_s += time.monotonic() - began + pause
                if failed_s > self._patience_s:
                    raise Unavailable("HUB_UNREACHABLE", f"{self._url} cannot be reached: {what.rstrip('.')}.")
                self._sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_S)
                continue
            told_s += told
            if told_s > _LONGEST_WAIT_S:
                raise Unavailable("HUB_BUSY", f"{self._url} asks to wait {told:,.0f} s more.", retry_after=told)
            if pace.hold(told):
                self._say(f"The hub asks to wait {told:,.0f} s; going on then.")

    def _check(self, status: int, path: str) -> None:
        if status == 401 and path.startswith("/api/"):
            raise Unauthenticated("HUB_TOKEN", f"{self._url} refused the token: check HF_TOKEN.")
        if status == 404:
            raise NotFound("NOT_ON_HUB", f"{self._url} has nothing at {path}.")
        if not 200 <= status < 300:
            raise FailedPrecondition("HUB_REFUSED", f"{self._url} answered {status} to {path}.")

    def _sleep(self, seconds: float) -> None:
        if self._stop.wait(seconds) if seconds > 0 else self._stop.is_set():
            raise Cancelled("STOPPED", "Stopped.")


def _next(headers: Mapping[str, str]) -> str:
    """The next page's path. Its host is not looked at: the token goes to the hub alone, wherever a link leads."""
    import httpx2

    links = httpx2.Response(200, headers={"link": headers.get("link", "")}).links
    parts = urlsplit(links.get("next", {}).get("url", ""))
    return f"/{parts.path.lstrip('/')}?{parts.query}" if parts.path else ""


def _date(headers: Mapping[str, str]) -> str:
    try:
        now = email.utils.parsedate_to_datetime(headers.get("date", "")).timestamp()
    except (ValueError, TypeError):
        now = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))


def _beginning(response: Any, most_bytes: int) -> bytes:
    body = bytearray()
    for chunk in response.iter_bytes():
        body += chunk
        if len(body) >= most_bytes:
            break
    return bytes(body[:most_bytes])


def _told(headers: Mapping[str, str]) -> float | None:
    """Seconds that the hub asks to wait: RateLimit, or Retry-After in seconds or as a date."""
    from huggingface_hub.utils import parse_ratelimit_headers

    limit = parse_ratelimit_headers(headers)
    if limit is not None and limit.remaining == 0:
        return float(limit.reset_in_seconds) + 1  # it counts in whole seconds
    said = headers.get("retry-after", "").strip()
    if said.isdecimal():
        return float(said)
    try:
        return max(email.utils.parsedate_to_datetime(said).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError):
        return None
