"""What is done with a run that there is: watch, list, show, cancel, data, choose."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.cli.shared import as_json_line, connecting, execute


@click.command()
@click.argument("run")
@connecting
@as_json_line
def watch(run: str, connect: str, as_json: bool) -> int:
    """Follow a run that is under way.

    \b
    Example:
      p2m watch normalise-dates
    """
    from orchestrator import commands

    return execute(lambda terminal, settings: commands.watch(terminal, settings, run, connect, as_json))


@click.command("list")
@click.option("-n", "--number", type=click.IntRange(1, 1000), default=50, show_default=True, help="Most runs.")
@connecting
@as_json_line
def list_(number: int, connect: str, as_json: bool) -> int:
    """List the newest runs.

    \b
    Example:
      p2m list -n 10
    """
    from orchestrator import commands

    return execute(lambda terminal, settings: commands.list_runs(terminal, settings, number, connect, as_json))


@click.command()
@click.argument("run")
@connecting
@as_json_line
def show(run: str, connect: str, as_json: bool) -> int:
    """Show where a run stands, stage by stage.

    \b
    Example:
      p2m show normalise-dates
    """
    from orchestrator import commands

    return execute(lambda terminal, settings: commands.show(terminal, settings, run, connect, as_json))


@click.command()
@click.argument("run")
@connecting
def cancel(run: str, connect: str) -> int:
    """Stop a run; what it has is kept.

    \b
    Example:
      p2m cancel normalise-dates
    """
    from orchestrator import commands

    return execute(lambda terminal, settings: commands.cancel(terminal, settings, run, connect))


@click.command()
@click.argument("run")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write them there instead of printing.")
@click.option(
    "--part",
    type=click.Choice(["splits", "train", "validation", "test", "generated", "retrieved"]),
    help="Which rows; default: the splits, and before there are any, all there is.",
)
@connecting
def data(run: str, out: Path | None, part: str | None, connect: str) -> int:
    """Write a run's rows as JSONL; of a run that was stopped too, and nothing is asked of the LLM.

    \b
    Example:
      p2m data normalise-dates --out rows.jsonl
    """
    from orchestrator import data_command

    return execute(lambda terminal, settings: data_command.data(terminal, settings, run, part or "", out, connect))


@click.command()
@click.argument("run")
@click.argument("question", type=click.Choice(["dataset", "columns", "model", "attributes"]))
@click.argument("value")
@connecting
def choose(run: str, question: str, value: str, connect: str) -> int:
    """Answer what a run that was started with --ask waits for.

    "none" is always an answer, except for the model. `p2m show RUN` prints the question and its values. For the
    attributes, VALUE may be the name of a JSON file that you edited.

    \b
    Examples:
      p2m choose normalise-dates dataset p2m/normalise-dates
      p2m choose normalise-dates attributes my-attributes.json
    """
    from orchestrator import commands

    return execute(lambda terminal, settings: commands.choose(terminal, settings, run, question, value, connect))
