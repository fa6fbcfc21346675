"""Splitting: many datasets become one training, one validation and one locked test split, with nothing in two of them.

    prepare(request, context) ── PrepareResult      reads, splits, stores
    split(candidates, ...) ── Splits                the rule, on plain rows

    no own test split, no user's test set     0.6 / 0.2 / 0.2 of each source
    a source with its own test split          that stays test; its validation split stays validation, else 0.25 of the
                                              rest becomes it
    a user's own test set                     is the whole test split; every other row is for training

Rows are ordered by a hash of the seed and their text, which shuffles them and makes the result a function of the
content alone, however the rows arrive. The test split is settled first; then whatever equals a row of it, or nearly,
leaves the other two. Real rows come first in the test split.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa

from services.kit.artifacts import Artifacts, rows_to_table
from services.kit.dedup import NearDuplicates, same_text
from services.kit.errors import FailedPrecondition, InvalidArgument
from services.kit.text import normalise
from services.kit.values import Progress, PromptSpec, Row
from services.kit.worker import WorkerContext
from services.trainer.calls import DatasetKind, PrepareRequest, PrepareResult, SourceCount

MAX_ROWS_PER_SOURCE = 3_000
TEST_SHARE = VALIDATION_SHARE = 0.2
LEAST_TRAIN, LEAST_TEST = 10, 5
_VALIDATION_NAMES = ("validation", "valid", "val", "dev")


@dataclass(frozen=True)
class Candidate:
    """A row and where it came from. `row.source` is set; `row.split` is the source's own name for its split."""

    row: Row
    kind: DatasetKind

    @property
    def real(self) -> bool:
        """Written for people by people, as far as is known: not by the LLM, nor rewritten by it."""
        return self.kind not in (DatasetKind.GENERATED, DatasetKind.ADAPTED)


@dataclass
class Splits:
    """The three splits and the number of rows taken out, by reason."""

    train: list[Candidate] = field(default_factory=list)
    validation: list[Candidate] = field(default_factory=list)
    test: list[Candidate] = field(default_factory=list)
    removed: Counter[str] = field(default_factory=Counter)


def prepare(request: PrepareRequest, context: WorkerContext) -> PrepareResult:
    """Reads the sources, splits them and stores the splits.

    Raises InvalidArgument where a source is missing or of no kind, FailedPrecondition (TOO_FEW_ROWS, MISSING_COLUMN).
    """
    if not request.sources:
        raise InvalidArgument("NO_SOURCES", "There is no dataset to split; wanted at least one.", field="sources")
    artifacts = Artifacts.open(context.settings, "trainer")
    candidates: list[Candidate] = []
    for number, source in enumerate(request.sources):
        context.raise_if_stopping()
        context.report(Progress(number, len(request.sources), "datasets", "reading the datasets"))
        if source.kind == DatasetKind.UNSPECIFIED:
            raise InvalidArgument(
                "NO_KIND",
                f"Source {number} has no kind; wanted retrieved, generated or user.",
                field=f"sources[{number}].kind",
            )
        candidates += _candidates(artifacts.read_rows(source.dataset), source.kind, source.kind.name.lower())
    own_test = None
    if request.test is not None:
        own_test = _candidates(artifacts.read_rows(request.test), DatasetKind.USER, "own test set")
    context.report(Progress(0, len(candidates), "rows", "splitting"))
    limit = request.max_rows_per_source or MAX_ROWS_PER_SOURCE
    splits = split(candidates, own_test, request.spec, request.seed, limit)
    context.raise_if_stopping()
    _check_size(splits)
    test = _table(splits.test, "test").append_column(
        pa.field("real", pa.bool_()), pa.array([candidate.real for candidate in splits.test], pa.bool_())
    )
    return PrepareResult(
        artifacts.put_table(_table(splits.train, "train")),
        artifacts.put_table(_table(splits.validation, "validation")),
        artifacts.put_table(test),
        _counts(splits),
        {reason: rows for reason, rows in sorted(splits.removed.items()) if rows},
        tuple(_notes(splits, candidates, own_test)),
    )


def split(
    candidates: Sequence[Candidate], own_test: Sequence[Candidate] | None, spec: PromptSpec, seed: int, limit: int
) -> Splits:
    """Splits rows by the rule above; `own_test` is the user's test set, at most `limit` rows are taken of a source."""
    splits = Splits()
    locked, pool = _own_splits(candidates, own_test)
    splits.test = _limited(_distinct(locked, seed, splits.removed), limit, TEST_SHARE, splits.removed, own_test)
    at_test = _Inputs(splits.test)
    pool = _without(_distinct(pool, seed, splits.removed), at_test, "in_test", splits.removed)
    sources_with_test = {_source(candidate) for candidate in splits.test}
    for source, rows in _by_source(pool).items():
        _divide(splits, rows, limit, takes_test=own_test is None and source not in sources_with_test)
    splits.test.sort(key=lambda candidate: (not candidate.real, _order(candidate, seed)))
    shown = _Inputs(Candidate(Row(shown.input), DatasetKind.USER) for shown in spec.demonstrations)
    splits.test = _without(splits.test, shown, "demonstration", splits.removed)
    at_test = _Inputs(splits.test)
    splits.validation = _without(splits.validation, at_test, "in_test", splits.removed)
    splits.train = _without(splits.train, at_test, "in_test", splits.removed)
    splits.train = _without(splits.train, _Inputs(splits.validation), "in_validation", splits.removed)
    for rows in (splits.train, splits.validation):
        rows.sort(key=lambda candidate: _order(candidate, seed))
    return splits


class _Inputs:
    """The inputs of some rows, to ask whether another row's input equals one of them, or nearly."""

    def __init__(self, candidates: Iterable[Candidate]) -> None:
        self._equal: set[str] = set()
        self._near = NearDuplicates()
        for candidate in candidates:
            self._equal.add(normalise(candidate.row.input))
            self._near.add(candidate.row.input)

    def __contains__(self, candidate: Candidate) -> bool:
        return normalise(candidate.row.input) in self._equal or candidate.row.input in self._near


def _candidates(rows: Iterable[Row], kind: DatasetKind, name: str) -> list[Candidate]:
    return [Candidate(replace(row, source=row.source or name), kind) for row in rows]


def _own_splits(
    candidates: Sequence[Candidate], own_test: Sequence[Candidate] | None
) -> tuple[list[Candidate], list[Candidate]]:
    """The rows whose place in the test split is given, and the others."""
    if own_test is not None:
        return list(own_test), list(candidates)
    locked = [candidate for candidate in candidates if candidate.row.split == "test"]
    return locked, [candidate for candidate in candidates if candidate.row.split != "test"]


def _distinct(candidates: Iterable[Candidate], seed: int, removed: Counter[str]) -> list[Candidate]:
    """One row for each input, in the seed's order, the empty ones left out.

    Of rows that differ in their output a real one goes before a generated one, then the most frequent output, the
    shortest, the first of the alphabet.
    """
    groups: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        if candidate.row.input.strip() and candidate.row.output.strip():
            groups[same_text(candidate.row.input)].append(candidate)
        else:
            removed["empty"] += 1
    kept = []
    for group in groups.values():
        votes = Counter(candidate.row.output for candidate in group)
        kept.append(
            min(
                group,
                key=lambda candidate: (
                    not candidate.real, -votes[candidate.row.output], len(candidate.row.output), candidate.row.output,
                    candidate.kind, _order(candidate, seed),
                ),
            )
        )  # fmt: skip
        removed["duplicate"] += len(group) - 1
    return sorted(kept, key=lambda candidate: _order(candidate, seed))


def _limited(
    locked: list[Candidate], limit: int, share: float, removed: Counter[str], own_test: Sequence[Candidate] | None
) -> list[Candidate]:
    """At most its share of the limit of each source's own test split; all of a user's test set."""
    if own_test is not None:
        return locked
    kept = []
    for rows in _by_source(locked).values():
        most = max(LEAST_TEST, round(limit * share))
        removed["over_limit"] += len(rows[most:])
        kept += rows[:most]
    return kept


def _divide(splits: Splits, rows: list[Candidate], limit: int, *, takes_test: bool) -> None:
    """Puts one source's rows, in their order, into the splits."""
    most = limit if takes_test else round(limit * (1 - TEST_SHARE))
    splits.removed["over_limit"] += len(rows[most:])
    rows = rows[:most]
    tests = round(len(rows) * TEST_SHARE) if takes_test else 0
    splits.test += rows[:tests]
    rest = rows[tests:]
    given = [row for row in rest if row.row.split in _VALIDATION_NAMES]
    if given and not takes_test:
        splits.validation += given
        splits.train += [row for row in rest if row.row.split not in _VALIDATION_NAMES]
        return
    validations = round(len(rest) * VALIDATION_SHARE / (1 - TEST_SHARE))
    splits.validation += rest[:validations]
    splits.train += rest[validations:]


def _without(candidates: list[Candidate], inputs: _Inputs, reason: str, removed: Counter[str]) -> list[Candidate]:
    kept = [candidate for candidate in candidates if candidate not in inputs]
    removed[reason] += len(candidates) - len(kept)
    return kept


def _by_source(candidates: Iterable[Candidate]) -> dict[tuple[DatasetKind, str], list[Candidate]]:
    """Rows by source, the sources sorted."""
    found: dict[tuple[DatasetKind, str], list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        found[_source(candidate)].append(candidate)
    return dict(sorted(found.items()))


def _adapted(candidates: Iterable[Candidate]) -> bool:
    return any(candidate.kind == DatasetKind.ADAPTED for candidate in candidates)


def _source(candidate: Candidate) -> tuple[DatasetKind, str]:
    return candidate.kind, candidate.row.source


def _order(candidate: Candidate, seed: int) -> bytes:
    row = candidate.row
    text = "\0".join((str(seed), same_text(row.input), row.input, row.output, row.source, row.split, *row.answers))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _table(candidates: Iterable[Candidate], name: str) -> pa.Table:
    return rows_to_table(replace(candidate.row, split=name) for candidate in candidates)


def _counts(splits: Splits) -> tuple[SourceCount, ...]:
    counts = Counter(
        (*_source(candidate), name) for name in ("train", "validation", "test") for candidate in getattr(splits, name)
    )
    return tuple(SourceCount(source, kind, name, rows) for (kind, source, name), rows in sorted(counts.items()))


def _check_size(splits: Splits) -> None:
    train, test = len(splits.train), len(splits.test)
    if train >= LEAST_TRAIN and test >= LEAST_TEST:
        return
    removed = ", ".join(f"{rows:,} {reason}" for reason, rows in sorted(splits.removed.items()) if rows) or "none"
    raise FailedPrecondition(
        "TOO_FEW_ROWS",
        f"There are {train:,} rows to train on and {test:,} to test on; wanted at least {LEAST_TRAIN} and {LEAST_TEST} "
        f"(taken out: {removed}). Generate more examples or give more data.",
    )


def _notes(splits: Splits, candidates: Sequence[Candidate], own_test: Sequence[Candidate] | None) -> Iterable[str]:
    real = sum(candidate.real for candidate in splits.test)
    if not real:
        made = "generated or rewritten by the LLM" if _adapted(splits.test) else "generated"
        yield f"Every test row was {made}: the scores say how well the student does what the LLM wrote, not more."
    elif real < len(splits.test):
        yield f"{real:,} of the {len(splits.test):,} test rows are real; the verdict rests on them."
    if own_test is not None and any(candidate.row.split == "test" for candidate in candidates):
        yield "The test split is your own test set, so the datasets' own test splits were used for training."
    leaked = splits.removed["in_test"]
    if leaked:
        yield f"{leaked:,} rows were equal or nearly equal to a test row and were left out of training."
    if not splits.validation:
        yield "There are no validation rows: training cannot stop early."
