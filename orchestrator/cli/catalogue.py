"""`p2m catalogue build` and `p2m catalogue search`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from orchestrator.cli.job import constrain
from orchestrator.cli.shared import Prose, as_json_line, execute


@click.group(cls=Prose)
def catalogue() -> None:
    """The datasets and models that p2m can find."""


@catalogue.command("build")
@click.option(
    "--models", multiple=True, type=click.Path(path_type=Path), metavar="FILE", help="Model cards, JSONL. Repeatable."
)
@click.option(
    "--datasets",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Dataset cards, JSONL. Repeatable.",
)
@click.option(
    "--from-hub",
    is_flag=False,
    flag_value="both",
    type=click.Choice(["models", "datasets", "both"]),
    help="List what the Hugging Face hub has; without a word: both. HF_TOKEN doubles the pace.",
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="From the hub: the N most used of each kind.")
@click.option("--min-downloads", type=click.IntRange(0), metavar="N", help="From the hub: used so often a month.")
@click.option("--task", multiple=True, metavar="TASK", help="From the hub: this task, such as translation. Repeatable.")
@click.option("--language", multiple=True, metavar="CODE", help="From the hub: this language, such as ja. Repeatable.")
@click.option("--cards", type=click.IntRange(0), metavar="N", help="Read the cards of the N most used; default 2000.")
@click.option(
    "--rate", type=click.FloatRange(0, min_open=True), metavar="N", help="Most requests a second; default: the hub's."
)
@click.option("--anew", is_flag=True, help="List from the first page, whatever was fetched before.")
def catalogue_build(models: tuple[Path, ...], datasets: tuple[Path, ...], from_hub: str | None, **wanted: Any) -> int:
    """Build the search indexes; without files, of the starter catalogue.

    What --from-hub has fetched is kept: after an interruption the same command goes on where it was, and later it
    fetches only what has changed. The listing of the whole hub takes an hour, and encoding half a million datasets
    takes hours on a CPU: begin with --limit or --min-downloads.

    \b
    Examples:
      p2m catalogue build --models my-models.jsonl
      p2m catalogue build --from-hub --limit 20000
      p2m catalogue build --from-hub models --task translation --language ja --min-downloads 100
    """
    given = [f"--{name.replace('_', '-')}" for name, value in wanted.items() if value not in (None, (), False)]
    if given and not from_hub:
        raise click.UsageError(f"{given[0]} goes with --from-hub.")
    from orchestrator import catalogue_commands

    return execute(
        lambda terminal, settings: catalogue_commands.build(
            terminal, settings, models, datasets, from_hub or "", wanted
        )
    )


@catalogue.command("search")
@click.argument("words", nargs=-1, required=True)
@click.option(
    "-n", "--number", type=click.IntRange(1, 1000), default=10, show_default=True, help="Most results of each kind."
)
@click.option("--licence", metavar="LICENCE", help="permissive, commercial, or an id such as apache-2.0; default: any.")
@click.option(
    "--languages", metavar="CODES", help="The model knows them all, the dataset has one of them, such as ja,en."
)
@click.option("--max-size", metavar="SIZE", help="Most bytes of the model's weights, such as 300MB; default 3GB.")
@click.option("--cpu-latency", metavar="TIME", help="Most time of one answer on a CPU, such as 50ms; default: any.")
@click.option("--dataset-max-size", metavar="SIZE", help="Most bytes of a dataset, such as 2GB; default: any.")
@click.option("--dataset-task", metavar="TASK", help="Only datasets for this task of the hub: text-classification, ...")
@click.option("--include-gated", is_flag=True, help="Also datasets whose owner must grant access (HF_TOKEN).")
@as_json_line
def catalogue_search(words: tuple[str, ...], number: int, as_json: bool, **asked: Any) -> int:
    """Search datasets and models, as a run would, without an LLM.

    \b
    Examples:
      p2m catalogue search find the date in a sentence
      p2m catalogue search summarise the news --languages ja --licence permissive --max-size 2GB
    """
    from p2m.run.v1 import run_pb2

    from orchestrator import catalogue_commands

    options = run_pb2.RunOptions()
    constrain(options, asked)
    return execute(
        lambda terminal, settings: catalogue_commands.search(
            terminal, settings, " ".join(words), number, as_json, options
        )
    )
