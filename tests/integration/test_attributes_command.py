"""`p2m attributes` and `p2m run --attributes`: a proposal as a file that a person edits."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.cli import Cli
from tests.support.teacher import TOY_PROMPT, ScriptedTeacher

PROPOSED = {"topics": ["tea", "rain"], "lengths": ["one line"], "difficulties": [], "labels": []}


async def test_a_proposal_becomes_a_file(tmp_path: Path) -> None:
    """It is printed, or written to a file that is not there yet; what p2m run reads is what was written."""
    (tmp_path / "prompt.txt").write_text(TOY_PROMPT)
    async with ScriptedTeacher({"attributes": PROPOSED}) as teacher:
        p2m = Cli(tmp_path)
        p2m.environment["OPENAI_BASE_URL"] = teacher.url
        printed = await p2m("attributes", "prompt.txt")
        assert (printed.status, json.loads(printed.out)) == (0, PROPOSED), printed.err
        written = await p2m("attributes", "prompt.txt", "--out", "mine.json")
        assert (written.status, written.out) == (0, ""), written.err
        assert "topics 2, lengths 1" in written.err and "--attributes mine.json" in written.err
        assert json.loads((tmp_path / "mine.json").read_text()) == PROPOSED
        again = await p2m("attributes", "prompt.txt", "--out", "mine.json")
        assert (again.status, "there already" in again.err) == (2, True)


async def test_a_wrong_file_is_refused_at_once(tmp_path: Path) -> None:
    """A run whose attributes cannot be read ends with 2 and one message, before anything is started."""
    (tmp_path / "prompt.txt").write_text(TOY_PROMPT)
    (tmp_path / "wrong.json").write_text('{"topic": ["tea"]}')
    p2m = Cli(tmp_path)
    for name, said in (("wrong.json", "'topic'"), ("none.json", "none.json")):
        refused = await p2m("run", "prompt.txt", "--attributes", name)
        assert refused.status == 2
        assert said in refused.err and "Traceback" not in refused.err
        assert len(refused.err.strip().splitlines()) == 1
