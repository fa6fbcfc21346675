"""What the hooks of telemetry cost: `python -m bench.telemetry` prints nanoseconds a call, off and on.

`HOOKS` has them by name: what is called where something begins, ends or is handed on. On means within a trace, with
metrics, and a collector that is not there: sending is another thread's work.
"""

from __future__ import annotations

import json
import logging
import timeit
from collections.abc import Callable

from services.kit import telemetry
from services.kit.settings import Settings
from services.kit.values import Ledger

_COST = Ledger(1, 100, 20, 0.001)
_NOWHERE = "http://127.0.0.1:9"


class _Context:
    """A call's, as far as it is looked at."""

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return (("traceparent", f"00-{1:032x}-{1:016x}-01"),)


_CONTEXT = _Context()


def _block(hook: Callable[[], telemetry.Observed]) -> Callable[[], None]:
    def block() -> None:
        with hook():
            pass

    return block


HOOKS: dict[str, Callable[[], object]] = {
    "stage": _block(lambda: telemetry.stage("run", 1.0, "train")),
    "calling": _block(lambda: telemetry.calling(None)),
    "carried": telemetry.carried,
    "served": _block(lambda: telemetry.served("/p2m.parser.v1.ParserService/Parse", _CONTEXT)),
    "asked_for": lambda: telemetry.asked_for("run/train"),
    "reused": lambda: telemetry.reused("trainer"),
    "working": _block(lambda: telemetry.working("services.trainer.train:train")),
    "handed": telemetry.handed,
    "received": _block(lambda: telemetry.received({}, "services.trainer.train:train")),
    "asking": _block(lambda: telemetry.asking("generator", "llm")),
    "spent": lambda: telemetry.spent("generator", "llm", _COST),
    "metric": lambda: telemetry.metrics.LLM_REPLAYED.add(1, "generator", "llm"),
}


def measured(number: int, rounds: int) -> dict[str, float]:
    """Nanoseconds a call by hook: the best of so many rounds."""
    best = {name: min(timeit.repeat(hook, number=number, repeat=rounds)) / number for name, hook in HOOKS.items()}
    return {name: round(1e9 * seconds, 1) for name, seconds in best.items()}


def main() -> None:
    """One line of JSON: `<hook>_off_ns` and `<hook>_on_ns`."""
    figures = {f"{name}_off_ns": value for name, value in measured(10_000, 30).items()}
    logging.disable()  # what is said of the collector that is not there
    telemetry.start(Settings(otlp_endpoint=_NOWHERE, metrics_port=0), "bench")
    with telemetry.stage("run", 1.0, "train"):
        figures |= {f"{name}_on_ns": value for name, value in measured(200, 5).items()}
    telemetry.stop()
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
