"""The command line, `p2m`: its commands, in the order of their use, and its exit status.

Each command is in `cli`; what it does, in a module that it imports when it runs: `p2m --help` must answer at once.
"""

from __future__ import annotations

import sys

import click

from orchestrator.cli import catalogue, house, improve, models, run, runs
from orchestrator.cli.shared import Prose
from services.kit.errors import P2MError

_EXITS = """\b
Exit status:
  0  done
  1  the run failed, or something else did
  2  wrong usage or input: nothing was begun
  3  cancelled or interrupted: run the same command again to go on
  4  a service is out of reach
"""


@click.group(
    cls=Prose,
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


for command in (
    run.run, run.attributes, runs.watch, runs.list_, runs.show, runs.cancel, runs.data, improve.improve, runs.choose,
    models.demo, models.export, models.serve, catalogue.catalogue, house.doctor, house.gc, house.up,
):  # fmt: skip
    cli.add_command(command)


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


if __name__ == "__main__":
    sys.exit(main())
