"""Chronos-T5 (Ansari et al. 2024): T5 over the tokens of a series, with an optional mixture of experts as its head.

Axes: B rows, R rows of the decoder (B, or several a row), S tokens of the context, T tokens of the forecast, D model
width, V vocabulary, E experts.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foreloom.models.chronos_t5.architecture import Architecture
from foreloom.models.chronos_t5.experts import SampleExperts, SampleRouting
from foreloom.models.chronos_t5.objective import GlobalBatch, Losses, mixture_losses, plain_losses, survey_tally
from foreloom.models.chronos_t5.tokenizer import IGNORED, Tokenizer
from foreloom.models.common.t5.attention import DecoderCache
from foreloom.models.common.t5.stack import Decoder, Encoder, visible
from foreloom.models.family import Tally
from foreloom.objectives.loss import Loss


class Memory(NamedTuple):
    """An encoded context, from which any number of forecasts can be decoded."""

    hidden_BSD: Tensor
    mask_BS: Tensor | None
    """bool; None where every token is there."""
    routing: SampleRouting | None


class ChronosT5Output(NamedTuple):
    """What forward returns; a tuple, so that hooks of sharded modules can walk it."""

    logits: Tensor | None = None
    """(R, T, V): before softmax, the token at each place of the forecast."""
    loss: Tensor | None = None
    """Scalar: mean cross entropy; in training, with experts, plus load_balancing_weight times the balance loss."""
    objective: Loss | None = None
    """What training minimises."""
    load_loss: Tensor | None = None
    """Scalar, with experts and labels only: the balance loss, unscaled."""
    memory: Memory | None = None
    tally: Tally = MappingProxyType({})


class ChronosT5Model(nn.Module):
    """The module behind amazon/chronos-t5-*; its state dict carries the published names, and `moe.*` for experts."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.architecture = arch
        self.tokenizer = Tokenizer(arch)
        self.router_z_loss_factor = 0.0
        self.balance_rate = 0.0
        """By how much each update moves the router's bias."""
        self.shared = nn.Embedding(arch.n_tokens, arch.d_model)
        self.encoder = Encoder(arch)
        self.decoder = Decoder(arch)
        self.moe = SampleExperts(arch) if arch.use_moe else None

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        *,
        memory: Memory | None = None,
        cache: DecoderCache | None = None,
        global_tally: Mapping[str, Tensor] | None = None,
        survey_only: bool = False,
    ) -> ChronosT5Output:
        """Score the tokens of a forecast after each context.

        input_ids (B, S) and attention_mask (B, S), 0 where a token hides (all are there by default); or the `memory`
        of an earlier forward. labels (B, T): tokens of the horizon, -100 where one does not count; they are shifted
        right for the decoder. decoder_input_ids (R, T) in place of labels, R a multiple of B; without either the
        context is encoded and nothing else. cache: positions decoded before, to which these are appended.
        global_tally, survey_only: see `ModelFamily.needs_survey`.
        """
        if memory is None:
            assert input_ids is not None
            memory = self._encode(input_ids, attention_mask)
        if survey_only:
            return self._survey(memory, labels)
        if labels is not None and decoder_input_ids is None:
            decoder_input_ids = shifted_right(labels, self.architecture.pad_token_id)
        if decoder_input_ids is None:
            return ChronosT5Output(memory=memory)
        hidden_RTD = self.decoder(self.shared(decoder_input_ids), memory.hidden_BSD, visible(memory.mask_BS), cache)
        logits = self._head(hidden_RTD, memory.routing)
        output = ChronosT5Output(logits=logits, memory=memory)
        if labels is None:
            return output
        return output._replace(**self._losses(logits, labels, memory.routing, global_tally)._asdict())

    def start_tokens(self, id_BS: Tensor) -> Tensor:
        """(B,): what decoding begins with, padding."""
        return id_BS.new_full((len(id_BS),), self.architecture.pad_token_id)

    def _encode(self, input_ids: Tensor, attention_mask: Tensor | None) -> Memory:
        mask_BS = None if attention_mask is None else attention_mask > 0
        hidden_BSD = self.encoder(self.shared(input_ids), visible(mask_BS))
        return Memory(hidden_BSD, mask_BS, self.moe.route(hidden_BSD, visible(mask_BS)) if self.moe else None)

    def _head(self, hidden_RTD: Tensor, routing: SampleRouting | None) -> Tensor:
        if self.moe is not None:
            assert routing is not None
            return self.moe(hidden_RTD, routing)
        if self.architecture.scale_decoder_outputs:
            hidden_RTD = hidden_RTD * self.architecture.d_model**-0.5
        return F.linear(hidden_RTD, self.shared.weight)

    def _losses(
        self, logits: Tensor, labels: Tensor, routing: SampleRouting | None, tally: Mapping[str, Tensor] | None
    ) -> Losses:
        if routing is None:
            return plain_losses(logits, labels)
        whole = None if tally is None else GlobalBatch.of(tally)
        return mixture_losses(
            logits, labels, routing, self.architecture, whole,
            balances=self.training, z_loss_factor=self.router_z_loss_factor,
        )  # fmt: skip

    def _survey(self, memory: Memory, labels: Tensor | None) -> ChronosT5Output:
        """What the balance loss needs to know of every part of a global batch before any of them is run."""
        assert memory.routing is not None and labels is not None
        nothing = memory.hidden_BSD.new_zeros(())
        return ChronosT5Output(
            objective=Loss(nothing, nothing), tally=survey_tally(memory.routing, labels, self.architecture)
        )


def shifted_right(label_BT: Tensor, start_token_id: int) -> Tensor:
    """What the decoder reads: a start token, then each label but the last; the start token where one does not count."""
    shifted_BT = torch.cat([label_BT.new_full((len(label_BT), 1), start_token_id), label_BT[:, :-1]], 1)
    return shifted_BT.masked_fill(shifted_BT == IGNORED, start_token_id)
