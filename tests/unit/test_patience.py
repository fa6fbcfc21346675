"""A store that has answered is waited for; one that never has is told of at once."""

from __future__ import annotations

import pytest

from services.kit import patience
from services.kit.errors import NotFound, Unavailable
from services.kit.patience import Patience, patient


class Flaky:
    """A store whose answers are given: None is an answer, an error is raised."""

    def __init__(self, *answers: Exception | None, seconds: float = 60.0) -> None:
        self.patience = Patience(seconds)
        self.answers = [*answers]

    @patient
    def get(self, key: str) -> str:
        """The key itself."""
        if (answer := self.answers.pop(0)) is not None:
            raise answer
        return key


AWAY = Unavailable("STORE_UNREACHABLE", "The store is out of reach.")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "_FIRST_WAIT_S", 0.001)


def test_a_store_that_has_answered_is_waited_for() -> None:
    """After one answer, an outage is waited through and the operation done."""
    store = Flaky(None, AWAY, AWAY, None)
    assert [store.get("a"), store.get("b")] == ["a", "b"]


def test_that_something_is_absent_is_an_answer() -> None:
    """A store that has said "not found" has answered."""
    store = Flaky(NotFound("NO_SUCH_KEY", "No."), AWAY, None)
    with pytest.raises(NotFound):
        store.get("a")
    assert store.get("b") == "b"


def test_a_store_that_never_answered_is_told_of_at_once() -> None:
    """The first operation of all raises, however long the patience."""
    store = Flaky(AWAY, None)
    with pytest.raises(Unavailable):
        store.get("a")
    assert len(store.answers) == 1


def test_patience_ends() -> None:
    """Where the time is over the error is raised."""
    store = Flaky(None, AWAY, AWAY, None, seconds=0.0)
    store.get("a")
    with pytest.raises(Unavailable):
        store.get("b")
