"""The hand-written CPU passes against the formulas they stand for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from foreloom.models.common.attention import attend
from foreloom.models.common.cpu import RMSNormOnCPU
from foreloom.models.common.dropout import add_dropped, dropout, keep_mask, relu_dropout_
from foreloom.models.common.layers import RMSNorm, rotary_table, rotate


def gradients(value: torch.Tensor, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
    weights = torch.randn(value.shape, generator=torch.Generator().manual_seed(1))
    return torch.autograd.grad((value * weights).sum(), inputs)


def test_norm_and_its_gradients():
    torch.manual_seed(0)
    norm = RMSNorm(24, 1e-6)
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(3, 5, 24, requires_grad=True)
    expected = x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * norm.weight
    torch.testing.assert_close(norm(x), expected)
    torch.testing.assert_close(gradients(norm(x), x, norm.weight), gradients(expected, x, norm.weight))


def test_rotation_and_its_gradient():
    torch.manual_seed(0)
    x = torch.randn(2, 7, 3, 8, requires_grad=True)
    cos, sin = rotary_table(7, 8, 10000.0, x.device)
    heads = x.transpose(1, 2)
    pairs = torch.complex(*heads.chunk(2, dim=-1)) * torch.complex(cos, sin)
    expected = torch.cat([pairs.real, pairs.imag], dim=-1)
    torch.testing.assert_close(rotate(heads, cos, sin), expected)
    torch.testing.assert_close(gradients(rotate(heads, cos, sin), x), gradients(expected, x))


@pytest.mark.parametrize("num_keys", [9, 200])
def test_attention_with_and_without_mask(num_keys):
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 3, 9, 8), torch.randn(2, 3, num_keys, 8), torch.randn(2, 3, num_keys, 8)
    mask = torch.rand(2, 1, 1, num_keys) < 0.7
    mask[..., 0] = True
    for m in (None, mask):
        expected = F.scaled_dot_product_attention(q, k, v, attn_mask=m, scale=0.5)
        torch.testing.assert_close(attend(q, k, v, mask=m, scale=0.5), expected)


def test_dropout_keeps_its_rate_and_its_mean():
    torch.manual_seed(0)
    for rate in (0.1, 0.37):
        mask = keep_mask(torch.Size((1000, 1001)), rate, torch.float32)
        assert mask.unique().tolist() == [0.0, pytest.approx(1 / (1 - rate))]
        # Five standard deviations of the share of zeros in a million draws.
        assert (mask == 0).float().mean().item() == pytest.approx(rate, abs=5 * (rate * (1 - rate) / 1.001e6) ** 0.5)


def test_dropout_masks_follow_the_global_seed_and_do_not_repeat():
    def draw() -> torch.Tensor:
        return keep_mask(torch.Size((64, 64)), 0.5, torch.float32)

    torch.manual_seed(3)
    first, second = draw(), draw()
    torch.manual_seed(3)
    assert torch.equal(first, draw()) and not torch.equal(first, second)
    agreement = (first == second).float().mean().item()
    assert agreement == pytest.approx(0.5, abs=0.05)


def test_dropout_forms_are_the_same_function_of_the_seed():
    x, h = torch.randn(50, 40, requires_grad=True), torch.randn(50, 40, requires_grad=True)

    def seeded(function, *arguments):
        torch.manual_seed(5)
        return function(*arguments, 0.2, True)

    plain = seeded(dropout, x)
    torch.testing.assert_close(seeded(add_dropped, h, x), h + plain)
    torch.testing.assert_close(gradients(seeded(add_dropped, h, x), h, x), gradients(h + plain, h, x))
    expected = seeded(dropout, x.relu())
    torch.testing.assert_close(seeded(relu_dropout_, x * 1), expected)
    torch.testing.assert_close(gradients(seeded(relu_dropout_, x * 1), x), gradients(expected, x))
    assert dropout(x, 0.2, False) is x and dropout(x, 0.0, True) is x


def with_one_mask(function, *arguments):
    torch.manual_seed(5)
    return function(*arguments, 0.3, True)


def test_gradients_agree_with_finite_differences():
    torch.manual_seed(0)
    x, h, q = (torch.randn(2, 3, 5, 8, dtype=torch.float64, requires_grad=True) for _ in range(3))
    weight = torch.randn(8, dtype=torch.float64, requires_grad=True)
    cos, sin = (table.double() for table in rotary_table(5, 8, 10000.0, x.device))
    mask = (torch.rand(2, 1, 1, 5) < 0.6) | (torch.arange(5) == 0)
    check = torch.autograd.gradcheck
    assert check(lambda x, weight: RMSNormOnCPU.apply(x, weight, 1e-6), (x, weight))
    assert check(lambda x: rotate(x, cos, sin), (x,))
    assert check(lambda x: with_one_mask(relu_dropout_, x * 1), (x,))
    assert check(lambda h, x: with_one_mask(add_dropped, h, x), (h, x))
    attention = lambda q, k, v: attend(q, k, v, mask=mask, scale=0.5)
    # The softmax is taken in float32 whatever comes in: compare with torch's own, in float64.
    expected = F.scaled_dot_product_attention(q, x, h, attn_mask=mask, scale=0.5)
    torch.testing.assert_close(
        gradients(attention(q, x, h), q, x, h), gradients(expected, q, x, h), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_norm_takes_its_mean_in_float32(dtype):
    norm = RMSNorm(64, 1e-6)
    torch.nn.init.ones_(norm.weight)
    x = (torch.randn(4, 64, generator=torch.Generator().manual_seed(0)) * 300).to(dtype)  # 300^2 is beyond float16
    with torch.autocast("cpu", dtype=dtype):
        y = norm(x)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, x.double().div(x.double().square().mean(-1, keepdim=True).sqrt()).float())
