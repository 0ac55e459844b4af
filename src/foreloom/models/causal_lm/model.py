"""A causal language model of transformers that tells its loss as a sum and a count, without holding all logits.

Axes: R rows, T tokens, N = R T, D width, V words of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from foreloom.models.causal_lm.balance import balance, survey, with_balance
from foreloom.models.common.text import TextOutput, head_output, text_output
from foreloom.objectives.loss import Loss, cross_entropy

_PROBE_TOKENS = 6
_TOLERANCE = 1e-3
"""Of the probes, relative to the largest logit: in float32 the ways differ by rounding alone."""


class CausalLm(nn.Module):
    """`lm`: transformers' model. `tokenizer`: transformers' own, saved beside it."""

    def __init__(self, lm: Any, tokenizer: Any, z_loss: float = 0.0, balance_weight: float = 0.0) -> None:
        super().__init__()
        self.lm = lm
        self.tokenizer = tokenizer
        self.z_loss = z_loss
        self.balance_weight = balance_weight
        """Of the loss that keeps the use of experts even; 0 without experts."""
        self.has_plain_head = True
        """Are logits a linear layer of the last hidden states, perhaps capped? Else they are held whole."""
        self.keeps_borders = True
        """Do documents that share a row not see one another?"""

    def forward(
        self,
        input_ids: Tensor,
        labels: Tensor,
        position_ids: Tensor | None = None,
        num_bytes: Tensor | None = None,
        is_text: Tensor | None = None,
        *,
        global_tally: Mapping[str, Tensor] | None = None,
        survey_only: bool = False,
    ) -> TextOutput:
        """`labels` (R, T): the token after each, -100 where none is to be told. `position_ids` (R, T) begin anew with
        each document, and attention stops there. `num_bytes`: of the text that the labels stand for. `is_text` (R, T)
        bool: no padding, which experts are not balanced for. The rest: see `ExpertHooks.needs_survey`."""
        its: dict[str, Any] = {"input_ids": input_ids, "position_ids": position_ids, "use_cache": False}
        balances = self.training and self.balance_weight > 0
        if balances:
            its["output_router_logits"] = True
        made = (self.lm.base_model if self.has_plain_head else self.lm)(**its)
        is_text_N = (torch.ones_like(labels, dtype=torch.bool) if is_text is None else is_text).flatten()
        if survey_only:
            count = (labels != -100).sum()
            return TextOutput(count, Loss(count, count), survey(made.router_logits, self._top_k, is_text_N, count))
        if self.has_plain_head:
            head = self.lm.get_output_embeddings()
            z_loss = self.z_loss if self.training else 0.0
            settings: dict[str, Any] = {"bias_V": head.bias, "softcap": self._softcap, "z_loss": z_loss}
            output = head_output(made.last_hidden_state, head.weight, labels, num_bytes, **settings)
        else:
            total = cross_entropy(made.logits, labels).sum
            output = text_output(total, total.detach(), labels, num_bytes)
        if not balances:
            return output
        return with_balance(output, made.router_logits, self._top_k, is_text_N, self.balance_weight, global_tally)

    @property
    def _top_k(self) -> int:
        return self.lm.config.get_text_config().num_experts_per_tok

    @property
    def longest(self) -> int | None:
        """Most tokens of a text."""
        return getattr(self.lm.config.get_text_config(), "max_position_embeddings", None)

    @property
    def _softcap(self) -> float | None:
        return getattr(self.lm.config, "final_logit_softcapping", None)

    @torch.no_grad()
    def probe(self, *, has_borders: bool) -> None:
        """Try on a few tokens what training relies on, whatever the architecture is.

        Sets `has_plain_head` and `keeps_borders`. ValueError where documents that share a row (`has_borders`) would see
        one another, and where the use of experts is not measured as here.
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
        self.keeps_borders = self._has_borders(token_T)
        if has_borders and not self.keeps_borders:
            raise ValueError(
                f"data.packing: documents: in {type(self.lm).__name__} documents that share a row see one another; use "
                "blocks."
            )
        if self.balance_weight:
            self._check_balance(token_T)
        self.lm.set_attn_implementation(attention)
        self.lm.train(was_training)

    def _check_balance(self, token_T: Tensor) -> None:
        """Is what keeps experts even here what transformers adds to the loss of this architecture?"""
        made = self.lm(input_ids=token_T[None], use_cache=False, output_router_logits=True)
        theirs, logits = getattr(made, "aux_loss", None), getattr(made, "router_logits", None)
        if isinstance(theirs, Tensor) and logits and hasattr(self.lm.config.get_text_config(), "num_experts_per_tok"):
            is_text_N = torch.ones(len(token_T), dtype=torch.bool)
            ours = balance(logits, self._top_k, is_text_N, survey(logits, self._top_k, is_text_N, is_text_N.sum()))
            if agree(ours, theirs):
                return
        raise ValueError(
            f"model.router_aux_loss_coef: {type(self.lm).__name__} has no experts, or keeps their use even in a way of "
            "its own; set it to 0."
        )

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
