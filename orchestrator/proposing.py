"""What `p2m attributes` does: has the LLM propose what the examples of a prompt may differ in, for a person to edit.

propose      parses the prompt, asks for the proposal, and writes it as the JSON that `p2m run --attributes` reads
"""

from __future__ import annotations

import json
import uuid
from contextlib import AsyncExitStack
from pathlib import Path

from p2m.generator.v1 import generator_pb2
from p2m.parser.v1 import parser_pb2

from orchestrator.attributes import KINDS
from orchestrator.local import hosted
from orchestrator.stages import Stages
from orchestrator.terminal import DONE, Terminal
from services.kit.errors import InvalidArgument, from_os_error
from services.kit.settings import SERVICES, Settings
from services.kit.text import check_prompt

_NEEDED = ("parser", "generator")


async def propose(terminal: Terminal, settings: Settings, prompt: str, out: Path | None) -> int:
    """Prints the proposal, or writes it to `out`, which must not be there yet."""
    check_prompt(prompt)
    _check(out)
    # A service whose target is set is not started.
    others = {f"{name}_target": settings.target(name) for name in SERVICES if name not in _NEEDED}
    request_id = f"attributes/{uuid.uuid4().hex}"
    async with AsyncExitStack() as stack:
        local = await stack.enter_async_context(hosted(settings.model_copy(update=others)))
        stages = Stages(local.settings)
        stack.push_async_callback(stages.close)
        parsed = await stages.parse(parser_pb2.ParseRequest(request_id=f"{request_id}/parse", prompt=prompt))
        answer = await stages.propose(generator_pb2.ProposeRequest(request_id=request_id, spec=parsed.spec))
    plain = {kind: [*getattr(answer.attributes, kind)] for kind in KINDS}
    text = json.dumps(plain, ensure_ascii=False, indent=2) + "\n"
    if out is None:
        print(text, file=terminal.out, end="", flush=True)
        return DONE
    _write(out, text)
    counted = ", ".join(f"{kind} {len(values)}" for kind, values in plain.items() if values) or "nothing"
    terminal.say(f"{answer.llm} proposed: {counted}. Edit {out}, then: p2m run PROMPT_FILE --attributes {out}")
    return DONE


def _check(out: Path | None) -> None:
    if out is not None and out.exists():
        raise InvalidArgument("FILE_EXISTS", f"{out} is there already; name another file, or move it away.")


def _write(out: Path, text: str) -> None:
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise from_os_error(error, f"Writing {out}") from error
