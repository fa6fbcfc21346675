"""`p2m improve`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from orchestrator.cli.shared import as_json_line, check_name, connecting, execute


@click.command()
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
@connecting
@as_json_line
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
    check_name(name)
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
    return execute(lambda terminal, settings: commands.run(terminal, settings, job))
