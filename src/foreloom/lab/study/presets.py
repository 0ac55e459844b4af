"""Studies that are asked for again and again, by name: `foreloom lab list` tells of them, `lab gen NAME` shows them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from foreloom.lab.study.experiments import (
    NARROW_LR_SWEEP,
    Experiment,
    create_multi_lr_experiments,
    gen_experim,
    gen_lstm_experim,
)

WIDTHS = (32, 48, 64, 96, 128)
SWEEP_WIDTHS = (32, 64, 128)
WIDTH = 64
"""Of studies at one width."""


class Preset(NamedTuple):
    """A study by name."""

    sentence: str
    build: Callable[[], list[Experiment]]


def _joined(lists: Sequence[list[Experiment]]) -> list[Experiment]:
    return [experiment for one in lists for experiment in one]


def _scaling() -> list[Experiment]:
    return _joined([gen_experim(width, label=f"{width}d") for width in WIDTHS])


def _optimal_lr() -> list[Experiment]:
    runs = [gen_experim(width, label=f"{width}d", depth_rule="fixed") for width in SWEEP_WIDTHS]
    return create_multi_lr_experiments(_joined(runs), NARROW_LR_SWEEP)


def _mup_lr_tune() -> list[Experiment]:
    its = {"depth_rule": "fixed", "use_mup": True, "mup_base_width": SWEEP_WIDTHS[0]}
    runs = [gen_experim(width, label=f"{width}d_mup", **its) for width in SWEEP_WIDTHS]
    return create_multi_lr_experiments(_joined(runs), NARROW_LR_SWEEP)


def _activation() -> list[Experiment]:
    plain = [gen_experim(WIDTH, label=f"{WIDTH}d_{name}", activation=name) for name in ("gelu", "relu", "silu")]
    gated = [
        gen_experim(WIDTH, label=f"{WIDTH}d_{name}_matched", activation=name, gated_width="matched")
        for name in ("glu", "swiglu")
    ]
    return _joined(plain + gated)


def _init() -> list[Experiment]:
    runs = [gen_experim(WIDTH, label=f"{WIDTH}d_{name}", init=name) for name in ("xavier", "kaiming", "gpt")]
    runs.append(gen_experim(WIDTH, label=f"{WIDTH}d_depth_scaled", init="depth_scaled"))
    runs.append(gen_experim(WIDTH, label=f"{WIDTH}d_mup", use_mup=True, mup_base_width=WIDTHS[0]))
    return _joined(runs)


def _optimizer() -> list[Experiment]:
    plain = {"adamw": 3e-3, "muon": 3e-3, "sgd": 0.1}
    runs = [
        gen_experim(WIDTH, label=f"{WIDTH}d_{name}_lr_{rate:g}", optimizer=name, learning_rate=rate)
        for name, rate in plain.items()
    ]
    for name in ("linear", "constant"):
        runs.append(gen_experim(WIDTH, label=f"{WIDTH}d_adamw_{name}", lr_schedule=name))
    runs.append(gen_experim(WIDTH, label=f"{WIDTH}d_adamw_wsd", lr_schedule="wsd", decay_ratio=0.2))
    return _joined(runs)


def _lstm_comparison() -> list[Experiment]:
    runs = [gen_experim(width, label=f"transformer_{width}d") for width in SWEEP_WIDTHS]
    return _joined(runs + [gen_lstm_experim(width, label=f"lstm_{width}d") for width in SWEEP_WIDTHS])


PRESETS: Mapping[str, Preset] = {
    "scaling": Preset("Decoders of five widths, 20 tokens a parameter.", _scaling),
    "optimal-lr": Preset("Five learning rates at three widths.", _optimal_lr),
    "mup-lr-tune": Preset("The same under muP, whose best rate stays where it is.", _mup_lr_tune),
    "activation": Preset("Five activations at one width, gated ones with as many parameters.", _activation),
    "init": Preset("Four schemes of initial values, and muP's.", _init),
    "optimizer": Preset("AdamW, Muon and SGD; and four schedules of the learning rate.", _optimizer),
    "lstm-comparison": Preset("Decoders beside LSTMs of the same widths.", _lstm_comparison),
}
