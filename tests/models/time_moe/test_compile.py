"""Compiled blocks and half precision: the same numbers, as far as the precision goes."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.utils import counters

from foreloom.models.family import WindowLengths
from foreloom.models.time_moe.architecture import TimeMoeConfig
from foreloom.models.time_moe.family import FAMILY


def models():
    config = TimeMoeConfig(size="test", num_hidden_layers=1, hidden_size=32, intermediate_size=32)
    for _ in range(2):
        model = FAMILY.build(config, WindowLengths(96, 1))
        FAMILY.initialize(model, 0)
        yield model


def test_compiled_blocks_agree_and_settle():
    plain, compiled = models()
    for block in compiled.model.layers:
        block.compile(backend="aot_eager")
    torch._dynamo.reset()
    counters.clear()
    generator = torch.Generator().manual_seed(0)
    graphs = []
    for step in range(6):
        x = torch.randn(2 + step % 4, 20 + 7 * step, generator=generator)
        losses = []
        for model in (plain, compiled):
            model.zero_grad()
            objective = model(x[:, :-1], labels=x[:, 1:]).objective
            objective.sum.backward()
            losses.append(objective.mean.item())
        assert losses[1] == pytest.approx(losses[0], rel=1e-5)
        for ours, theirs in zip(compiled.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5)
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[0] > 0, "nothing was compiled"
    assert graphs[3] == graphs[-1], f"the same blocks were compiled again for new shapes: {graphs}"
    forecast = compiled.eval().generate(x, 80)
    torch.testing.assert_close(forecast, plain.eval().generate(x, 80), rtol=1e-4, atol=1e-5)
    assert counters["stats"]["unique_graphs"] == graphs[-1], "blocks were compiled again for the cache"
    torch._dynamo.reset()


def test_half_precision_keeps_its_distance():
    model, _ = models()
    x = torch.randn(4, 80, generator=torch.Generator().manual_seed(0))
    arguments = {"input_ids": x[:, :-1], "labels": x[:, 1:]}
    exact = model(**arguments)
    with torch.autocast("cpu", torch.bfloat16):
        half = model(**arguments, output_hidden_states=True)
    half.objective.sum.backward()
    assert half.loss.dtype == half.objective.sum.dtype == half.hidden_states[0].dtype == torch.float32
    assert half.loss.item() == pytest.approx(exact.loss.item(), rel=1e-2)
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in model.parameters())
