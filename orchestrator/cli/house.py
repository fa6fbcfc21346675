"""What keeps the house: up."""

from __future__ import annotations

import click

from orchestrator.cli.shared import execute


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
