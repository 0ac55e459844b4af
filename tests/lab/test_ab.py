"""Which recipes can be compared, what is trained of them, how it is scored, and a whole test of two tiny recipes."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foreloom import run
from foreloom.config.located import RecipeError
from foreloom.evaluation.baselines import SeasonalNaive
from foreloom.lab import ab
from foreloom.lab.ab import Arm, compare_recipes
from foreloom.lab.runs import Size, read_outcomes, size_of
from foreloom.lab.verdict import Compared
from in_process import PEAK_BYTES

DATA = Path(__file__).resolve().parents[2] / "examples" / "data"
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
PLANNED = f"""
model: {{family: time_moe, size: test}}
data:
  sources: [{{path: {DATA}/nyc_weather.parquet, holdout: 48}}]
  context_length: 48
  prediction_length: 24
  normalization: zero
training: {{steps: 100, batch_size: 8}}
"""
SCORED = """
model: {family: chronos2, size: test}
data:
  sources: [{path: long.parquet, holdout: 20}, {path: short.parquet, holdout: 6}, {path: all.parquet}]
  context_length: 32
  prediction_length: 12
training: {steps: 1}
"""


@pytest.fixture
def load(tmp_path):
    """load(*overrides) -> the recipe with them."""
    path = tmp_path / "recipe.yaml"
    path.write_text(PLANNED)
    return lambda *overrides: run.load(path, overrides)


def test_recipes_that_differ_in_their_model_can_be_compared(load):
    ab.check_comparable(
        load(),
        load("model.use_dense=true", "training.batch_size=4", "optimizer.learning_rate=0.1", "data.num_prefetch=0"),
    )


def test_every_difference_in_the_data_is_named(load):
    other = load("data.context_length=96", "data.sources.0.holdout=24", "validation.steps=10", "validation.stride=3")
    with pytest.raises(ValueError) as told:
        ab.check_comparable(load(), other)
    assert str(told.value).splitlines()[1:-1] == [
        "  data.sources.0.holdout: 48 in A, 24 in B",
        "  data.context_length: 48 in A, 96 in B",
        "  validation.stride: None in A, 3 in B",
    ]
    second = f"{{path: {DATA}/us_births.parquet}}"
    more = load(f"data.sources=[{{path: {DATA}/nyc_weather.parquet, holdout: 48}}, {second}]")
    with pytest.raises(ValueError, match=r"data\.sources\.1\.path: not there in A, .*us_births\.parquet in B"):
        ab.check_comparable(load(), more)


def test_something_must_be_held_out(load):
    nothing = load("data.sources.0.holdout=0")
    with pytest.raises(ValueError, match=r"Set data\.sources\.0\.holdout.*data\.prediction_length \(24\)"):
        ab.check_comparable(nothing, nothing)
    own = load(
        "data.sources.0.holdout=0",
        "validation.steps=5",
        f"validation.sources=[{{path: {DATA}/us_births.parquet}}]",
    )
    ab.check_comparable(own, own)


def test_losses_of_other_families_and_scales_are_other_quantities(load):
    def are_comparable(*overrides, a=()):
        recipes = load(*a), load(*overrides)
        return ab.is_loss_comparable(recipes, (size_of(recipes[0]), size_of(recipes[1])))

    assert are_comparable("model.use_dense=true")
    assert not are_comparable("data.normalization=max")
    assert not are_comparable("model.horizon_lengths=[1,4]")
    t5 = ("model.family=chronos_t5", "model.size=tiny", "model.n_tokens=64", "data.normalization=none")
    assert not are_comparable(*t5)
    assert are_comparable(*t5, "model.use_moe=true", a=t5)
    assert not are_comparable(*t5, "model.low_limit=-9", a=t5)
    for family in ("chronos2", "chronos_bolt"):
        other = (f"model.family={family}", "model.quantiles=[0.1,0.5,0.9]")
        assert are_comparable(*other, a=other)
        assert not are_comparable(f"model.family={family}", a=other)


@pytest.mark.parametrize(
    ("flops_of_b", "num_steps"),
    [(2e9, 50), (0.5e9, 200), (3e9, 33), (1.5e9, 67), (1.001e9, 100), (1e15, 1)],
)
def test_b_gets_the_steps_that_the_compute_of_a_pays_for(flops_of_b, num_steps):
    assert ab.steps_at_equal_compute(Size(100, 1, 1e9), Size(100, 1, flops_of_b)) == num_steps


def test_what_is_compared(load):
    def lengths(equal: ab.Equal, b: Size) -> dict[str, int]:
        return {arm.name: arm.num_steps for arm in ab.arms_of(a, b, equal)}

    a, dear = Size(100, 1, 1e9), Size(30, 1, 2e9)
    assert lengths("both", dear) == {"A": 100, "B": 100, "B-equal-compute": 50}
    assert lengths("steps", dear) == {"A": 100, "B": 100}
    assert lengths("compute", dear) == {"A": 100, "B-equal-compute": 50}
    for equal in ("both", "steps", "compute"):
        assert lengths(equal, Size(30, 1, 1e9)) == {"A": 100, "B": 100}  # the two are one
    same = load(), load()
    assert ab.notes_of(same, (a, dear)) == [
        "A step of B costs 2 of A's FLOPs.",
        "B's recipe says 30 steps; A's 100 are the yardstick here.",
    ]
    assert ab.notes_of(same, (a, a)) == ["A step of B costs 1 of A's FLOPs."]
    assert "WQL decides" in ab.notes_of((load(), load("data.normalization=max")), (a, a))[1]
    assert ab.parse_equal("compute") == "compute"
    with pytest.raises(ValueError, match="--equal 'flops': expected steps, compute, both"):
        ab.parse_equal("flops")


def test_settings_of_a_run(load):
    def own(recipe, common=(), longest=100):
        return list(ab.plan_run(Arm("B", 60), 3, recipe, common, longest, Path("test")).overrides)

    mine = ["training.steps=5", "optimizer.learning_rate=0.1"]
    assert own(load(), mine) == [*mine, "training.steps=60", "training.seed=3", "validation.steps=5"]
    assert own(load("validation.steps=7")) == ["training.steps=60", "training.seed=3"]
    assert own(load(), longest=10)[-1] == "validation.steps=1"
    strided = ["data.stride=24", "training.steps=null", "training.epochs=2"]
    planned = ab.plan_run(Arm("B", 60), 3, load(*strided), strided[:1], 100, Path("test"))
    assert planned.overrides[1:4] == ("training.epochs=null", "training.steps=60", "training.seed=3")
    assert planned.recipe.sections["training"].epochs is None and planned.folder == Path("test/B-seed-3")


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    steps = np.arange(60.0) % 5 + 1
    for name in ("long", "short", "all"):
        pq.write_table(pa.table({"target": [steps.tolist()] * 3}), tmp_path / f"{name}.parquet")
    path = tmp_path / "recipe.yaml"
    path.write_text(SCORED)
    monkeypatch.chdir(tmp_path)
    return lambda *overrides: run.load(path, overrides)


def test_the_end_of_what_is_held_out_is_scored(recipe):
    tasks = ab.held_out_tasks(recipe())
    assert [(task.name, task.prediction_length, task.num_rolls) for task in tasks] == [("long", 12, 1), ("short", 6, 1)]
    own = recipe("validation.steps=1", "validation.sources=[{path: all.parquet}]")
    assert [(task.name, task.prediction_length) for task in ab.held_out_tasks(own)] == [("all", 12)]


def test_very_many_series_are_not_scored_unasked(recipe, monkeypatch):
    monkeypatch.setattr(ab, "MOST_SERIES", 2)
    with pytest.raises(ValueError, match=r"long\.parquet has 3 series, too many .* --tasks"):
        ab.held_out_tasks(recipe())


def test_summary():
    found = ab.summary({"a": 0.1, "b": 0.4}, {"a": 0.2, "b": 0.2})
    assert found == {"wql": pytest.approx(0.25), "wql_relative": pytest.approx(math.sqrt(0.5 * 2))}
    assert ab.summary({"a": 0.1}, {"a": 0.0}) == {"wql": 0.1}
    assert ab.summary({}, {}) == {}


def test_the_baseline_is_seasonal_naive(recipe):
    (naive,) = ab.score(SeasonalNaive(), ab.held_out_tasks(recipe())[1:]).values()
    label = np.arange(54, 60) % 5 + 1
    assert naive == pytest.approx(np.abs(label - (53 % 5 + 1)).sum() / label.sum())  # no frequency, so season 1


def test_scores_are_kept_as_long_as_tasks_and_data_are_the_same(recipe, tmp_path, monkeypatch):
    asked = []

    def stand_in(folder: Path, device: str) -> SimpleNamespace:
        asked.append(folder)
        return SimpleNamespace(forecaster=SeasonalNaive())

    monkeypatch.setattr(ab, "from_pretrained", stand_in)
    tasks = ab.held_out_tasks(recipe())
    first = ab.score_run(tmp_path, tasks, "cpu")
    assert ab.score_run(tmp_path, tasks, "cpu") == first == ab.score(SeasonalNaive(), tasks)
    assert len(asked) == 1
    assert list(ab.score_run(tmp_path, tasks[:1], "cpu")) == ["long"]
    pq.write_table(pa.table({"target": [list(range(1, 50))]}), tmp_path / "long.parquet")
    assert ab.score_run(tmp_path, tasks[:1], "cpu") != first
    assert len(asked) == 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory, trainings_here):
    """Two recipes and, in `out`, their finished test with one seed."""
    folder = tmp_path_factory.mktemp("ab")
    (folder / "dense.yaml").write_text(DENSE)
    (folder / "experts.yaml").write_text(EXPERTS)
    assert compare(folder) == 0
    return folder


def compare(folder, b="experts", out="out", **options):
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
    assert a["peak_mebibytes"] == PEAK_BYTES / 2**20 and a["training_seconds"] > 0
    assert a["time_steps_per_second"] == pytest.approx(32 * a["rows_per_second"])
    assert "expert_entropy" not in a and 0 < b["expert_entropy"] <= 1
    assert [point["step"] for point in b["curve"]] == [0, 1, 2, 3]
    (compared,) = found["comparisons"]
    assert compared["measures"]["loss"]["difference"]["mean"] == pytest.approx(b["loss"] - a["loss"])
    assert compared["measures"]["wql_relative"]["b"]["mean"] == b["wql_relative"] > 0
    assert found["failures"] == [] and found["tasks"] == ["us_births"]
    assert {name: (one.status, one.num_steps) for name, one in read_outcomes(out).items()} == {
        "A-seed-5": ("finished", 4),
        "B-equal-compute-seed-5": ("finished", 3),
    }

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
    assert compare(folder, form="latex") == 0
    out, err = capsys.readouterr()
    assert err.count("was there already") == 2
    assert out.startswith("% needs") and out.count(r"\begin{tabular}") == 1
    assert {path: path.stat().st_mtime_ns for path in written} == written and len(written) == 2


def test_worse_is_exit_code_1_where_that_is_asked_for(folder, monkeypatch):
    assert compare(folder, fail_if_worse=True) == 0  # one seed proves nothing
    monkeypatch.setattr(Compared, "is_worse", True)
    assert compare(folder, fail_if_worse=True) == 1
    assert compare(folder) == 0


def test_runs_of_other_settings_are_in_the_way(folder):
    with pytest.raises(ValueError, match="A-seed-5 holds a run of other settings; give another --out"):
        compare(folder, overrides=["training.batch_size=8"])


def test_a_failed_training_is_told_and_is_exit_code_1(folder, capsys):
    (folder / "broken.yaml").write_text(EXPERTS + "optimizer: {warmup_steps: 50}\n")
    shutil.copytree(folder / "out" / "A-seed-5", folder / "failing" / "A-seed-5")
    assert compare(folder, "broken", "failing") == 1
    out, err = capsys.readouterr()
    assert re.search(NAME_OF_B + r" failed \(exit code 2\).*\nerror: .*50 steps of warm-up", err), err
    assert "No seed with which both recipes have finished" in out
    found = json.loads((folder / "failing" / "ab.json").read_text())
    assert [one["name"] for one in found["runs"]] == ["A-seed-5"] and len(found["failures"]) == 1
    assert "warm-up" in (folder / "failing" / "ab.md").read_text()


def test_recipes_take_turns_seed_by_seed(folder, monkeypatch):
    def stop(runs, study, stop):
        names.extend((run.name, run.recipe.sections["training"].steps) for run in runs)
        stop.signal_number = 15
        return []

    names: list[tuple[str, int]] = []
    monkeypatch.setattr(ab.runs, "execute", stop)
    assert compare(folder, num_seeds=2, equal="both", out="turns") == 143
    assert names == [
        ("A-seed-5", 4),
        ("B-seed-5", 4),
        ("B-equal-compute-seed-5", 3),
        ("A-seed-6", 4),
        ("B-seed-6", 4),
        ("B-equal-compute-seed-6", 3),
    ]


def test_a_loss_that_is_not_finite_is_a_failure(folder, capsys):
    shutil.copytree(folder / "out", folder / "diverged")
    metrics = folder / "diverged" / "A-seed-5" / "metrics.jsonl"
    metrics.write_text(
        re.sub(r'("kind": "validation".*"step": 4,.*"forecast_loss": )[0-9.e-]+', r"\1null", metrics.read_text())
    )
    assert compare(folder, out="diverged") == 1
    told = capsys.readouterr()
    assert "A-seed-5: loss not finite; see " in told.err
    assert "1 of 2 runs failed or diverged" in " ".join(told.out.split()), "beside the verdict, which leaves it out"
    assert read_outcomes(folder / "diverged")["A-seed-5"].loss is None


def test_scipy_is_asked_for_before_anything_is_trained(folder, monkeypatch):
    monkeypatch.setattr(ab.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"scipy, which is not installed: pip install 'foreloom\[lab\]'"):
        compare(folder, out="none")
    assert not (folder / "none").exists()


def test_nothing_is_trained_where_a_recipe_is_wrong(folder):
    with pytest.raises(RecipeError, match="unknown setting"):
        compare(folder, out="none", overrides=["model.sise=3"])
    (folder / "many.yaml").write_text(EXPERTS.replace("tok: 2", "tok: 9"))
    with pytest.raises(ValueError, match="num_experts_per_tok is 9 of num_experts 3"):  # only building it tells
        compare(folder, "many", "none")
    assert not (folder / "none").exists()


def test_language_models_are_not_compared_by_forecasts():
    recipe = run.load("tiny-lm", ["training.steps=1"], need_data=False)
    with pytest.raises(ValueError, match="the family causal_lm does not forecast, and an A/B test scores forecasts"):
        ab.check_comparable(recipe, recipe)
