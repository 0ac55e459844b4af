"""Ladders: what is trained, what it saves, and that a rung is the run of its length."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file

from foreloom.lab import create_ladder_experiments, gen_experim, ladder, runs
from foreloom.lab.study import execution
from foreloom.lab.study.execution import execute
from foreloom.lab.study.experiments import flat
from foreloom.lab.study.locks import locked
from foreloom.lab.study.resolve import Planned, resolve
from foreloom.lab.study.results import read_outcome
from foreloom.lab.study.table import table_of

TEXT = "The rung of a ladder is the run of its length. "
RECIPE = """
model: {family: decoder, size: tiny, d_model: 16, num_layers: 1, num_heads: 2}
data: {sources: [{path: text.txt}], tokenizer: bytes, max_seq_length: 16, packing: blocks}
training: {steps: 3, batch_size: 4, device: cpu, seed: 5}
optimizer: {learning_rate: 0.01, warmup_ratio: 0.3}
monitoring: {log_steps: 2, trackers: [none]}
"""
A_STEP = 4 * 16
GO_ON = SimpleNamespace(signal_number=0)


@pytest.fixture
def recipe(tmp_path) -> Path:
    (tmp_path / "text.txt").write_text(TEXT * 40)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path / "recipe.yaml"


def rungs(recipe: Path, lengths: list[int], cooldown: float = 0.25, **overrides) -> list[Planned]:
    one = gen_experim(16, "a", recipe=str(recipe), depth_rule="fixed", **{"warmup_steps": 2, **overrides})
    study = create_ladder_experiments(one, [A_STEP * length for length in lengths], cooldown=cooldown)
    return [resolve(*run) for run in flat(study, "ladder")]


def test_a_rung_is_the_run_of_its_length_bit_for_bit(recipe, tmp_path, trainings_here) -> None:
    planned = rungs(recipe, [12, 6])
    facts = [(one.facts["num_steps"], one.facts["num_cooldown_steps"]) for one in planned]
    assert facts == [(6, 2), (12, 3)]
    assert "14 are trained, not 18 (-22%)" in " ".join(table_of(planned, "").notes)
    assert execute(planned, tmp_path, GO_ON) == 0
    folder = tmp_path / "ladder"
    pieces = sorted(one.name.partition("-")[2].partition("-")[2] for one in folder.glob("runs/trunk-*[0-9]"))
    assert pieces == ["4", "9"] and sorted(one.name for one in folder.glob("*.csv")) == [
        "a_384_tokens.csv",
        "a_768_tokens.csv",
    ]

    alone = runs.plan(recipe, planned[1].overrides, tmp_path / "alone")
    (outcome,) = runs.execute([alone], tmp_path, GO_ON)
    weights = [load_file(at / "checkpoints/final/hf/model.safetensors")
               for at in (alone.folder, folder / "runs" / "a_768_tokens")]  # fmt: skip
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[0])
    rung = read_outcome(folder, "a_768_tokens")
    assert rung is not None and (rung.flops, rung.training_loss) == (outcome.flops, outcome.training_loss)


def test_the_shortest_is_trained_first_in_whatever_order_they_are_named(recipe, tmp_path, monkeypatch) -> None:
    trained = []

    def train(planned, run, others, results, stop):
        trained.append(planned.facts["num_steps"])
        return runs.Outcome(run.name, "", [], "", "finished")

    monkeypatch.setattr(execution, "_train", train)
    long, short = reversed(rungs(recipe, [12, 6]))
    assert execute([long, short], tmp_path, GO_ON) == 0 and trained == [6, 12]


def test_a_piece_of_trunk_that_two_rungs_have_is_trained_by_one_process(recipe, tmp_path, monkeypatch) -> None:
    (ten,), (twelve,) = rungs(recipe, [10], 0.2), rungs(recipe, [12], 1 / 3)
    trunks = {ladder.trunk_of(execution.as_run(one, tmp_path)).name for one in (ten, twelve)}
    assert len(trunks) == 1 and trunks.pop().endswith("-8")
    held, trained = ExitStack(), []

    def advance(run, stop, earlier):
        trained.append((run.name.partition("-")[0], *(tmp_path / "ladder" / execution.LOCKS).glob("trunk-*")))
        return runs.Outcome(run.name, "", [], "", "failed"), False

    def say(sentence):
        if "waits for process" in sentence:
            assert not trained
            held.close()

    monkeypatch.setattr(ladder, "advance", advance)
    monkeypatch.setattr(execution, "say", say)
    monkeypatch.setattr(execution, "WAIT_SECONDS", 0)
    name = ladder.trunk_of(execution.as_run(ten, tmp_path)).name
    held.enter_context(locked(tmp_path / "ladder" / execution.LOCKS, name))
    assert execute([ten], tmp_path, GO_ON) == 1
    assert trained == [("trunk", tmp_path / "ladder" / execution.LOCKS / f"{name}.1")], "under a lock of its own"
    with locked(tmp_path / "ladder" / execution.LOCKS, name):
        stopping = SimpleNamespace(signal_number=15)
        assert execute([twelve], tmp_path, stopping) == 143 and len(trained) == 1, "a wait can be stopped"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"lengths": [3], "warmup_steps": 3}, "3 steps with 1 of cooldown and 3 of warm-up leave nothing between"),
        ({"lengths": [9], "warmup_ratio": 0.1, "warmup_steps": 0}, "another warm-up for each; give warmup_steps"),
        ({"lengths": [9], "cooldown": 1.5}, "cooldown"),
    ],
)
def test_ladders_that_cannot_be(recipe, settings, expected) -> None:
    with pytest.raises(ValueError, match=expected):
        rungs(recipe, **settings)
