"""Splits a prompt by its marks alone: the fallback and the cross-check of what the LLM says.

    split                    instruction and demonstrations
    ├── json_objects         {"input": "...", "output": "..."}
    ├── quoted_pairs         input="..." output="...", in any quotes, over several lines
    ├── labelled_blocks      Input: ... Output: ..., Q: ... A: ..., **Eingabe:** ..., 入力：... 出力：...
    ├── own_labels           Film: ... Verdict: ..., any labels that alternate at least twice
    ├── table_rows           | input | output |
    └── arrow_lines          "..." -> "..."

Each way of writing is looked for; the one that finds most is taken. What stands outside of the demonstrations, without
the line that announces them, is the instruction. All of it takes time proportional to the prompt, whatever is in it:
the patterns find marks, and plain code pairs them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest

from services.kit.values import Demonstration

# (input labels, output labels) by language; matched in any case.
_LABELS = (
    (
        "inputs?|question|q|query|prompt|problem|source|text|sentence|message|review",
        "outputs?|answer|a|response|result|completion|label|target|category|class|sentiment|summary|translation|intent",
    ),
    ("eingabe|frage", "ausgabe|antwort|ergebnis"),
    ("entrée|question", "sortie|réponse|résultat"),
    ("entrada|pregunta|pergunta", "salida|saída|respuesta|resposta|resultado"),
    ("ingresso|domanda", "uscita|risposta|risultato"),
    ("invoer|vraag", "uitvoer|antwoord"),
    ("wejście|pytanie", "wyjście|odpowiedź"),
    ("ввод|вход|вопрос", "вывод|выход|ответ"),
    ("入力例?|質問|問題?", "出力例?|回答|答え?"),
    ("输入|輸入|问题|問題|问", "输出|輸出|答案|回答|答"),
    ("입력|질문|문제", "출력|답변|답|정답"),
)
_INPUT = "|".join(pair[0] for pair in _LABELS)
_OUTPUT = "|".join(pair[1] for pair in _LABELS)

_EXAMPLE = (
    "examples?|samples?|demonstrations?|instances?|e\\.g\\.|beispiele?|exemples?|ejemplos?|exemplos?|esemp[io]|"
    "voorbeeld(?:en)?|przykład(?:y)?|примеры?|例文?|示例|范例|예시?"
)
_QUOTES = (
    ('"', '"'),
    ("“", "”"),
    ("„", "“"),
    ("«", "»"),
    ("‹", "›"),
    ("「", "」"),
    ("『", "』"),
    ("'", "'"),
    ("`", "`"),
)

# What may stand before a label: a list mark, a number, a quote mark, a heading, bold.
_LEAD = r"[ \t]*(?:[-*+•>#|]+[ \t]+|\(?\d+[.):][ \t]*)*[*_`]{0,3}"
_NUMBER = r"(?:[ \t]*#?\d+)?"
_COLON = r"[*_`]{0,3}[ \t]*[:：=][ \t]*[*_]{0,3}"
# Labels that only say "this is the input": such a one is never part of the input itself.
_PLAIN_INPUT = re.compile(
    r"\W*(?:\d+\W+)?(?:inputs?|eingabe|entrée|entrada|ingresso|invoer|wejście|ввод|вход|入力例?|输入|輸入|입력)\b",
    re.IGNORECASE,
)

_HEADING = re.compile(
    rf"^{_LEAD}(?:here\s+(?:are|is)\s+)?(?:an?\s+|some\s+|the\s+)?(?:{_EXAMPLE}){_NUMBER}"
    r"[*_]{0,3}[ \t]{0,3}[:：.]?[*_ \t]{0,6}$",
    re.IGNORECASE | re.MULTILINE,
)
_RULER = re.compile(r"^[ \t]*(?:[-=*_#~]{3,}|`{3}\w*|#+)[ \t]*$", re.MULTILINE)
_ANNOUNCES = re.compile(rf"(?:\b|(?<=[\W_]))(?:{_EXAMPLE})", re.IGNORECASE)


@dataclass(frozen=True)
class Found:
    """A demonstration and where it stands: prompt[start:end] is all of it, labels included."""

    start: int
    end: int
    demonstration: Demonstration


@dataclass(frozen=True)
class Split:
    """A prompt in parts; `unanswered` where the prompt ends in an input that has no output."""

    instruction: str
    found: tuple[Found, ...]
    unanswered: bool = False

    @property
    def demonstrations(self) -> tuple[Demonstration, ...]:
        return tuple(found.demonstration for found in self.found)


def split(prompt: str) -> Split:
    """The parts of a prompt, each literally as it stands there (JSON strings unescaped)."""
    ways = (json_objects, quoted_pairs, labelled_blocks, own_labels, table_rows, arrow_lines)
    most = max(([*way(prompt)] for way in ways), key=len)
    answered = tuple(found for found in most if found.demonstration.output)
    return Split(
        without(prompt, [(found.start, found.end) for found in most]), answered, unanswered=len(answered) < len(most)
    )


def without(prompt: str, spans: list[tuple[int, int]]) -> str:
    """The prompt outside of `spans`, without headings, rulers and lines whose only business is to announce them."""
    if not spans:
        return prompt.strip()
    parts, end = [], 0
    for start, stop in sorted(spans):
        parts.append(_without_announcement(prompt[end:start]))
        end = max(end, stop)
    parts.append(prompt[end:])
    bare = [_RULER.sub("", _HEADING.sub("", part)).strip() for part in parts]
    if _ANY_LABEL.fullmatch(bare[-1]):
        bare.pop()  # a label that waits for the next input
    instruction = "\n\n".join(part for part in bare if re.search(r"\w", part))
    # A prompt may be one sentence that ends in "for example:"; better that than nothing.
    return re.sub(r"\n{3,}", "\n\n", instruction) or prompt[: min(start for start, _ in spans)].strip()


# -- ways of writing a demonstration


def quoted_pairs(prompt: str) -> Iterator[Found]:
    """input="..." output="...": what is quoted may hold quotes of its kind and newlines."""
    marks = [*_QUOTED_MARK.finditer(prompt)]
    end = 0
    for number, mark in enumerate(marks):
        if mark.start() < end or mark["input"] is None:
            continue
        output = _output_mark(prompt, mark, marks[number + 1 : number + 1 + _MARKS_WITHIN])
        if output is None:
            continue
        later = next(
            (other.start() for other in marks if other.start() > output.start() and other["input"]), len(prompt)
        )
        closing = re.escape(_CLOSING[output["quote"]])
        close = re.compile(rf"{closing}(?=[ \t]*[,;.)）、，。]?[ \t]*(?:\n|\Z))|{closing}[ \t]*[,;]?[ \t]*\Z").search(
            prompt, output.end(), later
        )
        if close is None:
            continue
        given = prompt[mark.end() : output.start()].rstrip(" \t\r\n,;、，*_-")[:-1]
        end = close.end() + len(re.match(r"[ \t]*[,;.)）、，。]?", prompt[close.end() : close.end() + 20])[0])  # type: ignore[index]
        yield Found(mark.start(), end, Demonstration(given, prompt[output.end() : close.start()]))


def labelled_blocks(prompt: str) -> Iterator[Found]:
    """Input: ... Output: ...: the output ends at the next input or heading; the last one at a blank line."""
    return _blocks(prompt, _INPUT, _OUTPUT)


def own_labels(prompt: str) -> Iterator[Found]:
    """Blocks under labels of the person's own: the first label that comes again, and the one before it comes again."""
    labels = [label[1].strip().lower() for label in _ANY_LABEL.finditer(prompt)]
    labels = [label for label in labels if not _ANNOUNCES.match(label)]
    first = next((label for label in labels if labels.count(label) > 1), None) if len(labels) < 2_000 else None
    if first is None:
        return iter(())
    again = labels.index(first, labels.index(first) + 1)
    last = labels[again - 1]
    if last == first or labels.count(last) < 2:
        return iter(())
    return _blocks(prompt, re.escape(first), re.escape(last))


def arrow_lines(prompt: str) -> Iterator[Found]:
    """... -> ..., one a line; a single one counts only in quotes or when something before it announces examples."""
    found = []
    for line in re.finditer(r"[^\n]+", prompt):
        sides = _ARROW.split(line[0])
        if len(sides) != 2 or not sides[0].strip() or not sides[1].strip() or sides[1].rstrip().endswith((":", "：")):
            continue
        given = re.sub(r"^[ \t]*(?:[-*+•>]+[ \t]+|\(?\d+[.)][ \t]+)", "", sides[0])
        demonstration = Demonstration(_bare(given), _bare(sides[1]))
        quoted = demonstration.input != given.strip() and demonstration.output != sides[1].strip()
        found.append((quoted, Found(line.start(), line.end(), demonstration)))
    if len(found) == 1 and not found[0][0] and not _ANNOUNCES.search(prompt[: found[0][1].start]):
        return
    yield from (one for _, one in found)


def table_rows(prompt: str) -> Iterator[Found]:
    """A Markdown table of two columns, headed by an input's and an output's label."""
    head = re.compile(rf"^\|?[ \t]*(?:{_INPUT})[ \t]*\|[ \t]*(?:{_OUTPUT})[ \t]*\|?[ \t]*\n\|?[ \t]*:?-+:?[ \t]*\|[ \t]*:?-+:?[ \t]*\|?[ \t]*\n", _FLAGS)  # fmt: skip # noqa: E501
    row = re.compile(r"\|?[ \t]*(?P<i>[^|\n]*\S)[ \t]*\|[ \t]*(?P<o>[^|\n]*?)[ \t]*\|?[ \t]*(?:\n|\Z)")
    for table in head.finditer(prompt):
        start, end = table.start(), table.end()
        while match := row.match(prompt, end):
            yield Found(start, match.end(), Demonstration(_bare(match["i"]), _bare(match["o"])))
            start = end = match.end()


def json_objects(prompt: str) -> Iterator[Found]:
    """{"input": ..., "output": ...}, alone, in a list or one a line."""
    decoder = json.JSONDecoder()
    end = 0
    for brace in re.finditer(rf'\{{\s*"(?:{_INPUT})"\s*:\s*"', prompt, re.IGNORECASE):
        if brace.start() < end:
            continue
        try:
            value, stop = decoder.raw_decode(prompt, brace.start())
        except (ValueError, RecursionError):
            continue
        given, wanted = _json_pair(value)
        if given and wanted is not None:
            end = stop + len(re.match(r"[ \t]*,|\s*\]|", prompt[stop:])[0])  # type: ignore[index]
            start = brace.start() - (1 if prompt[brace.start() - 1 : brace.start()] == "[" else 0)
            yield Found(start, end, Demonstration(given, wanted))


# -- parts

_FLAGS = re.IGNORECASE | re.MULTILINE | re.DOTALL
_CLOSING = dict(_QUOTES)
# A quotation may hold what looks like a label before a quote; more of these than this it does not.
_MARKS_WITHIN = 20
_QUOTED_MARK = re.compile(
    rf"(?:^{_LEAD}|(?<=[\s,;(（、，」』]))(?:(?P<input>{_INPUT})|(?:{_OUTPUT})){_NUMBER}(?:{_COLON}|[ \t]*(?=[「『]))"
    rf"(?P<quote>[{re.escape(''.join(_CLOSING))}])",
    _FLAGS,
)
_ANY_LABEL = re.compile(rf"^{_LEAD}([^\W\d_][^\W\d_]*(?:[ _-][^\W\d_]+)?){_NUMBER}{_COLON}", _FLAGS)
_ARROW = re.compile(r"-{1,2}>|={1,2}>|[→⇒⟶↦]")
_RULER_LINE = re.compile(r"[ \t]*(?:[-=*_~]{3,}|#+)[ \t]*")


def _output_mark(prompt: str, mark: re.Match[str], later: list[re.Match[str]]) -> re.Match[str] | None:
    """The output's mark: the first that follows the quote which closes the input."""
    closing = _CLOSING[mark["quote"]]
    for other in later:
        before = prompt[max(mark.end(), other.start() - 20) : other.start()].rstrip(" \t\r\n,;、，*_-")
        if other["input"] is None and before.endswith(closing):
            return other
        if other["input"] is not None and prompt.endswith("\n", 0, other.start()):
            return None
    return None


def _blocks(prompt: str, inputs: str, outputs: str) -> Iterator[Found]:
    starts = [*re.finditer(rf"^{_LEAD}(?:{inputs}){_NUMBER}{_COLON}", prompt, _FLAGS)]
    label = re.compile(rf"(?:^{_LEAD}|(?<=[ \t])[*_]{{0,3}})(?:{outputs}){_NUMBER}{_COLON}", _FLAGS)
    for start, later in zip_longest(starts, starts[1:]):
        block_end = later.start() if later else len(prompt)
        output = label.search(prompt, start.end(), block_end)
        if not output:
            continue
        end = _output_end(prompt, output.end(), block_end, last=later is None)
        given = prompt[start.end() : output.start()]
        if not _PLAIN_INPUT.match(start[0]) and _ANY_LABEL.search(given, given.find("\n") + 1 or len(given)):
            # An input of several labelled fields keeps the first one's label too.
            given = re.sub(r"^[\s\-*+•>#|]+", "", prompt[start.start() : output.start()])
        if given.strip():
            yield Found(start.start(), end, Demonstration(_bare(given), _bare(prompt[output.end() : end])))


def _output_end(prompt: str, start: int, block_end: int, last: bool) -> int:
    heading = _HEADING.search(prompt, start, block_end)
    if heading:
        return heading.start()
    text = prompt[start:block_end]
    if not last:
        return block_end
    if "```" in text and (fenced := re.match(r"\s*```.*?```", text, re.DOTALL)):
        return start + fenced.end()
    blank = re.search(r"\S[ \t]*\n[ \t]*\n", text)
    return start + blank.end() if blank else block_end


def _bare(text: str) -> str:
    """Without rulers, blank ends, a fence, bold marks and one pair of quotes around all of it."""
    text = text.strip()
    while "\n" in text and _RULER_LINE.fullmatch(text.rpartition("\n")[2]):
        text = text.rpartition("\n")[0].rstrip()
    fenced = re.fullmatch(r"```\w*\n(.*?)\n?```", text, re.DOTALL)
    if fenced:
        return fenced[1]
    bold = re.fullmatch(r"\*\*(.+?)\*\*", text, re.DOTALL)
    text = bold[1] if bold else text
    for opening, closing in _QUOTES:
        inner = text[len(opening) : -len(closing)]
        if len(text) >= 2 and text.startswith(opening) and text.endswith(closing) and closing not in inner:
            return inner
    return text


def _without_announcement(text: str) -> str:
    """The text before a demonstration without the sentence that announces it ("Here are some examples:")."""
    text = text.rstrip().rstrip("[").rstrip()
    kept, _, last = text.rpartition("\n")
    if not last.rstrip("*_ ").endswith((":", "：")) or not _ANNOUNCES.search(last):
        return text
    # The line may hold a sentence of the instruction before the announcement.
    sentence = re.search(r"^(.*[.!?。！？])\s*(?=[^.!?。！？]*[:：][*_ ]*$)", last)
    if sentence and re.search(r"\w{3,}", sentence[1]) and _ANNOUNCES.search(last[sentence.end() :]):
        return f"{kept}\n{sentence[1]}"
    return kept


def _json_pair(value: object) -> tuple[str, str | None]:
    if not isinstance(value, dict) or len(value) != 2:
        return "", None
    (first, given), (second, wanted) = value.items()
    labels = re.fullmatch(_INPUT, str(first), re.IGNORECASE) and re.fullmatch(_OUTPUT, str(second), re.IGNORECASE)
    if not labels or not isinstance(given, str) or not isinstance(wanted, str):
        return "", None
    return given, wanted
