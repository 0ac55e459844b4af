"""A step on many ranks that are not there sends what the formula says, and holds what is counted."""

from __future__ import annotations

import pytest

from foreloom.config.shipped import find_recipe
from foreloom.plan.simulate import simulate
from foreloom.run.memory import count_memory
from foreloom.run.recipe import data_of, load

SMALL = ("data.context_length=96", "data.prediction_length=32")
CHRONOS2 = ("model.d_model=64", "model.d_kv=16", "model.d_ff=128", "model.num_layers=3", *SMALL)
CASES = {
    "chronos2-test": (*CHRONOS2, "training.batch_size=64", "training.activation_checkpointing=true"),
    "time-moe-etth1": (
        *SMALL,
        "data.stride=null",
        "training.epochs=null",
        "training.steps=9",
        "training.precision=fp32",
    ),
    "lstm-tiny": ("data.max_seq_length=32",),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_sent_is_what_the_formula_says(name: str) -> None:
    """But for the handful of numbers of loss, norm and tally. Time-MoE has fewer experts than there are ranks."""
    recipe = load(find_recipe(name), CASES[name], need_data=False)
    found = simulate(recipe, 8)
    for kind in ("all-gather", "reduce-scatter"):
        assert found.sent_bytes[kind] == pytest.approx(found.formula_bytes[kind], rel=1e-6), kind
    assert found.formula_bytes["all-reduce"] == 0 and found.sent_bytes["all-reduce"] < 20_000
    counted = count_memory(
        load(find_recipe(name), [*CASES[name], "parallel.strategy=fsdp"], need_data=False),
        data_of(recipe).full_rows,
        found.num_rows,
        device="cuda",
        world_size=8,
    )
    for term in ("weights", "gradients", "optimizer"):
        assert counted.terms[term] == pytest.approx(found.held_bytes[term], rel=0.02), term


SHARED = {
    "time-moe-etth1": (*CASES["time-moe-etth1"][:-1], "training.precision=bf16"),
    "chronos-t5-tiny-moe-sample": (*CHRONOS2[:3], *SMALL, "model.num_layers=1", "model.load_balancing_weight=0"),
}


@pytest.mark.parametrize("name", SHARED)
def test_shared_experts_are_held_and_sent_as_counted(name: str) -> None:
    """Experts over 2 ranks, of which there are 4 such groups; all else over all 8."""
    recipe = load(find_recipe(name), [*SHARED[name], "parallel.strategy=fsdp", "parallel.ep=2"], need_data=False)
    found = simulate(recipe, 8)
    assert found.sent_bytes["all-to-all"] == found.formula_bytes["all-to-all"] > 10_000
    for kind in ("all-gather", "reduce-scatter"):
        assert found.sent_bytes[kind] == pytest.approx(found.formula_bytes[kind], rel=1e-6), kind
    assert found.sent_bytes["all-reduce"] == pytest.approx(found.formula_bytes["all-reduce"], rel=0.05)
    counted = count_memory(recipe, data_of(recipe).full_rows, found.num_rows, device="cuda", world_size=8)
    for term in ("weights", "gradients", "optimizer"):
        assert counted.terms[term] == pytest.approx(found.held_bytes[term], rel=0.02), term
    experts = {one.name: one for one in found.tensors if ".experts." in one.name}
    assert len(experts) >= 2 and all(one.first_rows == one.last_rows == one.shape[0] // 2 for one in experts.values())


def test_copies_add_their_shares_and_micro_batches_gather_anew() -> None:
    recipe = load(find_recipe("chronos2-test"), [*CHRONOS2, "training.batch_size=64", "parallel.dp_shard=4"])
    once = simulate(recipe, 8)
    assert (once.dp_replicate, once.dp_shard, once.num_micro_batches) == (2, 4, 1)
    assert once.sent_bytes["all-reduce"] == pytest.approx(once.formula_bytes["all-reduce"], rel=0.1)
    assert once.formula_bytes["all-reduce"] > 10_000
    cut = ["training.batch_size=64", "training.micro_batch_size=4", "parallel.dp_shard=4"]
    twice = simulate(load(find_recipe("chronos2-test"), [*CHRONOS2, *cut]), 8)
    assert twice.num_micro_batches == 2
    assert twice.sent_bytes["all-gather"] == pytest.approx(2 * once.sent_bytes["all-gather"])
    assert twice.sent_bytes["reduce-scatter"] == once.sent_bytes["reduce-scatter"]
