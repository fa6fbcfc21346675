"""How much each source counts: caps and weights, as people type them.

    weights(["retrieved=1,generated=0.5"])   {"retrieved": 1.0, "generated": 0.5}
    caps(["user=20000"])                     {"user": 20000}
    check(options)                           the same of RunOptions that came by the wire
    rows_to_load(options, dataset)           what of a dataset is worth loading

A source is named by its kind (retrieved, adapted, generated, user) or its own name (a dataset's id, a file's name),
which goes before its kind. Names that no source has are told by the split, which alone knows all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from p2m.run.v1 import run_pb2

from services.kit.errors import InvalidArgument

MOST_WEIGHT, MOST_ROWS, MOST_NAMES = 10, 1_000_000_000, 100


def weights(given: Iterable[str]) -> dict[str, float]:
    """Sources and how often their training rows are seen. InvalidArgument for what is none."""
    return {name: _weight(name, value) for name, value in _pairs(given, "--mix", "generated=0.5").items()}


def caps(given: Iterable[str]) -> dict[str, int]:
    """Sources and the most rows of each. InvalidArgument for what is none."""
    return {name: _cap(name, value) for name, value in _pairs(given, "--cap", "generated=1000").items()}


def check(options: run_pb2.RunOptions) -> None:
    """InvalidArgument for a cap or a weight that cannot be meant."""
    for option, named in (("mix", options.mix), ("caps", options.caps)):
        if len(named) > MOST_NAMES or any(not name.strip() for name in named):
            raise InvalidArgument(
                "BAD_OPTION", f"{option} has {len(named)} names; wanted at most {MOST_NAMES}, none of them empty.",
                field=f"options.{option}",
            )  # fmt: skip
    for name, weight in options.mix.items():
        _weight(name, str(weight))
    for name, cap in options.caps.items():
        _cap(name, str(cap))


def rows_to_load(options: run_pb2.RunOptions, dataset: str) -> int:
    """The most rows of a dataset that training will take; 0: the default."""
    for name in (dataset, "retrieved", "adapted"):
        if name in options.caps:
            return int(options.caps[name])
    return int(options.max_rows_per_source)


def _pairs(given: Iterable[str], option: str, example: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for part in (part.strip() for text in given for part in text.split(",")):
        name, equals, value = (word.strip() for word in part.rpartition("="))
        if not (name and equals and value):
            raise InvalidArgument(
                "BAD_OPTION", f"{option} has {part[:60]!r}; wanted a source and a number, such as {example}."
            )
        if name in pairs:
            raise InvalidArgument("BAD_OPTION", f"{option} names {name!r} twice: once is enough.")
        pairs[name] = value
    return pairs


def _weight(name: str, value: str) -> float:
    weight = _number(value)
    if not 0 <= weight <= MOST_WEIGHT:
        raise InvalidArgument(
            "BAD_OPTION",
            f"The weight of {name[:60]!r} is {value[:40]}; wanted 0 to {MOST_WEIGHT}: how often a row is seen.",
            field="options.mix",
        )
    return weight


def _cap(name: str, value: str) -> int:
    cap = _number(value.replace("_", ""))
    if not 1 <= cap <= MOST_ROWS or cap != int(cap):
        raise InvalidArgument(
            "BAD_OPTION",
            f"The cap of {name[:60]!r} is {value[:40]}; wanted 1 to {MOST_ROWS:,} rows.",
            field="options.caps",
        )
    return int(cap)


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        return -1.0
    return number if math.isfinite(number) else -1.0
