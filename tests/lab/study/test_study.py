"""Studies before anything is trained: experiments that add up, what follows from a width, files that say the same."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import foreloom.lab
from foreloom.cli import app
from foreloom.config.located import RecipeError
from foreloom.lab import NARROW_LR_SWEEP, create_multi_lr_experiments, create_multi_seed_experiments, gen_experim
from foreloom.lab.study.experiments import SWEEP_TOKENS, gen_lstm_experim, subset_experiments
from foreloom.lab.study.lint import lint
from foreloom.lab.study.presets import PRESETS
from foreloom.lab.study.resolve import fitting_heads, layers_of, resolve
from foreloom.lab.study.results import config_of
from foreloom.lab.study.settings import check_names
from foreloom.lab.study.study import Study, find_study, read_study
from foreloom.lab.study.table import table_of

DATA = Path(__file__).resolve().parents[3] / "examples" / "data"
ORACLE = Path(__file__).resolve().parents[4] / "shared" / "oracles" / "scaling" / "experimental_progress" / "legacy"
RECIPE = f"""
model: {{family: chronos2, size: test, d_model: 32, d_kv: 8, d_ff: 64, num_heads: 4}}
data:
  sources: [{{path: {DATA}/us_births.parquet, holdout: 32}}]
  context_length: 48
  prediction_length: 16
training: {{steps: 40, batch_size: 8, device: cpu}}
optimizer: {{learning_rate: 1.0e-3}}
"""


@pytest.fixture
def recipe(tmp_path) -> str:
    (tmp_path / "base.yaml").write_text(RECIPE)
    return str(tmp_path / "base.yaml")


def test_experiments_are_lists_of_dictionaries_that_add_up(recipe):
    found = gen_experim(32, label="scale_32d", recipe=recipe) + gen_experim(
        64, label="scale_64d", recipe=recipe, folder_name="custom", learning_rate=10**-2.5
    )
    assert [one["name"] for one in found] == ["", "custom"]
    (run,) = found[1]["subexperiments"]
    assert run["label"] == "scale_64d" and run["overrides"]["learning_rate"] == 10**-2.5
    assert Study.of("s", found).runs[0][0] == "s" and Study.of("s", found).runs[1][0] == "custom"
    seeded = create_multi_seed_experiments(found, [1, 2])
    assert [one["label"] for one in seeded[0]["subexperiments"]] == ["scale_32d_seed_1", "scale_32d_seed_2"]
    assert seeded[1]["subexperiments"][1]["overrides"]["seed"] == 2
    assert [one["name"] for one in subset_experiments(found, {"scale_64d"})] == ["custom"]
    with pytest.raises(ValueError, match="no run has the label 'x'"):
        subset_experiments(found, ["x"])
    with pytest.raises(AttributeError, match=r"foreloom\.lab has no gen_experiment; it has gen_experim"):
        _ = foreloom.lab.gen_experiment


@pytest.mark.parametrize(
    ("experiment", "sentence"),
    [
        ({"subexperiments": [{"overrides": {"hidden_dim": 16}}]}, r"not a run, .* with label \(a text\)"),
        ({"subexperiments": [{"label": 32, "overrides": {}}]}, r"not a run, .*: \{'label': 32"),
        ({"subexperiments": ["32d"]}, "not a run, .*: '32d'"),
        ({"subexperiments": [{"label": "a", "overrides": [16]}]}, r"a: overrides are a dictionary.*got \[16\]"),
        ({"name": 3, "subexperiments": []}, "name of an experiment is that of a folder, a text; got 3"),
        ({"name": "a"}, "not an experiment"),
    ],
)
def test_a_list_that_is_none_of_experiments(tmp_path, experiment, sentence):
    (tmp_path / "own.py").write_text(f"RUNS = [{experiment!r}]\n")
    with pytest.raises(ValueError, match=sentence):
        find_study(f"{tmp_path / 'own.py'}:RUNS")
    for multiplied in (create_multi_lr_experiments, create_multi_seed_experiments, subset_experiments):
        with pytest.raises(ValueError, match=sentence):
            multiplied([experiment], [1])


def test_a_sweep(recipe):
    base = gen_experim(32, label="32d", recipe=recipe, folder_name="tune")
    sweep = create_multi_lr_experiments(base, NARROW_LR_SWEEP)
    again = create_multi_lr_experiments(sweep, [0.5])
    assert [one["name"] for one in sweep + again] == ["tune_lr_sweep"] * 2  # the suffix once
    labels = [one["label"] for one in sweep[0]["subexperiments"]]
    assert labels == ["32d_lr_0.001", "32d_lr_-2.5", "32d_lr_0.01", "32d_lr_-1.5", "32d_lr_0.1"]
    assert sweep[0]["subexperiments"][0]["overrides"]["min_tokens"] == SWEEP_TOKENS
    assert Study.of("s", create_multi_lr_experiments(gen_experim(8, recipe=recipe), [1.0])).runs[0][0] == "s_lr_sweep"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("learning_rat", "Did you mean learning_rate?"),
        ("model.d_modle", "Did you mean model.d_model?"),
        ("hidden_dims", "Did you mean hidden_dim?"),
        ("zzz", "`foreloom show base` lists all"),
    ],
)
def test_unknown_overrides_suggest_the_nearest(recipe, name, hint):
    with pytest.raises(ValueError, match="unknown override") as caught:
        gen_experim(32, recipe=recipe, **{name: 1})
    assert hint in str(caught.value)


def overrides(planned) -> dict[str, object]:
    return {key: yaml.safe_load(value) for key, _, value in (one.partition("=") for one in planned.overrides)}


def test_what_follows_from_a_width(recipe):
    one = resolve("s", "64d", {"recipe": recipe, "hidden_dim": 64, "tokens": 10_000, "target_effective_batch_size": 16})
    found = overrides(one)
    assert (found["model.d_model"], found["model.num_layers"], found["model.num_heads"]) == (64, 3, 8)
    assert found["model.d_ff"] == 128 and found["training.batch_size"] == 16
    # A row of the data forecasts 16 steps, none of which is missing.
    assert found["training.steps"] == 40 == -(-10_000 // (16 * 16)) and one.facts["planned_tokens"] == 40 * 256
    assert one.reasons["model.num_layers"] == "depth_rule sqrt at width 64"
    assert one.reasons["training.steps"] == "10,000 tokens (tokens) / 256 a step"
    assert found["validation.steps"] == 10 and found["monitoring.log_steps"] == 1
    assert one.facts["hidden_dim"] == 64 and one.facts["num_parameters"] > one.facts["num_non_embedding"] > 10_000
    by_ratio = resolve("s", "64d", {"recipe": recipe, "hidden_dim": 64, "token_to_param_ratio": 0.5})
    assert by_ratio.facts["num_steps"] == -(-by_ratio.facts["num_parameters"] // (2 * 128))
    swept = {"recipe": recipe, "hidden_dim": 64, "tokens": 10_000, "min_tokens": 100, "token_fraction": 0.05}
    assert resolve("s", "a", swept).facts["num_steps"] == 4  # 5 % of 10,000
    assert resolve("s", "a", swept | {"min_tokens": 10**9}).facts["num_steps"] == 79  # never more than the whole
    own = {"recipe": recipe, "steps": 7, "hidden_dim": 48, "depth_rule": "fixed", "num_heads": 2}
    found = overrides(resolve("s", "a", own))
    assert found["training.steps"] == 7 and found["model.num_heads"] == 2 and found["model.d_kv"] == 24
    assert "model.num_layers" not in found


def test_rules_of_depth_and_heads():
    assert [layers_of("sqrt", width, 9, 64) for width in (8, 32, 64, 128)] == [1, 2, 3, 4]
    assert [layers_of("linear", width, 9, 64) for width in (8, 32, 64, 128)] == [1, 2, 4, 8]
    assert (layers_of("fixed", 64, 9, 64), layers_of("aspect", 256, 9, 64)) == (9, 4)
    assert fitting_heads(64, 16) == 4 and fitting_heads(48, 32) == 2 and fitting_heads(9, 3) == 3


def test_shapes_of_the_old_generator():
    """The linear rule and heads 16 wide are those of hansgundlach/Experimental_Progress at its head."""
    if not ORACLE.is_dir():
        pytest.skip("the shared oracles are not there")
    for row in csv.DictReader((ORACLE / "gen_experim_transformer.csv").open()):
        width = int(row["hidden_dim"])
        assert layers_of("linear", width, 0, 1.0) == int(row["num_layers"]), row
        assert fitting_heads(width, 16) == int(row["num_heads"]), row


def test_accumulation_times_processes_is_the_batch(recipe):
    given = {"recipe": recipe, "batch_size": 24, "gradient_accumulation_steps": 3, "num_processes": 2}
    assert overrides(resolve("s", "a", given))["training.micro_batch_size"] == 4
    with pytest.raises(ValueError, match=r"a: 25 rows .* nearest that are: 24 and 30"):
        resolve("s", "a", given | {"batch_size": 25})
    with pytest.raises(ValueError, match="batch_size say the same thing|target_effective_batch_size say the same"):
        resolve("s", "a", given | {"target_effective_batch_size": 8})


def test_old_names_and_values(recipe):
    check_names(recipe, {"seq_length": 64, "optimizer": "adam", "warmup_frac": 0.1, "grad_clip": 1.0})
    given = {"recipe": recipe, "optimizer": "adam", "seq_length": 64, "use_mup": True, "mup_base_width": 16}
    found = overrides(resolve("s", "a", given))
    assert found["optimizer.name"] == "adamw" and found["optimizer.weight_decay"] == 0
    assert found["data.context_length"] == 64
    assert found["parametrization.kind"] == "mup" and found["parametrization.base_width"] == 16
    with pytest.raises(ValueError, match="is not muP"):
        resolve("s", "a", given | {"mup_scale_lr": False})


def test_a_rate_from_a_fit(recipe, tmp_path):
    law = {"over": "width", "coefficient": 0.5, "exponent": -1.0}
    (tmp_path / "fit.json").write_text(json.dumps({"of": "learning_rate", "laws": {"width": law}, "table": []}))
    (tmp_path / "s.yaml").write_text(
        f"study: s\nrecipe: {recipe}\nruns: [{{label: a, hidden_dim: 64, steps: 3, learning_rate: 'from:fit.json'}}]\n"
    )
    (one,) = read_study(tmp_path / "s.yaml").resolve()
    assert one.facts["learning_rate"] == pytest.approx(0.5 / 64)
    assert "fit.json at width 64" in one.reasons["optimizer.learning_rate"]
    with pytest.raises(ValueError, match=r"there is no file nowhere\.json; `foreloom lab lr-fit SWEEP` writes one"):
        resolve("s", "a", {"recipe": recipe, "hidden_dim": 64, "steps": 3, "learning_rate": "from:nowhere.json"})


GRID = """
study: widths
recipe: base.yaml
settings: {steps: 5, depth_rule: fixed}
grid: {hidden_dim: [32, 64], model.feed_forward_proj: [relu, gelu]}
label: "{hidden_dim}d_{model.feed_forward_proj}"
learning_rates: [1.0e-3, 3.0e-3]
seeds: [1, 2]
"""


def test_a_file_says_the_same_as_its_runs_written_out(recipe, tmp_path):
    (tmp_path / "study.yaml").write_text(GRID)
    study = read_study(tmp_path / "study.yaml")
    assert len(study.runs) == 16 and study.runs[0][:2] == ("widths_lr_sweep", "32d_relu_lr_0.001_seed_1")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "whole.yaml").write_text(study.to_yaml())
    again = find_study(str(tmp_path / "elsewhere" / "whole.yaml"))
    first, second = (Study(one.name, one.runs[:3] + one.runs[-3:]).resolve() for one in (study, again))
    assert [config_of(a, None, []) for a in first] == [config_of(b, None, []) for b in second]
    common = find_study(str(tmp_path / "study.yaml"), {"steps": 2})
    assert all(given["steps"] == 2 for _, _, given in common.runs)
    rows = table_of(first, "t").rows
    assert rows[0][0] == "widths_lr_sweep/32d_relu_lr_0.001_seed_1" and rows[0][1] == "32"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("study: s\nrecipe: base.yaml\ngrit: {a: [1]}\n", r"study\.yaml:3: grit: unknown setting\. Did you mean grid"),
        ("study: s\nrecipe: base.yaml\n", "a study has runs, or a grid"),
        ("study: s\ngrid: {hidden_dim: [8]}\n", "no recipe is named"),
        ("study: s\nrecipe: base.yaml\nruns: [{hidden_dim: 8}]\n", r"runs\.0\.label: a text is required"),
        ("study: s\nrecipe: base.yaml\nlabel: '{x}'\ngrid: {hidden_dim: [8]}\n", "'x' is not in the grid"),
        ("study: s\nrecipe: base.yaml\nlabel: a\ngrid: {hidden_dim: [8, 16]}\n", "there twice: 'a'"),
        ("study: a/b\nrecipe: base.yaml\ngrid: {hidden_dim: [8]}\n", "'a/b' is no file name"),
        ("- 1\n", "expected a study"),
    ],
)
def test_a_file_that_is_no_study(recipe, tmp_path, text, sentence):
    (tmp_path / "study.yaml").write_text(text)
    with pytest.raises(ValueError, match=sentence):
        find_study(str(tmp_path / "study.yaml"))


def test_everything_wrong_is_told_with_its_run(recipe, tmp_path):
    given = {"recipe": recipe, "steps": 3}
    runs = (("s", "one", given | {"model.feed_forward_proj": "swish"}), ("s", "two", given | {"learning_rate": -1}))
    with pytest.raises(RecipeError) as caught:
        Study("s", runs).resolve()
    first, second = str(caught.value).splitlines()
    assert first.startswith("one: ") and "expected 'relu' or 'gelu', got 'swish'" in first
    assert second.startswith("two: ") and "a number above 0" in second


def test_python_files_and_presets(recipe, tmp_path):
    (tmp_path / "defs.py").write_text(
        "from foreloom.lab import gen_experim, NARROW_LR_SWEEP\n"
        f"ONE = gen_experim(16, label='16d_a', recipe={recipe!r}) + gen_experim(16, label='16d_b', recipe={recipe!r})\n"
        f"TWICE = gen_experim(16, label='16d', recipe={recipe!r}) * 3\n"
    )
    assert [label for _, label, _ in find_study(f"{tmp_path}/defs.py:ONE").runs] == ["16d_a", "16d_b"]
    with pytest.raises(ValueError, match="these are there twice: '16d'"):
        find_study(f"{tmp_path}/defs.py:TWICE")
    with pytest.raises(ValueError, match=r"NARROW_LR_SWEEP is no list of experiments, .* It has ONE, TWICE"):
        find_study(f"{tmp_path}/defs.py:NARROW_LR_SWEEP")
    with pytest.raises(ValueError, match="no preset of that name .* Did you mean scaling"):
        find_study("scalling")
    labels = [run["label"] for run in gen_lstm_experim(8, recipe=recipe)[0]["subexperiments"]]
    assert labels == ["8d"] and len(PRESETS) == 7


def test_lint(recipe):
    common = {"recipe": recipe}
    ratio = [("s", f"{d}d", common | {"hidden_dim": d, "tokens_per_parameter": 0.2}) for d in (16, 32, 48)]
    (one,) = lint(Study("s", tuple(ratio)).resolve())
    assert one.startswith("s: D / N is 0.2") and "no L(N, D)" in one
    length = [("s", f"{d}d", common | {"hidden_dim": d, "steps": 3}) for d in (16, 32, 48)]
    (one,) = lint(Study("s", tuple(length)).resolve())
    assert one.startswith("s: D is ") and "at all 3 sizes: no L(N, D)" in one
    (one,) = lint(Study("s", (*length, ("s", "16d_6", common | {"hidden_dim": 16, "steps": 6}))).resolve())
    assert one.startswith("s: steps differs")
    longer = [("s", f"{d}d_x2", common | {"hidden_dim": d, "tokens_per_parameter": 0.4}) for d in (16, 32, 48)]
    both = lint(Study("s", (*longer, *ratio)).resolve())
    assert not any("D / N" in one for one in both), "every size has two lengths"
    seeds = [("s", f"16d_{name}", common | {"steps": 3, "seed": seed}) for seed, name in ((1, "a"), (6, "b"))]
    (one,) = lint(Study("s", tuple(seeds)).resolve())
    assert one == "s: seed differs (1, 6), and the label does not tell it: 16d_a, 16d_b."
    told = [("s", f"16d_seed_{seed}", common | {"steps": 3, "seed": seed}) for seed in (1, 6)]
    assert lint(Study("s", tuple(told)).resolve()) == []
    silent = [("s", "a", common | {"steps": 3, "learning_rate": 0.01}), ("s", "b", common | {"steps": 4})]
    found = lint(Study("s", tuple(silent)).resolve())
    assert any("learning_rate differs (0.01), and the label does not tell it: a" in one for one in found)
    assert any(one.startswith("s: steps differs (3, 4)") for one in found)
    other = Path(recipe).with_name("other.yaml")
    other.write_text(RECIPE.replace("context_length: 48", "context_length: 96"))
    mixed = [("s", "base", common | {"steps": 3}), ("s", "other", {"recipe": str(other), "steps": 3})]
    (one,) = lint(Study("s", tuple(mixed)).resolve())
    assert "differ in data.context_length (48 in base; 96 in other)" in one


def test_lint_says_that_it_found_nothing(recipe, tmp_path):
    study = tmp_path / "study.yaml"
    study.write_text(f"study: s\nrecipe: {recipe}\nruns: [{{label: 16d, hidden_dim: 16, steps: 3}}]\n")
    told = CliRunner().invoke(app, ["lab", "lint", str(study)])
    assert told.exit_code == 0 and told.output == f"{study}: nothing found that will be regretted, in 1 runs.\n"


def test_data_that_are_not_there(recipe):
    """They are not needed where the length is given in steps."""
    Path(recipe).write_text(RECIPE.replace("us_births", "nowhere"))
    one = resolve("s", "a", {"recipe": recipe, "hidden_dim": 16, "steps": 3})
    assert one.facts["num_steps"] == 3 and "planned_tokens" not in one.facts
    with pytest.raises(ValueError, match=r"a: .*nowhere\.parquet(.|\n)*a: Only the data say .* give steps"):
        resolve("s", "a", {"recipe": recipe, "hidden_dim": 16})


def test_an_lstm_as_large_as_a_transformer():
    decoder = resolve("a", "decoder", {"recipe": "decoder-tiny", "steps": 3})
    for asked in (decoder.facts["num_parameters"], "decoder-tiny"):
        lstm = resolve("a", "lstm", {"recipe": "lstm-tiny", "steps": 3, "match_params": asked})
        assert abs(lstm.facts["num_parameters"] / decoder.facts["num_parameters"] - 1) < 0.02
        assert lstm.facts["num_layers"] == 2 and "parameters for" in lstm.reasons["model.d_model"]
    deep = resolve("a", "deep", {"recipe": "lstm-tiny", "match_params": "3.5e6", "num_layers": 1, "tokens": 4096})
    assert abs(deep.facts["num_parameters"] / 3.5e6 - 1) < 0.02 and deep.facts["num_layers"] == 1
    for asked, sentence in (
        ({"match_params": 3}, "no width of this lstm has 3 parameters within 2%"),
        ({"match_params": 1e6, "hidden_dim": 32}, "leave hidden_dim and depth_rule out"),
        ({"match_params": "nothere"}, "nothere: no such file"),
    ):
        with pytest.raises(ValueError, match=sentence):
            resolve("a", "lstm", {"recipe": "lstm-tiny", "steps": 3, **asked})
