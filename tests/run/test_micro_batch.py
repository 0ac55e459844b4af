"""The largest micro-batch that fits, how a batch is cut, and a run that chooses for itself."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from foreloom import run
from foreloom.config.shipped import find_recipe
from foreloom.run.memory import count_memory
from foreloom.run.micro_batch import exact_split, fitting, most_rows
from foreloom.run.recipe import data_of, load

SMALL = ("model.d_model=64", "model.d_kv=16", "model.d_ff=128", "data.context_length=96", "data.prediction_length=32")


def test_the_most_rows_and_the_exact_split() -> None:
    asked: list[int] = []

    def total_of(rows: int) -> int:
        asked.append(rows)
        return 1000 + 7 * rows + (500 if rows > 300 else 0)

    for budget in (1007, 1008, 1500, 3099, 3100, 3101, 3607, 3608, 7000, 10**6):
        fits = [n for n in range(1, 801) if 1000 + 7 * n + (500 if n > 300 else 0) <= budget]
        asked.clear()
        assert most_rows(total_of, 800, budget) == max(fits)
        assert len(asked) < 12
    assert most_rows(total_of, 800, 1006) == 0
    for target in range(8, 400, 8):
        for most in (1, 3, 16, 64):
            rows, times = exact_split(target, 4, most)
            assert rows * times * 4 == target and rows <= most
    assert exact_split(64, 1, 60) == (32, 2)  # where the original took 60
    with pytest.raises(ValueError, match=r"100 rows .* each of 8 devices; .* 96 and 104"):
        exact_split(100, 8, 10)
    with pytest.raises(ValueError, match=r"nearest that are: 8\."):
        exact_split(3, 8, 10)


def test_what_fits_grows_with_the_share_that_may_be_used() -> None:
    """And the parts of a step are as few and as equal as that allows."""
    recipe = load(
        find_recipe("decoder-tiny"),
        ["data.max_seq_length=32", "model.num_layers=1", "training.batch_size=50"],
        need_data=False,
    )
    largest = data_of(recipe).full_rows
    room = count_memory(recipe, largest, 20, device="cpu", accumulates=True).total
    found = []
    for share in (0.8, 1.02, 3.0):
        with contextlib.suppress(ValueError):
            rows, use_of = fitting(recipe, largest, int(room * share), device="cpu", world_size=1)
            assert use_of(rows).total <= room * share
            found.append(rows)
    assert found == sorted(found) and found[-2:] == [17, 50]  # 20 would do: three parts of 17 at most, and all at once
    with pytest.raises(ValueError, match=r"one row takes .* Most of it goes into \w+\. "):
        fitting(recipe, largest, 1000, device="cpu", world_size=1)


def test_a_run_with_auto_chooses_tells_and_comes_to_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = [*SMALL, "model.num_layers=1", "model.dropout_rate=0.0"]
    small += ["training.steps=2", "training.batch_size=24", "training.device=cpu"]
    recipe = load(find_recipe("chronos2-test"), small)
    largest = data_of(recipe).open(42, batch_size=24).largest
    room = count_memory(recipe, largest, 9, device="cpu", accumulates=True).total
    monkeypatch.setattr("foreloom.run.micro_batch.device_bytes", lambda *_: room * 2)
    auto = ["training.micro_batch_size=auto", "training.target_memory_usage=0.5"]
    plain = run.train("chronos2-test", small, out=tmp_path / "plain")
    result = run.train("chronos2-test", [*small, *auto], out=tmp_path / "auto")
    assert result.loss == pytest.approx(plain.loss, rel=1e-5)
    log = (tmp_path / "auto" / "training.log").read_text()
    assert "counted," in log and "measured" in log
    assert "counted," not in (tmp_path / "plain" / "training.log").read_text()
    with pytest.raises(ValueError, match="micro_batch_size: auto: one row takes"):
        monkeypatch.setattr("foreloom.run.micro_batch.device_bytes", lambda *_: 1000)
        run.train("chronos2-test", [*small, *auto], out=tmp_path / "none")
    with pytest.raises(ValueError, match="target_memory_usage has no effect without micro_batch_size: auto"):
        load(find_recipe("chronos2-test"), ["training.target_memory_usage=0.5"])
