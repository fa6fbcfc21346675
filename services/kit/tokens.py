"""Bearer tokens: who a caller is, by what it shows.

    P2M_TOKEN        one token without a name: its bearer may see, stop and improve every run
    P2M_TOKENS       a file of `NAME TOKEN` lines (# begins a comment): its bearers have the runs that they started

The file is read anew when it changes, so that a token is given and withdrawn without a restart; a file that cannot be
used then leaves the tokens as they were. Tokens are compared in constant time, and stand in no message and no log.
"""

from __future__ import annotations

import hmac
import logging
import os
import re
import secrets
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from services.kit.errors import FailedPrecondition, PermissionDenied
from services.kit.settings import Settings

log = logging.getLogger(__name__)

LEAST_CHARACTERS = 16
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Caller:
    """Who makes a call. `name` "": no token is asked for, or it was the one without a name."""

    name: str = ""

    def may_touch(self, owner: str) -> bool:
        """Whether a run that `owner` started is this caller's to see and to change."""
        return not self.name or self.name == owner


_ANYBODY = Caller()
CALLER: ContextVar[Caller] = ContextVar("p2m_caller", default=_ANYBODY)
"""Of the call that is being served."""


class Tokens:
    """The tokens that the settings name. FailedPrecondition where the file cannot be used at first."""

    def __init__(self, settings: Settings) -> None:
        self._path = settings.tokens
        self._own = settings.token.get_secret_value()
        self._stamp = self._looked()
        self._named = _read(self._path) if self._path else {}

    def __bool__(self) -> bool:
        """Whether a token is asked for."""
        return bool(self._own or self._path)

    def caller(self, token: str) -> Caller | None:
        """Whose token it is; None where it is nobody's."""
        self._refresh()
        given, found = token.encode(), None
        # All are compared, so that how long it takes tells nothing about which one came near.
        if hmac.compare_digest(given, self._own.encode()) and self._own:
            found = Caller()
        for name, known in self._named.items():
            if hmac.compare_digest(given, known.encode()):
                found = Caller(name)
        return found

    def _refresh(self) -> None:
        stamp = self._looked()
        if self._path is None or stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._named = _read(self._path)
        except FailedPrecondition as error:
            log.warning("the changed tokens are not used: %s", error.message)
        else:
            log.info("the tokens were changed: %d are known by name", len(self._named))

    def _looked(self) -> tuple[int, int, int] | None:
        try:
            found = os.stat(self._path) if self._path else None
        except OSError:
            return None
        return (found.st_mtime_ns, found.st_ino, found.st_size) if found else None


def with_own_token(settings: Settings) -> Settings:
    """The settings of a RunService that this very process calls: where only named tokens are asked for, one of its own.

    Who may start a process on the database needs no token for what is in it.
    """
    if settings.tokens is None or settings.token.get_secret_value():
        return settings
    return settings.model_copy(update={"token": SecretStr(secrets.token_urlsafe(32))})


def not_yours(name: str) -> PermissionDenied:
    """The error for a run that somebody else started."""
    return PermissionDenied(
        "NOT_YOURS", f"The run {name} was started by somebody else. Take another name, or the token of who started it.",
        field="name",
    )  # fmt: skip


def _read(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FailedPrecondition("TOKENS_FILE", f"The file of tokens {path} cannot be read: {error}.") from error
    named: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        wrong = _wrong(words, named)
        if wrong:
            raise FailedPrecondition("TOKENS_FILE", f"{path}, line {number}: {wrong}.")
        named[words[0]] = words[1]
    return named


def _wrong(words: list[str], named: dict[str, str]) -> str:
    """What is wrong with a line, without its words, any of which may be a token; "" where nothing is."""
    if len(words) != 2:
        return f"it has {len(words)} words; wanted NAME TOKEN"
    name, token = words
    if not _NAME.fullmatch(name):
        return "the name is none: wanted 1 to 64 letters, digits, - _ . (no mark first)"
    if len(token) < LEAST_CHARACTERS or not token.isascii():
        return (
            f"the token is too short or not ASCII: wanted {LEAST_CHARACTERS} characters, as of `openssl rand -hex 24`"
        )
    if name in named:
        return "the name was given before"
    return "the token was given before" if token in named.values() else ""
