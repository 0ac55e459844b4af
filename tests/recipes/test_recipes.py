"""The shipped recipes: each is valid, says what it will do, and builds the model it promises."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from foreloom import run
from foreloom.config.located import RecipeError
from foreloom.config.shipped import shipped_recipes
from foreloom.models import registry
from loaders import series_loader

RECIPES = list(shipped_recipes())
ROOT = Path(__file__).resolve().parents[2]


def parameters(name: str) -> int:
    sections = run.load(name, need_data=False).sections
    data, model = sections["data"], sections["model"]
    with torch.device("meta"):
        module = registry.get(model.family).build(model, data)
    return sum(p.numel() for p in module.parameters())


def test_the_five_recipes_of_the_original_are_there():
    originals = {"test", "base", "base-stage2", "small", "finetune"}
    assert {f"chronos2-{name}" for name in originals} | {"quickstart"} <= set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_the_description_of_a_recipe_is_that_recipe(name, tmp_path):
    recipe = run.load(name, need_data=False)
    text = run.describe(recipe)
    (tmp_path / "again.yaml").write_text(text)
    assert run.load(tmp_path / "again.yaml", need_data=False).sections == recipe.sections
    (tmp_path / "resolved.yaml").write_text(recipe.to_yaml())
    assert run.load(tmp_path / "resolved.yaml", need_data=False).sections == recipe.sections
    settings = sum(line.strip().startswith("#") for line in text.splitlines())
    assert settings > 40, "a sentence a setting"
    assert "#  (" not in text, "a setting without one"


def test_a_summed_loss_has_a_limit_above_its_usual_norms():
    """Norms of 2 to 8 are usual where 21 levels are summed; at 1 every step would be clipped, and advised against."""
    for name in ("test", "small", "base", "base-stage2", "finetune"):
        assert run.load(f"chronos2-{name}", need_data=False).sections["training"].max_grad_norm == 10, name


def test_parameter_counts():
    assert parameters("chronos2-base") == 119_477_664
    assert parameters("chronos2-small") == 27_934_624
    assert parameters("chronos2-test") == 3_118_496
    assert parameters("chronos-bolt-tiny") == 8_652_672
    assert parameters("chronos-bolt-mini") == 21_236_096
    assert parameters("chronos-bolt-small") == 47_718_016
    assert parameters("chronos-bolt-base") == 205_292_928
    assert parameters("chronos-t5-tiny") == 8_394_496
    assert parameters("chronos-t5-large") == 708_963_328
    assert parameters("chronos-t5-tiny-sample") == 7_608_064
    assert parameters("chronos-t5-tiny-moe-sample") == 10_794_372
    assert parameters("time-moe-50m") == 113_352_192
    assert parameters("time-moe-200m") == 453_196_800


@pytest.mark.parametrize("name", [n for n in RECIPES if n in ("quickstart", "chronos2-test", "chronos-bolt-sample")])
def test_recipes_on_example_data_find_it(name):
    assert all(source.path for source in run.load(name).sections["data"].sources)


def test_the_synthetic_recipe_reads_nothing_real_and_sees_short_contexts():
    sections = run.load("chronos2-synthetic-cpu").sections
    data, training = sections["data"], sections["training"]
    assert all(source.path.startswith("synth://") for source in data.sources)
    assert sum(source.weight for source in data.sources) == pytest.approx(1)
    assert training.save_steps % sections["monitoring"].log_steps == 0, "the board needs the minutes of each checkpoint"
    loader = series_loader(data, seed=training.seed, batch_size=4000)
    steps_N = np.minimum(loader.drawn(0).cut_M, data.context_length)
    assert (steps_N < 12).mean() > 0.03 and (steps_N < 120).mean() > 0.5
    assert (steps_N == data.context_length).mean() > 0.05
    whole_patches = sections["model"].input_patch_size
    assert data.context_length % whole_patches == 0 and data.prediction_length % whole_patches == 0


def test_the_gpu_recipe_has_the_same_mixture_and_the_board_tells_how_to_write_its_files():
    cpu, gpu = (run.load(f"chronos2-synthetic-{name}", need_data=False).sections for name in ("cpu", "gpu"))
    processes = [re.match(r"synth://(\w+)", source.path)[1] for source in cpu["data"].sources]
    files = [Path(source.path) for source in gpu["data"].sources]
    assert [path.stem.partition("_")[0] for path in files] == processes
    assert [source.weight for source in gpu["data"].sources] == [source.weight for source in cpu["data"].sources]
    board = (ROOT / "docs" / "time_to_skill.md").read_text()
    assert re.findall(r"--out (data/synthetic/\S+)", board) == [str(path) for path in files]


def test_missing_data_are_named_with_their_place():
    with pytest.raises(RecipeError) as caught:
        run.load("chronos2-base")
    assert len(caught.value.problems) == 2
    assert caught.value.problems[0].endswith("data.sources.0.path: no such file or folder: data/tsmixup_10m.")
    assert "chronos2-base.yaml:" in caught.value.problems[0]


@pytest.mark.parametrize("name", [name for name in RECIPES if name.endswith("-finetune") and "gemma" not in name])
def test_fine_tuning_is_short_validated_and_leaves_the_best(name):
    sections = run.load(name, need_data=False).sections
    data, training, validation = (sections[part] for part in ("data", "training", "validation"))
    assert training.epochs == 1 or 300 <= training.steps <= 3000
    assert all(source.holdout >= data.prediction_length for source in data.sources)
    assert 0 < validation.steps <= 100 and validation.patience and validation.restores


OVERRIDES_OF_THE_ORIGINAL = {
    "model.pretrained=amazon/chronos-2": ("model", "pretrained", "amazon/chronos-2"),
    "data.context_length=1024": ("data", "context_length", 1024),
    "data.prediction_length=32": ("data", "prediction_length", 32),
    "training.steps=7": ("training", "steps", 7),
    "optimizer.learning_rate=3e-5": ("optimizer", "learning_rate", 3e-5),
    "training.micro_batch_size=4": ("training", "micro_batch_size", 4),
    "training.batch_size=32": ("training", "batch_size", 32),
    "training.output_dir=elsewhere": ("training", "output_dir", "elsewhere"),
    "training.seed=7": ("training", "seed", 7),
}


@pytest.mark.parametrize("override", OVERRIDES_OF_THE_ORIGINAL)
def test_each_override_wins_over_the_recipe(override):
    section, field, value = OVERRIDES_OF_THE_ORIGINAL[override]
    sections = run.load("chronos2-finetune", [override], need_data=False).sections
    assert getattr(sections[section], field) == value


def test_max_series_and_random_start_by_override():
    sections = run.load("chronos2-finetune", ["data.sources.0.max_series=9"], need_data=False).sections
    assert sections["data"].sources[0].max_series == 9
    start = ["model.pretrained=null", "model.size=small"]
    assert run.load("chronos2-finetune", start, need_data=False).sections["model"].pretrained is None


def test_a_recipe_without_a_family_or_with_a_misspelt_one(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(yaml.safe_dump({"model": {"family": "chronos3"}, "data": {"sources": [{"path": "x"}]}}))
    with pytest.raises(RecipeError) as caught:
        run.load(path, need_data=False)
    assert any("Did you mean chronos2?" in problem for problem in caught.value.problems)
    assert any("data.context_length: is required" in problem for problem in caught.value.problems)
    path.write_text(yaml.safe_dump({"model": {"size": "base"}}))
    with pytest.raises(RecipeError, match=r"model.family: is required and not given. Known: chronos2"):
        run.load(path, need_data=False)


SHRUNKEN = [
    "training.device=cpu",
    "training.batch_size=4",
    "training.micro_batch_size=3",
    f"data.sources.0.path={ROOT}/examples/data/m4_hourly.parquet",
    "data.sources.0.max_series=3",
    "monitoring.log_steps=1",
    "monitoring.trackers=[none]",
]


def logged(run_dir: Path, kind: str) -> list[dict]:
    records = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return [record for record in records if record["kind"] == kind]


def test_chronos_bolt_trains_from_scratch_and_on(tmp_path):
    shrunken = [*SHRUNKEN, SHRUNKEN[3].replace("sources.0", "sources.1"), "data.min_past=16"]
    small = ["data.context_length=64", "data.prediction_length=16", "model.size=test", "training.steps=2"]
    result = run.train("chronos-bolt-small", [*shrunken, *small], out=tmp_path / "bolt")
    assert result.exit_code == 0 and [step["step"] for step in logged(tmp_path / "bolt", "step")] == [1, 2]
    longer = ["data.context_length=96", "data.prediction_length=12", "model.size=null"]
    start = [*longer, f"model.pretrained={tmp_path / 'bolt'}", "training.steps=1"]
    run.train("chronos-bolt-small", [*shrunken, *start], out=tmp_path / "on")
    assert "context_length: 64 -> 96" in (tmp_path / "on" / "training.log").read_text()
    with pytest.raises(ValueError, match=r"data\.prediction_length is 17 and the head of .* has 16 steps"):
        run.train("chronos-bolt-small", [*shrunken, *start, "data.prediction_length=17"], out=tmp_path / "far")


def test_chronos_t5_trains_with_experts_and_is_fine_tuned(tmp_path):
    steps = ["training.steps=4", "validation.steps=4", "monitoring.log_steps=2", "training.micro_batch_size=2"]
    small = ["model.d_model=32", "model.d_ff=64", "model.num_layers=1", "model.num_heads=2", "model.n_tokens=128"]
    run.train("chronos-t5-tiny-moe-sample", [*steps, *small], out=tmp_path / "t5")
    figures = logged(tmp_path / "t5", "step")[-1]["figures"]
    total = figures["train_ce_loss"] + 0.01 * figures["train_load_loss"]
    assert figures["train_total_loss"] == pytest.approx(total, rel=1e-6)
    assert {"expert_entropy", "dead_experts"} <= figures.keys()
    assert {"ce_loss", "load_loss"} <= logged(tmp_path / "t5", "validation")[-1]["figures"].keys()
    data = ["data.sources.0.path=synth://patterns?num_series=8&length=150", "data.context_length=96"]
    data += ["data.prediction_length=24", "data.min_past=24"]
    start = [*data, f"model.pretrained={tmp_path / 't5'}", "training.steps=1", "training.batch_size=4"]
    run.train("chronos-t5-finetune", [*start, "validation.steps=1"], out=tmp_path / "on")
    assert "context_length: 64 -> 96" in (tmp_path / "on" / "training.log").read_text()


def test_time_moe_trains_from_scratch_and_is_fine_tuned(tmp_path):
    lengths = ["data.context_length=64", "data.stride=64"]
    for name in ("time-moe-50m", "time-moe-200m"):
        small = ["model.size=test", "training.steps=2", "optimizer.warmup_steps=1"]
        assert run.train(name, [*SHRUNKEN, *lengths, *small], out=tmp_path / name).exit_code == 0
        steps = logged(tmp_path / name, "step")
        assert [step["step"] for step in steps] == [1, 2]
        for figures in (step["figures"] for step in steps):
            assert {"forecast_loss", "aux_loss", "aux_excess", "expert_entropy", "dead_experts"} <= figures.keys()
            assert figures["aux_excess"] == pytest.approx(figures["aux_loss"] - 2)
            assert 0.499 < figures["expert_entropy"] <= 1, "two of four experts at the least"

    more = ["data.prediction_length=16", "data.min_past=16", "data.sources.0.holdout=48", "validation.steps=2"]
    tuned = tmp_path / "tuned"
    pretrained = f"model.pretrained={tmp_path / 'time-moe-50m'}"
    overrides = [*SHRUNKEN, *lengths, *more, "training.epochs=0.25", pretrained]
    result = run.train("time-moe-finetune", overrides, out=tuned)
    validations = logged(tuned, "validation")
    assert [record["step"] for record in validations[:2]] == [0, 2] and result.step > 2
    assert validations[-1]["best_loss"] < validations[0]["loss"], "it learns what it is validated on"
    manifest = json.loads((tuned / "checkpoints" / "final" / "manifest.json").read_text())
    assert manifest["export_step"] == validations[-1]["best_step"]
    rates = [step["learning_rate"] for step in logged(tuned, "step")]
    assert rates == pytest.approx([1e-4, 8.75e-5, 6.25e-5]), "cosine from 1e-4 to 5e-5, which update 4 would have"
