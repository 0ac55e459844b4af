"""TSM-Trainer files become recipes, and the guide's table says what the translation does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from foreloom import run
from foreloom.cli import translate_tsm as tsm
from foreloom.cli.train import flag_of_trainers
from foreloom.config.located import RecipeError

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "migration.md"

STAGE_1 = """\
random_init: true
d_model: 512
num_layers: 6
num_heads: 8
d_ff: 2048
context_length: 2048
prediction_length: 64
input_patch_size: 16
output_patch_size: 16
time_encoding_scale: 8192
quantiles: [0.1, 0.5, 0.9]
training_data_paths: [a, b]
probability: [0.9, 0.1]
max_train_series: 1000
max_steps: 20
per_device_train_batch_size: 12
gradient_accumulation_steps: 2
learning_rate: 1e-4
lr_scheduler_type: linear
adam_beta2: 0.98
fsdp: full_shard auto_wrap
report_to: tensorboard
health_report_interval: 1000
gradient_checkpointing: true
"""


def translate(tmp_path: Path, text: str, devices: int = 1) -> str:
    path = tmp_path / "old.yaml"
    path.write_text(text)
    return tsm.translate(path, devices=devices)


def test_the_translation_is_a_valid_recipe_that_means_the_same(tmp_path):
    text = translate(tmp_path, STAGE_1, devices=8)
    (tmp_path / "new.yaml").write_text(text)
    sections = run.load(tmp_path / "new.yaml", need_data=False).sections
    assert (sections["model"].d_model, sections["model"].num_layers) == (512, 6)
    assert sections["model"].quantiles == (0.1, 0.5, 0.9)
    assert (sections["model"].context_length, sections["model"].time_encoding_scale) == (2048, 8192)
    assert [(s.path, s.weight, s.max_series) for s in sections["data"].sources] == [("a", 0.9, 900), ("b", 0.1, 100)]
    assert (sections["training"].batch_size, sections["training"].micro_batch_size) == (12 * 2 * 8, 12)
    assert sections["training"].activation_checkpointing
    assert (sections["optimizer"].schedule, sections["optimizer"].betas) == ("linear", (0.9, 0.98))
    assert sections["parallel"].strategy == "fsdp"
    assert (sections["monitoring"].health_steps, sections["monitoring"].trackers) == (1000, ("tensorboard",))


def test_the_time_scale_follows_the_context_where_it_was_not_given(tmp_path):
    text = translate(tmp_path, STAGE_1.replace("time_encoding_scale: 8192\n", ""))
    assert yaml.safe_load(text)["model"]["time_encoding_scale"] == 2048


def test_fine_tuning_keeps_what_the_checkpoint_decides_out(tmp_path):
    text = translate(tmp_path, STAGE_1.replace("random_init: true", "random_init: false\nmodel_id: amazon/chronos-2"))
    assert yaml.safe_load(text)["model"] == {"family": "chronos2", "pretrained": "amazon/chronos-2"}
    assert "d_model: the checkpoint decides" in text


def test_errors_of_an_old_file_at_once(tmp_path):
    with pytest.raises(RecipeError) as caught:
        translate(
            tmp_path,
            "random_init: false\nlearning_rte: 1\ntraining_data_paths: [a, b]\nprobability: [1]\n"
            "input_patch_size: 16\noutput_patch_size: 8\nlr_scheduler_type: cosinus\ncontext_length: 64\n"
            "max_steps: 9\n",
        )
    problems = [problem.split("old.yaml:")[1].strip() for problem in caught.value.problems]
    assert problems == [
        "2: learning_rte: not a TSM-Trainer key. Did you mean learning_rate?",
        "1: random_init: false needs a model_id to start from.",
        "prediction_length: is required and not given.",
        "4: probability: 1 numbers for 2 data paths.",
        "5: the patch sizes must be equal, got {'input_patch_size': 16, 'output_patch_size': 8}.",
        "7: lr_scheduler_type: 'cosinus' is not one of cosine, linear, constant, constant_with_warmup, "
        "warmup_stable_decay.",
    ]


def test_trackers_validation_and_benchmark_are_translated(tmp_path):
    more = STAGE_1.replace("report_to: tensorboard", "report_to: [tensorboard, wandb, comet_ml]") + (
        "save_steps: 10\nvalidation_data_paths: v.arrow\nmax_val_series: 7\n"
        "benchmark_config: configs/lite-benchmark.yaml\nbenchmark_eval_steps: 10\nbenchmark_tier2_config: mine.yaml\n"
        "benchmark_composite_weights: {wql: 0.6, mase: 0.4}\nbenchmark_checkpoint_metric: composite\n"
        "benchmark_datasets_root: root\nbenchmark_top_k_checkpoints: 2\nbenchmark_eval_timeout: 600\n"
    )
    text = translate(tmp_path, more)
    assert "report_to: comet_ml: no such tracker here" in text and "benchmark_eval_timeout: a benchmark has no" in text
    (tmp_path / "new.yaml").write_text(text)
    sections = run.load(tmp_path / "new.yaml", need_data=False).sections
    assert sections["monitoring"].trackers == ("tensorboard", "wandb")
    validation, benchmark = sections["validation"], sections["benchmark"]
    assert [(one.path, one.holdout) for one in validation.sources] == [("v.arrow", 64)]
    assert (validation.steps, validation.max_windows, validation.restores) == (10, 7, True)
    assert (benchmark.steps, benchmark.suite, benchmark.data_root) == (10, "chronos-lite", "root")
    assert (benchmark.extended_steps, benchmark.extended_suite) == (20_000, "mine.yaml")
    assert (benchmark.metric, benchmark.weights, benchmark.batch_size) == ("composite", (0.6, 0.4), 32)
    assert sections["checkpoint"].keep_best == 2
    idle = translate(tmp_path, STAGE_1 + "benchmark_eval_steps: 10\n")
    assert "benchmark_eval_steps: has no effect without benchmark_config" in idle
    assert yaml.safe_load(translate(tmp_path, STAGE_1.replace(": tensorboard", ": none")))["monitoring"][
        "trackers"
    ] == ["none"]


def test_the_guide_lists_every_key_with_its_place():
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", GUIDE.read_text(), flags=re.MULTILINE))
    assert {key: text for key, text in rows.items() if key in tsm.RENAMED} == {
        key: f"`{place}`" for key, place in tsm.RENAMED.items()
    }
    assert {key: text for key, text in rows.items() if key not in tsm.RENAMED} == tsm.FOLDED | tsm.DROPPED


def test_the_guide_lists_the_fourteen_flags():
    of_tsm = GUIDE.read_text().partition("# Coming from a run_clm.py")[0]
    flags = re.findall(r"^\| `(--[\w-]+)", of_tsm, flags=re.MULTILINE)
    assert len(flags) == len(set(flags)) == 14
    assert all(map(flag_of_trainers, flags)), "each is met with what it is called here"
    time_moe = re.findall(r"^\| `(-\w|--\w+)", GUIDE.with_name("fine_tuning.md").read_text(), flags=re.MULTILINE)
    assert len(time_moe) > 10 and all(map(flag_of_trainers, time_moe))
