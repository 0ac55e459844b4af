"""The recipe's model section, sizes, limits and the record of the family."""

from __future__ import annotations

import logging
from fnmatch import fnmatchcase

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.utils._pytree import tree_flatten
from torch.utils.flop_counter import FlopCounterMode

from foreloom.data.stream.windows import Role, Windows
from foreloom.models.chronos_bolt.architecture import ChronosBoltConfig
from foreloom.models.chronos_bolt.family import FAMILY
from foreloom.models.family import WindowLengths

TINY = {"size": "test", "d_model": 32, "d_kv": 8, "d_ff": 64}


def tiny(**fields):
    model = FAMILY.build(ChronosBoltConfig(**(TINY | fields)), WindowLengths(96, 32))
    FAMILY.initialize(model, 0)
    return model


@pytest.mark.parametrize(
    ("size", "count", "published_millions"),
    [("tiny", 8_652_672, 9), ("mini", 21_236_096, 21), ("small", 47_718_016, 48), ("base", 205_292_928, 205)],
)
def test_parameter_counts_are_those_of_the_published_models(size, count, published_millions):
    with torch.device("meta"):
        model = FAMILY.build(ChronosBoltConfig(size=size), WindowLengths(2048, 64))
    assert sum(parameter.numel() for parameter in model.parameters()) == count
    assert round(count / 1e6) == published_millions


def test_a_size_gives_way_to_fields_and_the_data_set_lengths():
    arch = tiny(quantiles=(0.2, 0.5), use_reg_token=False, num_layers=3, input_patch_size=8).architecture
    assert (arch.d_model, arch.quantiles, arch.use_reg_token) == (32, (0.2, 0.5), False)
    assert (arch.num_layers, arch.num_decoder_layers) == (3, 3)
    assert arch.input_patch_size == 8
    assert (arch.context_length, arch.prediction_length) == (96, 32)
    assert tiny(prediction_length=64).architecture.prediction_length == 64
    for name, needed in (("context_length", 96), ("prediction_length", 32)):
        with pytest.raises(ValueError, match=rf"model\.{name} is 16 and the data's windows need {needed}"):
            tiny(**{name: 16})


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({}, "set either size"),
        ({"size": "base", "pretrained": "x"}, "set either size"),
        ({"pretrained": "x", "d_model": 8, "prediction_length": 9}, "prediction_length, d_model cannot be set beside"),
        ({"size": "large"}, "size"),
        ({"size": "base", "quantils": [0.5]}, "quantils"),
    ],
)
def test_bad_sections(fields, sentence):
    with pytest.raises(ValidationError, match=sentence):
        ChronosBoltConfig(**fields)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"quantiles": (0.5, 0.1)}, "ascend strictly"),
        ({"quantiles": ()}, "quantiles is empty"),
    ],
)
def test_bad_architectures(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny(**fields)


def test_a_pretrained_models_context_is_raised_and_said(tmp_path, caplog):
    model = tiny(initializer_factor=1.0)
    FAMILY.save(model, model.state_dict(), tmp_path)
    config = ChronosBoltConfig(pretrained=str(tmp_path), dropout_rate=0.25)
    with caplog.at_level(logging.INFO, logger="foreloom"):
        longer = FAMILY.build(config, WindowLengths(512, 20))
    assert "context_length: 96 -> 512" in caplog.text
    assert longer.architecture.prediction_length == 32, "the head is what it is"
    assert {m.dropout_rate for m in longer.modules() if hasattr(m, "dropout_rate")} == {0.25}
    context = torch.randn(1, 512, generator=torch.Generator().manual_seed(0)).cumsum(1)
    changed = context.clone()
    changed[0, 100:116] += 40
    with torch.no_grad():
        assert not torch.allclose(longer.eval()(context).quantile_preds, longer(changed).quantile_preds)

    FAMILY.save(longer, longer.state_dict(), tmp_path / "stage2")
    assert FAMILY.load(tmp_path / "stage2").architecture.context_length == 512
    same = FAMILY.build(ChronosBoltConfig(pretrained=str(tmp_path)), WindowLengths(48, 16))
    assert same.architecture == model.architecture
    with pytest.raises(ValueError, match="a limit is never lowered"):
        config = ChronosBoltConfig(pretrained=str(tmp_path), context_length=48)
        FAMILY.build(config, WindowLengths(48, 16))
    with pytest.raises(ValueError, match=r"data\.prediction_length is 33 and the head of .* has 32 steps; lower it"):
        FAMILY.build(ChronosBoltConfig(pretrained=str(tmp_path)), WindowLengths(48, 33))


def test_initial_values_are_the_references():
    model = tiny()
    spread = {name: parameter.std().item() for name, parameter in model.named_parameters()}
    for name, expected in {
        "encoder.block.0.layer.0.SelfAttention.q.weight": 0.05 * (32 * 8) ** -0.5,
        "decoder.block.1.layer.1.EncDecAttention.k.weight": 0.05 * 32**-0.5,
        "input_patch_embedding.hidden_layer.weight": 0.05 * 32**-0.5,
        "output_patch_embedding.output_layer.weight": 0.05 * 64**-0.5,
        "output_patch_embedding.residual_layer.weight": 0.05 * 32**-0.5,
    }.items():
        assert spread[name] == pytest.approx(expected, rel=0.1), name
    wide = tiny(input_patch_size=32).output_patch_embedding.hidden_layer.weight
    assert wide.std().item() == pytest.approx(0.05 * 64**-0.5, rel=0.1), "as wide as an input patch, not as the model"
    assert (model.decoder.final_layer_norm.weight == 0.05).all()
    assert (model.output_patch_embedding.residual_layer.bias == 0).all()


def windows() -> Windows:
    rng = np.random.default_rng(0)
    context = rng.normal(size=(7, 40)).astype(np.float32)
    context[:, :20] = np.nan
    context[4, -16:] = np.nan
    context[5] = np.nan
    context[6] = np.where(np.isnan(context[6]), context[6], np.float32(0.1))
    future = rng.normal(size=(7, 24)).astype(np.float32)
    future[3] = np.nan
    role = np.array([Role.TARGET, Role.PAST, Role.FUTURE, *[Role.TARGET] * 4], np.int8)
    index = np.arange(7)
    return Windows(context, future, role, index, index, index.astype(np.int32), index)


def test_a_batch_holds_the_rows_that_count():
    """Not covariates (1, 2), no row without a target (3), none without values (5) or spread (6) before the cut."""
    batch = FAMILY.batch(tiny(), windows(), torch.device("cpu"))
    np.testing.assert_array_equal(batch["context"], windows().context_RC[[0, 4], 20:])
    np.testing.assert_array_equal(batch["target"], windows().future_RH[[0, 4]])
    assert not batch["all_observed"]
    assert tiny()(**batch).objective.count.item() == 2 * 24


def test_a_batch_without_anything_to_learn_counts_nothing():
    from dataclasses import replace

    flat = replace(windows(), context_RC=np.ones((7, 40), np.float32))
    for nothing in (windows().masked(), flat):
        output = tiny()(**FAMILY.batch(tiny(), nothing, torch.device("cpu")))
        assert output.objective.count.item() == output.objective.sum.item() == 0


def test_objectives_and_the_published_loss():
    model, context, target = tiny().eval(), torch.randn(6, 64).cumsum(1), torch.randn(6, 32)
    output = model(context, target=target)
    torch.testing.assert_close(output.objective.mean * 32, output.loss)
    ragged = torch.where(torch.rand(6, 32) < 0.5, target, torch.nan)[:, :20]
    by_steps = model(context, target=ragged).objective
    assert by_steps.count == (~ragged.isnan()).sum()
    model.reduction = "reference"
    output = model(context, target=ragged)
    torch.testing.assert_close(output.objective.mean, output.loss)
    torch.testing.assert_close(output.objective.sum, by_steps.sum)


def test_the_output_can_be_walked_by_hooks():
    output = tiny()(torch.randn(2, 64), target=torch.randn(2, 16))
    leaves, _ = tree_flatten(output)
    assert any(leaf is output.objective.sum for leaf in leaves) and any(leaf is output.loss for leaf in leaves)


@pytest.mark.parametrize("fields", [{}, {"use_reg_token": False, "input_patch_size": 4, "num_decoder_layers": 1}])
def test_flops_are_counted_by_torch_too(fields):
    model = tiny(num_layers=3, **fields).train()
    with FlopCounterMode(display=False) as counter:
        model(torch.randn(4, 90).cumsum(1))
    assert counter.get_total_flops() * 3 == 4 * FAMILY.flops_per_row(model, WindowLengths(90, 32))


def test_sharding_names_every_block_and_nothing_else():
    model = tiny(num_layers=12, num_decoder_layers=2)
    matched = {
        name
        for name, _ in model.named_modules()
        if any(fnmatchcase(name, pattern) for pattern in FAMILY.sharding.blocks)
    }
    assert matched == {f"encoder.block.{i}" for i in range(12)} | {"decoder.block.0", "decoder.block.1"}
