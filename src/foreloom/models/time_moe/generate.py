"""Forecasts beyond one horizon: the longest head that fits gives the next steps, which become context.

Axes: B rows, S context steps, T steps with the forecast, h horizon of one head.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from foreloom.models.common.attention import KeyValueCache
from foreloom.models.time_moe.architecture import Architecture

_NO_SAMPLING = {"do_sample": False, "num_beams": 1, "num_return_sequences": 1}
"""What callers of transformers' generate may say, as it holds anyway."""


@torch.no_grad()
def generate(
    module: nn.Module,
    inputs: Tensor,
    max_new_tokens: int | None = None,
    *,
    max_length: int | None = None,
    attention_mask: Tensor | None = None,
    use_cache: bool = True,
    **sampling: Any,
) -> Tensor:
    """Forecast `max_new_tokens` steps after each row, or up to `max_length` steps with the context: (B, S + new).

    inputs (B, S): values, best brought to zero mean and unit deviation, which is left to the caller; they come first in
    the result, in the model's dtype. Shorter rows are padded at the left, and attention_mask (B, S) is 0 there. In each
    round the longest horizon that does not go beyond the end is forecast, as the official code does: 96 = 64 + 32 steps
    with the released heads. `use_cache` remembers keys and values, so that a round computes its new steps only.

    Where context and forecast together go beyond `max_position_embeddings`, the forecast is made from the newest steps
    that leave room for it, with a warning; where `module.protocol` is "reference" it is made from all, as the official
    code does. Raises ValueError where `inputs` has another shape or values that are not finite, where padding stands at
    the right, for anything that asks to sample, and for a forecast that leaves no room for any context.
    """
    _refuse_sampling(sampling)
    num_new = _num_new_tokens(inputs, max_new_tokens, max_length)
    num_steps, total = inputs.shape[1], inputs.shape[1] + num_new
    limit = Architecture.of(module).max_position_embeddings
    if total > limit and module.protocol == "standard":
        room = context_room(limit, num_new, num_steps)
        mask = None if attention_mask is None else attention_mask[:, -room:]
        both = generate(module, inputs[:, -room:], num_new, attention_mask=mask, use_cache=use_cache)
        return torch.cat([inputs.to(both.dtype), both[:, room:]], 1)
    values = inputs.new_empty((len(inputs), total), dtype=next(module.parameters()).dtype)
    values[:, :num_steps] = inputs
    if not values[:, :num_steps].isfinite().all():
        raise ValueError("inputs holds NaN or infinite values; fill them, or hide padding at the left by zeros.")
    mask = positions = None
    if attention_mask is not None:
        mask = _mask_with_new_steps(attention_mask, inputs, num_new)
        positions = (mask.cumsum(1) - 1).masked_fill(mask == 0, 1)

    with _not_compiled():
        _extend(module, values, num_steps, mask, positions, use_cache)
    return values


def context_room(limit: int, num_new: int, num_steps: int) -> int:
    """Context steps beside a forecast of `num_new`, with a warning where a context of `num_steps` has more. ValueError
    where there is no room for any."""
    if num_new >= limit:
        raise ValueError(
            f"{num_new} steps to forecast leave no context: the model takes {limit} steps together "
            "(max_position_embeddings). Ask for fewer."
        )
    room = limit - num_new
    if num_steps > room:
        warnings.warn(
            f"a context of {num_steps:,} steps is cut to its newest {room:,}: with {num_new:,} to forecast they are "
            f"the {limit:,} that the model was made for (max_position_embeddings). "
            'from_pretrained(..., protocol="reference") goes beyond, as the official code does.',
            stacklevel=3,
        )
    return room


def _extend(
    module: nn.Module,
    values: Tensor,
    num_steps: int,
    mask: Tensor | None,
    positions: Tensor | None,
    use_cache: bool,
) -> None:
    """Fill `values` (B, T) from its step `num_steps` on; `mask` and `positions` cover all T."""
    total, seen, length = values.shape[1], 0, num_steps
    caches = [KeyValueCache(total) for _ in range(Architecture.of(module).num_hidden_layers)] if use_cache else None
    while length < total:
        chunk = slice(seen, length)
        forecast_Bh = module(
            values[:, chunk],
            attention_mask=None if mask is None else mask[:, :length],
            position_ids=None if positions is None else positions[:, chunk],
            past_key_values=caches,
            max_horizon_length=total - length,
            num_last=1,
        ).logits[:, -1]
        seen = length if use_cache else 0
        values[:, length : length + forecast_Bh.shape[1]] = forecast_Bh
        length += forecast_Bh.shape[1]


def _not_compiled() -> AbstractContextManager[Any]:
    """Blocks that were compiled for training are not compiled anew for each length of the cache."""
    if "torch._dynamo" not in sys.modules:  # nothing can be compiled, and importing it takes seconds
        return nullcontext()
    return torch.compiler.set_stance("force_eager")


def horizon_for(num_steps: int, horizon_lengths: Sequence[int]) -> int:
    """The longest horizon that does not go beyond `num_steps`; the shortest where all do."""
    return max((h for h in horizon_lengths if h <= num_steps), default=horizon_lengths[0])


def _refuse_sampling(sampling: dict[str, Any]) -> None:
    asked = [f"{name}={value!r}" for name, value in sampling.items() if value != _NO_SAMPLING.get(name, object())]
    if asked:
        raise ValueError(
            f"generate does not know {', '.join(asked)}: Time-MoE forecasts one value a step and has nothing to sample "
            "from. It takes max_new_tokens or max_length, attention_mask and use_cache."
        )


def _num_new_tokens(inputs: Tensor, max_new_tokens: int | None, max_length: int | None) -> int:
    if not isinstance(inputs, Tensor):
        raise ValueError(f"inputs must be a torch tensor, got {type(inputs).__name__}; wrap it in torch.as_tensor.")
    if inputs.ndim != 2 or not inputs.numel():
        raise ValueError(
            f"inputs must be (rows, steps), one of each at least, got shape {tuple(inputs.shape)}; give each variate a "
            "row of its own."
        )
    if (max_new_tokens is None) == (max_length is None):
        raise ValueError("say how far to forecast, by max_new_tokens or by max_length (context included).")
    num_new = max_length - inputs.shape[1] if max_length is not None else max_new_tokens
    assert num_new is not None
    if num_new < 1:
        asked = f"max_new_tokens={max_new_tokens}" if max_length is None else f"max_length={max_length}"
        raise ValueError(f"{asked} leaves nothing to forecast after {inputs.shape[1]} steps of context.")
    return num_new


def _mask_with_new_steps(attention_mask: Tensor, inputs: Tensor, num_new: int) -> Tensor:
    if attention_mask.shape != inputs.shape:
        raise ValueError(
            f"attention_mask has shape {tuple(attention_mask.shape)}, inputs {tuple(inputs.shape)}; they must agree."
        )
    if not (attention_mask[:, -1] > 0).all():
        raise ValueError("attention_mask hides the last step of a row; pad at the left, the forecast follows the end.")
    mask = (attention_mask > 0).long()
    return torch.cat([mask, mask.new_ones(len(mask), num_new)], 1)
