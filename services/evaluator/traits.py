"""What can be seen of a row: how long it is, what its right output is and looks like, where it comes from.

    traits(rows) -> Trait(name, kind, has)      those that fit some of the rows; `has` tells of any row

The names are for a person, and for a generator that is to write more of the kind: they hold no text of a row but
outputs that many rows share.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from services.kit.values import Row

# An output in fewer rows than this is no slice by itself.
_LEAST_SHARED = 10
_MOST_SHARED = 12
_SHOWN = 60
_NUMBER = re.compile(r"[-+]?[\d.,:/ -]*\d[\d.,:/ -]*%?")


@dataclass(frozen=True)
class Trait:
    """Something that rows have or have not."""

    name: str
    kind: str
    has: Callable[[Row], bool]


def traits(rows: Sequence[Row]) -> list[Trait]:
    """The traits to try on these rows; what all rows or none have is left out."""
    found = [*_lengths(rows), *_outputs(rows), *_FORMATS, *_sources(rows)]
    return [one for one in found if 0 < sum(map(one.has, rows)) < len(rows)]


def _lengths(rows: Sequence[Row]) -> list[Trait]:
    """Above the upper and below the lower quarter, of inputs and of outputs, in words."""
    found = []
    for what, of in (("inputs", _input_words), ("outputs", _output_words)):
        lengths = sorted(map(of, rows))
        short, long = lengths[len(lengths) // 4], lengths[3 * len(lengths) // 4]
        if short == long:
            continue
        found.append(Trait(f"{what} of more than {long} words", "length", partial(_longer, of, long)))
        found.append(Trait(f"{what} of fewer than {short} words", "length", partial(_shorter, of, short)))
    return found


def _input_words(row: Row) -> int:
    return len(row.input.split())


def _output_words(row: Row) -> int:
    return len(row.output.split())


def _outputs(rows: Sequence[Row]) -> list[Trait]:
    """Right outputs that many rows share: labels, "N/A"."""
    shared = Counter(row.output.strip() for row in rows).most_common(_MOST_SHARED)
    return [
        Trait(f'rows whose output is "{_shown(output)}"', "output", partial(_has_output, output))
        for output, number in shared
        if number >= _LEAST_SHARED
    ]


def _sources(rows: Sequence[Row]) -> list[Trait]:
    names = sorted({row.source for row in rows} - {""})
    return [Trait(f"rows from {name}", "source", partial(_has_source, name)) for name in names]


def _longer(of: Callable[[Row], int], words: int, row: Row) -> bool:
    return of(row) > words


def _shorter(of: Callable[[Row], int], words: int, row: Row) -> bool:
    return of(row) < words


def _has_output(output: str, row: Row) -> bool:
    return row.output.strip() == output


def _has_source(source: str, row: Row) -> bool:
    return row.source == source


def _shown(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


_FORMATS = (
    Trait("outputs that do not stand in the input", "format", lambda row: row.output.strip() not in row.input),
    Trait("outputs that are a number or a date", "format", lambda row: bool(_NUMBER.fullmatch(row.output.strip()))),
    Trait(
        "outputs with digits among words",
        "format",
        lambda row: bool(re.search(r"\d", row.output)) and not _NUMBER.fullmatch(row.output.strip()),
    ),
    Trait("outputs with capital letters", "format", lambda row: row.output != row.output.lower()),
    Trait("outputs with punctuation", "format", lambda row: bool(re.search(r"[^\w\s]", row.output))),
    Trait("outputs with letters beyond ASCII", "format", lambda row: not row.output.isascii()),
    Trait("outputs of several lines", "format", lambda row: "\n" in row.output.strip()),
    Trait("inputs with digits", "format", lambda row: bool(re.search(r"\d", row.input))),
    Trait("inputs with letters beyond ASCII", "format", lambda row: not row.input.isascii()),
    Trait("inputs of several lines", "format", lambda row: "\n" in row.input.strip()),
    Trait("inputs that are questions", "format", lambda row: "?" in row.input),
    Trait("inputs without letters in lower case", "format", lambda row: row.input == row.input.upper()),
)
