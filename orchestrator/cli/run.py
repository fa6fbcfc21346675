"""`p2m run`, and `p2m attributes`, which prepares one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from orchestrator.cli.job import job_of
from orchestrator.cli.shared import as_json_line, connecting, execute, prompt_in


@click.command()
@click.argument("prompt_file", required=False)
@click.option("--name", default="", metavar="NAME", help="The run's name; default: made from prompt and options.")
@click.option("--new", is_flag=True, help="Start another run, even where there is one of this name or content.")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", help="Folder for the result; default: runs/NAME."
)
@click.option(
    "--data",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Your own rows to train on: JSONL, CSV or Parquet with input and output. Repeatable.",
)
@click.option(
    "--test", type=click.Path(path_type=Path), metavar="PATH", help="Your own test set; it is then the whole test."
)
@click.option(
    "--dataset", default="", metavar="ID", help="This dataset of the catalogue instead of the search's choice."
)
@click.option("--dataset-max-size", metavar="SIZE", help="Most bytes of a dataset, such as 2GB; default: any.")
@click.option("--dataset-task", metavar="TASK", help="Only datasets for this task of the hub: text-classification, ...")
@click.option("--include-gated", is_flag=True, help="Also datasets whose owner must grant access (HF_TOKEN).")
@click.option(
    "--licence",
    metavar="LICENCE",
    help="Of model and dataset: permissive, commercial, or an id such as apache-2.0; default: any.",
)
@click.option(
    "--languages", metavar="CODES", help="The model knows them all, the dataset has one of them, such as ja,en."
)
@click.option(
    "--skip", multiple=True, type=click.Choice(["datasets", "generate"]), help="Leave a stage out. Repeatable."
)
@click.option("--number", type=click.IntRange(0), metavar="N", help="Examples that the LLM writes; default 200.")
@click.option(
    "--adapt/--no-adapt", default=None, help="Have the LLM rewrite the found dataset; by default where it fits in part."
)
@click.option("--max-rows", type=click.IntRange(1), metavar="N", help="Most rows taken from a dataset; default 3000.")
@click.option(
    "--cap",
    "caps",
    multiple=True,
    metavar="SOURCE=N",
    help="Most rows of a source: retrieved, adapted, generated, user, or a file's or dataset's name. Repeatable.",
)
@click.option(
    "--mix",
    multiple=True,
    metavar="SOURCE=WEIGHT",
    help="How often its training rows are seen in an epoch, 0 to 10: retrieved=1,generated=0.5. Repeatable.",
)
@click.option(
    "--keep-near-duplicates", is_flag=True, help="Remove equal rows only: for inputs that share long passages."
)
@click.option("--model", default="", metavar="ID", help="This model instead of the search's choice.")
@click.option("--max-size", metavar="SIZE", help="Most bytes of the model's weights, such as 300MB; default 3GB.")
@click.option("--cpu-latency", metavar="TIME", help="Most time of one answer on a CPU, such as 50ms; default: any.")
@click.option(
    "--learning-rate", type=click.FloatRange(0, min_open=True), metavar="RATE", help="Default: the model's, else 5e-5."
)
@click.option("--epochs", type=click.FloatRange(0, min_open=True), metavar="N", help="Passes over the data; default 3.")
@click.option("--batch-tokens", type=click.IntRange(1), metavar="N", help="Tokens in a batch.")
@click.option("--max-train-time", metavar="TIME", help="Most time for training, such as 5m or 1h30m.")
@click.option("--search", metavar="TIME", help="Try models, rates and epochs so long, and train with the best.")
@click.option(
    "--attribution", metavar="TIME", help="Train again without one source each, so long, to tell what each contributed."
)
@click.option("--lora", is_flag=True, help="Train a low-rank adapter instead of all weights.")
@click.option("--qlora", is_flag=True, help="The same beside weights in 4 bits, for a large model; needs CUDA.")
@click.option(
    "--head",
    type=click.Choice(["auto", "text", "labels"]),
    default="auto",
    help="Write the answer, or pick it from the outputs there are (encoders only); auto: by the training rows.",
)
@click.option(
    "--teacher-rows", type=click.IntRange(0), metavar="N", help="Test rows that the LLM answers too; default 100."
)
@click.option(
    "--export",
    "export_formats",
    metavar="FORMATS",
    help="Write the model as onnx, onnx-int8, ctranslate2-int8, safetensors-bf16 (joined by commas) or none; default: "
    "one in 8 bits that suits it.",
)
@click.option("--seed", type=int, metavar="N", help="Seed of all that is random; default 0.")
@click.option(
    "--budget",
    multiple=True,
    metavar="AMOUNT",
    help="Most to spend on the LLM: 2 (dollars), 200requests, 50000tokens, 600rpm. Repeatable, or joined by commas.",
)
@click.option(
    "--attributes",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="What the examples are to differ in, JSON; p2m attributes writes one. Default: the LLM proposes it.",
)
@click.option("--judge", is_flag=True, help="Have the LLM look over the examples, and drop those it holds to be wrong.")
@click.option("--ask", is_flag=True, help="Wait for you at each choice: dataset, columns, model, attributes.")
@click.option(
    "--prefer",
    type=click.Choice(["time", "cost"]),
    help="cost: have the examples written by batches, at half the price, in hours; default: time.",
)
@click.option("--dry-run", is_flag=True, help="Say what it would cost, and do nothing.")
@connecting
@as_json_line
def run(prompt_file: str | None, dry_run: bool, **options: Any) -> int:
    """Make a model from a prompt.

    PROMPT_FILE is a text file with the instruction and, best, a few examples; "-" reads standard input; without it you
    type the prompt. The same command goes on with an unfinished run and shows a finished one.

    \b
    Examples:
      p2m run prompt.txt
      p2m run prompt.txt --budget 2 --max-train-time 10m --max-size 300MB
      p2m run prompt.txt --number 20000 --prefer cost --dry-run
      p2m run prompt.txt --licence permissive --languages ja,en --max-size 300MB --cpu-latency 50ms
      p2m run prompt.txt --data my-rows.csv --test my-test.jsonl --skip datasets
      p2m run prompt.txt --search 20m --attribution 10m
      echo "Translate to French. input=yes output=oui" | p2m run - --dry-run
    """
    job = job_of(prompt_in(prompt_file), options)
    if dry_run:
        from orchestrator.estimate import dry_run as estimate

        return execute(lambda terminal, settings: estimate(terminal, settings, job))
    from orchestrator import commands

    return execute(lambda terminal, settings: commands.run(terminal, settings, job))


@click.command()
@click.argument("prompt_file", required=False, metavar="[PROMPT_FILE]")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write it there instead of printing it.")
def attributes(prompt_file: str | None, out: Path | None) -> int:
    """Have the LLM propose what the examples of a prompt may differ in: topics, lengths, difficulties, labels.

    Edit the file and give it to p2m run --attributes.

    \b
    Example:
      p2m attributes prompt.txt --out attributes.json
    """
    from orchestrator import proposing

    prompt = prompt_in(prompt_file)
    return execute(lambda terminal, settings: proposing.propose(terminal, settings, prompt, out))
