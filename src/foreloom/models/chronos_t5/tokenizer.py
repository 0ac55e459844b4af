"""MeanScaleUniformBins: values divided by their context's mean magnitude, then a token for each of many equal bins.

Axes: R rows, L context steps, H horizon steps, S tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from foreloom.models.chronos_t5.architecture import Architecture

IGNORED = -100
"""A label that does not count."""
_FARTHEST = 1e20
"""Edge of the outermost bins."""


class ContextTokens(NamedTuple):
    """Contexts as the model reads them."""

    id_RS: Tensor
    """int64; PAD where missing."""
    mask_RS: Tensor
    """bool, False where missing."""
    scale_R: Tensor
    """float32, mean magnitude of the observed steps; 1 where that is 0 or nothing is observed."""


class Tokenizer:
    """Ansari et al. 2024 (Chronos), section 3.1, with the arithmetic of chronos-forecasting, on the CPU in float32.

    The lowest usable token is `n_special_tokens + 1`: the bin below the first boundary, -1e20, holds no finite value.
    """

    def __init__(self, arch: Architecture) -> None:
        self._arch = arch
        self.pad_token_id = arch.pad_token_id
        num_bins = arch.n_tokens - arch.n_special_tokens - 1
        self.center_K = torch.linspace(arch.low_limit, arch.high_limit, num_bins, device="cpu")
        inner = (self.center_K[1:] + self.center_K[:-1]) / 2
        outer = self.center_K.new_full((1,), _FARTHEST)
        self.boundary_K = torch.cat([-outer, inner, outer])

    def encode_context(self, x_RL: Tensor, scale_R: Tensor | None = None) -> ContextTokens:
        """The newest `context_length` steps (NaN is missing), and an end marker where the model knows one."""
        x_RL = x_RL[:, -self._arch.context_length :].float()
        mask_RL = ~x_RL.isnan()
        scale_R = self.scale(x_RL) if scale_R is None else scale_R
        id_RS = self._tokens(x_RL, mask_RL, scale_R)
        if self._arch.use_eos_token and self._arch.model_type == "seq2seq":
            id_RS, mask_RL = self._with_end(id_RS, mask_RL)
        return ContextTokens(id_RS, mask_RL, scale_R)

    def scale(self, x_RL: Tensor) -> Tensor:
        """float32 (R,), see `ContextTokens`. Padding may change its last bit, since sums go in another order then."""
        mask_RL = ~x_RL.isnan()
        magnitude_RL = torch.where(mask_RL, x_RL, 0.0).abs()
        scale_R = magnitude_RL.sum(-1) / mask_RL.sum(-1)
        if scale_R.isinf().any():  # the sum is beyond float32, the mean is not
            scale_R = (magnitude_RL.double().sum(-1) / mask_RL.sum(-1)).float()
        return torch.where(scale_R > 0, scale_R, 1.0)

    def encode_labels(self, y_RH: Tensor, scale_R: Tensor) -> Tensor:
        """int64 (R, H), one more with an end marker: by the context's scale, `IGNORED` where missing.

        A row without a single observed step is ignored to its end, marker included.
        """
        mask_RH = ~y_RH.isnan()
        counts_R = mask_RH.any(-1)
        id_RH = self._tokens(y_RH.float(), mask_RH, scale_R)
        if self._arch.use_eos_token:
            id_RH, mask_RH = self._with_end(id_RH, mask_RH)
        return torch.where(mask_RH & counts_R[:, None], id_RH, IGNORED)

    def decode(self, id: Tensor, scale_R: Tensor) -> Tensor:
        """float32 (R, ...): centres of bins times the row's scale. Special tokens become the lowest centre."""
        place = (id - self._arch.n_special_tokens - 1).clamp(0, len(self.center_K) - 1)
        scale = scale_R.to(id.device).view(-1, *[1] * (id.ndim - 1))
        return self.center_K.to(id.device)[place] * scale

    def _tokens(self, x_RL: Tensor, mask_RL: Tensor, scale_R: Tensor) -> Tensor:
        scaled_RL = torch.where(mask_RL, x_RL, 0.0) / scale_R[:, None]
        bin_RL = torch.bucketize(scaled_RL, self.boundary_K, right=True)
        id_RL = (bin_RL + self._arch.n_special_tokens).clamp(0, self._arch.n_tokens - 1)
        return torch.where(mask_RL, id_RL, self.pad_token_id)

    def _with_end(self, id_RS: Tensor, mask_RS: Tensor) -> tuple[Tensor, Tensor]:
        num_rows = len(id_RS)
        end_R1 = torch.full((num_rows, 1), self._arch.eos_token_id)
        return torch.cat([id_RS, end_R1], 1), torch.cat([mask_RS, end_R1.new_ones(num_rows, 1, dtype=torch.bool)], 1)
