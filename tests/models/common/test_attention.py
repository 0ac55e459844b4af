"""The attention seam: every implementation is the same function, and refuses what it cannot do."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from foreloom.models.common.attention import attend, causal_mask, packed_mask

SCALE = 0.3


def by_definition(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Query by query and head by head; query t is position S - T + t and looks back only, unless a mask says more."""
    repeats, offset = q.shape[1] // k.shape[1], k.shape[2] - q.shape[2]
    if mask is None:
        mask = torch.tensor([[s <= offset + t for s in range(k.shape[2])] for t in range(q.shape[2])])
    mask = mask.expand(*q.shape[:3], k.shape[2])
    out = torch.empty_like(q)
    for b, h, t in torch.cartesian_prod(*(torch.arange(size) for size in q.shape[:3])).tolist():
        seen = mask[b, h, t]
        weights = (k[b, h // repeats, seen] @ q[b, h, t] * SCALE).softmax(-1)
        out[b, h, t] = weights @ v[b, h // repeats, seen]
    return out


def heads(num_queries: int, num_keys: int, num_kv_heads: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    draw = lambda heads, length: torch.randn(2, heads, length, 8, generator=generator, requires_grad=True)
    return draw(4, num_queries), draw(num_kv_heads, num_keys), draw(num_kv_heads, num_keys)


def agree(ours: Tensor, expected: Tensor, inputs: tuple[Tensor, ...]) -> None:
    direction = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        torch.autograd.grad(ours, inputs, direction),
        torch.autograd.grad(expected, inputs, direction),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("implementation", ["auto", "eager", "sdpa"])
@pytest.mark.parametrize("num_kv_heads", [4, 2, 1])
@pytest.mark.parametrize("num_queries, num_keys", [(9, 9), (5, 20), (1, 20), (7, 150)])
def test_causal_chunks_at_the_end_of_the_keys(implementation, num_kv_heads, num_queries, num_keys):
    q, k, v = heads(num_queries, num_keys, num_kv_heads)
    ours = attend(q, k, v, is_causal=True, scale=SCALE, implementation=implementation)
    agree(ours, by_definition(q, k, v), (q, k, v))


@pytest.mark.parametrize("implementation", ["auto", "eager", "sdpa"])
@pytest.mark.parametrize("num_kv_heads", [4, 2])
def test_packed_rows_do_not_see_their_neighbours(implementation, num_kv_heads):
    q, k, v = heads(12, 12, num_kv_heads)
    segment = torch.tensor([[0] * 5 + [1] * 7, [4] * 1 + [2] * 8 + [4] * 3])
    mask = packed_mask(segment)
    ours = attend(q, k, v, mask=mask, scale=SCALE, implementation=implementation)
    agree(ours, by_definition(q, k, v, mask), (q, k, v))
    alone = attend(q[:1, :, 5:], k[:1, :, 5:], v[:1, :, 5:], is_causal=True, scale=SCALE, implementation=implementation)
    torch.testing.assert_close(ours[:1, :, 5:], alone)
    assert mask[1, 0, 9, 0] and not mask[1, 0, 9, 1] and not mask[1, 0, 0, 9]


def test_causal_mask():
    assert causal_mask(2, 4, torch.device("cpu")).int().tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]


@pytest.mark.parametrize("implementation", ["auto", "eager", "sdpa"])
def test_half_precision(implementation):
    q, k, v = (x.detach().bfloat16() for x in heads(20, 20))
    ours = attend(q, k, v, is_causal=True, scale=SCALE, implementation=implementation)
    expected = by_definition(q.float(), k.float(), v.float())
    assert ours.dtype == torch.bfloat16
    torch.testing.assert_close(ours.float(), expected, rtol=0.02, atol=0.02)


def test_flash_attention_refuses_what_it_cannot_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "flash_attn", None)

    def refusal(device: str, dtype: torch.dtype, mask: Tensor | None = None) -> str:
        with FakeTensorMode():  # CUDA tensors without memory, on any machine
            q, k, v = (torch.empty(2, 4, 9, 8, device=device, dtype=dtype) for _ in range(3))
        with pytest.raises(ValueError) as refused:
            attend(q, k, v, mask=mask, scale=SCALE, is_causal=mask is None, implementation="flash_attention_2")
        return str(refused.value)

    assert "needs a CUDA device, and this model is on cpu" in refusal("cpu", torch.bfloat16)
    assert "computes in torch.float32; run it under autocast" in refusal("cuda", torch.float32)
    assert "cannot see a mask" in refusal("cuda", torch.float16, torch.ones(9, 9, dtype=torch.bool))
    assert "needs the flash-attn package" in refusal("cuda", torch.bfloat16)
