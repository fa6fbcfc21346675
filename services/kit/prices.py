"""What an LLM charges: dollars per million tokens of prompt and of completion.

    price_of(llm, base_url, settings)      from the user's own table, else this one, else a guess that is said to be one

The user's table is `P2M_LLM_PRICES`, a JSON file {"<llm>": [prompt, completion]}; two more numbers are the prices by
the batch endpoint, which are half of the first two unless they are given. An LLM at a loopback address is the user's
own and costs nothing unless that table says otherwise.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from services.kit.errors import FailedPrecondition
from services.kit.settings import Settings

# List prices as published by their makers; a name with a date behind it ("gpt-4o-2024-08-06") has its family's.
_PUBLISHED: dict[str, tuple[float, float]] = {
    "gpt-3.5-turbo": (0.50, 1.50),
    "gpt-4": (30.0, 60.0),
    "gpt-4-turbo": (10.0, 30.0),
    "gpt-4.1": (2.00, 8.00),
    "gpt-4.1-mini": (0.40, 1.60),
    "gpt-4.1-nano": (0.10, 0.40),
    "gpt-4o": (2.50, 10.0),
    "gpt-4o-mini": (0.15, 0.60),
    "gpt-5": (1.25, 10.0),
    "gpt-5-mini": (0.25, 2.00),
    "gpt-5-nano": (0.05, 0.40),
    "o3": (2.00, 8.00),
    "o3-mini": (1.10, 4.40),
    "o4-mini": (1.10, 4.40),
}
# What an LLM of unknown price is taken to cost: as much as the dearer ones, so that a budget holds.
_UNKNOWN = (10.0, 30.0)
_DATE = re.compile(r"-(\d{4}-\d{2}-\d{2}|\d{4}|\d{8}|latest|preview)$")


@dataclass(frozen=True)
class Price:
    """Dollars per million tokens. `note` says where a guess was made, "" where none was.

    `batch` is what the same costs by the batch endpoint: prompt, completion; None: half.
    """

    prompt: float
    completion: float
    note: str = ""
    batch: tuple[float, float] | None = None

    @property
    def by_batch(self) -> Price:
        """The price of what goes by the batch endpoint."""
        prompt, completion = self.batch or (self.prompt / 2, self.completion / 2)
        return Price(prompt, completion, self.note)

    def dollars(self, prompt_tokens: int, completion_tokens: int) -> float:
        """What a request of so many tokens costs."""
        return (self.prompt * prompt_tokens + self.completion * completion_tokens) / 1e6


def price_of(llm: str, base_url: str, settings: Settings) -> Price:
    """The price of `llm` at `base_url`. FailedPrecondition where the user's table cannot be read."""
    own = _own(settings.llm_prices) if settings.llm_prices else {}
    if llm in own:
        prompt, completion, *batch = own[llm]
        return Price(prompt, completion, batch=(batch[0], batch[1]) if batch else None)
    if is_loopback(base_url):
        return Price(0.0, 0.0)
    family = _DATE.sub("", llm.rpartition("/")[2])
    if family in _PUBLISHED:
        return Price(*_PUBLISHED[family])
    note = (
        f"The price of {llm} is not known: it is counted as {_UNKNOWN[0]:g} and {_UNKNOWN[1]:g} dollars per million"
        " prompt and completion tokens. Name its real one in a JSON file and set P2M_LLM_PRICES to it."
    )
    return Price(*_UNKNOWN, note)


def is_loopback(base_url: str) -> bool:
    """Whether the URL's host is this very machine."""
    host = urlsplit(base_url).hostname or ""
    return host in ("localhost", "::1") or bool(re.fullmatch(r"127(\.\d{1,3}){3}", host))


def _own(path: Path) -> dict[str, list[float]]:
    wanted = '{"<llm>": [dollars per million prompt tokens, per million completion tokens]}, or with two more by batch'
    try:
        table = {
            llm: [float(price) for price in prices] for llm, prices in json.loads(path.expanduser().read_text()).items()
        }
        if wrong := [llm for llm, prices in table.items() if len(prices) not in (2, 4) or min(prices) < 0]:
            raise ValueError(f"{wrong[0]} has {table[wrong[0]]}")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise FailedPrecondition("BAD_PRICES", f"{path} is no price table ({error}); wanted JSON {wanted}.") from error
    return table
