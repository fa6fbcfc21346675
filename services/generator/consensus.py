"""What becomes of the answers: one output per input, one row per group of near duplicates.

    Collection      add: one example as it comes; rows, dropped: the dataset and what was left out
    best_output     the vote

Everything a Collection tells at the end depends on which examples were added and never on their order, so that a run
whose answers arrive in another order gives the same dataset, byte for byte. Near duplicates therefore count by groups
(connected components, see `dedup`): the usual "drop what is near to an earlier one" keeps other rows, and another
number of them, for each order.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterable

from services.generator.validity import Validity
from services.kit.dedup import NearDuplicates, same_text
from services.kit.values import Demonstration, Row

SOURCE = "generated"


def best_output(votes: Counter[str]) -> str:
    """Self-consistency (Wang et al., 2023): the most frequent output; ties to the shortest, then alphabetical."""
    return min(votes, key=lambda output: (-votes[output], len(output), output))


class Collection:
    """Examples as they come. `kept` is how many rows there are so far."""

    def __init__(self, demonstrations: Iterable[Demonstration], excluded: Iterable[str] = ()) -> None:
        shown = tuple(demonstrations)
        self.usable = 0
        self._validity = Validity(shown)
        self._demonstrated = _near(demonstration.input for demonstration in shown)
        self._excluded = _near(excluded)
        self._near = NearDuplicates()
        # By input (`same_text`): how often each output was given, and one way of writing the input.
        self._votes: dict[str, Counter[str]] = {}
        self._written: dict[str, str] = {}
        self._inputs: list[str] = []
        self._dropped: Counter[str] = Counter()

    @property
    def kept(self) -> int:
        return self._near.groups

    def add(self, example: object) -> str:
        """Takes an example in, or counts why not; the input under which it votes, "" where it does not."""
        fault = self._validity.fault(example)
        if fault:
            self._dropped[fault] += 1
            return ""
        assert isinstance(example, dict)
        self.usable += 1
        given, wanted = example["input"].strip(), example["output"].strip()
        text = same_text(given)
        if text not in self._votes:
            if text in self._demonstrated:
                self._dropped["copied_demonstration"] += 1
                return ""
            if text in self._excluded:
                self._dropped["excluded"] += 1
                return ""
            self._votes[text] = Counter()
            self._inputs.append(text)
            self._near.add(text)
        self._votes[text][wanted] += 1
        self._written[text] = min(given, self._written.get(text, given))
        return text

    def sample(self, rng: random.Random, number: int) -> list[Demonstration]:
        """Up to `number` examples drawn from those taken in, each with its best output so far."""
        drawn = rng.sample(self._inputs, min(number, len(self._inputs)))
        return [Demonstration(self._written[text], best_output(self._votes[text])) for text in drawn]

    def rows(self, number: int) -> list[Row]:
        """At most `number` rows, one per group, in the order of the SHA-256 of their inputs.

        A group is represented by its input with the most votes, ties by that order.
        """
        chosen = [
            min(group, key=lambda text: (-self._votes[text].total(), _digest(text))) for group in self._near.members()
        ]
        return [
            Row(self._written[text], best_output(self._votes[text]), source=SOURCE)
            for text in sorted(chosen, key=_digest)[:number]
        ]

    def dropped(self, number: int) -> dict[str, int]:
        """Examples left out of `rows(number)`, by reason; "surplus" is what exceeds the number."""
        votes = sum(counter.total() for counter in self._votes.values())
        counts = self._dropped + Counter(
            duplicate=votes - len(self._votes),
            near_duplicate=len(self._votes) - self.kept,
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
