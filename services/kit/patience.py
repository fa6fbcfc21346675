"""Waiting for a store that has answered before and now does not: it is being restarted, or a network is mended.

    @patient      on a store's method: tries again while it raises Unavailable, for `self.patience.seconds`

A store that has never answered is an address that is wrong, more often than not: that is told at once.
"""

from __future__ import annotations

import functools
import logging
import random
import time
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from services.kit.errors import NotFound, Unavailable

P = ParamSpec("P")
T = TypeVar("T")
log = logging.getLogger(__name__)

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 5.0


class Patience:
    """How long one store is waited for, and whether it has ever answered."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.answered = False


def patient(operation: Callable[Concatenate[Any, P], T]) -> Callable[Concatenate[Any, P], T]:
    """The operation, tried again as long as it makes sense. It must be one that may be done twice."""

    @functools.wraps(operation)
    def tried(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        began, wait = time.monotonic(), _FIRST_WAIT_S
        while True:
            try:
                result = operation(self, *args, **kwargs)
            except NotFound:
                self.patience.answered = True
                raise
            except Unavailable as error:
                if not self.patience.answered or time.monotonic() + wait - began > self.patience.seconds:
                    raise
                log.warning("%s It is tried again for up to %.0f s.", error.message, self.patience.seconds)
                time.sleep(wait * random.uniform(0.5, 1.0))
                wait = min(2 * wait, _LONGEST_WAIT_S)
            else:
                self.patience.answered = True
                return result

    return tried
