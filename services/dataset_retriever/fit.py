"""How well flattened rows fit a task as they are, by what they look like beside its demonstrations.

    shape      whole, in part, or not judged; and why in part

What is compared: label names, the outputs' kind (a number, a question, JSON, words), script and length, and the inputs'
length. It is a coarse sieve. What has another form is told for certain; what passes may still mean something else.
"""

from __future__ import annotations

import re
import statistics
import unicodedata
from collections import Counter
from collections.abc import Sequence

from services.dataset_retriever.columns import Fit
from services.dataset_retriever.flatten import Flat
from services.kit.text import normalise
from services.kit.values import Demonstration

_LEAST_ROWS = 3
# Outputs, then inputs: how many times as long, and by how many words at least, is another form.
_OUTPUTS, _INPUTS = (4.0, 6), (10.0, 60)
_NUMBER = re.compile(r"[-+]?[\d.,]*\d\s?%?")


def shape(rows: Sequence[Flat], labels: Sequence[str], demonstrations: Sequence[Demonstration]) -> tuple[Fit, str]:
    """How well rows fit, and why only in part, one sentence. `labels` are the output column's, () where it has none."""
    shown = [one for one in demonstrations if one.input.strip() and one.output.strip()]
    if not shown or len(rows) < _LEAST_ROWS:
        return Fit.UNSPECIFIED, ""
    wanted, given = [one.output for one in shown], [row.output for row in rows]
    why = (
        _labels(wanted, labels)
        or _kinds(wanted, given)
        or _lengths("outputs", wanted, given, *_OUTPUTS)
        or _lengths("inputs", [one.input for one in shown], [row.input for row in rows], *_INPUTS)
    )
    return (Fit.PART, why) if why else (Fit.WHOLE, "")


def _labels(wanted: Sequence[str], labels: Sequence[str]) -> str:
    names = {normalise(label) for label in labels}
    strange = [text for text in wanted if normalise(text) not in names]
    if not names or not strange:
        return ""
    listed = ", ".join(labels[:6]) + (", ..." if len(labels) > 6 else "")
    return f"The demonstrations' output {strange[0][:60]!r} is none of its labels ({listed[:200]})."


def _kinds(wanted: Sequence[str], given: Sequence[str]) -> str:
    for kind in (_kind, _script):
        one, other = _usual(map(kind, wanted)), _usual(map(kind, given))
        if one and other and one != other:
            return f"Its outputs are {other}, the demonstrations' {one}."
    return ""


def _kind(text: str) -> str:
    text = text.strip()
    if _NUMBER.fullmatch(text):
        return "numbers"
    if text.startswith(("{", "[")) and text.endswith(("}", "]")):
        return "JSON"
    return "questions" if text.endswith(("?", "？", "؟")) else "words"


def _script(text: str) -> str:
    """The script of most letters, such as LATIN; "" without a letter."""
    scripts = Counter(unicodedata.name(letter, "?").partition(" ")[0] for letter in text[:500] if letter.isalpha())
    found = max(scripts, key=lambda script: scripts[script], default="")
    # Japanese is written in three.
    found = "CJK" if found in ("HIRAGANA", "KATAKANA") else found
    return f"in {found.capitalize() if found != 'CJK' else found} letters" if found else ""


def _usual(kinds: object) -> str:
    """What four of five are; "" where nothing is."""
    found = Counter(kinds)  # type: ignore[call-overload]
    best = max(found, key=lambda kind: found[kind], default="")
    return str(best) if found and found[best] >= 0.8 * sum(found.values()) else ""


def _lengths(what: str, wanted: Sequence[str], given: Sequence[str], times: float, words: int) -> str:
    one, other = (statistics.median(_length(text) for text in texts) for texts in (wanted, given))
    shorter, longer = sorted((max(1.0, one), max(1.0, other)))
    if longer / shorter < times or longer - shorter < words:
        return ""
    return f"Its {what} have about {other:.0f} words, the demonstrations' {one:.0f}."


def _length(text: str) -> int:
    """Words; of a script without spaces every second letter counts as one."""
    text = text[:20_000]
    return max(
        len(text.split()), sum(unicodedata.name(c, "").startswith(("CJK", "HIRA", "KATA", "THAI")) for c in text) // 2
    )
