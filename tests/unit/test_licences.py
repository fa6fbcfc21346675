"""What a licence permits."""

from __future__ import annotations

import pytest

from services.kit.errors import InvalidArgument
from services.kit.licences import allows, check_wanted


@pytest.mark.parametrize(
    ("licence", "permissive", "commercial"),
    [
        ("apache-2.0", True, True),
        ("MIT", True, True),
        ("cc-by-4.0", True, True),
        ("cc0-1.0", True, True),
        ("gpl-3.0", False, True),
        ("cc-by-sa-4.0", False, True),
        ("cc-by-sa-2.5", False, True),
        ("gpl-3.0-only", False, True),
        ("openrail", False, True),
        ("llama3.1", False, True),
        ("cc-by-nc-4.0", False, False),
        ("cc-by-nc-sa-2.5", False, False),
        ("cc-by-nd-4.0", False, False),
        ("mit, cc-by-nc-4.0", False, False),
        ("mit, gpl-3.0", False, True),
        ("mit, other", None, None),
        ("", None, None),
        ("other", None, None),
        ("unknown", None, None),
        ("my-own-licence-2.0", None, None),
    ],
)
def test_what_a_licence_permits(licence: str, permissive: bool | None, commercial: bool | None) -> None:
    """Permissive licences permit all, copyleft is commercial only, "nc" and "nd" are neither; else it is not known."""
    assert allows(licence, "permissive") is permissive
    assert allows(licence, "commercial") is commercial


def test_one_licence_by_its_id() -> None:
    """An id asks for that licence alone; where the licence is not known, so is the answer."""
    assert allows("Apache-2.0", "apache-2.0") is True
    assert allows("mit", "apache-2.0") is False
    assert allows("my-own-licence-2.0", "apache-2.0") is False
    assert allows("other", "apache-2.0") is None
    assert allows("The same terms as the data", "apache-2.0") is None


@pytest.mark.parametrize("wanted", ["", "free", "open source", "apache", "permissive please"])
def test_another_word_is_refused(wanted: str) -> None:
    """A wish that is no known word is INVALID_ARGUMENT, and the message says what is wanted."""
    with pytest.raises(InvalidArgument, match="wanted permissive, commercial"):
        allows("mit", wanted)
    with pytest.raises(InvalidArgument) as raised:
        check_wanted(wanted, "constraints.licence")
    assert raised.value.field == "constraints.licence"
