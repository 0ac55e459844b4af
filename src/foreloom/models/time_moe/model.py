"""Time-MoE (Shi et al. 2024): a causal decoder over single steps of a series, with a mixture of experts in each layer.

Axes: B rows, S steps, D model width, X all horizons side by side, h horizon of one head, L layers, N = B*S tokens, E
experts, K experts a token.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foreloom.models.common.attention import Implementation, KeyValueCache
from foreloom.models.family import Tally
from foreloom.models.time_moe.architecture import Architecture, Protocol
from foreloom.models.time_moe.decoder import Decoder, attention_pattern, segment_positions
from foreloom.models.time_moe.generate import generate, horizon_for
from foreloom.models.time_moe.objective import Targets, losses_of
from foreloom.objectives.loss import Loss


class TimeMoeOutput(NamedTuple):
    """What forward returns; a tuple, so that hooks of sharded modules can walk it."""

    logits: Tensor
    """(B, S, h): the forecast after each step, by the shortest head with labels, by the chosen one without."""
    loss: Tensor | None = None
    """Scalar: forecast loss + router_aux_loss_factor * aux_loss, by the module's protocol."""
    objective: Loss | None = None
    """What training minimises; see `time_moe.objective`."""
    aux_loss: Tensor | None = None
    """Scalar, unscaled; with labels only."""
    hidden_states: tuple[Tensor, ...] | None = None
    """Where asked for, L + 1 of (B, S, D): the embedding, then after each layer, the last one normed."""
    router_logits: Tensor | None = None
    """Where asked for, float32 (L, N, E)."""
    router_choices: Tensor | None = None
    """With them, int64 (L, N, K): the experts each token went to, which a balancing bias has a say in."""
    tally: Tally = MappingProxyType({})


class OutputHead(nn.Module):
    """The weights of one horizon's forecast."""

    def __init__(self, width: int, horizon: int) -> None:
        super().__init__()
        self.out_layer = nn.Linear(width, horizon, bias=False)


class TimeMoeForPrediction(nn.Module):
    """The module behind Maple728/TimeMoE-*; its state dict carries the published names, but that the experts of a
    layer are stacked (`checkpoint.official_views` translates)."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.architecture = arch
        self.protocol: Protocol = "standard"
        self.attn_implementation: Implementation = "auto"
        self.balance_rate = 0.0
        """By how much each update moves the routers' biases."""
        self.router_z_loss_factor = 0.0
        self.model = Decoder(arch)
        self.lm_heads = nn.ModuleList([OutputHead(arch.hidden_size, h) for h in arch.horizon_lengths])

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Sequence[KeyValueCache] | None = None,
        labels: Tensor | None = None,
        loss_masks: Tensor | None = None,
        max_horizon_length: int | None = None,
        *,
        segment_ids: Tensor | None = None,
        num_last: int | None = None,
        output_hidden_states: bool = False,
        output_router_logits: bool = False,
    ) -> TimeMoeOutput:
        """Forecast after every step, and score the forecasts where labels are given.

        input_ids (B, S) or (B, S, 1): finite values. attention_mask (B, S): 0 hides a step; with a cache it covers the
        steps in it too. position_ids (B, S): 0, 1, 2 ... behind the cache's by default. past_key_values: one cache a
        layer, to which this forward appends. labels (B, S) or (B, S, 1): the step after each input, already shifted;
        loss_masks, the same shape: 0 where the label does not count. max_horizon_length: without labels, the head of
        the longest horizon up to it forecasts (the shortest by default). segment_ids (B, S): rows hold several series
        one behind the other, each with a number unlike others of its row; steps see, and are scored on, their own
        series only. num_last: forecast after the last so many steps only, without labels. The tensors handed in are not
        changed. Raises ValueError for shapes that do not fit.
        """
        x_BS = _rows("input_ids", input_ids)
        assert num_last is None or (labels is None and not output_hidden_states)
        labels = None if labels is None else _rows("labels", labels, x_BS)
        loss_masks = None if loss_masks is None else _rows("loss_masks", loss_masks, x_BS)
        group_BS = None
        if segment_ids is not None:
            within_BS, group_BS = segment_positions(_rows("segment_ids", segment_ids, x_BS))
            position_ids = within_BS if position_ids is None else position_ids
        pattern = attention_pattern(
            x_BS,
            self.architecture,
            num_past=past_key_values[0].length if past_key_values else 0,
            attention_mask=attention_mask,
            position_BS=None if position_ids is None else _rows("position_ids", position_ids, x_BS),
            group_BS=group_BS,
            implementation=self.attn_implementation,
        )
        hidden_BSD, routing, states = self.model(
            x_BS, pattern, past_key_values, num_last, keeps_states=output_hidden_states
        )
        answer = TimeMoeOutput(logits=hidden_BSD, hidden_states=states)
        if output_router_logits and routing is not None:
            answer = answer._replace(router_logits=routing.logits_NE.detach(), router_choices=routing.expert_NK)
        if labels is None:
            return answer._replace(logits=self._forecast(hidden_BSD, max_horizon_length))
        # One product for all heads.
        prediction_BSX = F.linear(hidden_BSD, torch.cat(self.head_weights))
        losses = losses_of(
            prediction_BSX,
            Targets(labels, loss_masks, attention_mask, group_BS),
            routing,
            self.architecture,
            protocol=self.protocol,
            z_loss_factor=self.router_z_loss_factor,
        )
        logits = prediction_BSX[..., : self.architecture.horizon_lengths[0]]
        return answer._replace(logits=logits, **losses._asdict())

    @property
    def head_weights(self) -> list[Tensor]:
        """(h, D) for each horizon."""
        return [head.out_layer.weight for head in cast("Sequence[OutputHead]", self.lm_heads)]

    def generate(self, inputs: Tensor, max_new_tokens: int | None = None, **options: Any) -> Tensor:
        """Forecast `max_new_tokens` steps after each row; see `time_moe.generate.generate`."""
        return generate(self, inputs, max_new_tokens, **options)

    def _forecast(self, hidden_BSD: Tensor, max_horizon_length: int | None) -> Tensor:
        """(B, S, h) by the head of the longest horizon up to `max_horizon_length`, or else the shortest, cut to it."""
        lengths = self.architecture.horizon_lengths
        limit = lengths[0] if max_horizon_length is None else max_horizon_length
        if limit < 1:
            raise ValueError(f"max_horizon_length must be at least 1, got {limit}.")
        chosen = lengths.index(horizon_for(limit, lengths))
        return F.linear(hidden_BSD, self.head_weights[chosen])[..., :limit]


def _rows(name: str, x: Tensor, like: Tensor | None = None) -> Tensor:
    """(B, S) of a tensor (B, S) or (B, S, 1), the same shape as `like`."""
    rows = x[..., 0] if x.ndim == 3 and x.shape[-1] == 1 else x
    if like is not None and rows.shape != like.shape:
        raise ValueError(f"{name} has shape {tuple(x.shape)} and input_ids {tuple(like.shape)}; they must agree.")
    if rows.ndim != 2 or not rows.numel():
        raise ValueError(f"{name} must be (rows, steps), one of each at least, got shape {tuple(x.shape)}.")
    return rows
