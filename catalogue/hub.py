"""A catalogue of what a Hugging Face hub has: its listing, page by page, and the cards of what is used most.

    collect(kind, wanted, result, ...)      lists, fetches cards, writes the catalogue `result` (.jsonl.gz)

    the pages       sorted by downloads, so that the most used come first and a limit can end it
    the next time   sorted by the last change, up to what the catalogue has already
    the cards       README.md of the most used; the others are described by what the listing says of them

Two million cards at the pace that the hub permits take days, the listing takes half an hour. What was fetched is kept
(see `hub_state`): a build that was stopped, cut off or killed goes on at the page after its last.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from catalogue import hub_state as state
from catalogue.hub_ask import Asker
from catalogue.hub_entries import EXPAND, entry, with_card
from catalogue.read import read
from services.kit.errors import Aborted, FailedPrecondition, P2MError, from_os_error, rebuild
from services.kit.settings import Settings
from services.kit.values import Progress

DEFAULT_CARDS = 2_000
_PAGE = 1_000
_CARDS_AT_ONCE = 8
_SAY_EVERY_S = 3.0

Report = Callable[[Progress], None]


@dataclass(frozen=True)
class Wanted:
    """What is wanted of a hub."""

    limit: int = 0
    """The most used so many; 0: all."""
    min_downloads: int = 0
    """Of a month."""
    tasks: tuple[str, ...] = ()
    """The Hub's names; any of them. Empty: all."""
    languages: tuple[str, ...] = ()
    """ISO 639-1 codes; any of them. Empty: all."""
    cards: int = DEFAULT_CARDS
    """Of the most used so many the card is fetched."""
    per_second: float = 0.0
    """Most requests a second; 0: as many as the hub permits."""
    anew: bool = False
    """From the first page, whatever was fetched before."""


@dataclass(frozen=True)
class Collected:
    """Entries in the catalogue; pages and cards fetched now; pages and cards that were there; what was left out
    since it is no text."""

    entries: int = 0
    pages: int = 0
    cards: int = 0
    pages_kept: int = 0
    cards_kept: int = 0
    left_out: int = 0
    since: str = ""
    """Only what changed since then (UTC) was listed; "" where everything was."""


@dataclass
class _Listed:
    """What the pages told so far."""

    entries: dict[str, dict[str, Any]]
    since: str = ""
    until: str = ""
    part: int = 0
    next: str = ""
    pages: int = 0
    kept: int = 0
    left_out: int = 0


def collect(
    kind: str, wanted: Wanted, result: Path, settings: Settings, report: Report, stop: threading.Event
) -> Collected:
    """Builds the catalogue of "models" or "datasets" at `result`; of one that is there already, what has changed.

    What was fetched is kept whatever happens. Unavailable, Unauthenticated (HUB_TOKEN), FailedPrecondition
    (HUB_OFFLINE, HUB_REFUSED), Cancelled where `stop` was set, Aborted (BUILDING) where another process builds this
    catalogue, DiskFull.
    """
    if settings.hub_offline:
        raise FailedPrecondition("HUB_OFFLINE", "The hub is switched off (HF_HUB_OFFLINE): nothing can be listed.")
    try:
        with _alone(result):
            return _collect(kind, wanted, result, settings, report, stop)
    except OSError as error:
        raise from_os_error(error, f"Writing {result}") from error


def _collect(
    kind: str, wanted: Wanted, result: Path, settings: Settings, report: Report, stop: threading.Event
) -> Collected:
    asker = Asker(settings, stop, wanted.per_second, lambda text: report(Progress(message=text)))
    asked = [*_listings(kind, wanted, ""), f"limit {wanted.limit}", f"downloads {wanted.min_downloads}"]
    listed = _begun(kind, wanted, result, asked)
    kept_pages = listed.pages
    try:
        _list(kind, wanted, result, asked, listed, asker, report)
        entries = _joined(listed, wanted, result)
        fetched, there = _describe(kind, wanted, result, entries, asker, report)
    except P2MError as error:
        raise _with_what_is_kept(error, kind, listed) from error
    count = state.write_result(result, (entries[id] for id in sorted(entries)))
    state.write_state(result, state.State(asked, listed.until))
    state.pages_of(result).clear()
    return Collected(
        count, listed.pages - kept_pages, fetched, kept_pages, there, listed.left_out, listed.since
    )  # fmt: skip


def _listings(kind: str, wanted: Wanted, since: str) -> list[str]:
    """The first pages' paths: one listing for each task and language that is wanted."""
    paths = []
    for task, language in itertools.product(wanted.tasks or ("",), wanted.languages or ("",)):
        query: list[tuple[str, str | int]] = [("sort", "lastModified" if since else "downloads")]
        if kind == "models":
            query += [("pipeline_tag", task)] if task else []
            query += [("filter", language)] if language else []
        else:
            query += [("filter", f"task_categories:{task}")] if task else []
            query += [("filter", f"language:{language}")] if language else []
        query.append(("limit", min(wanted.limit or _PAGE, _PAGE) if not since else _PAGE))
        query += [("expand", name) for name in EXPAND[kind]]
        paths.append(f"/api/{kind}?{urlencode(query)}")
    return paths


def _begun(kind: str, wanted: Wanted, result: Path, asked: list[str]) -> _Listed:
    """What an unfinished build of the same has fetched; else a new beginning, after what the result has."""
    log = state.pages_of(result)
    lines = log.read()
    head = next(lines, {})
    if not wanted.anew and head.get("asked") == asked:
        listed = _Listed({}, head["since"], head["until"])
        for page in lines:
            _take(listed, page)
        return listed
    log.clear()
    before = None if wanted.anew else state.read_state(result)
    return _Listed({}, before.until if before is not None and before.asked == asked else "")


def _take(listed: _Listed, page: dict[str, Any]) -> None:
    if page["part"] != listed.part:
        listed.part, listed.kept = page["part"], 0
    for one in page["entries"]:
        listed.entries[one["id"]] = one
    listed.next = page["next"]
    listed.pages += 1
    listed.kept += len(page["entries"])
    listed.left_out += page["left_out"]


def _list(
    kind: str, wanted: Wanted, result: Path, asked: list[str], listed: _Listed, asker: Asker, report: Report
) -> None:
    """Fetches the pages that are not there yet, and keeps each before it asks for the next."""
    log = state.pages_of(result)
    meter = _Meter(f"{kind.capitalize()} listed", wanted.limit, report, len(listed.entries))
    for part, path in enumerate(_listings(kind, wanted, listed.since)):
        if part < listed.part:
            continue
        begun = part == listed.part and listed.pages > 0
        path = listed.next if begun else path
        while path:
            found = asker.page(path)
            head = []
            if not listed.pages:
                listed.until = found.now
                head = [{"asked": asked, "since": listed.since, "until": listed.until}]
            made = [one for item in found.items if (one := entry(kind, item)) is not None]
            kept = [one for one in made if _fits(one, wanted, listed.since)]
            enough = False
            if wanted.limit and not listed.since:
                left = wanted.limit - (0 if part != listed.part else listed.kept)
                kept, enough = kept[:left], len(kept) >= left
            page = {
                "part": part,
                "next": "" if enough or _is_past(made, wanted, listed.since) else found.next,
                "left_out": len(found.items) - len(made),
                "entries": kept,
            }
            log.add(*head, page)
            _take(listed, page)
            meter.now(len(listed.entries))
            path = listed.next
    meter.end(len(listed.entries))


def _fits(one: dict[str, Any], wanted: Wanted, since: str) -> bool:
    changed = not since or one.get("last_modified", since) >= since
    return changed and (one.get("downloads") or 0) >= wanted.min_downloads


def _is_past(made: list[dict[str, Any]], wanted: Wanted, since: str) -> bool:
    """Whether no later page has anything that fits, since a listing is sorted."""
    if not made:
        return False
    if since:
        return str(made[-1].get("last_modified", since)) < since
    return (made[-1].get("downloads") or 0) < wanted.min_downloads


def _joined(listed: _Listed, wanted: Wanted, result: Path) -> dict[str, dict[str, Any]]:
    """What was listed now over what the result had; of a limit the most used."""
    entries = listed.entries
    if listed.since:
        entries = {one["id"]: one for one in read([result])} | entries
    if wanted.limit and len(entries) > wanted.limit:
        entries = {one["id"]: one for one in _most_used(entries)[: wanted.limit]}
    return entries


def _most_used(entries: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(entries.values(), key=lambda one: (-(one.get("downloads") or 0), one["id"]))


def _describe(
    kind: str, wanted: Wanted, result: Path, entries: dict[str, dict[str, Any]], asker: Asker, report: Report
) -> tuple[int, int]:
    """Describes the most used by their cards, in place; how many cards were fetched, how many were there."""
    log = state.cards_of(result)
    missing = {one["id"]: one for one in _most_used(entries)[: wanted.cards]}
    there = 0
    for line in log.read():
        id, sha = line.get("id"), line.get("sha")
        if id in entries and entries[id].get("sha", "") == sha:
            entries[id] = with_card(entries[id], line["card"])
            there += missing.pop(id, None) is not None
    meter = _Meter(f"Cards of {kind}", len(missing), report)

    threads = ThreadPoolExecutor(_CARDS_AT_ONCE, thread_name_prefix="cards")
    try:
        asked = {threads.submit(asker.card, _card_path(kind, one)): one for one in missing.values()}
        for count, future in enumerate(as_completed(asked), start=1):
            one, card = asked[future], future.result()
            entries[one["id"]] = described = with_card(one, card)
            # As it will be used: a card may be megabytes.
            kept = described["description"] if card.strip() else ""
            log.add({"id": one["id"], "sha": one.get("sha", ""), "card": kept})
            meter.now(count)
    finally:
        threads.shutdown(cancel_futures=True)
    meter.end(len(missing))
    return len(missing), there


def _card_path(kind: str, one: dict[str, Any]) -> str:
    owner = "datasets/" if kind == "datasets" else ""
    return f"/{owner}{quote(one['id'])}/resolve/{quote(one.get('sha') or 'main', safe='')}/README.md"


def _with_what_is_kept(error: P2MError, kind: str, listed: _Listed) -> P2MError:
    """The error, and what to do about it."""
    if error.reason == "HUB_REFUSED" and listed.pages:
        advice = "Run the same command with --anew to list from the first page."
    elif listed.pages:
        advice = (
            f"What was fetched is kept: {len(listed.entries):,} {kind} of {listed.pages:,} pages. "
            "Run the same command again to go on."
        )
    elif error.code == "UNAVAILABLE":
        advice = "Nothing was listed yet. Check the network and P2M_HUB_URL, and run the same command again."
    else:
        return error
    return rebuild(error.code, error.reason, f"{error.message} {advice}", retry_after=error.retry_after)


class _Meter:
    """Says how far something is, how fast it goes and how long it takes, now and then."""

    def __init__(self, what: str, total: int, report: Report, done: int = 0) -> None:
        self._what, self._total, self._report = what, total, report
        self._start, self._began = done, time.monotonic()
        self._said = self._began

    def now(self, done: int) -> None:
        if time.monotonic() - self._said >= _SAY_EVERY_S:
            self._say(done)

    def end(self, done: int) -> None:
        if done or not self._total:
            self._say(done)

    def _say(self, done: int) -> None:
        self._said = time.monotonic()
        rate = (done - self._start) / max(self._said - self._began, 1e-3)
        of = f" of {self._total:,}" if self._total else ""
        pace = f", {rate:,.0f} a second" if rate >= 10 else f", {rate:.1f} a second" if rate else ""
        left = (self._total - done) / rate if rate and self._total > done else 0
        soon = "" if not left else f", about {left:,.0f} s left" if left < 120 else f", about {left / 60:,.0f} min left"
        self._report(Progress(message=f"{self._what}: {done:,}{of}{pace}{soon}"))


@contextlib.contextmanager
def _alone(result: Path) -> Iterator[None]:
    """Holds a lock on the result while it lasts; Aborted where another process has it."""
    result.parent.mkdir(parents=True, exist_ok=True)
    with result.with_name(f"{result.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Aborted("BUILDING", f"Another process is building {result}; wait for it, or stop it.") from None
        yield
