"""`foreloom data replay`: exactly the batch of any step, and the list of series that is written from it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foreloom import run
from foreloom.cli.data import replay
from foreloom.data.formats.reader import open_source
from foreloom.data.loader import StepBatch
from foreloom.data.stream.selection import read_excluded
from foreloom.report.step_windows import batch_of_step
from foreloom.training.trainer import Trainer

SETTINGS = [
    "training.device=cpu", "data.context_length=32", "data.prediction_length=8", "data.min_past=8",
    "data.group.probability=0.5", "model.num_layers=1", "model.d_model=32", "model.d_ff=32",
    "monitoring.log_steps=4", "monitoring.trackers=[none]", "training.save_steps=3", "optimizer.schedule=cosine",
]  # fmt: skip


def windows_of_step(run_dir, step):
    dataset, drawn = batch_of_step(run_dir, step)
    return dataset.replay(drawn)


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    """30 series; one has an outlier, one an infinite value."""
    monkeypatch.setenv("FORELOOM_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(2)
    targets = [rng.normal(size=n).cumsum() + 50 for n in rng.integers(20, 60, 30)]
    targets[7][::5] = 1e6
    targets[11][::6] = np.inf
    ids = [f"s{i}" for i in range(30)]
    pq.write_table(pa.table({"item_id": ids, "target": [t.tolist() for t in targets]}), tmp_path / "data.parquet")
    return tmp_path / "data.parquet"


@pytest.fixture
def seen(monkeypatch) -> dict[int, list[tuple[int, int]]]:
    """Step -> (sample, item) of every row the trainer was given."""
    steps: dict[int, list[tuple[int, int]]] = {}
    original = Trainer._step

    def watched(self: Trainer, batch: StepBatch) -> None:
        rows = [
            pair
            for windows in batch.micro_batches
            for pair in zip(windows.sample_R.tolist(), windows.item_R.tolist(), strict=True)
        ]
        steps[self.progress.step + 1] = sorted(rows)
        original(self, batch)

    monkeypatch.setattr(Trainer, "_step", watched)
    return steps


def replayed(run_dir: Path, step: int) -> list[tuple[int, int]]:
    return sorted((window.facts.sample, window.facts.item) for window in windows_of_step(run_dir, step))


def test_every_step_also_after_a_change_of_batch_size(tmp_path, data, seen):
    folder = tmp_path / "run"
    train = lambda steps, rows, resume: run.train(
        "chronos2-test",
        [*SETTINGS, f"data.sources=[{{path: {data}}}]", f"training.steps={steps}", f"training.batch_size={rows}"],
        out=folder,
        resume=resume,
    )
    train(6, 7, False)
    train(11, 12, True)
    # As if the second session had been killed before the checkpoint of step 9 was complete.
    (folder / "checkpoints" / "step-00000011" / "manifest.json").unlink()
    (folder / "checkpoints" / "step-00000009" / "manifest.json").unlink()
    train(13, 5, True)
    assert len({len(rows) for rows in seen.values()}) > 2
    for step in range(1, 14):
        assert replayed(folder, step) == seen[step], step
    for step in (0, 14):
        with pytest.raises(ValueError, match=rf"there is no step {step}: this run has made the steps 1 to 13"):
            windows_of_step(folder, step)


def test_what_is_printed_written_and_excluded(tmp_path, data, seen, capsys):
    settings = [*SETTINGS, "training.steps=3", "training.batch_size=40"]
    source = f"data.sources=[{{path: {data}}}]"
    run.train("chronos2-test", [*settings, source], out=tmp_path / "run")
    out, plot, listed = (tmp_path / name for name in ("windows.csv", "windows.svg", "excluded.jsonl"))
    windows = windows_of_step(tmp_path / "run", 2)
    bad = next(window.facts for window in windows if window.facts.num_infinite)
    outlier = next(window.facts for window in windows if window.facts.series == "s7")
    assert (bad.series, outlier.greatest) == ("s11", 1e6) and bad.missing_share > 0 and outlier.largest_jump > 2
    values = next(window.values_RT for window in windows if window.facts is bad)
    stored = open_source(data).read(11).target_VT[:, bad.cut - bad.num_steps : bad.cut + 8]
    np.testing.assert_array_equal(values[:, : stored.shape[1]], stored)

    capsys.readouterr()
    chosen = f"{bad.sample},{outlier.sample}"
    replay(tmp_path / "run", 2, out=out, plot=plot, exclude=listed, samples=chosen)
    said = capsys.readouterr().out
    assert "Step 2 of run" in said and "s11" in said and "more, less suspicious" in said
    rows = list(csv.DictReader(out.open()))
    assert sorted((int(row["sample"]), int(row["item"])) for row in rows) == seen[2]
    assert plot.read_text().startswith("<?xml") or "<svg" in plot.read_text()
    entries = [json.loads(line) for line in listed.read_text().splitlines()]
    assert {"s7", "s11"} <= {entry["series"] for entry in entries}
    assert f"added {len(entries)} series" in said
    replay(tmp_path / "run", 2, exclude=listed, samples=chosen)
    assert "added 0 series" in capsys.readouterr().out
    for arguments in ({"exclude": listed}, {"samples": "3"}):
        with pytest.raises(ValueError, match="give --exclude FILE and --samples together"):
            replay(tmp_path / "run", 2, **arguments)
    with pytest.raises(ValueError, match=r"step 2 holds no sample 99999, only \d+ to \d+"):
        replay(tmp_path / "run", 2, exclude=listed, samples="99999")

    left_out = read_excluded([listed], [open_source(data)])[0].tolist()
    run.train("chronos2-test", [*settings, source, f"data.exclude={listed}"], out=tmp_path / "next")
    assert {7, 11} <= set(left_out) and not {item for rows in seen.values() for _, item in rows} & set(left_out)
    assert f"({len(left_out)} excluded)" in " ".join((tmp_path / "next" / "training.log").read_text().split())
    with pytest.raises(ValueError, match="what data.exclude leaves out of data.sources.0"):
        run.train("chronos2-test", [*settings, source, "training.steps=5"], out=tmp_path / "next", resume=True)


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(ValueError, match=r"is no run folder: it has no recipe.yaml"):
        windows_of_step(tmp_path, 1)


def test_what_the_benchmark_was_made_on_need_not_be_there(tmp_path, data, seen):
    tasks = tmp_path / "tasks.yaml"
    tasks.write_text(f"tasks:\n  - {{name: t, path: {data}, prediction_length: 4}}\n")
    source, benchmark = f"data.sources=[{{path: {data}}}]", [f"benchmark.tasks={tasks}", "benchmark.steps=2"]
    run.train("chronos2-test", [*SETTINGS, source, *benchmark, "training.steps=2", "training.batch_size=4"],
              out=tmp_path / "run")  # fmt: skip
    tasks.unlink()
    assert replayed(tmp_path / "run", 2) == seen[2]
    data.unlink()
    with pytest.raises(ValueError, match=r"data.parquet: there is no such file or folder"):
        windows_of_step(tmp_path / "run", 2)
