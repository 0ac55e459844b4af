"""An LSTM over tokens whose state goes on from row to row of a stream.

Axes: R rows, T tokens, L layers, D width, V words; gates stand in torch's order (input, forget, cell, output).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foreloom.models.common.dropout import dropout, keep_mask
from foreloom.models.common.recurrent import going_on, state_of_rows
from foreloom.models.common.text import TextOutput, head_output
from foreloom.models.lstm.architecture import Architecture

# Of cuDNN's single buffer: weights are parameters of their own here, and copying them is nothing beside the products.
warnings.filterwarnings("ignore", message="RNN module weights are not part of single contiguous chunk")

State = tuple[Tensor, Tensor]
"""Output and cell of a layer, (R, D) each."""


class Layer(nn.Module):
    """One recurrent layer (Hochreiter & Schmidhuber 1997; Gers et al. 2000): by torch's kernel, or token by token where
    its past outputs are dropped."""

    def __init__(self, width: int, recurrent_dropout: float) -> None:
        super().__init__()
        self.weight_ih = nn.Parameter(torch.empty(4 * width, width))
        self.weight_hh = nn.Parameter(torch.empty(4 * width, width))
        self.bias = nn.Parameter(torch.empty(4 * width))
        self.recurrent_dropout = recurrent_dropout

    def forward(self, x_RTD: Tensor, state: State) -> tuple[Tensor, Tensor, Tensor]:
        """(R, T, D) and the state before -> (R, T, D), and output and cell after the last token."""
        device = x_RTD.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.bias.dtype
        x_RTD, h_RD, c_RD, weight_ih, weight_hh, bias = (
            one.to(dtype) for one in (x_RTD, *state, self.weight_ih, self.weight_hh, self.bias)
        )
        with torch.autocast(device, enabled=False):
            if self.training and self.recurrent_dropout:
                return self._by_token(x_RTD, h_RD, c_RD, weight_ih, weight_hh, bias)
            weights = [weight_ih, weight_hh, bias, torch.zeros_like(bias)]
            past = [h_RD[None], c_RD[None]]
            y_RTD, h_1RD, c_1RD = torch._VF.lstm(  # pyrefly: ignore
                x_RTD, past, weights, True, 1, 0.0, self.training, False, True
            )
        return y_RTD, h_1RD[0], c_1RD[0]

    def _by_token(
        self, x_RTD: Tensor, h_RD: Tensor, c_RD: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        kept_RD = _mask(h_RD, self.recurrent_dropout)
        outputs = []
        for from_input in F.linear(x_RTD, weight_ih, bias).unbind(1):
            gates = torch.addmm(from_input, h_RD * kept_RD, weight_hh.t())
            come, stay, new, out = gates.chunk(4, 1)
            c_RD = torch.sigmoid(stay) * c_RD + torch.sigmoid(come) * torch.tanh(new)
            h_RD = torch.sigmoid(out) * torch.tanh(c_RD)
            outputs.append(h_RD)
        return torch.stack(outputs, 1), h_RD, c_RD


def _mask(like: Tensor, rate: float) -> Tensor:
    """0 or 1 / (1 - rate), of a tensor's shape."""
    if like.device.type == "cpu":
        return keep_mask(like.shape, rate, like.dtype)
    return F.dropout(torch.ones_like(like), rate)


class Lstm(nn.Module):
    """`tokenizer`: transformers' own, saved beside the weights."""

    tokenizer: Any
    longest = None
    """See `text.StepwiseModel`."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.architecture = arch
        self.embedding = nn.Embedding(arch.vocab_size, arch.d_model)
        has = lambda place: arch.layer_norm in (place, "both")
        self.input_norm = nn.LayerNorm(arch.d_model) if has("input") else nn.Identity()
        self.layers = nn.ModuleList([Layer(arch.d_model, arch.recurrent_dropout) for _ in range(arch.num_layers)])
        self.output_norm = nn.LayerNorm(arch.d_model) if has("output") else nn.Identity()
        self.head = None if arch.tie_embeddings else nn.Linear(arch.d_model, arch.vocab_size, bias=False)
        self.bptt_length = 0
        self.label_smoothing = 0.0

    def forward(
        self,
        input_ids: Tensor,
        labels: Tensor,
        num_bytes: Tensor | None = None,
        resets: Tensor | None = None,
        carry: Mapping[str, Tensor] | None = None,
    ) -> TextOutput:
        """`labels` (R, T): the token after each, -100 where none is to be told. `num_bytes`: of the text that the
        labels stand for. `carry`: what the rows go on from, (R, L, D) each, but those that `resets` (R,) begins anew;
        without `resets` all rows begin anew, and the carry stays as it is."""
        state = state_of_rows(self.beginning(len(input_ids)), carry, resets)
        h_RTD, after = self.hidden(input_ids, state)
        output = head_output(
            h_RTD,
            self.head_weight,
            labels,
            num_bytes,
            label_smoothing=self.label_smoothing if self.training else 0.0,
        )
        return going_on(output, after, labels, carry, resets)

    @property
    def head_weight(self) -> Tensor:
        """(V, D)."""
        return self.embedding.weight if self.head is None else self.head.weight

    def beginning(self, num_rows: int) -> dict[str, Tensor]:
        """The state before any text: output and cell of every layer."""
        arch, device = self.architecture, self.embedding.weight.device
        return {name: torch.zeros(num_rows, arch.num_layers, arch.d_model, device=device) for name in ("h", "c")}

    def hidden(self, token_RT: Tensor, state: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """(R, T, D), what the head is given, times logit_scale; and the state after the last token."""
        arch = self.architecture
        x_RTD = self._dropped(self.input_norm(self.embedding(token_RT)), arch.input_dropout)
        after: dict[str, list[Tensor]] = {"h": [], "c": []}
        for index, layer in enumerate(self.layers):
            if index:
                x_RTD = dropout(self._dropped(x_RTD, arch.hidden_dropout), arch.between_dropout, self.training)
            x_RTD, h_RD, c_RD = self._through(layer, x_RTD, (state["h"][:, index], state["c"][:, index]))
            after["h"].append(h_RD)
            after["c"].append(c_RD)
        x_RTD = self._dropped(self.output_norm(x_RTD), arch.output_dropout)
        x_RTD = x_RTD if arch.logit_scale == 1 else x_RTD * arch.logit_scale
        return x_RTD, {name: torch.stack(values, 1) for name, values in after.items()}

    def _through(self, layer: nn.Module, x_RTD: Tensor, state: State) -> tuple[Tensor, Tensor, Tensor]:
        """A layer over a row, in parts between which no gradient goes."""
        if not (self.training and 0 < self.bptt_length < x_RTD.shape[1]):
            return layer(x_RTD, state)
        parts = []
        for part_RTD in x_RTD.split(self.bptt_length, 1):
            y_RTD, h_RD, c_RD = layer(part_RTD, state)
            parts.append(y_RTD)
            state = h_RD.detach(), c_RD.detach()
        return torch.cat(parts, 1), state[0], state[1]

    def _dropped(self, x_RTD: Tensor, rate: float) -> Tensor:
        """Without some dimensions, the same ones at all tokens of a row."""
        return x_RTD * _mask(x_RTD[:, :1], rate) if self.training and rate else x_RTD

    def memory(self, num_tokens: int) -> dict[str, Tensor]:
        """See `text.StepwiseModel`: of any number."""
        return self.beginning(1)

    def next_logits(self, token_1T: Tensor, memory: dict[str, Tensor]) -> Tensor:
        """See `text.StepwiseModel`."""
        h_1TD, after = self.hidden(token_1T, memory)
        memory.update(after)
        return F.linear(h_1TD[0, -1].to(self.head_weight.dtype), self.head_weight)
