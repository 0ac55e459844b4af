"""metrics.jsonl survives kills, resumes and numbers JSON cannot say."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import pytest

from foreloom.monitoring.metrics_file import MetricsFile, read_metrics
from foreloom.monitoring.record import StepRecord


def step(number: int, loss: float = 1.0) -> dict:
    record = StepRecord(number, loss, 1.0, 1e-3, num_rows=16, rows_per_step=16.0, steps_per_second=2.0, seconds=1.0)
    return {"kind": "step", **asdict(record)}


def test_a_broken_last_line_is_skipped_by_readers_and_dropped_by_the_next_session(tmp_path):
    MetricsFile(tmp_path).append(step(1))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "step", "st')
    assert [record["step"] for record in read_metrics(tmp_path).steps] == [1]
    MetricsFile(tmp_path).append(step(2))
    assert [record["step"] for record in read_metrics(tmp_path).steps] == [1, 2]


def test_a_resumed_session_overwrites_what_lies_ahead_of_it(tmp_path):
    file = MetricsFile(tmp_path)
    for number in (10, 20, 30, 40):
        file.append(step(number, loss=1.0))
    file.append({"kind": "start", "step": 20, "from_step": 20})
    file.append(step(30, loss=2.0))
    steps, events = read_metrics(tmp_path)
    assert [(record["step"], record["loss"]) for record in steps] == [(10, 1.0), (20, 1.0), (30, 2.0)]
    assert [event["kind"] for event in events] == ["start"]


def test_what_a_session_did_after_the_step_that_was_gone_back_to_is_left_out(tmp_path):
    file = MetricsFile(tmp_path)
    for kind, number in (
        ("start", 0),
        ("step", 10),
        ("validation", 10),
        ("step", 20),
        ("validation", 20),
        ("stop", 25),
    ):
        file.append(step(number) | {"kind": kind} | ({"from_step": 0} if kind == "start" else {}))
    file.append({"kind": "start", "step": 10, "from_step": 10})
    assert [record["step"] for record in read_metrics(tmp_path).steps] == [10]
    file.append(step(15))
    steps, events = read_metrics(tmp_path)
    assert [record["step"] for record in steps] == [10, 15]
    assert [(event["kind"], event["step"]) for event in events] == [("start", 0), ("validation", 10), ("start", 10)]


def test_every_line_is_strict_json(tmp_path):
    MetricsFile(tmp_path).append({"kind": "x", "a": math.nan, "b": [math.inf, {"c": tmp_path}], "d": True, "é": (1, 2)})
    line = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8")
    refuse = pytest.fail
    assert json.loads(line, parse_constant=refuse) == {
        "kind": "x",
        "a": None,
        "b": [None, {"c": str(tmp_path)}],
        "d": True,
        "é": [1, 2],
    }


@pytest.mark.parametrize("line", ["not json", "[1, 2]", '{"step": 3}'])
def test_a_damaged_line_in_the_middle_is_named(tmp_path, line):
    (tmp_path / "metrics.jsonl").write_text(f"{json.dumps(step(1))}\n{line}\n{json.dumps(step(3))}\n")
    with pytest.raises(ValueError, match=r"metrics\.jsonl:2: not a record"):
        read_metrics(tmp_path)
