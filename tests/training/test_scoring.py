from __future__ import annotations

import json
import math
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from foreloom.data.config import SeriesValidation, SourceConfig
from foreloom.data.loader import StepBatch
from foreloom.distributed.process import Process
from foreloom.monitoring.record import ValidationRecord
from foreloom.training.incidents import FutileRunError
from foreloom.training.scoring import Scoring, Validation
from foreloom.training.trainer import Trainer
from toy_run import PREDICTION_LENGTH, ScriptedBenchmark, build_trainer, launch, losses, train_here, weights

PROCESS = Process(0, 1, 0, torch.device("cpu"))


class Scripted(Validation):
    """Reports the losses it is given instead of measuring, and remembers after which steps it was asked."""

    def __init__(self, config: SeriesValidation, losses: list[float]) -> None:
        super().__init__(config, [])
        self.losses = losses
        self.asked: list[int] = []

    def run(self, step: int, *_: Any) -> ValidationRecord:
        self.asked.append(step)
        loss = self.losses[step // self.config.steps]
        self.best.note(step, loss, self.config.min_delta)
        best = self.best
        return ValidationRecord(step, loss, best.loss, best.step, best.num_in_vain, self.config.patience)


def scripted_run(run_dir: Path, losses: list[float], section: dict[str, Any], **settings: Any) -> tuple[Any, Scripted]:
    validation = Scripted(SeriesValidation(**section), losses)
    return build_trainer(PROCESS, run_dir, settings, validation=validation).train(), validation


def records(run_dir: Path, kind: str) -> list[dict[str, Any]]:
    found = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return [record for record in found if record["kind"] == kind]


def manifest(run_dir: Path, name: str) -> dict[str, Any]:
    return json.loads((run_dir / "checkpoints" / name / "manifest.json").read_text())


def folders(run_dir: Path) -> list[int]:
    return sorted(int(path.name[5:]) for path in (run_dir / "checkpoints").glob("step-*"))


def exported(run_dir: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(run_dir / "checkpoints" / name / "hf" / "model.safetensors")


def test_the_loss_is_that_of_the_windows_held_out(tmp_path: Path) -> None:
    trainer = build_trainer(PROCESS, tmp_path, {"steps": 4, "dropout": 0.5, "validation": {"steps": 2}})
    validation = trainer.scoring.validation
    assert validation is not None
    trainer.train()
    trainer.parallel.model.eval()
    total, count, rows, error = 0.0, 0, 0, 0.0
    model = trainer.parallel.model
    for windows in validation._held_out:
        output = model(**trainer.family.batch(model, windows, PROCESS.device))
        total += float(output.objective.sum.detach())
        count += int(output.objective.count)
        error += float(output.tally["error"][0])
        rows += windows.num_rows
    assert rows == 50 and count == 50 * 8
    first, middle, last = records(tmp_path, "validation")
    assert [record["step"] for record in (first, middle, last)] == [0, 2, 4]
    assert last["loss"] == pytest.approx(total / count, rel=1e-6)
    assert last["figures"]["error"] == pytest.approx(error / count, rel=1e-5)
    assert last["loss"] < first["loss"] and last["best_step"] == 4
    assert manifest(tmp_path, "final")["scores"] == {"validation_loss": last["loss"]}
    assert folders(tmp_path) == [4], "nothing is restored, so nothing is saved for it"
    assert model(**trainer.family.batch(model, windows, PROCESS.device)).objective.count > 0
    assert [set(record["figures"]) for record in records(tmp_path, "step")] == [{"error", "last_to_first"}] * 4


def test_a_run_ends_early_with_its_best_weights(tmp_path: Path) -> None:
    curve = [5.0, 4.0, 3.0, 3.5, 2.95, 3.1, 2.0]
    section = {"steps": 2, "patience": 3, "min_delta": 0.1}
    settings = {"steps": 40, "save_total_limit": 1, "log_steps": 7, "checkpoint": {"keep_best": 0, "export": "final"}}
    result, validation = scripted_run(tmp_path, curve, section, **settings)
    assert result.exit_code == 0 and result.step == 10
    assert validation.asked == [0, 2, 4, 6, 8, 10]
    assert [record["step"] for record in records(tmp_path, "step")] == [7, 10], "the last step has its log line"
    (event,) = records(tmp_path, "early_end")
    assert event["sentence"] == (
        "The run ends early: 3 validations in a row did not lower the loss by more than 0.1; "
        "the lowest was 2.9500 at step 8."
    )
    assert records(tmp_path, "finish")[0]["sentence"] == "Finished early at step 10 of 40."
    assert folders(tmp_path) == [8, 10], "the best stays although it is neither the newest nor kept by its score"
    assert manifest(tmp_path, "final") | {"step": 10, "final": True, "export_step": 8} == manifest(tmp_path, "final")
    best, final = exported(tmp_path, "step-00000008"), exported(tmp_path, "final")
    assert all(torch.equal(best[name], final[name]) for name in best)

    # Given more patience, it goes on from where it ended.
    again, more = scripted_run(
        tmp_path, [*curve, 9.0, 9.0, 9.0, 9.0], section | {"patience": 4}, **settings | {"resume": True}
    )
    assert (again.step, more.asked) == (20, [12, 14, 16, 18, 20])
    assert manifest(tmp_path, "final")["export_step"] == 12
    assert folders(tmp_path) == [12, 20], "the final one of the session before has gone"


def test_weights_after_going_on_are_those_of_a_run_that_never_ended(tmp_path: Path) -> None:
    curve = [5.0, 4.0, 4.5, 4.5, 4.5]
    settings = {"steps": 8, "dropout": 0.1}
    scripted_run(tmp_path / "early", curve, {"steps": 2, "patience": 1}, **settings)
    scripted_run(tmp_path / "early", curve, {"steps": 2}, **settings, resume=True)
    scripted_run(tmp_path / "whole", curve, {"steps": 2}, **settings)
    assert losses(tmp_path / "early") == losses(tmp_path / "whole") and len(losses(tmp_path / "whole")) == 8
    one, other = weights(tmp_path / "early"), weights(tmp_path / "whole")
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_a_start_that_is_never_beaten_is_what_the_run_ends_with(tmp_path: Path) -> None:
    trainer = build_trainer(
        PROCESS, tmp_path, {"steps": 9}, validation=Scripted(SeriesValidation(steps=2, patience=2), [1.0, 2.0, 2.0])
    )
    start = {name: value.clone() for name, value in trainer.parallel.model.state_dict().items()}
    assert trainer.train().step == 4
    assert manifest(tmp_path, "final")["export_step"] == 0
    final = weights(tmp_path)
    assert all(torch.equal(final[name], start[name]) for name in start)


def test_a_best_that_is_gone_is_missed_in_words(tmp_path: Path) -> None:
    class Forgetful(Scripted):
        def run(self, step: int, *_: Any) -> ValidationRecord:
            record = super().run(step)
            if step == 4:
                for file in (tmp_path / "checkpoints" / "step-00000002" / "hf").iterdir():
                    file.write_bytes(b"damaged")
            return record

    validation = Forgetful(SeriesValidation(steps=2, restore_best=True), [5.0, 1.0, 2.0])
    build_trainer(PROCESS, tmp_path, {"steps": 4}, validation=validation).train()
    (warning,) = records(tmp_path, "best_missing")
    assert "of step 2, are not in the run folder" in warning["sentence"]
    assert manifest(tmp_path, "final")["export_step"] == 4


class Crash(Exception):
    pass


def crash_at(trainer: Trainer, step: int) -> None:
    original = trainer._step

    def crashing(batch: StepBatch) -> None:
        if trainer.progress.step + 1 == step:
            raise Crash
        original(batch)

    trainer._step = crashing  # type: ignore[method-assign]
    with pytest.raises(Crash):
        trainer.train()


@pytest.mark.parametrize("crash_step", [2, 6, 14])
def test_a_crashed_run_goes_on_bit_for_bit_with_its_tallies_best_and_patience(tmp_path: Path, crash_step: int) -> None:
    section = {"steps": 3, "patience": 2, "min_delta": 0.01}
    settings = {"steps": 40, "dropout": 0.1, "validation": section, "save_steps": 4, "log_steps": 5}
    whole = train_here(tmp_path / "whole", **settings)
    assert 15 <= whole.step < 40, "it ends early, after the crash of the other"
    crash_at(build_trainer(PROCESS, tmp_path / "crashed", settings), crash_step)
    again = train_here(tmp_path / "crashed", **settings, resume=True)
    assert (again.step, again.loss) == (whole.step, whole.loss)
    for name in ("step", "validation"):
        figures = [
            {record["step"]: (record["loss"], record["figures"]) for record in records(tmp_path / run, name)}
            for run in ("whole", "crashed")
        ]
        assert figures[0] == figures[1] and len(figures[0]) > 2
    assert (
        manifest(tmp_path / "crashed", "final")["export_step"] == manifest(tmp_path / "whole", "final")["export_step"]
    )
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "crashed")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_stop_before_a_validation_that_was_due_makes_up_for_it(tmp_path: Path, monkeypatch) -> None:
    curve = [5.0, 4.0, 3.0]
    settings = {"steps": 4}
    trainer = build_trainer(PROCESS, tmp_path, settings, validation=Scripted(SeriesValidation(steps=2), curve))
    monkeypatch.setattr("foreloom.training.trainer.max_over_ranks", lambda *_: 15 if trainer.progress.step == 2 else 0)
    assert trainer.train().exit_code == 143
    assert trainer.scoring.validation.asked == [0]
    monkeypatch.undo()
    result, validation = scripted_run(tmp_path, curve, {"steps": 2}, **settings, resume=True)
    assert result.step == 4 and validation.asked == [2, 4]


def broken_run(
    run_dir: Path, target: list[list[float | None]], holdouts: Sequence[int] = (PREDICTION_LENGTH,), **settings: Any
) -> Trainer:
    """Validated on these series, which something may be wrong with, with each of the holdouts."""
    path = run_dir.with_suffix(".jsonl")
    path.write_text("".join(json.dumps({"item_id": f"s{n}", "target": row}) + "\n" for n, row in enumerate(target)))
    sources = [{"path": str(path), "holdout": holdout} for holdout in holdouts]
    section = {"steps": 2, "patience": 1, "sources": tuple(SourceConfig(**one) for one in sources)}
    return build_trainer(PROCESS, run_dir, {"steps": 6, "validation": section, **settings})


def test_one_value_does_not_rule_a_validation_and_one_that_is_not_finite_does_not_end_a_run(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(5, 1, (4, 60))
    broken_run(tmp_path / "plain", rows[:3].tolist()).train()
    rows[3, 55] = 1e30
    broken_run(tmp_path / "sentinel", rows.tolist()).train()
    plain, sentinel = (records(tmp_path / run, "validation") for run in ("plain", "sentinel"))
    (left_out,) = records(tmp_path / "sentinel", "validation_data")
    assert not records(tmp_path / "plain", "validation_data")
    broken_run(tmp_path / "short", rows[:3].tolist(), [PREDICTION_LENGTH, PREDICTION_LENGTH - 1]).train()
    (unseen,) = records(tmp_path / "short", "validation_data")
    assert f"short.jsonl (holdout {PREDICTION_LENGTH - 1}), and its loss says nothing of them" in unseen["sentence"]
    assert "'s3' of" in left_out["sentence"] and "steps 53 to 60 (1e+30)" in left_out["sentence"]
    losses_of = [[one["loss"] for one in run] for run in (plain, sentinel)]
    assert losses_of[0] == pytest.approx(losses_of[1], rel=1e-6) and losses_of[0]

    trainer = broken_run(tmp_path / "weights", rows[:3].tolist())
    trainer.parallel.model.head.weight.data.fill_(math.nan)
    with pytest.raises(FutileRunError, match="no step of the run has changed a weight"):
        trainer.train()
    assert trainer.progress.step == 6, "patience was not used up"
    sentences = [one["sentence"] for one in records(tmp_path / "weights", "validation_data")]
    assert sentences[0] == (
        "The validation loss after step 0 is not finite: the model's weights are not, head.weight among them. It says "
        "nothing, and does not count against patience; the best weights are none yet: the run would end with "
        "its last ones."
    )
    assert len(sentences) == 3

    with pytest.raises(ValueError, match="3 have no value to forecast .the first: series 's0' of .*steps 53 to 60"):
        broken_run(tmp_path / "nothing", [[*row[:52], *[None] * 8] for row in rows[:3].tolist()]).train()


def test_a_stop_ends_a_validation_between_its_batches(tmp_path: Path) -> None:
    settings = {"steps": 4, "micro_batch_size": 7, "validation": {"steps": 2}}
    trainer = build_trainer(PROCESS, tmp_path, settings)
    held_out = trainer.scoring.validation._held_out
    seen: list[Any] = []

    class Stopping:
        def __iter__(self) -> Any:
            for windows in held_out:
                seen.append(windows)
                if len(seen) == 6:  # of the second validation, each has four
                    signal.raise_signal(signal.SIGTERM)
                yield windows

    trainer.scoring.validation._held_out = Stopping()
    assert trainer.train().exit_code == 143 and len(seen) == 6
    assert trainer.progress.step == 2 and [one["step"] for one in records(tmp_path, "validation")] == [0]
    again = build_trainer(PROCESS, tmp_path, settings | {"resume": True})
    assert again.train().step == 4
    assert [one["step"] for one in records(tmp_path, "validation")] == [0, 2, 4]


def test_two_ranks_measure_and_tally_what_one_does(tmp_path: Path) -> None:
    section = {"steps": 2, "patience": 5, "restore_best": True}
    settings = {"steps": 4, "micro_batch_size": 7, "validation": section}
    train_here(tmp_path / "one", **settings)
    strategies = ("ddp", "fsdp")
    launch(2, [settings | {"strategy": name, "run_dir": tmp_path / name} for name in strategies])
    for name in strategies:
        for kind in ("validation", "step"):
            ours, theirs = records(tmp_path / "one", kind), records(tmp_path / name, kind)
            assert [record["step"] for record in ours] == [record["step"] for record in theirs]
            for one, two in zip(ours, theirs, strict=True):
                assert math.isclose(one["loss"], two["loss"], rel_tol=1e-6), (name, kind, one["step"])
                assert one["figures"] == pytest.approx(two["figures"], rel=1e-5)
        assert manifest(tmp_path / name, "final")["export_step"] == manifest(tmp_path / "one", "final")["export_step"]
        for key, value in weights(tmp_path / "one").items():
            torch.testing.assert_close(weights(tmp_path / name)[key], value, rtol=1e-4, atol=2e-6)


def test_benchmark_and_validation_are_scores_of_the_same_step(tmp_path: Path) -> None:
    validation = Scripted(SeriesValidation(steps=3), [5.0, 4.0, 4.5])
    benchmark = ScriptedBenchmark(tmp_path, {2: 0.5, 4: 0.25, 6: 1 / 6})
    trainer = build_trainer(PROCESS, tmp_path, {"steps": 6}, validation=validation, benchmark=benchmark)
    trainer.train()
    assert isinstance(trainer.scoring, Scoring)
    scores = {step: manifest(tmp_path, f"step-{step:08d}")["scores"] for step in folders(tmp_path)}
    assert scores == {2: {"wql": 0.5}, 4: {"wql": 0.25}, 6: {"validation_loss": 4.5, "wql": 1 / 6}}


@pytest.mark.parametrize(
    ("section", "sentence"),
    [
        ({"patience": 2}, "patience has no effect while validation.steps is 0"),
        (
            {"patience": 2, "stride": 3},
            "patience and stride .* go without: validation.patience=0 validation.stride=null",
        ),
        ({"steps": 5, "min_delta": 0.1}, "min_delta has no effect without patience"),
        ({"steps": -1}, "greater than or equal to 0"),
    ],
)
def test_settings_without_an_effect_are_refused(section: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        SeriesValidation(**section)


def test_restore_best_follows_patience_unless_it_is_given() -> None:
    assert not SeriesValidation(steps=5).restores
    assert SeriesValidation(steps=5, patience=1).restores
    assert not SeriesValidation(steps=5, patience=1, restore_best=False).restores
    assert SeriesValidation(steps=5, restore_best=True).restores


def test_a_health_report_holds_the_validation_of_its_own_step(tmp_path):
    scripted_run(tmp_path, [3.0, 2.0, 1.0], {"steps": 2}, steps=4, health_steps=2)
    found = [(one["step"], one["meters"]["validation"]) for one in records(tmp_path, "health")]
    assert [(step, of["step"], of["loss"]) for step, of in found] == [(2, 2, 2.0), (4, 4, 1.0)]
