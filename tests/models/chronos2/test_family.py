"""The recipe's model section, sizes, limits and the record of the family."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.utils._pytree import tree_flatten
from torch.utils.flop_counter import FlopCounterMode

from foreloom.data.stream.windows import Role, Windows
from foreloom.models.chronos2.architecture import Chronos2Config
from foreloom.models.chronos2.family import FAMILY
from foreloom.models.family import WindowLengths

TINY = {"size": "test", "d_model": 32, "d_kv": 8, "d_ff": 64}


def tiny(**fields):
    model = FAMILY.build(Chronos2Config(**(TINY | fields)), WindowLengths(96, 32))
    FAMILY.initialize(model, 0)
    return model


@pytest.mark.parametrize(
    ("fields", "count"),
    [
        ({"size": "base"}, 119_477_664),
        ({"size": "small"}, 27_934_624),
        ({"size": "small", "num_layers": 8}, 36_326_304),
        ({"size": "test"}, 3_118_496),
    ],
)
def test_parameter_counts(fields, count):
    with torch.device("meta"):
        model = FAMILY.build(Chronos2Config(**fields), WindowLengths(2048, 64))
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_a_size_gives_way_to_fields_and_the_data_sets_limits():
    arch = tiny(quantiles=(0.2, 0.5), use_reg_token=False).architecture
    assert (arch.d_model, arch.quantiles, arch.use_reg_token) == (32, (0.2, 0.5), False)
    assert (arch.context_length, arch.max_output_patches, arch.time_encoding_scale) == (96, 2, 96)
    with pytest.raises(ValueError, match=r"model\.context_length is 64 and the data's windows need 96"):
        tiny(context_length=64)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({}, "set either size"),
        ({"size": "base", "pretrained": "x"}, "set either size"),
        ({"pretrained": "x", "d_model": 8, "num_layers": 2}, "d_model, num_layers cannot be set beside pretrained"),
        ({"size": "huge"}, "size"),
        ({"size": "base", "quantils": [0.5]}, "quantils"),
    ],
)
def test_bad_sections(fields, sentence):
    with pytest.raises(ValidationError, match=sentence):
        Chronos2Config(**fields)


def test_a_pretrained_models_limits_are_raised_and_said(tmp_path, caplog):
    model = tiny()
    FAMILY.save(model, model.state_dict(), tmp_path)
    config = Chronos2Config(pretrained=str(tmp_path), dropout_rate=0.25)
    with caplog.at_level(logging.INFO, logger="foreloom"):
        longer = FAMILY.build(config, WindowLengths(512, 70))
    assert "context_length: 96 -> 512" in caplog.text and "max_output_patches: 2 -> 5" in caplog.text
    assert longer.architecture.time_encoding_scale == 96
    assert {m.dropout_rate for m in longer.modules() if hasattr(m, "dropout_rate")} == {0.25}
    context = torch.randn(1, 512, generator=torch.Generator().manual_seed(0)).cumsum(1)
    changed = context.clone()
    changed[0, 100:116] += 40
    with torch.no_grad():
        assert not torch.allclose(longer.eval()(context).quantile_preds, longer(changed).quantile_preds)

    FAMILY.save(longer, longer.state_dict(), tmp_path / "stage2")
    assert FAMILY.load(tmp_path / "stage2").architecture.context_length == 512
    same = FAMILY.build(Chronos2Config(pretrained=str(tmp_path)), WindowLengths(48, 16))
    assert same.architecture == model.architecture
    with pytest.raises(ValueError, match="a limit is never lowered"):
        config = Chronos2Config(pretrained=str(tmp_path), context_length=48)
        FAMILY.build(config, WindowLengths(48, 16))


def test_initial_values_depend_on_name_and_seed_only():
    model, again = tiny(), tiny(num_layers=1)
    values = model.state_dict()
    for name, value in again.state_dict().items():
        assert torch.equal(value, values[name]), name
    other = tiny()
    FAMILY.initialize(other, 1)
    assert not torch.equal(other.shared.weight, model.shared.weight)
    q, k = (getattr(model.encoder.block[0].layer[0].self_attention, name).weight for name in "qk")
    assert q.std().item() == pytest.approx(0.05 * (32 * 8) ** -0.5, rel=0.1)
    assert k.std().item() == pytest.approx(0.05 * 32**-0.5, rel=0.1)
    assert (model.encoder.final_layer_norm.weight == 0.05).all()


def windows(num_context: int = 40) -> Windows:
    rng = np.random.default_rng(0)
    context = rng.normal(size=(5, num_context)).astype(np.float32)
    context[:, :20] = np.nan
    role = np.array([Role.TARGET, Role.PAST, Role.FUTURE, Role.TARGET, Role.TARGET], np.int8)
    group = np.array([4, 4, 4, 9, 1])
    index = np.arange(5)
    return Windows(
        context, rng.normal(size=(5, 24)).astype(np.float32), role, group, index, index.astype(np.int32), index
    )


def test_a_batch_shows_each_row_what_it_may_see():
    batch = FAMILY.batch(tiny(), windows(), torch.device("cpu"))
    assert batch["context"].shape == (5, 20)
    assert batch["future_target"].isnan().all(1).tolist() == [False, True, True, False, False]
    assert batch["future_covariates"].isnan().all(1).tolist() == [True, True, False, True, True]
    model = tiny().eval()
    output = model(**batch)
    ids = torch.from_numpy(windows().group_R)
    covariates = {name: batch[name] for name in ("future_target", "future_covariates")}
    plain = model(torch.from_numpy(windows().context_RC), group_ids=ids, num_output_patches=2, **covariates)
    torch.testing.assert_close(output.quantile_preds, plain.quantile_preds, rtol=1e-4, atol=1e-5)
    assert output.objective.count.item() == 3 * 24
    torch.testing.assert_close(output.objective, plain.objective)


def test_objectives_agree_where_nothing_is_masked():
    model = tiny()
    context, target = torch.randn(6, 64).cumsum(1), torch.randn(6, 32)
    output = model.eval()(context, future_target=target)
    torch.testing.assert_close(output.objective.mean, output.loss)
    model.reduction = "reference"
    ragged = torch.where(torch.rand(6, 32) < 0.5, target, torch.nan)
    output = model(context, future_target=ragged[:, :20])
    torch.testing.assert_close(output.objective.mean, output.loss)


def test_the_output_can_be_walked_by_hooks():
    output = tiny()(torch.randn(2, 64), future_target=torch.randn(2, 16))
    leaves, _ = tree_flatten(output)
    assert any(leaf is output.objective.sum for leaf in leaves) and any(leaf is output.loss for leaf in leaves)


@pytest.mark.parametrize("from_naive", [False, True])
def test_flops_are_counted_by_torch_too(from_naive):
    model = tiny(num_layers=3, from_naive=from_naive).train()
    with FlopCounterMode(display=False) as counter:
        model(torch.randn(4, 96).cumsum(1), num_output_patches=2)
    assert counter.get_total_flops() * 3 == 4 * FAMILY.flops_per_row(model, WindowLengths(96, 32))


def test_sharding_names_every_block_and_nothing_else():
    from fnmatch import fnmatchcase

    model = tiny(num_layers=12)
    matched = {
        name
        for name, _ in model.named_modules()
        if any(fnmatchcase(name, pattern) for pattern in FAMILY.sharding.blocks)
    }
    assert matched == {f"encoder.block.{i}" for i in range(12)}


def test_shapes_that_do_not_fit_get_a_sentence():
    model = tiny()
    context = torch.randn(3, 64)
    with pytest.raises(ValueError, match="context must be"):
        model(context[0])
    with pytest.raises(ValueError, match="group_ids must hold one id for each of 3 rows"):
        model(context, group_ids=torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match="future_covariates has shape"):
        model(context, future_covariates=torch.randn(3, 17), num_output_patches=1)
    with pytest.raises(ValueError, match="says the value is known"):
        model(context, future_covariates=torch.full((3, 4), torch.nan), future_covariates_mask=torch.ones(3, 4))


@pytest.mark.parametrize("group_ids", [None, [0, 0, 1, 2, 2, 2]])
def test_recomputed_blocks_give_the_same_gradients(group_ids):
    from torch.utils.checkpoint import checkpoint

    ids = None if group_ids is None else torch.tensor(group_ids)
    context, target = torch.randn(6, 64).cumsum(1), torch.randn(6, 16)

    def gradients(recompute: bool) -> list[torch.Tensor]:
        model = tiny()
        if recompute:
            for block in model.encoder.block:
                block.forward = lambda *a, f=block.forward: checkpoint(f, *a, use_reentrant=False)
        torch.manual_seed(0)
        model.train()(context, group_ids=ids, future_target=target).loss.backward()
        return [p.grad for p in model.parameters() if p.grad is not None]

    torch.testing.assert_close(gradients(True), gradients(False))
