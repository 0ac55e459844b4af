"""The standard protocol: what is not a step of a series changes nothing, nor does the way a batch is cut or packed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from made_windows import windows_of

from foreloom.models.family import WindowLengths
from foreloom.models.time_moe.architecture import TimeMoeConfig
from foreloom.models.time_moe.batch import batch
from foreloom.models.time_moe.family import FAMILY

CPU = torch.device("cpu")


@pytest.fixture
def rows() -> np.ndarray:
    """(6, 48), of several lengths, with holes."""
    x_RL = np.random.default_rng(0).normal(size=(6, 48)).astype(np.float32)
    for row, first in enumerate((0, 0, 40, 36, 39, 34)):
        x_RL[row, :first] = np.nan
    x_RL[1, [5, 6, 20, 44]] = np.nan
    x_RL[5, [35, 40]] = np.nan
    return x_RL


def scores(model, arguments):
    """Forecast loss, sum and count, and the gradient of the sum."""
    model.zero_grad()
    output = model(**arguments)
    output.objective.sum.backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    return output, gradient


@pytest.fixture
def model(tiny_time_moe):
    """One whose objective is the forecast loss alone: the routers' losses are statistics of a micro-batch."""
    tiny_time_moe.architecture = tiny_time_moe.architecture.replace(router_aux_loss_factor=0.0)
    return tiny_time_moe


def assert_same(one, other, gradients) -> None:
    for ours, theirs in zip(one.tally["forecast_loss"], other.tally["forecast_loss"], strict=True):
        assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    assert torch.equal(one.tally["expert_load"], other.tally["expert_load"])
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def test_packing_changes_nothing(model, rows, monkeypatch):
    packed = batch(windows_of(rows), CPU)
    assert packed["segment_ids"].shape[0] == 3 and packed["input_ids"].shape == packed["segment_ids"].shape
    monkeypatch.setattr("foreloom.models.time_moe.batch.pack", lambda lengths, width: None)
    padded = batch(windows_of(rows), CPU)
    assert "segment_ids" not in padded and len(padded["input_ids"]) == 6
    (one, first), (other, second) = scores(model, packed), scores(model, padded)
    assert_same(one, other, (first, second))
    assert one.objective.sum.item() == pytest.approx(other.objective.sum.item(), rel=1e-6)
    assert one.aux_loss.item() == pytest.approx(other.aux_loss.item(), rel=1e-6)
    assert one.objective.count.item() == packed["loss_masks"].sum().item()


def test_cutting_a_batch_changes_nothing(model, rows):
    whole, gradient = scores(model, batch(windows_of(rows), CPU))
    parts = [scores(model, batch(windows_of(rows[part]), CPU)) for part in (slice(0, 1), slice(1, 4), slice(4, 6))]
    total = sum(output.tally["forecast_loss"] for output, _ in parts)
    torch.testing.assert_close(total, whole.tally["forecast_loss"], rtol=1e-6, atol=0)
    torch.testing.assert_close(sum(part for _, part in parts), gradient, rtol=1e-4, atol=1e-5)
    assert torch.equal(sum(output.tally["expert_load"] for output, _ in parts), whole.tally["expert_load"])


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(model, side):
    series = torch.randn(3, 31, generator=torch.Generator().manual_seed(1))
    plain = {"input_ids": series[:, :-1], "labels": series[:, 1:]}
    junk = torch.full((3, 7), 50.0)
    join = lambda x, filler: torch.cat([filler, x] if side == "left" else [x, filler], 1)
    padded = {key: join(x, junk) for key, x in plain.items()}
    padded["attention_mask"] = join(torch.ones(3, 30), torch.zeros(3, 7))
    results = [scores(model, arguments) for arguments in (plain, padded)]
    assert_same(results[0][0], results[1][0], (results[0][1], results[1][1]))
    assert results[0][0].aux_loss.item() == pytest.approx(results[1][0].aux_loss.item(), rel=1e-6)
    if side == "right":  # without an attention mask, loss masks tell as much
        del padded["attention_mask"]
        padded["loss_masks"] = join(torch.ones(3, 30), torch.zeros(3, 7))
        output, gradient = scores(model, padded)
        assert_same(results[0][0], output, (results[0][1], gradient))


def test_full_windows_have_the_published_loss(tiny_time_moe):
    series = torch.randn(4, 41, generator=torch.Generator().manual_seed(2))
    arguments = {"input_ids": series[:, :-1], "labels": series[:, 1:], "loss_masks": torch.ones(4, 40)}
    standard = tiny_time_moe(**arguments)
    tiny_time_moe.protocol = "reference"
    reference = tiny_time_moe(**arguments)
    assert standard.objective.mean.item() == pytest.approx(reference.loss.item(), rel=1e-6)
    assert standard.loss.item() == pytest.approx(reference.loss.item(), rel=1e-6)
    assert standard.objective.count.item() == 160 and reference.objective.count.item() == 1
    # Without masks, the official code takes the zeros behind a row for targets; the standard protocol never does.
    del arguments["loss_masks"]
    assert tiny_time_moe(**arguments).loss.item() != pytest.approx(reference.loss.item(), rel=1e-3)
    tiny_time_moe.protocol = "standard"
    assert torch.equal(tiny_time_moe(**arguments).loss, standard.loss)


@pytest.mark.parametrize("protocol", ["standard", "reference"])
def test_a_batch_without_labels_counts_nothing(tiny_time_moe, rows, protocol):
    tiny_time_moe.protocol = protocol
    objective = tiny_time_moe(**batch(windows_of(rows).masked(), CPU)).objective
    objective.sum.backward()
    assert objective.count.item() == 0 and objective.sum.item() == 0
    assert all(p.grad is None or not p.grad.any() for p in tiny_time_moe.parameters())


@pytest.mark.parametrize("top_k", [1, 3, 4])
def test_any_number_of_experts_a_token(top_k):
    config = TimeMoeConfig(size="test", hidden_size=16, intermediate_size=48, num_experts_per_tok=top_k)
    model = FAMILY.build(config, WindowLengths(20, 4))
    FAMILY.initialize(model, 0)
    x = torch.randn(2, 20)
    output = model(x, labels=x.roll(-1, 1), attention_mask=torch.tensor([[0] * 5 + [1] * 15, [1] * 20]))
    assert output.tally["expert_load"].sum().item() == 2 * 35 * top_k
    assert output.aux_loss.item() >= top_k * (1 - 1e-6) or top_k < 4  # all experts chosen: exactly k
    assert top_k < 4 or output.aux_loss.item() == pytest.approx(4, rel=1e-5)


def test_z_loss_is_weighed_and_told_apart(tiny_time_moe):
    x = torch.randn(2, 30, generator=torch.Generator().manual_seed(3))
    arguments = {"input_ids": x, "labels": x.roll(-1, 1)}
    plain = tiny_time_moe(**arguments)
    tiny_time_moe.router_z_loss_factor = 0.5
    output = tiny_time_moe(**arguments, output_router_logits=True)
    z_loss = output.router_logits.logsumexp(-1).square().mean().item()
    assert output.loss.item() - plain.loss.item() == pytest.approx(0.5 * z_loss, rel=1e-5)
    assert output.tally["router_z_loss"][0].item() == pytest.approx(60 * z_loss, rel=1e-5)


def test_idle_experts_get_zero_gradients_not_none(tiny_time_moe):
    router = tiny_time_moe.model.layers[0].ffn_layer
    router.expert_bias = torch.tensor([0.0, 0.0, 0.0, -2.0])  # so that expert 3 is never among the best two
    x = torch.randn(2, 30, generator=torch.Generator().manual_seed(3))
    output = tiny_time_moe(x, labels=x.roll(-1, 1))
    output.objective.sum.backward()
    load_E = output.tally["expert_load"][0]
    assert load_E[3] == 0
    for parameter in router.experts.parameters():
        assert [gradient.any().item() for gradient in parameter.grad] == (load_E > 0).tolist()
