"""What several commands have in common."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from services.kit.errors import InvalidArgument

if TYPE_CHECKING:
    from orchestrator.session import Command


class Prose(click.Group):
    """A group whose commands stand in the order of their use, not of the alphabet."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)


def connecting(command: Any) -> Any:
    return click.option(
        "--connect", metavar="HOST:PORT", default="", help="Use the services there instead of this machine's own."
    )(command)


def as_json_line(command: Any) -> Any:
    return click.option("--json", "as_json", is_flag=True, help="One JSON line on standard output.")(command)


def execute(command: Command) -> int:
    from orchestrator.session import execute

    return execute(command)


def prompt_in(prompt_file: str | None) -> str:
    from orchestrator.inputs import MAX_PROMPT_BYTES, decode_prompt, read_prompt

    if prompt_file not in (None, "-"):
        return read_prompt(Path(str(prompt_file)))
    if prompt_file is None:
        if not sys.stdin.isatty():
            raise click.UsageError("No prompt: name a file, or - for standard input. Example: p2m run prompt.txt")
        click.echo("Type what the model shall do, best with a few examples (input=... output=...).", err=True)
        click.echo("End with Ctrl-D on an empty line.\n", err=True)
    return decode_prompt(sys.stdin.buffer.read(MAX_PROMPT_BYTES + 1), "standard input")


def check_name(name: str) -> None:
    import re

    if name and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", name):
        raise InvalidArgument(
            "BAD_NAME", f'The name {name[:120]!r} cannot be: wanted at most 100 letters, digits, "-", "_" or ".".'
        )
