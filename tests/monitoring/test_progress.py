"""Long work says how far it is: early, then once a minute, and not where it is short or another rank's."""

from __future__ import annotations

import pytest

from foreloom.monitoring import progress


@pytest.fixture
def clock(monkeypatch):
    """Seconds since the start, to be set."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture(autouse=True)
def no_log():
    """Another test may have left the level of a run's log behind."""
    progress.logger.setLevel(progress.logging.WARNING)
    yield
    progress.logger.setLevel(progress.logging.NOTSET)


def told(clock, capsys, seconds, *, is_shown=True):
    """What 100 pieces say that take so many seconds together."""
    with progress.Progress("naive", is_shown) as one:
        for piece in one.over(range(100)):
            clock[0] = seconds * (piece + 1) / 100
    return capsys.readouterr().err.splitlines()


def test_a_line_early_and_then_one_a_minute(clock, capsys):
    lines = told(clock, capsys, 300.0)
    assert lines[0] == "naive: 4 of 100 batches (4%), 4m 48s left"
    assert [line.split(" batches")[0] for line in lines] == [f"naive: {n} of 100" for n in (4, 24, 44, 64, 84)]


def test_pieces_without_a_length(clock, capsys):
    with progress.Progress("Writing") as one:
        for piece in one.over(iter(range(5000)), 5000, "series"):
            clock[0] = (piece + 1) / 10
    assert capsys.readouterr().err.splitlines()[0] == "Writing: 100 of 5,000 series (2%), 8m 10s left"


def test_short_work_and_other_ranks_say_nothing(clock, capsys):
    assert told(clock, capsys, 50.0) == []
    assert told(clock, capsys, 300.0, is_shown=False) == []
