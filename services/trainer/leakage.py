"""What splitting says of itself: which rows would have leaked, how many were taken out and why, how labels are spread.

leaks(columns, split, repeats, shown) ── (Leak, ...)
label_counts(numbers, names, split) ── (LabelCount, ...)
notes(...)                                one sentence each, for a person
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from services.trainer.calls import DatasetKind, LabelCount, Leak, LeakExample
from services.trainer.reading import SPLITS, TEST, TRAIN, VALIDATION, Columns, Source
from services.trainer.repeats import IN_TEST, Repeats
from services.trainer.splitting import kind_name, unused

EXAMPLES, CHARACTERS = 3, 500
# Fewer test rows than this are no evidence for the evaluator.
FEW_TESTS = 20
# From this share on a person should look at what was taken for near duplicates.
MANY_NEAR = 0.3
_REPEATED = ("test", "validation", "demonstration")

I64 = npt.NDArray[np.int64]
I8 = npt.NDArray[np.int8]


def leaks(
    columns: Columns, split: I8, same: npt.NDArray[np.uint64], repeats: Repeats, shown: Sequence[str]
) -> tuple[Leak, ...]:
    """Removed rows by source, split, what they repeat, and how nearly; most rows first. `same`: of `splitting.keys`."""
    rows = np.flatnonzero(repeats.reason >= IN_TEST)
    keys = np.stack(
        [columns.source[rows], split[rows], repeats.reason[rows] - IN_TEST, repeats.near[rows]], axis=1
    ).astype(np.int64)  # fmt: skip
    found, number, counts = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
    order = np.argsort(number.ravel(), kind="stable")
    begins = np.cumsum(counts) - counts
    made = []
    for (source, place, repeated, near), begin, count in zip(found.tolist(), begins, counts.tolist(), strict=True):
        its = rows[order[begin : begin + count]]
        # Those of the least hashes: the same ones whatever the order of arrival.
        examples = tuple(
            LeakExample(_cut(columns.input[row].as_py()), _cut(_other(columns, int(repeats.by[row]), shown)))
            for row in its[np.argsort(same[its], kind="stable")[:EXAMPLES]].tolist()
        )
        kind, name = columns.sources[source].kind, columns.sources[source].name
        made.append(Leak(name, kind, SPLITS[place], _REPEATED[repeated], bool(near), count, examples))
    return tuple(
        sorted(made, key=lambda leak: (-leak.rows, leak.source, leak.kind, leak.split, leak.repeats, leak.near))
    )


def label_counts(numbers: I64, names: Sequence[str], taken: Mapping[int, I64]) -> tuple[LabelCount, ...]:
    """The rows of each split by label, most frequent first. `taken`: the rows of each split."""
    counts = {place: np.bincount(numbers[rows], minlength=len(names)) for place, rows in taken.items()}
    made = [
        LabelCount(name, int(counts[TRAIN][i]), int(counts[VALIDATION][i]), int(counts[TEST][i]))
        for i, name in enumerate(names)
    ]
    return tuple(sorted(made, key=lambda one: (-(one.train + one.validation + one.test), one.label)))


def notes(
    columns: Columns, repeats: Repeats, removed: Counter[str], taken: Mapping[int, I64], labels: Sequence[LabelCount]
) -> Iterable[str]:
    """What a person should know of the rows that were `taken` and `removed`."""
    tests = taken[TEST]
    real = int(columns.real[tests].sum())
    if not real:
        rewritten = any(columns.sources[i].kind == DatasetKind.ADAPTED for i in np.unique(columns.source[tests]))
        made = "generated or rewritten by the LLM" if rewritten else "generated"
        yield f"Every test row was {made}: the scores say how well the student does what the LLM wrote, not more."
    elif real < len(tests):
        yield f"{real:,} of the {len(tests):,} test rows are real; the verdict rests on them."
    if len(tests) < FEW_TESTS:
        yield f"There are only {len(tests)} test rows; a verdict needs at least {FEW_TESTS}."
    if columns.own_test.any() and ((columns.given == TEST) & ~columns.own_test).any():
        yield "The test split is your own test set, so the datasets' own test splits were used for training."
    if leaked := removed["in_test"]:
        yield f"{leaked:,} rows were equal or nearly equal to a test row and were left out of training."
    near = int(repeats.near.sum())
    if near > MANY_NEAR * len(columns):
        yield (
            f"{near:,} of {len(columns):,} rows are near duplicates of others. Where the inputs share a long passage, "
            "that is what they share: --keep-near-duplicates keeps them."
        )
    if not repeats.complete:
        yield "Too many rows share parts of their inputs: near duplicates were looked for among the most alike only."
    if not len(taken[VALIDATION]):
        yield "There are no validation rows: training cannot stop early."
    if missing := [one for one in labels if not (one.train and one.test)]:
        shown = ", ".join(f"{one.label[:40]!r}" for one in missing[:5])
        yield (
            f"{len(missing)} of the {len(labels)} labels are so rare that training or test split lack them: "
            f"{shown}{', ...' if len(missing) > 5 else ''}."
        )
    yield from columns.notes


def mixing_notes(
    sources: Sequence[Source], caps: Mapping[str, int], mix: Mapping[str, float], rows: Mapping[Source, tuple[int, int]]
) -> Iterable[str]:
    """What caps and weights did. `rows`: of each weighed source, its training rows before and after."""
    for source, (before, after) in sorted(rows.items(), key=lambda item: (item[0].kind, item[0].name)):
        if before != after:
            yield f"Mixing: {after:,} training rows from the {before:,} of {source.name} ({kind_name(source.kind)})."
    for option, given in (("--mix", mix), ("--cap", caps)):
        if strange := unused(given, sources):
            named = ", ".join(repr(name[:60]) for name in strange[:5])
            yield f"{option} names {named}, which no source is called; there are: {_names(sources)}."


def _names(sources: Sequence[Source]) -> str:
    return ", ".join(f"{source.name} ({kind_name(source.kind)})" for source in sources[:10])


def _other(columns: Columns, by: int, shown: Sequence[str]) -> str:
    return str(columns.input[by].as_py()) if by >= 0 else shown[-2 - by]


def _cut(text: str) -> str:
    return text if len(text) <= CHARACTERS else text[: CHARACTERS - 1] + "…"
