"""What becomes of the answers: one output per input, one row per group of near duplicates.

    Collection      add: one example as it comes; rows, dropped: the dataset and what was left out
    Votes           how often each output was given for an input
    best_output     the vote

Everything a Collection tells at the end depends on which examples were added and never on their order, so that a run
whose answers arrive in another order gives the same dataset, byte for byte. Near duplicates therefore count by groups
(connected components, see `dedup`): the usual "drop what is near to an earlier one" keeps other rows, and another
number of them, for each order.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections import Counter
from collections.abc import Iterable, Iterator

from rapidfuzz.distance import LCSseq

from services.generator.validity import Validity
from services.generator.variety import candidates, far_apart
from services.kit.dedup import NearDuplicates, same_text
from services.kit.text import words
from services.kit.values import Demonstration, Row

SOURCE = "generated"

# So many examples are believed to have been new beforehand.
_TELLING = 3
# So many words whose pairs are all in one demonstration are no input of their own; fewer may be a name or a date. Of
# many words nearly all pairs will do: a small LLM garbles what it copies.
_PART_WORDS, _LONG_PART_WORDS, _PART_SHARE = 5, 12, 0.8
# Of a demonstration so many times as long, most of the words in their order will do. One of about the same length may
# share that many because the task has a form of words: "How many grams are there in a pound?", and in an ounce.
_GARBLED_WORDS, _GARBLED_SHARE, _TIMES_AS_LONG = 8, 0.7, 2


def best_output(votes: Counter[str]) -> str:
    """Self-consistency (Wang et al., 2023): the most frequent output; ties to the shortest, then alphabetical."""
    return min(votes, key=lambda output: (-votes[output], len(output), output))


class Votes:
    """Outputs by input, counted as they come. An input that was answered once needs no counter."""

    def __init__(self) -> None:
        self.total = 0
        self._given: dict[str, str | Counter[str]] = {}

    def __len__(self) -> int:
        return len(self._given)

    def __contains__(self, text: str) -> bool:
        return text in self._given

    def __iter__(self) -> Iterator[str]:
        return iter(self._given)

    def add(self, text: str, output: str) -> None:
        """One vote for `output` as the answer to `text`."""
        self.total += 1
        given = self._given.get(text)
        if given is None:
            self._given[text] = output
        elif isinstance(given, Counter):
            given[output] += 1
        else:
            self._given[text] = Counter((given, output))

    def best(self, text: str) -> str:
        """The output that wins."""
        given = self._given[text]
        return best_output(given) if isinstance(given, Counter) else given

    def of(self, text: str) -> int:
        """How many votes there are on `text`."""
        given = self._given[text]
        return given.total() if isinstance(given, Counter) else 1


class Collection:
    """Examples as they come. `kept` is how many rows there are so far."""

    def __init__(
        self, demonstrations: Iterable[Demonstration], excluded: Iterable[str] = (), instruction: str = ""
    ) -> None:
        shown = tuple(demonstrations)
        self.usable = 0
        self.longest = 0
        self.outputs: Counter[str] = Counter()
        self._validity = Validity(shown, instruction)
        self._demonstrated = _near(demonstration.input for demonstration in shown)
        self._shown = [words(demonstration.input) for demonstration in shown]
        self._shown_pairs = [frozenset(itertools.pairwise(found)) for found in self._shown]
        self._excluded = _near(excluded)
        self._near = NearDuplicates()
        # By input (`same_text`): how often each output was given, and one way of writing the input.
        self._votes = Votes()
        self._written: dict[str, str] = {}
        self._inputs: list[str] = []
        self._dropped: Counter[str] = Counter()

    @property
    def labels(self) -> tuple[str, ...]:
        """All outputs there are, where the demonstrations show few again and again."""
        return self._validity.labels

    @property
    def repeats(self) -> tuple[int, int]:
        """Of the usable examples so far: those whose input was there already, those that were near to another's."""
        return self._votes.total - len(self._votes), len(self._votes) - self.kept

    @property
    def kept(self) -> int:
        return self._near.groups

    @property
    def repeated(self) -> float:
        """The share of usable examples that were nothing new, 0 to 1; a few are needed to say so."""
        return (self.usable - self.kept) / (self.usable + _TELLING)

    def add(self, example: object) -> bool:
        """Takes an example in, or counts why not; whether it is new: there is a row more for it."""
        given, wanted, fault = self._validity.judge(example)
        if fault:
            self._dropped[fault] += 1
            return False
        self.usable += 1
        before = self.kept
        text = same_text(given)
        if text not in self._votes:
            if text in self._demonstrated or self._is_part_of_one(text):
                self._dropped["copied_demonstration"] += 1
                return False
            if text in self._excluded:
                self._dropped["excluded"] += 1
                return False
            self._inputs.append(text)
            self._near.add(text)
        self._votes.add(text, wanted)
        self._written[text] = min(given, self._written.get(text, given))
        self.longest = max(self.longest, len(given.encode()) + len(wanted.encode()))
        self.outputs[wanted] += 1
        return self.kept > before

    def _is_part_of_one(self, text: str) -> bool:
        """Whether a demonstration says the same and more, word for word or, where it is long, nearly so."""
        found = words(text) if self._shown else []
        if len(found) < _PART_WORDS:
            return False
        least = _PART_SHARE if len(found) >= _LONG_PART_WORDS else 1.0
        pairs = frozenset(itertools.pairwise(found))
        if any(len(pairs & shown) >= least * len(pairs) for shown in self._shown_pairs):
            return True
        if len(found) < _GARBLED_WORDS:
            return False
        longer = (shown for shown in self._shown if len(shown) >= _TIMES_AS_LONG * len(found))
        return any(LCSseq.similarity(found, shown) >= _GARBLED_SHARE * len(found) for shown in longer)

    def sample(self, rng: random.Random, number: int) -> list[Demonstration]:
        """Up to `number` examples of those taken in, far apart, each with its best output so far."""
        drawn = rng.sample(self._inputs, min(candidates(number), len(self._inputs)))
        shown = [Demonstration(self._written[text], self._votes.best(text)) for text in drawn]
        return far_apart(shown, number)

    def rows(self, number: int) -> list[Row]:
        """At most `number` rows, one per group, in the order of the SHA-256 of their inputs.

        A group is represented by its input with the most votes, ties by that order.
        """
        chosen = [min(group, key=lambda text: (-self._votes.of(text), _digest(text))) for group in self._near.members()]
        return [
            Row(self._written[text], self._votes.best(text), source=SOURCE)
            for text in sorted(chosen, key=_digest)[:number]
        ]

    def dropped(self, number: int) -> dict[str, int]:
        """Examples left out of `rows(number)`, by reason; "surplus" is what exceeds the number."""
        repeated, near = self.repeats
        counts = self._dropped + Counter(
            duplicate=repeated,
            near_duplicate=near,
            surplus=max(0, self.kept - number),
        )
        return dict(sorted(counts.items()))


def _near(texts: Iterable[str]) -> NearDuplicates:
    near = NearDuplicates()
    for text in texts:
        near.add(same_text(text))
    return near


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
