"""A causal language model of transformers that tells its loss as a sum and a count, without holding all logits.

Axes: R rows, T tokens, N = R T, D width, V words of the vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from foreloom.models.common.text import TextOutput, head_output, text_output
from foreloom.objectives.loss import cross_entropy

_PROBE_TOKENS = 6
_TOLERANCE = 1e-3
"""Of the probes, relative to the largest logit: in float32 the ways differ by rounding alone."""


class CausalLm(nn.Module):
    """`lm`: transformers' model. `tokenizer`: transformers' own, saved beside it."""

    def __init__(self, lm: Any, tokenizer: Any, z_loss: float = 0.0) -> None:
        super().__init__()
        self.lm = lm
        self.tokenizer = tokenizer
        self.z_loss = z_loss
        self.has_plain_head = True
        """Are logits a linear layer of the last hidden states, perhaps capped? Else they are held whole."""

    def forward(
        self, input_ids: Tensor, labels: Tensor, position_ids: Tensor | None = None, num_bytes: Tensor | None = None
    ) -> TextOutput:
        """`labels` (R, T): the token after each, -100 where none is to be told. `position_ids` (R, T) begin anew with
        each document, and attention stops there. `num_bytes`: of the text that the labels stand for."""
        its = {"input_ids": input_ids, "position_ids": position_ids, "use_cache": False}
        if self.has_plain_head:
            head = self.lm.get_output_embeddings()
            return head_output(
                self.lm.base_model(**its).last_hidden_state,
                head.weight,
                labels,
                num_bytes,
                bias_V=head.bias,
                softcap=self._softcap,
                z_loss=self.z_loss if self.training else 0.0,
            )
        total = cross_entropy(self.lm(**its).logits, labels).sum
        return text_output(total, total.detach(), labels, num_bytes)

    @property
    def _softcap(self) -> float | None:
        return getattr(self.lm.config, "final_logit_softcapping", None)

    @torch.no_grad()
    def probe(self, *, has_borders: bool) -> None:
        """Try on a few tokens what training relies on, whatever the architecture is.

        Sets `has_plain_head`. ValueError where documents that share a row (`has_borders`) would see one another.
        """
        vocabulary = self.lm.get_input_embeddings().num_embeddings
        token_T = torch.arange(1, 2 * _PROBE_TOKENS + 1) % vocabulary
        was_training, attention = self.lm.training, self.lm.config._attn_implementation
        self.lm.eval()
        if attention == "flash_attention_2":  # which the CPU, where models are built, has not
            self.lm.set_attn_implementation("eager")
        self.has_plain_head = self.lm.base_model is not self.lm and self._heads_agree(token_T)
        if self.z_loss and not self.has_plain_head:
            raise ValueError("model.z_loss: this architecture changes its logits in a way of its own; set it to 0.")
        if has_borders and not self._has_borders(token_T):
            raise ValueError(
                f"data.packing: documents: in {type(self.lm).__name__} documents that share a row see one another; use "
                "blocks."
            )
        self.lm.set_attn_implementation(attention)
        self.lm.train(was_training)

    def _heads_agree(self, token_T: Tensor) -> bool:
        logits_TV = self.lm(input_ids=token_T[None], use_cache=False).logits[0]
        h_TD = self.lm.base_model(input_ids=token_T[None], use_cache=False).last_hidden_state[0]
        plain_TV = self.lm.get_output_embeddings()(h_TD)
        if self._softcap:
            plain_TV = torch.tanh(plain_TV / self._softcap) * self._softcap
        return agree(plain_TV, logits_TV)

    def _has_borders(self, token_T: Tensor) -> bool:
        """Does a document give the same behind another as alone?"""
        second_T = token_T[_PROBE_TOKENS:]
        position_T = torch.arange(_PROBE_TOKENS).repeat(2)
        behind_TV = self.lm(input_ids=token_T[None], position_ids=position_T[None], use_cache=False).logits[0]
        alone_TV = self.lm(input_ids=second_T[None], use_cache=False).logits[0]
        return agree(behind_TV[_PROBE_TOKENS:], alone_TV)


def agree(one: Tensor, other: Tensor) -> bool:
    """Are these the same logits but for rounding?"""
    return bool((one - other).abs().max() <= _TOLERANCE * other.abs().max().clamp(min=1e-6))
