"""A run from recipe to run folder: what the folder holds gives the same run again."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch

import foreloom
from foreloom import run
from foreloom.checkpoint.claim import check_folder
from foreloom.config.located import RecipeError
from foreloom.data.convert import convert
from foreloom.distributed.process import Process
from foreloom.models import registry
from foreloom.run import RECIPE_NAME, banner
from foreloom.run.banner import warn_of_cost
from loaders import series_loader

DATA = Path(__file__).resolve().parents[2] / "examples" / "data"
TINY = [
    "training.steps=3",
    "training.batch_size=6",
    "training.device=cpu",
    "data.context_length=64",
    "data.prediction_length=16",
    "data.group.probability=0.5",
    "model.num_layers=1",
    "model.d_model=32",
    "model.d_ff=32",
    "monitoring.log_steps=1",
    "monitoring.trackers=[none]",
]


def losses(run) -> list[float]:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [record["loss"] for record in records if record["kind"] == "step"]


def test_the_resolved_recipe_reproduces_the_run(tmp_path):
    result = foreloom.train("chronos2-test", TINY, out=tmp_path / "first")
    assert (result.step, result.exit_code) == (3, 0)
    foreloom.train(tmp_path / "first" / RECIPE_NAME, out=tmp_path / "again")
    first, again = (losses(tmp_path / name) for name in ("first", "again"))
    assert first == again
    assert len(first) == 3
    weights = [(tmp_path / n / "checkpoints/final/hf/model.safetensors").read_bytes() for n in ("first", "again")]
    assert weights[0] == weights[1]


def test_another_seed_is_another_run(tmp_path):
    foreloom.train("chronos2-test", [*TINY, "training.seed=1"], out=tmp_path / "one")
    foreloom.train("chronos2-test", [*TINY, "training.seed=2"], out=tmp_path / "two")
    assert losses(tmp_path / "one") != losses(tmp_path / "two")


def test_a_run_forecasts_and_is_fine_tuned_with_longer_windows(tmp_path):
    stage_1 = tmp_path / "stage-1"
    foreloom.train("chronos2-test", [*TINY, "model.time_encoding_scale=512"], out=stage_1)
    start = ["model.size=null", f"model.pretrained={stage_1}", "data.context_length=128", "data.prediction_length=32"]
    shape = [f"model.{name}=null" for name in ("num_layers", "d_model", "d_ff")]
    foreloom.train("chronos2-test", [*TINY, *shape, *start], out=tmp_path / "stage-2")
    log = (tmp_path / "stage-2" / "training.log").read_text()
    assert "context_length: 64 -> 128" in log
    assert "max_output_patches: 1 -> 2" in log
    model = foreloom.from_pretrained(tmp_path / "stage-2", device="cpu")
    assert (model.forecaster.context_length, model.forecaster.prediction_length) == (128, 32)
    assert model.module.architecture.time_encoding_scale == 512
    series = torch.sin(torch.arange(128.0)).numpy()
    changed = series.copy()
    changed[10] += 5  # more than 64 steps back
    forecasts = [model.predict([one], prediction_length=32)[0] for one in (series, changed)]
    assert forecasts[0].shape == (1, 32, 3)
    assert abs(forecasts[0] - forecasts[1]).max() > 1e-4


EPOCHS = [
    "training.steps=null",
    f"data.sources=[{{path: {DATA / 'm3_monthly.parquet'}, holdout: 18, max_series: 60}}]",
    "data.group.probability=0",
    "data.stride=20",
    "data.min_past=16",
]


def test_epochs_become_steps_and_validation_ends_the_run(tmp_path, monkeypatch):
    settings = [s for s in TINY if not s.startswith(("training.steps", "data.group"))] + EPOCHS
    recipe = run.load("chronos2-test", [*settings, "training.epochs=1.5"])
    data = recipe.sections["data"]
    num_windows = series_loader(data, seed=0, batch_size=6).dataset.num_epoch_samples
    num_steps = math.ceil(1.5 * num_windows / 6)
    assert num_steps > 20
    assert f"(default, here {num_steps})" in run.describe(recipe)
    as_steps = run.load("chronos2-test", [*settings, f"training.steps={num_steps}"])
    assert f"(default, here {num_steps * 6 / num_windows:.3g})" in run.describe(as_steps)

    absent = run.load("chronos2-test", [*settings, "training.epochs=1", "data.exclude=no.jsonl"], need_data=False)
    assert "steps: null" in run.describe(absent), "shown without a count of what cannot be opened"

    validation = ["validation.steps=2", "validation.patience=1", "validation.min_delta=1000"]
    monkeypatch.setattr("foreloom.data.stream.held_out.open_source", None)  # holdouts are of sources that are open
    result = foreloom.train("chronos2-test", [*settings, "training.epochs=1.5", *validation], out=tmp_path / "run")
    assert (result.step, result.exit_code) == (2, 0)
    log = (tmp_path / "run" / "training.log").read_text()
    assert f"{num_steps} ({num_steps * 6 / num_windows:.3g} epochs of {num_windows:,} samples)" in log
    assert f"Step 1/{num_steps} |" in log and "Validation after step 0: loss=" in log
    assert "The run ends early: a validation did not lower the loss by more than 1000" in log
    (final,) = (tmp_path / "run").glob("checkpoints/final/manifest.json")
    scores = json.loads(final.read_text())["scores"]
    assert scores.keys() == {"validation_loss"}
    again = foreloom.train(tmp_path / "run" / RECIPE_NAME, out=tmp_path / "again")
    assert again.step == 2 and losses(tmp_path / "again") == losses(tmp_path / "run")


def test_validation_on_a_data_set_of_its_own(tmp_path):
    validation = [
        "validation.steps=3",
        f"validation.sources=[{{path: {DATA / 'us_births.parquet'}}}]",
        "validation.max_windows=7",
        "validation.stride=100",
    ]
    foreloom.train("chronos2-test", [*TINY, *validation], out=tmp_path)
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records if record["kind"] == "validation"] == [0, 3]
    assert "7 samples every 3 steps" in (tmp_path / "training.log").read_text()


NOWHERE = "validation.sources=[{path: no/such.parquet}]"


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["model.family=null"], "model.family: is required and not given. Known: chronos2"),
        (["model.family=[chronos2]"], r"model.family: expected a name, got \['chronos2'\]. Known: chronos2"),
        (["training.epochs=2"], "command line: training: steps and epochs say the same thing"),
        (["training.steps=null"], "command line: training: steps, or epochs where data.stride is set, is required"),
        (["training.steps=null", "training.epochs=1"], "training.epochs: needs data.stride: .*data.stride=560 cuts"),
        (["validation.steps=5"], "validation.steps: there is nothing to validate on: give data.sources.0.holdout"),
        (["validation.steps=5", NOWHERE], "validation.sources.0.path: no such file"),
        (["checkpoint.best_metric=validation_loss"], "there is no validation_loss without validation.steps"),
    ],
)
def test_settings_that_contradict_each_other(overrides, sentence):
    with pytest.raises(RecipeError, match=sentence):
        run.load("chronos2-test", overrides)


def test_validation_is_turned_off_with_all_that_hangs_on_it(tmp_path):
    recipe = tmp_path / "validated.yaml"
    validation = "{steps: 5, patience: 2, min_delta: 0.1, sources: [{path: 'synth://patterns?num_series=9&length=99'}]}"
    recipe.write_text(f"extends: chronos2-test\nvalidation: {validation}\n")
    config = run.load(recipe, ["validation.steps=0"]).sections["validation"]
    assert (config.steps, config.patience, config.min_delta, config.restores) == (0, 0, 0, False)
    assert config.sources == ()
    with pytest.raises(RecipeError, match="patience has no effect while validation.steps is 0"):
        run.load(recipe, ["validation.steps=0", "validation.patience=3"])


def test_a_folder_that_cannot_be_written_is_told_before_the_work_with_the_option(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    recipe = run.load("chronos2-test", TINY)
    monkeypatch.setattr("foreloom.run.recipe.BatchLoader", lambda *_, **__: pytest.fail("the data were opened"))
    with pytest.raises(ValueError, match="file/run cannot be made: .*file is a file. Give another by --out"):
        run.build(recipe, tmp_path / "file" / "run", Process(0, 1, 0, torch.device("cpu")))
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(ValueError, match="run cannot be written: .* is read-only for you"):
        check_folder(tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_run_on_cuda_trains_in_bf16_and_agrees_with_the_cpu(tmp_path):
    settings = [s for s in TINY if not s.startswith(("training.device", "training.steps"))]
    result = foreloom.train("chronos2-test", [*settings, "training.steps=30", "training.device=cuda"], out=tmp_path)
    assert result.exit_code == 0
    curve = losses(tmp_path)
    assert sum(curve[-5:]) < sum(curve[:5])
    series = [torch.sin(torch.arange(n) / 7).numpy() for n in (64, 40, 7)]
    cpu, cuda = (
        foreloom.from_pretrained(tmp_path, device=device).predict(series, prediction_length=16)
        for device in ("cpu", "cuda")
    )
    for ours, theirs in zip(cpu, cuda, strict=True):
        assert abs(ours - theirs).max() < 1e-3 * (1 + abs(ours).max())


SYNTHETIC = """
extends: chronos2-test
data:
  sources:
    - path: synth://kernel?length=200
    - path: "synth://tsmixup?sources=mine.arrow,patterns&length=100..150&num_series=500"
  drop_values: 0.2
validation:
  steps: 2
  sources: [{path: "synth://patterns?length=200&num_series=20"}]
"""


def test_a_run_on_synthetic_data_finds_the_files_that_it_mixes(tmp_path, monkeypatch):
    (tmp_path / "recipes").mkdir()
    recipe = tmp_path / "recipes" / "synthetic.yaml"
    recipe.write_text(SYNTHETIC)
    with pytest.raises(
        RecipeError, match=r"synthetic.yaml:6: data.sources.1.path: no such file or folder: mine.arrow."
    ):
        run.load(recipe)
    run.load(recipe, need_data=False)
    convert("synth://patterns?num_series=30&length=300", tmp_path / "recipes" / "mine.arrow")
    paths = [source.path for source in run.load(recipe).sections["data"].sources]
    assert paths[0] == "synth://kernel?length=200"
    assert paths[1].startswith(f"synth://tsmixup?sources={tmp_path}/recipes/mine.arrow,patterns&length=100..150")

    monkeypatch.chdir(tmp_path)
    foreloom.train(recipe, TINY, out=tmp_path / "first")
    foreloom.train(tmp_path / "first" / RECIPE_NAME, out=tmp_path / "again")
    assert losses(tmp_path / "first") == losses(tmp_path / "again")
    assert len(losses(tmp_path / "first")) == 3


def test_a_wrong_address_is_said_with_its_line(tmp_path):
    recipe = tmp_path / "wrong.yaml"
    recipe.write_text(SYNTHETIC.replace("length=200", "lengt=200"))
    with pytest.raises(RecipeError) as caught:
        run.load(recipe, need_data=False)
    assert [line.partition(" lengt")[0] for line in caught.value.problems] == [
        f"{recipe}:5: data.sources.0.path: synth://kernel?lengt=200:",
        f"{recipe}:10: validation.sources.0.path: synth://patterns?lengt=200&num_series=20:",
    ]


def test_a_wrong_address_alone_gets_its_sentence():
    with pytest.raises(RecipeError, match=r"no synthetic process 'paterns'.* Did you mean patterns\?"):
        run.load("chronos-t5-tiny-sample", ["data.sources.0.path=synth://paterns"])


def test_epochs_of_synthetic_windows():
    overrides = [*TINY, "data.sources=[{path: 'synth://patterns?num_series=10&length=160'}]", "data.stride=80",
                 "data.group.probability=0"]  # fmt: skip
    shown = run.describe(run.load("chronos2-test", overrides))
    assert "# (default, here 0.9)\n  epochs: null" in shown


def test_what_takes_long_on_a_cpu_is_said_before_it_begins(tmp_path, monkeypatch, caplog):
    warn_of_cost(1e12, 1)
    assert not caplog.records
    warn_of_cost(1e19, 2)
    assert "on this CPU the run takes at least" in caplog.text and " days to its last step (1e+19 FLOPs)" in caplog.text
    monkeypatch.setattr(banner, "_LONG_SECONDS", 0.0)
    foreloom.train("chronos2-test", [*TINY, "training.steps=1"], out=tmp_path / "run")
    assert "warning: on this CPU the run takes at least 0.0 hours" in (tmp_path / "run" / "training.log").read_text()


def test_an_adapter_is_trained_resumed_exported_and_scored(tmp_path):
    foreloom.train("chronos2-test", TINY, out=tmp_path / "base")
    start = [*TINY, f"model.pretrained={tmp_path / 'base'}"]
    start += [f"model.{name}=null" for name in ("size", "num_layers", "d_model", "d_ff")]
    adapter = [*start, "adapter.kind=lora", "adapter.rank=2", "training.save_steps=2", "optimizer.learning_rate=0.01"]
    foreloom.train("chronos2-test", adapter, out=tmp_path / "tuned")
    log = (tmp_path / "tuned" / "training.log").read_text()
    assert "trained" in log and "%)" in log
    kept = sum(f.stat().st_size for f in (tmp_path / "tuned" / "checkpoints" / "final" / "state").glob("*.distcp"))
    whole = sum(f.stat().st_size for f in (tmp_path / "base" / "checkpoints" / "final" / "state").glob("*.distcp"))
    assert kept < whole / 2, "a checkpoint holds the adapter and its moments alone"
    hf = tmp_path / "tuned" / "checkpoints" / "final" / "hf"
    assert {path.name for path in hf.iterdir()} >= {"adapter_config.json", "adapter_model.safetensors"}
    foreloom.train("chronos2-test", [*adapter, "adapter.export=merged"], out=tmp_path / "merged")
    series = torch.sin(torch.arange(64.0)).numpy()
    forecasts = {
        name: foreloom.from_pretrained(tmp_path / name, device="cpu").predict([series], prediction_length=16)[0]
        for name in ("base", "tuned", "merged")
    }
    assert (
        abs(forecasts["tuned"] - forecasts["merged"]).max() < 1e-5 < abs(forecasts["tuned"] - forecasts["base"]).max()
    )

    (tmp_path / "tuned" / "checkpoints" / "final").unlink()
    shutil.rmtree(tmp_path / "tuned" / "checkpoints" / "step-00000003")
    first = losses(tmp_path / "tuned")
    foreloom.train("chronos2-test", adapter, out=tmp_path / "tuned", resume=True)
    assert losses(tmp_path / "tuned")[-1] == first[-1]
    with pytest.raises(ValueError, match="does not fit this run's model"):
        foreloom.train("chronos2-test", start, out=tmp_path / "tuned", resume=True)
    with pytest.raises(ValueError, match="does not fit this run's model"):
        foreloom.train("chronos2-test", [*adapter, "training.steps=5"], out=tmp_path / "base", resume=True)
    foreloom.train("chronos2-test", [*TINY, "training.seed=5"], out=tmp_path / "other")
    swapped = [one.replace(str(tmp_path / "base"), str(tmp_path / "other")) for one in adapter]
    with pytest.raises(ValueError, match="weights that this run leaves as they are differ"):
        foreloom.train("chronos2-test", [*swapped, "training.steps=5"], out=tmp_path / "tuned", resume=True)
    with pytest.raises(ValueError, match=r"the run has context_length 128 and .* adapter\.export: merged"):
        foreloom.train("chronos2-test", [*adapter, "data.context_length=128"], out=tmp_path / "long")
    with pytest.raises(ValueError, match="is a model with an adapter already"):
        again = [one.replace(str(tmp_path / "base"), str(tmp_path / "tuned")) for one in adapter]
        foreloom.train("chronos2-test", again, out=tmp_path / "twice")
    with pytest.raises(RecipeError, match="nothing to adapt without model.pretrained"):
        run.load("chronos2-test", [*TINY, "adapter.kind=lora"])
    with pytest.raises(RecipeError, match="an adapter freezes everything beside it"):
        run.load("chronos2-test", [*adapter, "training.freeze=[encoder.*]"])


def test_a_part_of_a_model_is_trained(tmp_path):
    head = ["training.train_only=[output_patch_embedding.*]"]
    foreloom.train("chronos2-test", [*TINY, *head], out=tmp_path / "head")
    body = ["training.freeze=[output_patch_embedding.*]"]
    foreloom.train("chronos2-test", [*TINY, *body], out=tmp_path / "body")
    family = registry.get("chronos2")
    recipe = run.load("chronos2-test", TINY)
    fresh = family.build(recipe.sections["model"], recipe.sections["data"])
    family.initialize(fresh, recipe.sections["training"].seed)
    for name, is_head in (("head", True), ("body", False)):
        trained = foreloom.from_pretrained(tmp_path / name, device="cpu").module.state_dict()
        moved = {key for key, x in fresh.state_dict().items() if not torch.equal(x, trained[key])}
        assert moved and all(key.startswith("output_patch_embedding") == is_head for key in moved), name
    # What a whole run has trained is not what a part of it would begin with, nor the other way round.
    foreloom.train("chronos2-test", TINY, out=tmp_path / "whole")
    more = [*TINY, "training.steps=4"]
    with pytest.raises(ValueError, match=r"it holds model\.encoder\..*, which this run does not train"):
        foreloom.train("chronos2-test", [*more, *head], out=tmp_path / "whole", resume=True)
    with pytest.raises(ValueError, match=r"it holds model\.input_patch_embedding\..*, which this run does not train"):
        foreloom.train("chronos2-test", [*more, "training.train_only=[encoder.*]"], out=tmp_path / "body", resume=True)
    with pytest.raises(ValueError, match="does not fit this run's model"):
        foreloom.train("chronos2-test", more, out=tmp_path / "head", resume=True)
    with pytest.raises(ValueError, match="training.freeze: 'enc' fits no parameter"):
        foreloom.train("chronos2-test", [*TINY, "training.freeze=[enc]"], out=tmp_path / "none")
    with pytest.raises(ValueError, match="nothing is left to be trained"):
        foreloom.train("chronos2-test", [*TINY, "training.freeze=['*']"], out=tmp_path / "none")
    with pytest.raises(RecipeError, match="train_only and freeze say the same thing"):
        run.load("chronos2-test", [*TINY, *head, *body])
