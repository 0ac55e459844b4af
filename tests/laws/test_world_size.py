"""Law: a run depends neither on how many ranks share it, nor on how, nor on their number staying the same."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import torch

from foreloom.monitoring.metrics_file import read_metrics
from toy_run import launch, losses, train_here, weights


def assert_same_run(one: Path, other: Path) -> None:
    first, second = losses(one), losses(other)
    assert list(first) == list(second) == [1, 2, 3, 4, 5, 6]
    for step, loss in first.items():
        assert math.isclose(loss, second[step], rel_tol=1e-6), (other.name, step, loss, second[step])
    of_one, of_other = ([step["loss_terms"] for step in read_metrics(run).steps] for run in (one, other))
    assert of_one == of_other and of_one[0] > 0
    for name, tensor in weights(one).items():
        torch.testing.assert_close(
            weights(other)[name], tensor, rtol=1e-4, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}"
        )


def assert_same_text(one: Path, other: Path) -> None:
    """The same losses of held-out documents, and the same continuations of a prompt."""
    events = [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (one, other)]
    first, second = ([(e["step"], e["text"]) for e in its if e["kind"] == "continuation"] for its in events)
    assert first == second and [step for step, _ in first] == [0, 3, 6]
    first, second = ([e["loss"] for e in its if e["kind"] == "validation"] for its in events)
    assert len(first) == 3 and all(math.isclose(a, b, rel_tol=1e-6) for a, b in zip(first, second, strict=True))


def stopped_at_three(run_dir: Path, copy: Path) -> Path:
    """The run as it was after step 3."""
    return stopped_at(3, run_dir, copy)


def stopped_at(step: int, run_dir: Path, copy: Path) -> Path:
    """The run as it was after a step."""
    shutil.copytree(run_dir, copy, symlinks=True)
    for later in (path for path in (copy / "checkpoints").glob("step-*") if int(path.name[-8:]) > step):
        shutil.rmtree(later)
    (copy / "checkpoints" / "final").unlink()
    return copy


def test_one_to_four_ranks_train_alike_and_take_over_from_each_other(tmp_path: Path) -> None:
    families = ("toy", "chronos2", "chronos_bolt", "chronos_t5", "time_moe", "decoder", "lstm", "causal_lm")
    toy, chronos2, chronos_bolt, chronos_t5, time_moe, decoder, lstm, causal_lm = (
        {"family": family, "steps": 6, "save_steps": 3} for family in families
    )
    ddp, fsdp, hsdp = {"strategy": "ddp"}, {"strategy": "fsdp"}, {"strategy": "fsdp", "dp_replicate": 2}
    behind = {"checkpoint": {"background": True}}
    cut, recompute = {"micro_batch_size": 5}, {"activation_checkpointing": True}
    tokens, recurrent = ({"family": family, "steps": 6, "save_steps": 3} for family in ("toy_tokens", "toy_recurrent"))
    muon = chronos2 | {"optimizer": {"name": "muon"}, "parametrization": {"kind": "mup", "base_width": 16}}
    sgd = toy | {"optimizer": {"name": "sgd", "weight_decay": 0.1}}
    adapted = chronos2 | {"adapter": {"rank": 4, "dropout": 0.0}}
    adapted_experts = time_moe | {"adapter": {"rank": 2}}
    train_here(tmp_path / "adapted", **adapted)
    train_here(tmp_path / "adapted_experts", **adapted_experts)
    train_here(tmp_path / "muon", **muon)
    train_here(tmp_path / "sgd", **sgd)
    train_here(tmp_path / "toy", **toy)
    train_here(tmp_path / "toy_tokens", **tokens)
    train_here(tmp_path / "toy_recurrent", **recurrent)
    train_here(tmp_path / "chronos2", **chronos2)
    train_here(tmp_path / "chronos_bolt", **chronos_bolt)
    train_here(tmp_path / "chronos_t5", **chronos_t5)
    train_here(tmp_path / "time_moe", **time_moe)
    shows = {"validation": {"steps": 3, "prompts": ["Alice "], "prompt_tokens": 4}}
    # Of a gradient that is almost 0 Adam makes a step of how it was rounded, unless its epsilon is above that.
    causal_lm, decoder, lstm = (
        causal_lm | shows | {"optimizer": {"epsilon": 1e-6}},
        decoder | shows,
        lstm | {"validation": shows["validation"] | {"as_stream": True}},
    )
    train_here(tmp_path / "causal_lm", **causal_lm)
    train_here(tmp_path / "decoder", **decoder)
    train_here(tmp_path / "lstm", **lstm)

    two = [
        time_moe | ddp | {"run_dir": tmp_path / "time_moe-2-ddp"},
        time_moe | fsdp | cut | recompute | {"run_dir": tmp_path / "time_moe-2-fsdp"},
        causal_lm | ddp | {"run_dir": tmp_path / "causal_lm-2-ddp"},
        causal_lm | fsdp | cut | recompute | {"run_dir": tmp_path / "causal_lm-2-fsdp"},
        decoder | ddp | {"run_dir": tmp_path / "decoder-2-ddp"},
        decoder | fsdp | cut | recompute | {"run_dir": tmp_path / "decoder-2-fsdp"},
        lstm | ddp | cut | {"run_dir": tmp_path / "lstm-2-ddp"},
        lstm | fsdp | recompute | {"run_dir": tmp_path / "lstm-2-fsdp"},
        toy | ddp | cut | behind | {"run_dir": tmp_path / "toy-2-ddp"},
        tokens | fsdp | cut | {"run_dir": tmp_path / "toy_tokens-2-fsdp"},
        recurrent | ddp | cut | behind | {"run_dir": tmp_path / "toy_recurrent-2-ddp"},
        chronos_bolt | fsdp | cut | recompute | {"run_dir": tmp_path / "chronos_bolt-2-fsdp"},
        chronos2 | fsdp | cut | recompute | behind | {"run_dir": tmp_path / "chronos2-2-fsdp"},
        chronos_t5 | ddp | {"run_dir": tmp_path / "chronos_t5-2-ddp"},
        adapted | fsdp | cut | recompute | {"run_dir": tmp_path / "adapted-2-fsdp"},
        adapted_experts | fsdp | {"run_dir": tmp_path / "adapted_experts-2-fsdp"},
        muon | fsdp | cut | {"run_dir": tmp_path / "muon-2-fsdp"},
        sgd | ddp | {"run_dir": tmp_path / "sgd-2-ddp"},
        chronos_t5 | fsdp | cut | recompute | {"run_dir": tmp_path / "chronos_t5-2-fsdp"},
    ]
    half = chronos2 | {"precision": "bf16"}
    launch(2, [*two, half | fsdp | {"run_dir": tmp_path / "half-2-fsdp"}])
    train_here(tmp_path / "half", **half)
    alone, shared = losses(tmp_path / "half"), losses(tmp_path / "half-2-fsdp")
    # bf16 keeps 8 bits; which sums are rounded differs between one rank and two.
    assert all(math.isclose(alone[step], shared[step], rel_tol=5e-3) for step in alone)
    two_then_one = stopped_at_three(tmp_path / "chronos2-2-fsdp", tmp_path / "chronos2-2-1")
    train_here(two_then_one, **chronos2, resume=True)

    # The state of every stream goes along, whatever rank it was on.
    streams_on_one = stopped_at_three(tmp_path / "toy_recurrent-2-ddp", tmp_path / "toy_recurrent-2-1")
    train_here(streams_on_one, **recurrent, resume=True)
    lstm_on_one = stopped_at_three(tmp_path / "lstm-2-ddp", tmp_path / "lstm-2-1")
    train_here(lstm_on_one, **lstm, resume=True)
    streams_on_four = stopped_at_three(tmp_path / "toy_recurrent-2-ddp", tmp_path / "toy_recurrent-2-4")

    two_then_four = stopped_at_three(tmp_path / "toy-2-ddp", tmp_path / "toy-2-4")
    four = [
        toy | hsdp | behind | {"run_dir": two_then_four, "resume": True},
        recurrent | ddp | {"run_dir": streams_on_four, "resume": True},
        chronos2 | ddp | {"run_dir": tmp_path / "chronos2-4-ddp"},
    ]
    launch(4, four)
    uneven = tokens | {"batch_size": 25}
    train_here(tmp_path / "uneven", **uneven)
    four_then_three = stopped_at_three(tmp_path / "chronos2-4-ddp", tmp_path / "chronos2-4-3")
    streams_on_three = stopped_at_three(tmp_path / "toy_recurrent-2-ddp", tmp_path / "toy_recurrent-2-3")
    three = [
        chronos2 | fsdp | {"run_dir": four_then_three, "resume": True},
        recurrent | ddp | {"run_dir": streams_on_three, "resume": True},
        uneven | ddp | {"run_dir": tmp_path / "uneven-3-ddp"},
    ]
    launch(3, three)
    for family in ("causal_lm", "decoder", "lstm"):
        for way in ("ddp", "fsdp"):
            assert_same_text(tmp_path / family, tmp_path / f"{family}-2-{way}")
    for run_dir in (two_then_one, streams_on_one, lstm_on_one, *(run["run_dir"] for run in (*two, *four, *three))):
        assert_same_run(tmp_path / run_dir.name.partition("-")[0], run_dir)


def test_copies_shards_and_shared_experts_train_alike_and_take_over_from_each_other(tmp_path: Path) -> None:
    """2 x 2 ranks -> 2 that share one copy -> 1 -> 4, and experts over 2 of 4 -> over 2 -> on 1 -> over 4."""
    families = ("chronos2", "time_moe", "chronos_t5")
    runs = chronos2, time_moe, chronos_t5 = [
        {"family": family, "steps": 6, "save_steps": 1, "checkpoint": {"background": True}} for family in families
    ]
    fsdp, hsdp = {"strategy": "fsdp"}, {"strategy": "fsdp", "dp_replicate": 2, "dp_shard": 2}
    four, two, one, last = (
        [
            run | how | {"run_dir": tmp_path / f"{run['family']}-{name}"}
            for run, how in ((chronos2, dense), (time_moe, sparse), (chronos_t5, sparse))
        ]
        for name, dense, sparse in (
            ("4", hsdp, {"ep": 2}),
            ("2", fsdp, fsdp | {"ep": 2}),
            ("1", {}, {}),
            ("last", hsdp, hsdp | {"ep": 4, "micro_batch_size": 5}),
        )
    )
    for run in runs:
        train_here(tmp_path / run["family"], **run)
    launch(4, four)
    for family in families:
        stopped_at(2, tmp_path / f"{family}-4", tmp_path / f"{family}-2")
    launch(2, [run | {"resume": True} for run in two])
    for run in one:
        stopped_at(3, tmp_path / f"{run['family']}-2", run["run_dir"])
        train_here(**run, resume=True)
        stopped_at(4, run["run_dir"], tmp_path / f"{run['family']}-last")
    launch(4, [run | {"resume": True} for run in last])
    for run in (*four, *two, *one, *last):
        assert_same_run(tmp_path / run["family"], run["run_dir"])
