"""`foreloom plan` on small recipes: every family is counted, and what is printed hangs together."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from foreloom.cli import app
from foreloom.config.shipped import find_recipe
from foreloom.plan.cluster import find_cluster
from foreloom.plan.ways import plan
from foreloom.run.recipe import load

SMALL = ("model.d_model=64", "model.d_kv=16", "model.d_ff=128", "data.context_length=96", "data.prediction_length=32")
RECIPES = {
    "chronos2-test": (*SMALL, "training.batch_size=64", "model.num_layers=2"),
    "chronos-bolt-tiny": ("model.d_model=64", "model.d_kv=16", "model.d_ff=256", "model.num_layers=2"),
    "chronos-t5-tiny-moe-sample": (*SMALL, "model.num_layers=2"),
    "time-moe-etth1": (*SMALL[3:], "data.stride=null", "training.epochs=null", "training.steps=10", "parallel.ep=2"),
    "lstm-tiny": ("data.max_seq_length=4",),  # each of its steps is counted
    "decoder-tiny": ("data.max_seq_length=32",),
    "tiny-lm": ("data.max_seq_length=48",),
}


@pytest.mark.parametrize("name", RECIPES)
def test_every_family_has_a_plan(name: str) -> None:
    recipe = load(find_recipe(name), RECIPES[name], need_data=False)
    cluster, precision = find_cluster("auto", gpu="a10g", num_gpus=16, per_machine=8, mfu=0.3, price=1.0)
    found = plan(recipe, cluster, precision)
    assert [(way.name, way.dp_replicate, way.dp_shard) for way in found.ways] == [
        ("DDP", 16, 1),
        ("FSDP2", 1, 16),
        ("HSDP", 2, 8),
    ] * 2
    assert [way.recomputes for way in found.ways] == [False] * 3 + [True] * 3
    assert sum(way.is_recipes for way in found.ways) == 1 and found.fits and found.flops_per_row > 0
    share, shares = -(-found.batch_size // 16), "parallel.ep=2" in RECIPES[name]
    for way in found.ways:
        assert way.fits == share and way.num_micro_batches == 1  # all of them are small
        assert way.memory.total == sum(way.memory.terms.values()) <= found.budget_bytes
        assert way.run is not None and way.run.seconds == pytest.approx(way.step.total * (found.num_steps or 0))
        assert (way.moved["all-reduce"] > 0) == (way.name != "FSDP2" or shares)  # experts have copies then
        assert (way.moved["all-to-all"] > 0) == shares
    ddp, fsdp, hsdp = found.ways[:3]
    assert (
        fsdp.memory.terms["optimizer"]
        < hsdp.memory.terms["optimizer"]
        < ddp.memory.terms["optimizer"] / (1 if shares else 4)
    )
    kept, again = ddp.memory.terms["activations"], found.ways[3].memory.terms["activations"]
    assert again < kept or name == "lstm-tiny"  # whose one block is all there is
    assert found.ways[3].step.compute == pytest.approx(ddp.step.compute * 4 / 3)
    assert found.to_json()["ways"][0]["step"]["total"] == ddp.step.total


def test_what_is_printed_stays_whole_at_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    asked = ["plan", "chronos2-test", *RECIPES["chronos2-test"], "--gpus", "16", "--gpu", "a100-80gb"]
    printed = CliRunner().invoke(app, asked)
    assert printed.exit_code == 0, printed.output
    assert max(map(len, printed.output.splitlines())) <= 80
    for word in ("DDP", "FSDP2", "HSDP", "2 copies", "activ.", "DDP *", "mfu", "not stated (--price)", "64 exactly"):
        assert word in " ".join(printed.output.split()), word
    alone = CliRunner().invoke(app, [*asked[:-4], "--gpu", "a100-80gb", "--json"])
    found = json.loads(alone.output)
    assert [way["name"] for way in found["ways"]] == ["one device"] * 2
    assert found["flops_per_step"] == found["flops_per_row"] * 64


def test_what_does_not_fit_says_what_would() -> None:
    asked = ["plan", "chronos2-test", *RECIPES["chronos2-test"], "--gpus", "2", "--memory", "1MB", "--peak", "1e12"]
    printed = CliRunner().invoke(app, asked)
    text = " ".join(printed.output.split())
    assert printed.exit_code == 1 and "no row" in text
    assert "Nothing fits: of all ways" in text and "As many of these would do, and of larger ones: v100-16gb" in text
    assert "More of these GPUs would not do" in text
    with pytest.raises(ValueError, match="parallel.ep: 16 ranks cannot share . experts evenly"):
        shared = load(
            find_recipe("time-moe-etth1"), [*RECIPES["time-moe-etth1"][:-1], "parallel.ep=16"], need_data=False
        )
        plan(shared, find_cluster("auto", gpu="a10g", num_gpus=16, per_machine=8, mfu=0.3)[0], "bf16")
    with pytest.raises(ValueError, match="3 x 5, but there are 16 ranks"):
        recipe = load(find_recipe("chronos2-test"), [*RECIPES["chronos2-test"], "parallel.dp_replicate=3"])
        plan(recipe, find_cluster("auto", gpu="a10g", num_gpus=16, per_machine=8, mfu=0.3)[0], "bf16")
