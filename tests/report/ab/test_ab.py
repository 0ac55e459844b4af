"""The whole test: two tiny recipes trained, compared, and taken up again."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest

from foreloom.config.located import RecipeError
from foreloom.report.ab import verb
from foreloom.report.ab.plan import Training
from foreloom.report.ab.size import size_of
from foreloom.report.ab.table import Compared
from foreloom.report.ab.training import job_of, state_of
from foreloom.report.ab.verb import compare_recipes

DATA = Path(__file__).resolve().parents[3] / "examples" / "data"
DENSE = f"""
model:
  {{family: time_moe, size: test, use_dense: true, horizon_lengths: [8], hidden_size: 16, intermediate_size: 32}}
data:
  sources: [{{path: {DATA}/us_births.parquet, holdout: 16}}]
  context_length: 24
  prediction_length: 8
  normalization: zero
training: {{steps: 4, batch_size: 4, device: cpu, seed: 5}}
optimizer: {{learning_rate: 1.0e-3}}
monitoring: {{log_steps: 2, trackers: [none]}}
"""
EXPERTS = "extends: dense.yaml\nmodel: {use_dense: null, num_experts: 3, num_experts_per_tok: 2}\n"
NAME_OF_B = "B-equal-compute-seed-5"


@pytest.fixture(scope="module", autouse=True)
def sized_here():
    """Models are built in this process: another one takes seconds to start, and docs/ab.md goes that way."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verb, "sizes", lambda recipes: [size_of(recipe) for recipe in recipes])
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory, sized_here):
    """Two recipes and, in `out`, their finished test with one seed."""
    folder = tmp_path_factory.mktemp("ab")
    (folder / "dense.yaml").write_text(DENSE)
    (folder / "experts.yaml").write_text(EXPERTS)
    assert ab(folder) == 0
    return folder


def ab(folder, b="experts", out="out", **options):
    options = {"num_seeds": 1, "equal": "compute", **options}
    return compare_recipes(folder / "dense.yaml", folder / f"{b}.yaml", out=folder / out, **options)


def test_what_is_written(folder):
    out = folder / "out"
    found = json.loads((out / "ab.json").read_text())
    runs = {one["name"]: one for one in found["runs"]}
    assert list(runs) == ["A-seed-5", "B-equal-compute-seed-5"]
    a, b = runs.values()
    assert (a["num_steps"], b["num_steps"]) == (4, 3)
    assert b["tera_flops"] == pytest.approx(a["tera_flops"], rel=0.3)
    assert b["million_parameters"] > a["million_parameters"]
    assert 50 < a["peak_mebibytes"] < 3000 and a["training_seconds"] > 0
    assert a["time_steps_per_second"] == pytest.approx(32 * a["rows_per_second"])
    assert "expert_entropy" not in a and 0 < b["expert_entropy"] <= 1
    assert [point["step"] for point in b["curve"]] == [0, 1, 2, 3]
    (compared,) = found["comparisons"]
    assert compared["measures"]["loss"]["difference"]["mean"] == pytest.approx(b["loss"] - a["loss"])
    assert compared["measures"]["wql_relative"]["b"]["mean"] == b["wql_relative"] > 0
    assert found["failures"] == [] and found["tasks"] == ["us_births"]

    page = (out / "ab.md").read_text()
    assert "### At equal compute: 4 steps of A, 3 of B" in page
    assert f"the held-out loss of B is {abs(b['loss'] - a['loss']):#.3g}" in page
    assert (out / "ab.svg").is_file() and (out / "ab.png").is_file()


def test_the_loss_is_the_forecast_and_not_the_router(folder):
    run = folder / "out" / NAME_OF_B
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = [record for record in records if record["kind"] == "validation"][-1]
    runs = json.loads((folder / "out" / "ab.json").read_text())["runs"]
    loss = next(one["loss"] for one in runs if one["name"] == NAME_OF_B)
    assert loss == last["figures"]["forecast_loss"] < last["loss"]


def test_finished_runs_are_not_trained_again(folder, capsys):
    written = {path: path.stat().st_mtime_ns for path in folder.glob("out/*/metrics.jsonl")}
    assert ab(folder, form="latex") == 0
    out, err = capsys.readouterr()
    assert err.count("was there already") == 2
    assert out.startswith("% needs") and out.count(r"\begin{tabular}") == 1
    assert {path: path.stat().st_mtime_ns for path in written} == written and len(written) == 2


def test_worse_is_exit_code_1_where_that_is_asked_for(folder, monkeypatch):
    assert ab(folder, fail_if_worse=True) == 0  # one seed proves nothing
    monkeypatch.setattr(Compared, "is_worse", True)
    assert ab(folder, fail_if_worse=True) == 1
    assert ab(folder) == 0


def test_runs_of_other_settings_are_in_the_way(folder):
    with pytest.raises(ValueError, match="A-seed-5 holds a run of other settings; give another --out"):
        ab(folder, overrides=["training.batch_size=8"])


def test_how_far_a_run_has_come(folder, tmp_path):
    done = folder / "out" / NAME_OF_B
    settings = ["training.steps=3", "training.seed=5", "validation.steps=1"]
    job = job_of(Training("B-equal-compute", 5, 3), folder / "experts.yaml", settings, folder / "out")
    assert job.folder == done and state_of(job) == "finished"
    begun = dataclasses.replace(job, folder=tmp_path / "copy")
    assert state_of(begun) == "absent"
    shutil.copytree(done, begun.folder, symlinks=True)
    assert state_of(begun) == "finished"
    manifest = begun.folder / "checkpoints" / "final" / "manifest.json"
    told = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(told | {"fingerprint": "of other data"}))
    with pytest.raises(ValueError, match="data that have changed since"):
        state_of(begun)
    (begun.folder / "checkpoints" / "final").unlink()
    assert state_of(begun) == "begun"
    (begun.folder / "metrics.jsonl").unlink()
    assert state_of(begun) == "absent"


def test_a_failed_training_is_told_and_is_exit_code_1(folder, capsys):
    (folder / "broken.yaml").write_text(EXPERTS + "optimizer: {warmup_steps: 50}\n")
    shutil.copytree(folder / "out" / "A-seed-5", folder / "failing" / "A-seed-5")
    assert ab(folder, "broken", "failing") == 1
    out, err = capsys.readouterr()
    assert re.search(NAME_OF_B + r" failed \(exit code 2\).*\nerror: .*50 steps of warm-up", err), err
    assert "No seed with which both recipes have finished" in out
    found = json.loads((folder / "failing" / "ab.json").read_text())
    assert [one["name"] for one in found["runs"]] == ["A-seed-5"] and len(found["failures"]) == 1
    assert "warm-up" in (folder / "failing" / "ab.md").read_text()


def test_nothing_is_trained_where_a_recipe_is_wrong(folder):
    with pytest.raises(RecipeError, match="unknown setting"):
        ab(folder, out="none", overrides=["model.sise=3"])
    (folder / "many.yaml").write_text(EXPERTS.replace("tok: 2", "tok: 9"))
    with pytest.raises(ValueError, match="num_experts_per_tok is 9 of num_experts 3"):  # only building it tells
        ab(folder, "many", "none")
    assert not (folder / "none").exists()
