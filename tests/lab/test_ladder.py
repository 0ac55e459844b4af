"""Ladders: what is trained, what it saves, and that a rung is the run of its length."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file

from foreloom.lab.ladder import climb, plan_ladder
from foreloom.lab.runs import execute, plan

RECIPE = f"""
model:
  {{family: time_moe, size: test, use_dense: true, horizon_lengths: [8], hidden_size: 16, intermediate_size: 32}}
data:
  sources: [{{path: {Path(__file__).resolve().parents[2]}/examples/data/us_births.parquet, holdout: 16}}]
  context_length: 24
  prediction_length: 8
  normalization: zero
training: {{steps: 3, batch_size: 4, device: cpu, seed: 5}}
optimizer: {{learning_rate: 0.01, warmup_ratio: 0.3}}
validation: {{steps: 4}}
monitoring: {{log_steps: 2, trackers: [none]}}
"""
TWELVE = ["training.steps=12", "optimizer.warmup_ratio=0", "optimizer.warmup_steps=2"]
GO_ON = SimpleNamespace(signal_number=0)


@pytest.fixture
def recipe(tmp_path) -> Path:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path / "recipe.yaml"


def test_a_rung_is_the_run_of_its_length_bit_for_bit(recipe, tmp_path) -> None:
    ladder = plan_ladder(recipe, [12, 6], tmp_path / "ladder", cooldown=0.25)
    assert [(rung.num_steps, rung.num_cooldown, rung.first_cooldown_step) for rung in ladder.rungs] == [
        (6, 2, 4),
        (12, 3, 9),
    ]
    assert (ladder.num_steps, ladder.num_steps_alone) == (14, 18)
    outcomes = climb(ladder, tmp_path / "ladder", GO_ON)
    assert [(one.name, one.status, one.num_steps) for one in outcomes] == [
        ("rung-6", "finished", 6),
        ("rung-12", "finished", 12),
    ]

    alone = plan(
        recipe,
        [*TWELVE, "optimizer.schedule=wsd", "optimizer.decay_steps=3"],
        tmp_path / "alone",
    )
    (outcome,) = execute([alone], tmp_path, GO_ON)
    weights = [load_file(run.folder / "checkpoints/final/hf/model.safetensors") for run in (alone, ladder.rungs[1].run)]
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[0])
    assert outcome.loss == outcomes[1].loss and outcome.flops == outcomes[1].flops

    again = climb(ladder, tmp_path / "ladder", GO_ON)
    assert [one.seconds for one in again] == [one.seconds for one in outcomes]  # nothing was trained twice


@pytest.mark.parametrize(
    ("lengths", "overrides", "expected"),
    [
        ([6, 6], [], r"the rungs \[6, 6\] are to be different"),
        (
            [3, 9],
            ["optimizer.warmup_ratio=0", "optimizer.warmup_steps=3"],
            "a rung of 3 steps has 1 of cooldown and 3 of",
        ),
        ([6], ["validation.patience=2"], "add validation.patience=0"),
    ],
)
def test_ladders_that_cannot_be(recipe, tmp_path, lengths, overrides, expected) -> None:
    with pytest.raises(ValueError, match=expected):
        plan_ladder(recipe, lengths, tmp_path, overrides=overrides)
