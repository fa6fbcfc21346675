"""The command line, `p2m`: names, options and help. What the commands do is in `commands`.

Only click is imported here: `p2m --help` must answer at once, so each command imports what it needs when it runs.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from services.kit.errors import InvalidArgument, P2MError

if TYPE_CHECKING:
    from p2m.run.v1.run_pb2 import RunOptions

    from orchestrator.commands import Job
    from orchestrator.session import Command

_EXITS = """\b
Exit status:
  0  done
  1  the run failed, or something else did
  2  wrong usage or input: nothing was begun
  3  cancelled or interrupted: run the same command again to go on
  4  a service is out of reach
"""


class _Prose(click.Group):
    """A group whose commands stand in the order of their use, not of the alphabet."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)


@click.group(
    cls=_Prose,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_EXITS,
)
@click.version_option(None, "--version", package_name="p2m", message="p2m %(version)s")
def cli() -> None:
    """A prompt in, a small measured model out.

    Write what a model shall do, best with a few examples, into a file, and run it:

    \b
        p2m run examples/normalise-dates/prompt.txt --name dates
        p2m demo dates

    p2m finds data, has an LLM write more, picks a small pretrained model, trains it, and measures it on rows that it
    has not seen. What it spends stays within --budget; what it has done is never done again.
    """


def _connect(command: Any) -> Any:
    return click.option(
        "--connect", metavar="HOST:PORT", default="", help="Use the services there instead of this machine's own."
    )(command)


def _json(command: Any) -> Any:
    return click.option("--json", "as_json", is_flag=True, help="One JSON line on standard output.")(command)


@cli.command()
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
@_connect
@_json
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
    job = _job(_prompt(prompt_file), options)
    if dry_run:
        from orchestrator.estimate import dry_run as estimate

        return _execute(lambda terminal, settings: estimate(terminal, settings, job))
    from orchestrator import commands

    return _execute(lambda terminal, settings: commands.run(terminal, settings, job))


@cli.command()
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

    prompt = _prompt(prompt_file)
    return _execute(lambda terminal, settings: proposing.propose(terminal, settings, prompt, out))


@cli.command()
@click.argument("run")
@_connect
@_json
def watch(run: str, connect: str, as_json: bool) -> int:
    """Follow a run that is under way.

    \b
    Example:
      p2m watch normalise-dates
    """
    from orchestrator import commands

    return _execute(lambda terminal, settings: commands.watch(terminal, settings, run, connect, as_json))


@cli.command("list")
@click.option("-n", "--number", type=click.IntRange(1, 1000), default=50, show_default=True, help="Most runs.")
@_connect
@_json
def list_(number: int, connect: str, as_json: bool) -> int:
    """List the newest runs.

    \b
    Example:
      p2m list -n 10
    """
    from orchestrator import commands

    return _execute(lambda terminal, settings: commands.list_runs(terminal, settings, number, connect, as_json))


@cli.command()
@click.argument("run")
@_connect
@_json
def show(run: str, connect: str, as_json: bool) -> int:
    """Show where a run stands, stage by stage.

    \b
    Example:
      p2m show normalise-dates
    """
    from orchestrator import commands

    return _execute(lambda terminal, settings: commands.show(terminal, settings, run, connect, as_json))


@cli.command()
@click.argument("run")
@_connect
def cancel(run: str, connect: str) -> int:
    """Stop a run; what it has is kept.

    \b
    Example:
      p2m cancel normalise-dates
    """
    from orchestrator import commands

    return _execute(lambda terminal, settings: commands.cancel(terminal, settings, run, connect))


@cli.command()
@click.argument("run")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write them there instead of printing.")
@click.option(
    "--part",
    type=click.Choice(["splits", "train", "validation", "test", "generated", "retrieved"]),
    help="Which rows; default: the splits, and before there are any, all there is.",
)
@_connect
def data(run: str, out: Path | None, part: str | None, connect: str) -> int:
    """Write a run's rows as JSONL; of a run that was stopped too, and nothing is asked of the LLM.

    \b
    Example:
      p2m data normalise-dates --out rows.jsonl
    """
    from orchestrator import data_command

    return _execute(lambda terminal, settings: data_command.data(terminal, settings, run, part or "", out, connect))


@cli.command()
@click.argument("run")
@click.option("--name", default="", metavar="NAME", help="The new run's name; default: RUN.2, after RUN.2 RUN.3.")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", help="Folder for the result; default: runs/NAME."
)
@click.option("--number", type=click.IntRange(1), metavar="N", help="Examples that the LLM writes; default 200.")
@click.option(
    "--budget",
    multiple=True,
    metavar="AMOUNT",
    help="Most to spend on the LLM: 2 (dollars), 200requests, 50000tokens, 600rpm. Repeatable, or joined by commas.",
)
@click.option("--judge", is_flag=True, help="Have the LLM look over the examples, and drop those it holds to be wrong.")
@click.option("--max-train-time", metavar="TIME", help="Most time for training, such as 5m or 1h30m; default: RUN's.")
@click.option("--teacher-rows", type=click.IntRange(0), metavar="N", help="Test rows that the LLM answers; default 0.")
@_connect
@_json
def improve(run: str, **options: Any) -> int:
    """Have examples written for what RUN's model fails at, and train again.

    A new run takes RUN's prompt, model and locked splits. The LLM writes examples like the validation rows that the
    model gets wrong more often than the others; it sees no test row. The report tells the change on the same test rows,
    over all and by each kind. Where no kind of rows is clearly worse, nothing is begun.

    \b
    Examples:
      p2m improve normalise-dates
      p2m improve normalise-dates --number 500 --budget 1
    """
    from p2m.common.v1 import common_pb2
    from p2m.run.v1 import run_pb2

    from orchestrator import amounts, commands
    from orchestrator.improve import next_name
    from services.kit.wire import to_message

    name = options["name"] or next_name(run)
    _check_name(name)
    wanted = run_pb2.RunOptions(improve=run, judge=options["judge"])
    plain = {
        "number": options["number"], "teacher_rows": options["teacher_rows"],
        "max_train_seconds": amounts.duration(options["max_train_time"]) if options["max_train_time"] else None,
    }  # fmt: skip
    for field, value in plain.items():
        if value is not None:
            setattr(wanted, field, value)
    if options["budget"]:
        wanted.budget.CopyFrom(to_message(amounts.budget(options["budget"]), common_pb2.Allowance))
    job = commands.Job(
        "", wanted, name, out=options["out"], connect=options["connect"], as_json=options["as_json"]
    )  # fmt: skip
    return _execute(lambda terminal, settings: commands.run(terminal, settings, job))


@cli.command()
@click.argument("run")
@click.argument("question", type=click.Choice(["dataset", "columns", "model", "attributes"]))
@click.argument("value")
@_connect
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

    return _execute(lambda terminal, settings: commands.choose(terminal, settings, run, question, value, connect))


@cli.command()
@click.argument("run")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to serve at; 0.0.0.0 shows it to others.")
@click.option("--port", type=click.IntRange(0, 65535), help="Default: the first free one from 7860 on; 0: any.")
@click.option("--share", is_flag=True, help="Also a public address, through gradio.live. Set a password.")
@click.option(
    "--password",
    metavar="WORD",
    help='Ask for it; the user is "p2m". Better: the variable P2M_DEMO_PASSWORD.',
    envvar="P2M_DEMO_PASSWORD",
)
@_connect
def demo(run: str, host: str, port: int | None, share: bool, password: str | None, connect: str) -> int:
    """Try a finished run's model on a page in the browser.

    \b
    Example:
      p2m demo normalise-dates
    """
    from orchestrator import demo as page

    wanted = page.Page(run, host, port, share, password or "", connect)
    return _execute(lambda terminal, settings: page.serve(terminal, settings, wanted))


@cli.command()
@click.argument("run")
@click.option(
    "--format",
    "written_as",
    type=click.Choice(["ctranslate2-int8", "onnx-int8", "onnx", "safetensors-bf16"]),
    required=True,
    help="onnx takes every model; ctranslate2-int8 T5, BART, Marian, GPT-2, Llama and their like.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Folder to write.")
@_connect
@_json
def export(run: str, written_as: str, out: Path, connect: str, as_json: bool) -> int:
    """Write a finished run's model in another format, and measure it.

    \b
    Example:
      p2m export normalise-dates --format onnx-int8 --out dates-onnx
    """
    from orchestrator import export_command

    wanted = export_command.Wanted(run, written_as, out, connect, as_json)
    return _execute(lambda terminal, settings: export_command.export(terminal, settings, wanted))


@cli.command()
@click.argument("run")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to serve at; 0.0.0.0 shows it to others.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: any that is free.")
@click.option(
    "--format",
    "served",
    default="",
    metavar="FORMAT",
    help="model (as trained), onnx-int8, ...; default: the fastest that is hardly worse than the model as trained.",
)
@click.option(
    "--token",
    metavar="WORD",
    help="Ask for it as a bearer token, and on the page as a password. Better: the variable P2M_SERVE_TOKEN.",
    envvar="P2M_SERVE_TOKEN",
)
@click.option("--page/--no-page", default=True, help="The demo's page too, at /.")
@_connect
def serve(run: str, host: str, port: int, served: str, token: str | None, page: bool, connect: str) -> int:
    """Serve a finished run's model: a REST service and a page.

    RUN is a run's name or its folder. A folder is all that is needed, on any machine: pip install 'p2m[serve]'.

    \b
    Examples:
      p2m serve runs/normalise-dates
      curl -s localhost:8000/v1/predict -H 'content-type: application/json' -d '{"inputs": ["on 5 May"]}'
    """
    from orchestrator import serving

    wanted = serving.Wanted(run, host, port, served, token or "", page, connect)
    return _execute(lambda terminal, settings: serving.serve(terminal, settings, wanted))


@cli.group(cls=_Prose)
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

    return _execute(
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
@_json
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
    _constrain(options, asked)
    return _execute(
        lambda terminal, settings: catalogue_commands.search(
            terminal, settings, " ".join(words), number, as_json, options
        )
    )


@cli.command()
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

    return _execute(commands.up)


def main() -> int:
    """Runs the command line; returns the exit status. No traceback reaches the terminal."""
    try:
        return int(cli.main(standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        return 2
    except P2MError as error:
        from orchestrator.terminal import status_of

        click.echo(f"p2m: {error.message}", err=True)
        return status_of(error)
    except (KeyboardInterrupt, click.Abort):
        click.echo("Stopped.", err=True)
        return 3
    except ModuleNotFoundError as error:
        click.echo(f"p2m: the package {error.name} is missing. Install with: pip install 'p2m[all]'", err=True)
        return 1


def _execute(command: Command) -> int:
    from orchestrator.session import execute

    return execute(command)


def _prompt(prompt_file: str | None) -> str:
    from orchestrator.inputs import MAX_PROMPT_BYTES, decode_prompt, read_prompt

    if prompt_file not in (None, "-"):
        return read_prompt(Path(str(prompt_file)))
    if prompt_file is None:
        if not sys.stdin.isatty():
            raise click.UsageError("No prompt: name a file, or - for standard input. Example: p2m run prompt.txt")
        click.echo("Type what the model shall do, best with a few examples (input=... output=...).", err=True)
        click.echo("End with Ctrl-D on an empty line.\n", err=True)
    return decode_prompt(sys.stdin.buffer.read(MAX_PROMPT_BYTES + 1), "standard input")


def _job(prompt: str, given: dict[str, Any]) -> Job:
    """The run that the options describe."""
    from p2m.common.v1 import common_pb2
    from p2m.run.v1 import run_pb2

    from orchestrator import amounts, mixing
    from orchestrator.commands import Job
    from services.kit.wire import to_message

    _check_name(given["name"])
    options = run_pb2.RunOptions(
        skip_datasets="datasets" in given["skip"],
        skip_generation="generate" in given["skip"],
        dataset=given["dataset"],
        model=given["model"],
        lora=given["lora"],
        qlora=given["qlora"],
        head="" if given["head"] == "auto" else given["head"],
        ask=given["ask"],
        adapt=given["adapt"],
        prefer=common_pb2.Prefer.Value(f"PREFER_{(given['prefer'] or 'unspecified').upper()}"),
        mix=mixing.weights(given["mix"]),
        caps=mixing.caps(given["caps"]),
        keep_near_duplicates=given["keep_near_duplicates"],
        judge=given["judge"],
    )
    if given["attributes"]:
        from orchestrator import attributes

        options.attributes.CopyFrom(attributes.read(given["attributes"]))
    _constrain(options, given)
    if given["export_formats"] is not None:
        from orchestrator import exports

        options.export_formats.extend(one.strip() for one in given["export_formats"].split(",") if one.strip())
        exports.check([*options.export_formats])
    plain = {
        "number": given["number"], "learning_rate": given["learning_rate"], "epochs": given["epochs"],
        "batch_tokens": given["batch_tokens"], "seed": given["seed"], "teacher_rows": given["teacher_rows"],
        "max_rows_per_source": given["max_rows"],
        "max_train_seconds": amounts.duration(given["max_train_time"]) if given["max_train_time"] else None,
        "search_seconds": amounts.duration(given["search"]) if given["search"] is not None else None,
        "attribution_seconds": amounts.duration(given["attribution"]) if given["attribution"] is not None else None,
    }  # fmt: skip
    for name, value in plain.items():
        if value is not None:
            setattr(options, name, value)
    if given["budget"]:
        options.budget.CopyFrom(to_message(amounts.budget(given["budget"]), common_pb2.Allowance))
    if options.skip_generation and options.skip_datasets and not given["data"]:
        raise InvalidArgument(
            "NOTHING_TO_TRAIN_ON",
            "Both --skip datasets and --skip generate leave nothing to train on: give --data PATH.",
        )
    return Job(
        prompt, options, given["name"], given["new"], list(given["data"]), given["test"], given["out"],
        given["connect"], given["as_json"],
    )  # fmt: skip


def _constrain(options: RunOptions, given: dict[str, Any]) -> None:
    """Sets what is asked of the model and the dataset. InvalidArgument for what cannot be."""
    from orchestrator import amounts, constraints

    options.include_gated = given["include_gated"]
    options.licence = _word(given["licence"], "--licence", "permissive, commercial, or an id such as apache-2.0")
    options.dataset_task = _word(
        given["dataset_task"], "--dataset-task", "a task of the hub, such as text-classification"
    )
    if given["languages"] is not None:
        options.languages.extend(constraints.codes(given["languages"].split(",")))
    if given["max_size"]:
        options.max_model_bytes = amounts.size(given["max_size"])
    if given["dataset_max_size"]:
        options.max_dataset_bytes = amounts.size(given["dataset_max_size"])
    if given["cpu_latency"]:
        options.max_cpu_latency_ms = amounts.latency(given["cpu_latency"])
    constraints.check(options)


def _word(given: str | None, option: str, wanted: str) -> str:
    """A word in lower case; "" where none was typed."""
    if given is not None and not given.strip():
        raise InvalidArgument("BAD_OPTION", f"{option} is empty; wanted {wanted}.")
    return (given or "").strip().lower()


def _check_name(name: str) -> None:
    import re

    if name and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", name):
        raise InvalidArgument(
            "BAD_NAME", f'The name {name[:120]!r} cannot be: wanted at most 100 letters, digits, "-", "_" or ".".'
        )


if __name__ == "__main__":
    sys.exit(main())
