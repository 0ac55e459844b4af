"""Forecasts token by token: the context is encoded once, all samples of a row share its keys, values are kept.

Axes: B rows, N samples a row, S tokens of the context, H steps.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from foreloom.models.chronos_t5.architecture import architecture_of_module
from foreloom.models.chronos_t5.experts import SampleRouting
from foreloom.models.chronos_t5.sampling import Sampling, sample_tokens
from foreloom.models.common.t5.cache import DecoderCache
from foreloom.models.common.transfer import to_device


def generate(
    module: nn.Module, id_BS: Tensor, mask_BS: Tensor | None, draw_BNH: np.ndarray, sampling: Sampling
) -> tuple[Tensor, SampleRouting | None]:
    """Tokens (B, N, H), one for each draw, and where the rows were routed.

    The end marker is never drawn (a forecast has its length), the padding token may be, as in chronos-forecasting.
    """
    arch = architecture_of_module(module)
    num_rows, num_samples, num_steps = draw_BNH.shape
    memory = module(id_BS, mask_BS).memory
    cache = DecoderCache(arch.num_decoder_layers, num_steps)
    draw_HR = to_device(draw_BNH.reshape(-1, num_steps).T.astype(np.float32), id_BS.device)
    start_tokens = module.start_tokens
    assert callable(start_tokens)
    token_R = start_tokens(id_BS).repeat_interleave(num_samples)
    excluded = arch.eos_token_id if arch.use_eos_token else None
    tokens = []
    for draw_R in draw_HR:
        output = module(decoder_input_ids=token_R[:, None], memory=memory, cache=cache)
        token_R = sample_tokens(output.logits[:, -1], draw_R, sampling, excluded)
        tokens.append(token_R)
    return torch.stack(tokens, -1).view(num_rows, num_samples, num_steps), memory.routing
