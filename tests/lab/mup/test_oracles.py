"""Multipliers and slopes beside those of microsoft/mup and CompleteP: ../shared/oracles/scaling, mup and depth.

The oracle's model is a decoder with four heads at every width, embeddings of N(0, 1) and torch's own initial linear
layers; 64 tokens, rows of 32, Adam with a learning rate of 2^-8.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from foreloom.data.loader import StepBatch
from foreloom.distributed.process import Process
from foreloom.lab.mup.coordinates import Check, check
from foreloom.lab.mup.trial import Bench
from foreloom.models.common.initialize import normal_by_name, uniform_by_name
from foreloom.models.common.parametrization import Growth, ParametrizationConfig, ScaledKind, mup
from foreloom.models.decoder.family import FAMILY
from foreloom.run.parametrize import explained
from foreloom.training.config import TrainingConfig
from foreloom.training.optimizer import OptimizerConfig

VOCABULARY, LENGTH, NUM_ROWS = 64, 32, 8
DATA = SimpleNamespace(its_tokenizer=SimpleNamespace(vocabulary_size=VOCABULARY, hf=None), max_seq_length=LENGTH)
SECTION = {"size": "test", "d_model": 64, "num_layers": 2, "num_heads": 4, "positions": "learned",
           "tie_embeddings": False, "init": "gpt"}  # fmt: skip


def stds(model: nn.Module) -> dict[str, float]:
    matrices = {name: p for name, p in model.named_parameters() if p.ndim > 1}
    return {
        name: 1.0 if name.startswith(("embedding", "positions")) else (3 * p.shape[1]) ** -0.5
        for name, p in matrices.items()
    }


def initialize(model: nn.Module, seed: int) -> None:
    for name, parameter in model.named_parameters():
        if (std := stds(model).get(name)) is None:
            nn.init.ones_(parameter)
        else:
            (normal_by_name if std == 1 else uniform_by_name)(parameter, name, seed, std)


ORACLE = dataclasses.replace(
    FAMILY,
    initialize=initialize,
    scaling=dataclasses.replace(FAMILY.scaling, stds=stds),
    batch=lambda module, rows, device: {"input_ids": rows.ids[:, :-1], "labels": rows.ids[:, 1:]},
)


class OracleBench(Bench):
    def __init__(self, tied: bool = False, **parametrization: Any) -> None:
        self.family, self.data = ORACLE, DATA
        self.section = FAMILY.config(**SECTION | {"tie_embeddings": tied})
        self.process = Process(0, 1, 0, torch.device("cpu"))
        self.training = TrainingConfig(steps=1, batch_size=NUM_ROWS, max_grad_norm=0.0, precision="fp32")
        self.optimizer = OptimizerConfig(learning_rate=2**-8, weight_decay=0.0)
        self.base_width = 64
        self._config = ParametrizationConfig(kind="mup", base_width=64, heads="wider", **parametrization)

    def batch(self) -> StepBatch:
        ids = torch.randint(VOCABULARY, (NUM_ROWS, LENGTH + 1), generator=torch.Generator().manual_seed(0))
        return StepBatch(0, NUM_ROWS, NUM_ROWS, [SimpleNamespace(ids=ids, sample_R=np.arange(NUM_ROWS))])


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as text:
        return list(csv.DictReader(text))


OURS = {"emb": "embedding", "pos": "positions", "lnf": "norm", "out": "head", "blocks.0.ln1": "layers.0.attention_norm",
        "blocks.0.ln2": "layers.0.feed_forward_norm", "blocks.0.qkv": "layers.0.attention.qkv",
        "blocks.0.o": "layers.0.attention.output", "blocks.0.up": "layers.0.feed_forward.input",
        "blocks.0.down": "layers.0.feed_forward.output"}  # fmt: skip
OURS |= {theirs.replace("0", "1"): ours.replace("0", "1") for theirs, ours in OURS.items() if "0" in theirs}


def test_multipliers_are_those_of_mup(shared) -> None:
    theirs = rows_of(shared / "oracles" / "scaling" / "mup" / "param_table_transformer.csv")
    bench = OracleBench()
    checked = 0
    for width in (64, 256):
        section = bench.section_at(width=width)
        tables = {
            name: explained(ORACLE, section, DATA, bench.config("mup"), OptimizerConfig(name=name))
            for name in ("adamw", "sgd")
        }
        for row in (row for row in theirs if int(row["width"]) == width):
            module, _, part = row["param"].rpartition(".")
            name = f"{OURS[module]}.weight"  # norms have no bias here, and a bias is a vector as a gain is
            adamw, sgd = (tables[optimizer].rows[name] for optimizer in ("adamw", "sgd"))
            assert adamw.multipliers.learning_rate == float(row["adam_lr_mult"])
            assert sgd.multipliers.learning_rate == float(row["sgd_lr_mult"])
            assert 0.1 * adamw.multipliers.weight_decay == pytest.approx(float(row["adamw_wd"]))
            if part == "weight" and adamw.std is not None:
                assert adamw.std == pytest.approx(float(row["init_std_measured"]), rel=0.03)
            checked += 1
        assert tables["adamw"].factors.logits == 64 / width
        # sqrt(64 / 4) / (width / 4), in place of 1 / sqrt(width / 4)
        assert tables["adamw"].factors.attention == pytest.approx(math.sqrt(64 / width))
    assert checked == len(theirs) == 42


def test_multipliers_by_depth_are_those_of_completep(shared) -> None:
    table = json.loads((shared / "oracles" / "scaling" / "depth" / "completep_multipliers.json").read_text())
    for row in table["rows"]:
        m, depth, alpha = row["m_N"], row["m_L"], row["alpha"]
        hidden, vector, table_row, head = (
            mup(kind, Growth(m, m, m), "adamw", depth=depth, alpha=alpha)
            for kind in (ScaledKind.HIDDEN, ScaledKind.VECTOR, ScaledKind.INPUT, ScaledKind.OUTPUT)
        )
        outside = [mup(kind, Growth(m, m, m), "adamw") for kind in (ScaledKind.VECTOR, ScaledKind.OUTPUT)]
        assert hidden.learning_rate == pytest.approx(row["hidden_lr"])
        assert hidden.init**2 == pytest.approx(row["hidden_init_var"])
        assert hidden.weight_decay == pytest.approx(row["hidden_wd"])
        assert hidden.epsilon == pytest.approx(row["hidden_eps"])
        assert vector.learning_rate == pytest.approx(row["bias_ln_lr"])
        assert table_row.learning_rate == row["embed_lr"] and outside[0].learning_rate == row["final_ln_lr"]
        assert head.forward == row["logit_mult"] and outside[1].learning_rate == row["unembed_lr"]


def step_one(found: Check) -> dict[str, float]:
    return {one.module: one.delta_slope for one in found.slopes if one.step == 1 and one.delta_slope is not None}


SLOPES = {"embedding": "emb_out", "logits": "logits"} | {
    f"layers.{i}.{ours}.output": f"blocks.{i}.{theirs}"
    for i in (0, 1)
    for ours, theirs in (("attention", "attn_out"), ("feed_forward", "mlp_out"))
}
"""Our modules, and what they are called in the oracle."""


@pytest.mark.parametrize(("kind", "theirs"), [("mup", "mup_own"), ("standard", "SP"), ("legacy-sqrt", "doc_sqrt")])
def test_slopes_by_width(shared, kind: str, theirs: str) -> None:
    rows = rows_of(shared / "oracles" / "scaling" / "mup" / "coordcheck_slopes_transformer.csv")
    expected = {
        row["module"]: float(row["slope_delta"]) for row in rows if (row["param"], row["step"]) == (theirs, "1")
    }
    found = check(OracleBench(), kind, "width", [64, 128, 256, 512], num_seeds=5, num_steps=1)
    slopes = step_one(found)
    for ours, module in SLOPES.items():
        assert slopes[ours] == pytest.approx(expected[module], abs=0.1), ours
    assert found.passes == (kind == "mup"), found.failures
