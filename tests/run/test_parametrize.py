"""What every family's parameters are multiplied by, and that a folded factor trains as one of the forward."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize as torch_parametrize

from foreloom.data.text.section import TextData
from foreloom.distributed.process import Process
from foreloom.models.common.parametrization import Multipliers, ParametrizationConfig
from foreloom.models.family import WindowLengths
from foreloom.models.registry import get
from foreloom.run.parametrize import Parametrized, parametrize, resized
from foreloom.training.optimizer import OptimizerConfig, build_optimizer
from foreloom.training.step import fill_missing, global_totals
from foreloom.training.stopwatch import Stopwatch

LENGTHS = WindowLengths(32, 16)
SMALL = {
    "chronos2": {"size": "test", "d_model": 32, "d_kv": 8, "d_ff": 64, "num_heads": 4, "dropout_rate": 0.0},
    "chronos_bolt": {"size": "tiny", "d_model": 32, "d_kv": 8, "d_ff": 64, "num_heads": 4, "dropout_rate": 0.0},
    "time_moe": {"size": "test", "hidden_size": 32, "intermediate_size": 64, "horizon_lengths": (1, 8)},
    "chronos_t5": {"size": "tiny", "d_model": 32, "d_kv": 8, "d_ff": 64, "num_heads": 4, "num_layers": 2,
                   "n_tokens": 64, "dropout_rate": 0.0},
    "chronos_t5 causal": {"size": "tiny", "model_type": "causal", "d_model": 32, "d_ff": 64, "num_heads": 4,
                          "num_layers": 2, "n_tokens": 64, "dropout_rate": 0.0},
}  # fmt: skip
"""Small models by family, and a variant behind the name."""
CPU = Process(rank=0, world_size=1, local_rank=0, device=torch.device("cpu"))


def small(case: str):
    family = get(case.split()[0])
    return family, family.config(**SMALL[case])


def arguments(case: str) -> dict[str, Tensor]:
    """A batch of the family's forward."""
    generator = torch.Generator().manual_seed(0)
    if case.startswith("chronos_t5"):
        ids = torch.randint(2, 64, (4, 33), generator=generator)
        length = 33 if "causal" in case else 17
        return {"input_ids": ids, "labels": ids[:, :length]}
    series = torch.randn(4, 48, generator=generator).cumsum(1)
    if case == "time_moe":
        return {"input_ids": series[:, :-1], "labels": series[:, 1:]}
    future = "target" if case == "chronos_bolt" else "future_target"
    return {"context": series[:, :32], future: series[:, 32:]}


def of(case: str, optimizer: OptimizerConfig, width: int, **settings) -> Parametrized:
    family, section = small(case)
    config = ParametrizationConfig(kind="mup", base_width=32, **settings)
    return parametrize(family, resized(family, section, config, width), LENGTHS, config, optimizer)


@pytest.mark.parametrize("case", SMALL)
def test_the_base_model_is_what_standard_makes_of_it(case: str) -> None:
    family, section = small(case)
    for name in ("adamw", "sgd", "muon"):
        for settings in ({}, {"depth": "completep", "base_depth": 4 if "bolt" in case else 2}):
            scaled = of(case, OptimizerConfig(name=name), 32, **settings)
            assert scaled.section == section
            assert set(scaled.multipliers.values()) == {Multipliers()}
            assert {row.init_scale for row in scaled.rows.values()} == {1.0}
    with torch.device("meta"):
        names = {name for name, _ in family.build(section, LENGTHS).named_parameters()}
    assert scaled.rows.keys() == names  # every parameter, once


@pytest.mark.parametrize("case", SMALL)
def test_any_base_gives_the_same_multipliers_between_two_widths(case: str) -> None:
    family, section = small(case)
    adamw = OptimizerConfig()

    def rates(base: int, width: int) -> dict[str, float]:
        config = ParametrizationConfig(kind="mup", base_width=base)
        model = resized(family, section, config, width)
        rows = parametrize(family, model, LENGTHS, config, adamw).rows
        return {name: row.multipliers.learning_rate * (row.std or 1.0) for name, row in rows.items()}

    before, ratios = None, []
    for base in (32, 64, 128):
        before, after = rates(base, 64), rates(base, 128)
        ratios.append({name: after[name] / before[name] for name in after})
    assert ratios[0] == pytest.approx(ratios[1])
    assert ratios[0] == pytest.approx(ratios[2])
    assert rates(32, 72).keys() == before.keys()  # no multiple of any of them


class Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def train(model: nn.Module, names: list[str], scaled: dict[str, Multipliers], optimizer: OptimizerConfig, case: str):
    """Losses and gradient norms of some updates, clipped where the norm is above 0.5."""
    parameters = list(model.parameters())
    kinds = dict(zip(names, get(case.split()[0]).kinds(model).values(), strict=True))
    built = build_optimizer(
        optimizer, zip(names, parameters, strict=True), kinds, max_grad_norm=0.5, multipliers=scaled
    )
    found = []
    for _ in range(3):
        built.zero_grad()
        output = model(**arguments(case))
        output.objective.sum.backward()
        fill_missing(parameters)
        sums = torch.stack([output.objective.sum.detach().double(), output.objective.count.double()])
        scales = [scaled[name].gradient for name in names]
        totals, _ = global_totals(sums, parameters, CPU, Stopwatch(CPU.device), scales=scales)
        assert built.update(totals, optimizer.learning_rate) == 1
        found.append(totals[:2])
    return torch.stack(found)


@pytest.mark.parametrize(
    ("case", "name"), [*((case, name) for case in SMALL for name in ("adamw", "sgd")), ("chronos2", "muon")]
)
def test_a_folded_factor_trains_as_a_factor_of_the_forward(case: str, name: str) -> None:
    momentum = {} if name == "adamw" else {"nesterov": False}
    optimizer = OptimizerConfig(name=name, learning_rate=2**-8, weight_decay=0.5, **momentum)
    heads, depth = ("wider", 4 if "bolt" in case else 2) if name == "adamw" else ("more", 1)
    scaled = of(case, optimizer, 128, heads=heads, depth="completep", base_depth=depth, output_scale=2.0)
    family = get(case.split()[0])
    folded, reference = (family.build(scaled.section, LENGTHS) for _ in range(2))
    names = [key for key, _ in folded.named_parameters()]
    for model in (folded, reference):
        family.initialize(model, 3)
        scaled.scale(model)
        model.train()
    rules = {}
    with torch.no_grad():
        for key, row in scaled.rows.items():
            rules[key] = row.rule._replace(forward=1.0)
            if row.fold != 1:
                owner, _, attribute = key.rpartition(".")
                module = reference.get_submodule(owner)
                getattr(module, attribute).div_(row.fold)
                torch_parametrize.register_parametrization(module, attribute, Times(row.fold), unsafe=True)
    assert any(row.fold != 1 for row in scaled.rows.values())
    by_name = {key.replace("parametrizations.", "").removesuffix(".original"): p for key, p in
               reference.named_parameters()}  # fmt: skip
    order = list(by_name)
    ours = train(folded, names, scaled.multipliers, optimizer, case)
    theirs = train(reference, order, rules, optimizer, case)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    effective = {key: p * scaled.rows[key].fold for key, p in by_name.items()}
    for key, p in folded.named_parameters():
        torch.testing.assert_close(p, effective[key], rtol=1e-3, atol=3e-6, msg=lambda m, k=key: f"{k}: {m}")


@pytest.mark.parametrize("case", SMALL)
def test_the_scale_of_the_output_is_the_heads_alone(case: str) -> None:
    plain, scaled = (of(case, OptimizerConfig(), 64, output_scale=scale) for scale in (1.0, 4.0))
    ends = ("output_patch_embedding.output_layer.weight", "output_patch_embedding.residual_layer.weight", "lm_heads.0.",
            "lm_heads.1.", "lm_head.weight", "final_layer_norm.weight", "ln_f.", "head.weight")  # fmt: skip
    changed = [name for name, row in scaled.rows.items() if row.fold != plain.rows[name].fold]
    assert changed and all(any(end in name for end in ends) for name in changed), changed
    assert {round(scaled.rows[name].fold / plain.rows[name].fold, 9) for name in changed} == {4.0}
    for tied in (True, False):
        decoder = get("decoder")
        config = ParametrizationConfig(kind="mup", base_width=32, output_scale=4.0)
        section = decoder.config(size="test", d_model=64, tie_embeddings=tied)
        text = TextData(sources=({"path": "a"},), tokenizer="bytes")
        assert parametrize(decoder, section, text, config, OptimizerConfig()).section.logit_scale == 2.0


def test_what_does_not_fit_is_told() -> None:
    family = get("chronos2")
    with pytest.raises(ValueError, match="output_scale has no effect with kind: legacy-sqrt"):
        ParametrizationConfig(kind="legacy-sqrt", base_width=64, output_scale=2.0)
    with pytest.raises(ValueError, match="base_width has no effect with kind: standard"):
        ParametrizationConfig(base_width=64)
    with pytest.raises(ValueError, match="depth has no effect with kind: legacy-sqrt"):
        ParametrizationConfig(kind="legacy-sqrt", base_width=64, depth="completep", base_depth=2)
    with pytest.raises(ValueError, match="kind: mup needs base_width"):
        ParametrizationConfig(kind="mup")
    with pytest.raises(ValueError, match="depth and base_depth go together"):
        ParametrizationConfig(kind="mup", base_width=64, depth="completep")
    config, adamw = ParametrizationConfig(kind="mup", base_width=64), OptimizerConfig()
    with pytest.raises(ValueError, match="a pretrained model begins with weights of its own"):
        parametrize(family, family.config(pretrained="somewhere"), LENGTHS, config, adamw)
    with pytest.raises(ValueError, match="the family causal_lm has no rules for its width; chronos2, .*decoder"):
        parametrize(get("causal_lm"), None, LENGTHS, config, adamw)
    causal, config = small("chronos_t5 causal")[1], ParametrizationConfig(kind="mup", base_width=30, heads="wider")
    with pytest.raises(ValueError, match="a width of 30 does not divide into 4 heads; choose a multiple of 4"):
        parametrize(get("chronos_t5"), causal, LENGTHS, config, adamw)


def test_weight_decay_is_as_in_the_base_model_or_its_own() -> None:
    optimizer = OptimizerConfig(learning_rate=0.25, weight_decay=0.1)
    for settings, expected in (({}, 0.25 * 0.1), ({"weight_decay": "independent"}, 0.1)):
        rows = of("chronos2", optimizer, 128, **settings).rows.values()
        taken = {0.25 * row.multipliers.learning_rate * 0.1 * row.multipliers.weight_decay for row in rows}
        assert all(share == pytest.approx(expected) for share in taken), dataclasses.asdict(optimizer)
