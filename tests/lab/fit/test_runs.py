"""Folders of runs: our CSVs and the old repository's, and runs that are no evidence."""

from __future__ import annotations

import json

import numpy as np
import pytest

from foreloom.lab.fit.runs import read_study

HEADER = "optimizer_step,loss,validation_loss,tokens_processed,learning_rate,theoretical_flops_chinchilla,flops,seconds"


def write_run(folder, label, *, N=1000, losses=(5.0, 4.0, 3.0), config=None, tokens=100):
    """A run of ours: a validation at step 0, training losses between validations."""
    folder.mkdir(exist_ok=True)
    rows = [HEADER, "0,,9.0,0,,0,0,0"]
    for step, loss in enumerate(losses, start=1):
        D = step * tokens
        rows += [f"{10 * step - 5},{loss},,{D - tokens // 2},0.1,{6 * N * (D - tokens // 2)},{7 * N * D},1"]
        rows += [f"{10 * step},{loss},{loss},{D},0.1,{6 * N * D},{7 * N * D},1"]
    (folder / f"{label}.csv").write_text("\n".join(rows) + "\n")
    if config is not None:
        (folder / f"config_{label}.json").write_text(json.dumps(config))


def test_our_runs(tmp_path):
    config = {"study": "one", "num_parameters": 1200, "num_non_embedding": 900, "hidden_dim": 64, "learning_rate": 0.01}
    ended = {"outcome": {"status": "finished", "num_steps": 30}}
    write_run(tmp_path, "a", config={**config, **ended, "num_steps": 30, "planned_tokens": 300})
    write_run(tmp_path, "b", N=2000, losses=(5.0, 3.5, 2.5))
    study = read_study(tmp_path)
    a, b = study.runs
    assert a.loss_T.tolist() == [5, 4, 3] and a.step_T.tolist() == [10, 20, 30], "rows where it was validated"
    assert (a.num_parameters, a.width, a.facts["learning_rate"], b.num_parameters) == (1200, 64, 0.01, 2000)
    assert b.flops == 6 * 2000 * 300 and b.counted_T[-1] == 7 * 2000 * 300
    points = study.points()
    assert points.C_P.tolist() == [6 * 1200 * 300, 6 * 2000 * 300] and points.L_P.tolist() == [3, 2.5]


def test_runs_that_are_left_out(tmp_path):
    for k in range(4):
        write_run(tmp_path, f"{k}d", N=1000 * (k + 1), tokens=100 * (k + 1))
    write_run(tmp_path, "9d", N=9000, tokens=500)
    write_run(tmp_path, "nan", losses=(5.0, float("nan"), float("nan")))
    write_run(tmp_path, "short", config={"num_steps": 90})
    write_run(tmp_path, "stopped", config={"outcome": {"status": "stopped"}})
    write_run(tmp_path, "copied", config={"num_tokens": 400, "outcome": {"status": "finished"}})
    write_run(tmp_path, "scores", N=1000)
    (tmp_path / "scores.csv").write_text("task,WQL\na,1\n")
    study = read_study(tmp_path)
    assert [run.label for run in study.runs] == ["0d", "1d", "2d", "3d"]
    reasons = {run.label: run.reason for run in study.left_out}
    assert reasons["9d"] == "it has 0.167 tokens a parameter where most have 0.3: it did not end"
    assert reasons["nan"] == "its loss is not finite from step 20 on"
    assert reasons["copied"] == "its rows end at 300 of the 400 tokens trained"
    assert reasons["short"] == "it ended after 30 of 90 steps" and reasons["stopped"] == "its last session has stopped"
    assert "scores.csv is no run: it has no column of steps, tokens and loss." in study.notes


def test_validations_between_log_lines_are_kept_or_told(tmp_path):
    rows = ["0,,9,0,,0,0,0", "10,6,,100,0.1,6e5,7e5,1", "15,,5,,,,,", "20,4,4,200,0.1,12e5,14e5,1", "25,,3,,,,,"]
    (tmp_path / "a.csv").write_text("\n".join([HEADER, *rows]))
    study = read_study(tmp_path, {"a": 1000})
    (run,) = study.runs
    assert run.step_T.tolist() == [15, 20] and run.loss_T.tolist() == [5, 4]
    assert run.tokens_T.tolist() == [150, 200] and run.counted_T.tolist() == [10.5e5, 14e5]
    assert "a: 1 of its losses lie between rows with tokens: theirs are in proportion to the steps." in study.notes
    assert "a: 1 of its losses are left out: no row after them says how many tokens there were." in study.notes


def test_a_run_whose_training_loss_ends_as_nan_diverged(tmp_path):
    for label, ends in (("gone", ("nan", "inf")), ("back", ("nan", "3.9")), ("empty", ("", ""))):
        write_run(tmp_path, label)
        with (tmp_path / f"{label}.csv").open("a") as file:
            file.writelines(f"{31 + k},{end},,{310 + k},0.1,,,\n" for k, end in enumerate(ends))
    study = read_study(tmp_path)
    assert [run.label for run in study.runs] == ["back", "empty"]
    (gone,) = study.left_out
    assert gone.ending == "diverged"
    assert gone.reason == "its training loss is not finite at its end, after the validation of step 30"


def test_of_several_rates_the_best_stands_for_a_size(tmp_path):
    for rate, end in ((0.1, 3.0), (0.01, 2.0), (0.001, 4.0)):
        for seed in (1, 2):
            losses = (5.0, end + 0.1 * seed)
            write_run(tmp_path, f"16d_lr_{rate}_seed_{seed}", losses=losses)
    study = read_study(tmp_path)
    assert {run.facts["learning_rate"] for run in study.runs} == {0.1, 0.01, 0.001} and study.runs[0].width == 16
    points = study.points()
    assert sorted(points.L_P) == pytest.approx([2.1, 2.2])
    assert "Of 1 sizes with several learning rates the runs with the best one were taken." in points.notes


def test_one_rate_is_chosen_for_all_seeds_though_they_count_other_targets(tmp_path):
    """The lowest mean is that of 0.01; 0.1 is lower for one seed."""
    for (rate, seed), end in {(0.1, 1): 3.0, (0.1, 2): 3.4, (0.01, 1): 3.1, (0.01, 2): 3.15}.items():
        write_run(tmp_path, f"16d_lr_{rate}_seed_{seed}", losses=(5.0, end), tokens=1000 + seed)
    points = read_study(tmp_path).points()
    assert sorted(points.L_P) == [3.1, 3.15]


def test_rates_are_read_from_labels_in_every_dialect(tmp_path):
    meant = {"a_lr_003": 0.003, "a_lr_18e2": 0.018, "a_lr_10em03": 0.001, "a_lr_-2.5": 10**-2.5}
    for label in (*meant, "a_rate_of_3"):
        write_run(tmp_path, label)
    found = {run.label: run.facts.get("learning_rate") for run in read_study(tmp_path).runs}
    assert found == {**{label: pytest.approx(rate) for label, rate in meant.items()}, "a_rate_of_3": None}


def test_sentences(tmp_path):
    with pytest.raises(ValueError, match="no CSV of a run in it"):
        read_study(tmp_path)
    write_run(tmp_path / "inside", "a")
    with pytest.raises(ValueError, match="There are some in inside: name one of these"):
        read_study(tmp_path)
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"x.csv: no column optimizer_step, tokens_processed, .*; there are a, b"):
        read_study(tmp_path)
    (tmp_path / "x.csv").write_text("step,loss,tokens,theoretical_flops\n1,five,10,60\n")
    with pytest.raises(ValueError, match="x.csv:2: 'five' in column 'loss' is not a number"):
        read_study(tmp_path)
    (tmp_path / "x.csv").write_text("step,loss,tokens,theoretical_flops\n1,5,10,60\n2,4,20,500\n")
    with pytest.raises(ValueError, match="no N makes column theoretical_flops_chinchilla 6ND in every row"):
        read_study(tmp_path)
    (tmp_path / "x.csv").unlink()
    write_run(tmp_path, "a", config={"study": "one"})
    write_run(tmp_path, "b", config={"study": "two"})
    with pytest.raises(ValueError, match=r"holds runs of 2 studies \(one: a; two: b\)"):
        read_study(tmp_path)


def test_rounded_flops_of_many_rows_give_N(tmp_path):
    N, D = 3_456_789, 8192 * np.arange(1, 200)
    rows = [f"{k},5,{5 - k / 100:.4f},{6 * N * d:.2e},{6 * N * d:.2e},{d}" for k, d in enumerate(D, start=1)]
    header = "step,training_loss,validation_loss,total_flops_profiler,theoretical_flops,tokens"
    (tmp_path / "64d.csv").write_text("\n".join([header, *rows]))
    (run,) = read_study(tmp_path).runs
    assert run.num_parameters == pytest.approx(N, rel=1e-4) and run.width == 64


def test_the_old_repository(shared):
    folder = shared / "oracles" / "scaling" / "experimental_progress" / "curves"
    expected = json.loads((folder / "modern_trend_expected.json").read_text())
    study = read_study(folder / "modern_trend")
    assert [run.label for run in study.left_out] == ["128d"] and len(study.runs) == 11
    for run in study.runs:  # that formula leaves out norms and biases
        assert run.num_parameters == pytest.approx(expected["params"][run.label[:-1]], rel=2.2e-3)
