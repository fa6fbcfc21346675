"""The tables of the runs, and their rows as messages: what `runs.Runs` keeps its books in."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from google.protobuf.json_format import Parse, ParseDict
from google.protobuf.timestamp_pb2 import Timestamp
from p2m.run.v1 import run_pb2

PROMPT_SHOWN = 200
"""Characters of a prompt that a run's message has."""

SCHEMA = sa.MetaData()
RUNS = sa.Table(
    "p2m_runs",
    SCHEMA,
    sa.Column("name", sa.String(100), primary_key=True),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("prompt", sa.Text, nullable=False),
    sa.Column("options", sa.Text, nullable=False),
    sa.Column("state", sa.Integer, nullable=False),
    sa.Column("workflow", sa.String(120), nullable=False),
    sa.Column("executor", sa.String(64), nullable=False),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False, index=True),
    sa.Column("ended_at", sa.Float),
    sa.Column("error", sa.Text),
    sa.Column("result", sa.Text),
    sa.Column("verdict", sa.Text, nullable=False, default=""),
)
STAGE_ROWS = sa.Table(
    "p2m_stages",
    SCHEMA,
    sa.Column("run", sa.String(100), primary_key=True),
    sa.Column("name", sa.String(20), primary_key=True),
    sa.Column("state", sa.Integer, nullable=False),
    sa.Column("progress", sa.Text),
    sa.Column("message", sa.Text, nullable=False, default=""),
    sa.Column("ledger", sa.Text),
    sa.Column("started_at", sa.Float),
    sa.Column("ended_at", sa.Float),
)
EVENTS = sa.Table(
    "p2m_events",
    SCHEMA,
    sa.Column("run", sa.String(100), primary_key=True),
    sa.Column("sequence", sa.BigInteger, primary_key=True),
    sa.Column("stage", sa.String(20), nullable=False),
    sa.Column("passing", sa.Boolean, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)
QUESTIONS = sa.Table(
    "p2m_questions",
    SCHEMA,
    sa.Column("run", sa.String(100), primary_key=True),
    sa.Column("id", sa.String(20), primary_key=True),
    sa.Column("stage", sa.String(20), nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("answer", sa.Text),
)
# Who started a run, where callers are known by name. A table of its own: databases from before have their runs without.
OWNERS = sa.Table(
    "p2m_owners",
    SCHEMA,
    sa.Column("run", sa.String(100), primary_key=True),
    sa.Column("owner", sa.String(64), nullable=False, index=True),
)

TABLES = SCHEMA.tables
"""By name; each but the runs' own has the run's name in `run`."""


def _timestamp(seconds: float) -> Timestamp:
    stamp = Timestamp()
    stamp.FromNanoseconds(int(seconds * 1e9))
    return stamp


def stage_message(row: Any) -> run_pb2.Stage:
    """A row of STAGE_ROWS as a message."""
    stage = run_pb2.Stage(name=row.name, state=row.state, message=row.message)
    if row.progress:
        Parse(row.progress, stage.progress)
    if row.ledger:
        Parse(row.ledger, stage.ledger)
    if row.started_at is not None:
        stage.started_at.CopyFrom(_timestamp(row.started_at))
    if row.ended_at is not None:
        stage.ended_at.CopyFrom(_timestamp(row.ended_at))
    return stage


def bare_run(row: Any, owner: str | None) -> run_pb2.Run:
    """A row of RUNS as a message, without its stages and questions."""
    run = run_pb2.Run(name=row.name, state=row.state, prompt=row.prompt[:PROMPT_SHOWN], verdict=row.verdict)
    run.owner = owner or ""
    run.created_at.CopyFrom(_timestamp(row.created_at))
    if row.ended_at is not None:
        run.ended_at.CopyFrom(_timestamp(row.ended_at))
    if row.error:
        ParseDict(json.loads(row.error), run.error)
    if row.result:
        ParseDict(json.loads(row.result), run.result)
    return run
