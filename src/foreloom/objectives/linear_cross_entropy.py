"""Cross entropy of a linear layer's outputs over a large vocabulary, without ever holding all logits.

Axes: N tokens, D width, V words of the vocabulary.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

MOST_LOGITS = 2**26
"""At once: 256 MB in float32."""


class LinearCrossEntropy(NamedTuple):
    """Sums over the tokens that have a label."""

    total: Tensor
    """What is learned: cross entropy, against smoothed labels if asked, and z-loss."""
    cross_entropy: Tensor
    """-log softmax(logits)[label] in nats, without a gradient."""


def linear_cross_entropy(
    h_ND: Tensor,
    weight_VD: Tensor,
    label_N: Tensor,
    *,
    bias_V: Tensor | None = None,
    ignored: int = -100,
    softcap: float | None = None,
    z_loss: float = 0.0,
    label_smoothing: float = 0.0,
    most_logits: int = MOST_LOGITS,
) -> LinearCrossEntropy:
    """Cross entropy of logits = h W' + b, summed, in float32, some tokens at a time.

    The gradient of a chunk is computed beside its loss, while its logits are there, so backward has only to scale what
    is ready, and a second backward through it is not possible. `softcap` c: logits are c tanh(logits / c) (Gemma 2).
    `z_loss` adds z log(sum exp logits)^2, which keeps logits small (PaLM, section 5). `label_smoothing` e learns the
    label with weight 1 - e and all words alike with e / V each (Szegedy et al. 2016). Products are in autocast's dtype
    where it is on.
    """
    needs_gradient = torch.is_grad_enabled() and (h_ND.requires_grad or weight_VD.requires_grad)
    device = h_ND.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight_VD.dtype
    rows = max(1, min(len(h_ND), most_logits // len(weight_VD)))
    with torch.autocast(device, enabled=False):
        its = _Settings(dtype, rows, ignored, softcap, z_loss, label_smoothing, needs_gradient)
        sums = _Chunks.apply(h_ND, weight_VD, bias_V, label_N, its)
    return LinearCrossEntropy(*sums)


class _Settings(NamedTuple):
    dtype: torch.dtype
    rows: int
    ignored: int
    softcap: float | None
    z_loss: float
    label_smoothing: float
    needs_gradient: bool


class _Chunks(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, h_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, label_N: Tensor, its: _Settings
    ) -> Any:
        weight = weight_VD.to(its.dtype)
        h = h_ND.to(its.dtype)
        total, entropy = h.new_zeros(2, dtype=torch.float32)
        grad_h = torch.empty_like(h_ND) if its.needs_gradient else None
        grad_w = torch.zeros_like(weight_VD) if its.needs_gradient else None
        grad_b = torch.zeros_like(bias_V) if its.needs_gradient and bias_V is not None else None
        buffer = h.new_empty(its.rows, len(weight), dtype=torch.float32)  # one, as two would stand between chunks
        for begin in range(0, len(h), its.rows):
            part = slice(begin, begin + its.rows)
            logits = buffer[: len(h[part])]
            if logits.dtype == its.dtype:
                torch.mm(h[part], weight.t(), out=logits)
            else:
                logits.copy_(torch.mm(h[part], weight.t()))
            if bias_V is not None:
                logits += bias_V
            if its.softcap:
                logits = logits.div_(its.softcap).tanh_().mul_(its.softcap)
            slope = 1 - (logits / its.softcap) ** 2 if its.softcap and its.needs_gradient else None
            label = label_N[part]
            counts = (label != its.ignored).float()
            place = label.clamp(min=0)[:, None]
            answer, most = logits.gather(1, place)[:, 0], logits.amax(1)
            mean = logits.mean(1) if its.label_smoothing else most
            # In place, and each exponential once: it is the probability, but for the sum.
            share = logits.sub_(most[:, None]).exp_()
            mass = share.sum(1)
            lse = most + mass.log()
            ce = ((lse - answer) * counts).sum()
            entropy = entropy + ce
            learned = ce
            if its.label_smoothing:
                to_all = ((lse - mean) * counts).sum()
                learned = ce + its.label_smoothing * (to_all - ce)
            total = total + learned + its.z_loss * (lse.square() * counts).sum()
            if grad_h is None or grad_w is None:
                continue
            grad = share.mul_(((1 + 2 * its.z_loss * lse) * counts / mass)[:, None])
            grad.scatter_add_(1, place, (its.label_smoothing - 1) * counts[:, None])
            if its.label_smoothing:
                grad.sub_((its.label_smoothing / grad.shape[1] * counts)[:, None])
            if slope is not None:
                grad.mul_(slope)
            if grad_b is not None:
                grad_b += grad.sum(0)
            grad = grad.to(its.dtype)
            grad_h[part] = torch.mm(grad, weight)
            if grad.dtype == grad_w.dtype:
                grad_w.addmm_(grad.t(), h[part])
            else:
                grad_w += torch.mm(grad.t(), h[part])
        ctx.ready = (grad_h, grad_w, grad_b)
        ctx.mark_non_differentiable(entropy)
        return total, entropy

    @staticmethod
    def backward(ctx: Any, grad_total: Tensor, _: Tensor) -> Any:
        assert ctx.ready is not None, "the gradients were handed out: there is one backward through a chunked loss"
        ready, ctx.ready = ctx.ready, None
        return (*(None if grad is None else grad.mul_(grad_total) for grad in ready), None, None)
