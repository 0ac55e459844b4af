"""A training step never looks at a number on the device, packed rows and routers included (see chronos2's test)."""

from __future__ import annotations

import contextlib

import numpy as np
import torch
from made_windows import windows_of

from foreloom.models.common import expert_kernels
from foreloom.models.family import WindowLengths
from foreloom.models.time_moe.architecture import TimeMoeConfig
from foreloom.models.time_moe.family import FAMILY

META = torch.device("meta")


def test_forward_backward_and_balancing_do_not_wait(monkeypatch):
    # The kernel of an accelerator; without it the slices' sizes are read on the host.
    monkeypatch.setattr(expert_kernels, "_has_grouped_kernel", lambda x, down: True)
    # There is no autocast for meta; the weights are bf16 themselves.
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: contextlib.nullcontext())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: False)
    x_RL = np.random.default_rng(0).normal(size=(5, 64)).astype(np.float32)
    x_RL[1:, :48] = np.nan
    for balance in ("aux_loss", "bias"):
        config = TimeMoeConfig(size="test", balance=balance, router_z_loss_factor=0.1)
        model = FAMILY.build(config, WindowLengths(56, 8)).to(META).bfloat16().train()
        arguments = FAMILY.batch(model, windows_of(x_RL), META)
        assert "segment_ids" in arguments
        output = model(**arguments)
        output.objective.sum.backward()
        FAMILY.experts.after_update(model, output.tally, torch.ones((), device=META))
        assert output.tally["expert_load"].shape == (2, 4)
        assert all(parameter.grad.device == META for parameter in model.parameters())
