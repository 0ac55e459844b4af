"""The chunked cross entropy is the plain one: value, gradients, ignored labels, z-loss, softcap, tied weights."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from foreloom.objectives.linear_cross_entropy import linear_cross_entropy


def plain(h, weight, label, bias=None, softcap=None, z_loss=0.0, label_smoothing=0.0):
    logits = h @ weight.t() + (0 if bias is None else bias)
    if softcap:
        logits = torch.tanh(logits / softcap) * softcap
    z = (logits.logsumexp(1).square() * (label != -100)).sum()
    smooth = {"label_smoothing": label_smoothing}
    return F.cross_entropy(logits, label, reduction="sum", ignore_index=-100, **smooth) + z_loss * z


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("z_loss", [0.0, 0.1])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("has_bias", [False, True])
def test_equals_the_plain_one(softcap, z_loss, smoothing, has_bias):
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(101, 16, generator=generator) * 0.5
    bias = torch.randn(101, generator=generator) if has_bias else None
    token = torch.randint(101, (37,), generator=generator)
    label = torch.randint(101, (37,), generator=generator)
    label[::4] = -100
    results = []
    for way in ("plain", "chunked"):
        weight = table.clone().requires_grad_()
        its_bias = None if bias is None else bias.clone().requires_grad_()
        h = torch.tanh(F.embedding(token, weight))  # tied: the table is both ends
        if way == "plain":
            total = plain(h, weight, label, its_bias, softcap, z_loss, smoothing)
        else:
            settings = {"softcap": softcap, "z_loss": z_loss, "label_smoothing": smoothing}
            found = linear_cross_entropy(h, weight, label, bias_V=its_bias, most_logits=5 * 101, **settings)
            total = found.total
            expected = plain(h, weight, label, its_bias, softcap)
            torch.testing.assert_close(found.cross_entropy, expected.detach(), rtol=1e-5, atol=1e-5)
        (0.3 * total).backward()
        results.append((total.detach(), weight.grad, *([] if its_bias is None else [its_bias.grad])))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_without_a_label_or_a_gradient():
    h, weight = torch.randn(5, 4, requires_grad=True), torch.randn(7, 4, requires_grad=True)
    found = linear_cross_entropy(h, weight, torch.full((5,), -100))
    found.total.backward()
    assert found.total == 0 and not h.grad.any() and not weight.grad.any()
    with torch.no_grad():
        assert not linear_cross_entropy(h, weight, torch.arange(5)).total.requires_grad
    bf16 = torch.autocast("cpu", dtype=torch.bfloat16)
    with bf16:
        half = linear_cross_entropy(h, weight, torch.arange(5))
    half.total.backward()
    torch.testing.assert_close(half.total, plain(h, weight, torch.arange(5)), rtol=2e-2, atol=0)
    assert h.grad.dtype == torch.float32
