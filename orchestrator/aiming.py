"""Examples aimed at what a student fails at: a slice of errors as a task for the generator.

    shares(slices, number)                  how many examples each slice gets
    aimed(spec, one, rows) -> PromptSpec    the task, narrowed to the slice, with errors of it as demonstrations

What the LLM is told of a slice is its name, what the student answered wrongly, and the right answers: of validation
rows alone. A demonstration is taken only where that very row is found in the validation split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from p2m.common.v1 import common_pb2

from services.kit.values import Row

# What stands for the cut end of an example in a slice.
_CUT = "…"
_SHOWN = 80


def shares(slices: Sequence[Mapping[str, Any]], number: int) -> list[tuple[Mapping[str, Any], int]]:
    """The slices with their examples, `number` in all: by the errors that each has more than the others would have.

    Each gets one at least; where there are more slices than examples, the first ones do.
    """
    slices = slices[:number]
    weights = [max(1e-9, one["rows"] * one["difference"]["value"]) for one in slices]
    rest = number - len(slices)
    exact = [rest * weight / sum(weights) for weight in weights]
    counts = [1 + int(share) for share in exact]
    by_rest = sorted(range(len(slices)), key=lambda i: (int(exact[i]) - exact[i], i))
    for i in by_rest[: number - sum(counts)]:
        counts[i] += 1
    return list(zip(slices, counts, strict=True))


def aimed(spec: common_pb2.PromptSpec, one: Mapping[str, Any], rows: Sequence[Row]) -> common_pb2.PromptSpec:
    """`spec` for examples of one slice. `rows`: the validation split, out of which its errors are shown."""
    shown = [(found, example) for example in one["examples"] if (found := _row(example, rows)) is not None]
    narrowed = common_pb2.PromptSpec(language=spec.language)
    told = _told(one, shown)
    narrowed.instruction = f"{spec.instruction}\n\n{told}"
    if spec.original_instruction:
        narrowed.original_instruction = f"{spec.original_instruction}\n\n{told}"
    for row, _ in shown:
        narrowed.demonstrations.add(input=row.input, output=row.output)
    narrowed.demonstrations.extend(spec.demonstrations)
    return narrowed


def _told(one: Mapping[str, Any], shown: Sequence[tuple[Row, Mapping[str, Any]]]) -> str:
    """What is said of the slice."""
    # What a source is called says nothing of what its rows are like.
    kind = "such as the first of the examples" if one["kind"] == "source" else _kind(one["name"])
    lines = [
        "For now only examples of one kind are wanted, at which a small model that was trained for this task often "
        f"fails: {kind}."
    ]
    lines += [
        f'It answered "{_short(example["prediction"])}" where "{_short(row.output)}" is right.'
        for row, example in shown
        if example["prediction"].strip()
    ]
    return " ".join(lines)


def _kind(name: str) -> str:
    return f"examples {name.removeprefix('rows ')}" if name.startswith("rows ") else name


def _row(example: Mapping[str, Any], rows: Sequence[Row]) -> Row | None:
    """The row of which a slice's example is the beginning."""
    for row in rows:
        if _begins(row.input, example["input"]) and _begins(row.output, example["output"]):
            return row
    return None


def _begins(text: str, shown: str) -> bool:
    return text == shown or (shown.endswith(_CUT) and text.startswith(shown.removesuffix(_CUT)))


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + _CUT
