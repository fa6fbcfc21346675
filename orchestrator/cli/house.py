"""What keeps the house: doctor, gc, up."""

from __future__ import annotations

from typing import Any

import click

from orchestrator.cli.shared import as_json_line, connecting, execute


@click.command()
@connecting
@as_json_line
def doctor(connect: str, as_json: bool) -> int:
    """Look at all that a run needs, and say what to do where something is wrong.

    Settings, secrets, certificates, ports, disk, memory, packages, store, database, LLM (which models it has: that
    costs nothing), hub, services, clocks. Nothing is changed, no secret is shown. The status is 1 where something is
    wrong.

    \b
    Examples:
      p2m doctor
      p2m doctor --connect 127.0.0.1:50050 --json
    """
    from orchestrator.doctor import command

    return execute(lambda terminal, settings: command.doctor(terminal, settings, connect, as_json))


@click.command()
@click.option("--dry-run", is_flag=True, help="Say what would go, by kind, and remove nothing.")
@click.option("--run", "name", default="", metavar="NAME", help="Remove this ended run, with all that only it has.")
@click.option("--keep-answers", is_flag=True, help="With --run: keep what the LLM was paid for.")
@click.option(
    "--older-than", default="", metavar="TIME", help="Remove runs that ended so long ago, such as 90d; default: "
    "what P2M_RETENTION says.",
)  # fmt: skip
@click.option(
    "--grace", default="1d", show_default=True, metavar="TIME", help="How long something must have been without a run."
)
@as_json_line
def gc(name: str, **options: Any) -> int:
    """Remove from the store what no run refers to any more.

    The first time it only writes down what it finds; what is still without a run a day later goes the next time: run it
    once a day. Nothing that a run uses is ever removed. P2M_RETENTION says what of ended runs is kept how long.

    \b
    Examples:
      p2m gc --dry-run
      p2m gc --run normalise-dates
      p2m gc --older-than 90d
    """
    from orchestrator.gc import command

    wanted = command.Wanted(name, **options)
    if wanted.keep_answers and not name:
        raise click.UsageError("--keep-answers goes with --run.")
    return execute(lambda terminal, settings: command.gc(terminal, settings, wanted))


@click.command()
def up() -> int:
    """Serve everything here, for others to connect to.

    The six services are at ports 50051 to 50056, runs at 50050. P2M_HOST and the TLS settings open them to other
    machines.

    \b
    Example:
      p2m up &
      p2m run prompt.txt --connect 127.0.0.1:50050
    """
    from orchestrator import commands

    return execute(commands.up)
