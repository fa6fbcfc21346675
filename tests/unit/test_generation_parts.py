"""How varied the examples of several parts are, told as one."""

from __future__ import annotations

from p2m.common.v1 import common_pb2
from p2m.generator.v1 import generator_pb2 as pb

from orchestrator.variety import of_parts


def _part(rows: int, distinct: float, *shares: tuple[int, float]) -> pb.GenerateResult:
    return pb.GenerateResult(
        rows=rows,
        metrics=[common_pb2.Metric(name="distinct_1", value=distinct)],
        repeats=[pb.RepeatShare(examples=read, duplicates=share, near_duplicates=1) for read, share in shares],
    )


def test_stretches_of_parts_lie_beside_one_another() -> None:
    """The n-th stretches are taken together, an ended part counts with what it had read, metrics weigh by rows."""
    one, other = _part(30, 20.0, (10, 0.0), (20, 10.0), (30, 50.0)), _part(10, 40.0, (10, 20.0))
    other.attributes.topics.append("tea")
    told = of_parts([one, other])
    assert told["metrics"] == {"distinct_1": 25.0}
    assert told["repeats"] == [
        {"examples": 20, "duplicates": 10.0, "near_duplicates": 1.0},
        {"examples": 30, "duplicates": 10.0, "near_duplicates": 1.0},
        {"examples": 40, "duplicates": 50.0, "near_duplicates": 1.0},
    ]
    assert told["attributes"]["topics"] == ["tea"]


def test_nothing_to_tell() -> None:
    """A part that tells nothing of its variety gives no figures, and attributes that steer nothing are none."""
    empty = pb.GenerateResult(rows=3, attributes=pb.Attributes())
    assert of_parts([empty]) == {"metrics": {}, "repeats": [], "attributes": None}
