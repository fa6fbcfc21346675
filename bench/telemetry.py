"""What the hooks of telemetry cost: `python -m bench.telemetry` prints nanoseconds a call, all of it off.

HOOKS       by name: what is called where something begins, ends or is handed on
"""

from __future__ import annotations

import json
import timeit
from collections.abc import Callable

from services.kit import telemetry
from services.kit.values import Ledger

_COST = Ledger(1, 100, 20, 0.001)


def _block(hook: Callable[[], telemetry.Observed]) -> Callable[[], None]:
    def block() -> None:
        with hook():
            pass

    return block


HOOKS: dict[str, Callable[[], object]] = {
    "stage": _block(lambda: telemetry.stage("run", 1.0, "train")),
    "calling": _block(lambda: telemetry.calling(None)),
    "carried": telemetry.carried,
    "served": _block(lambda: telemetry.served("/p2m.parser.v1.ParserService/Parse", None)),
    "asked_for": lambda: telemetry.asked_for("run/train"),
    "reused": lambda: telemetry.reused("trainer"),
    "working": _block(lambda: telemetry.working("services.trainer.train:train")),
    "handed": telemetry.handed,
    "received": _block(lambda: telemetry.received(None, "services.trainer.train:train")),
    "asking": _block(lambda: telemetry.asking("generator", "llm")),
    "spent": lambda: telemetry.spent("generator", "llm", _COST),
    "metric": lambda: telemetry.metrics.LLM_REPLAYED.add(1, "generator", "llm"),
}


def main() -> None:
    """One line of JSON: `<hook>_ns`, the best of 30 rounds."""
    best = {name: min(timeit.repeat(hook, number=10_000, repeat=30)) / 10_000 for name, hook in HOOKS.items()}
    print(json.dumps({f"{name}_ns": round(1e9 * seconds, 1) for name, seconds in best.items()}))


if __name__ == "__main__":
    main()
