"""Compiled blocks: the same losses, and no new compilation for every new size of batch."""

from __future__ import annotations

import numpy as np
import torch
from torch._dynamo.utils import counters

from foreloom.models.chronos_bolt.architecture import ChronosBoltConfig
from foreloom.models.chronos_bolt.family import FAMILY
from foreloom.models.family import WindowLengths


def test_compiled_blocks_agree_and_settle():
    config = ChronosBoltConfig(size="test", num_layers=1, d_model=32, num_heads=2, d_ff=32, dropout_rate=0.0)
    plain, compiled = (FAMILY.build(config, WindowLengths(96, 16)) for _ in range(2))
    for model in (plain, compiled):
        FAMILY.initialize(model, 0)
        model.train()
    torch._dynamo.reset()
    for block in (*compiled.encoder.block, *compiled.decoder.block):
        block.compile(backend="aot_eager")
    counters.clear()
    generator = np.random.default_rng(0)
    graphs = []
    for step in range(12):
        num_rows, num_steps = generator.integers(4, 20), 16 * generator.integers(2, 7)
        context = torch.from_numpy(generator.normal(size=(num_rows, num_steps)).astype(np.float32))
        context[0, : 20 * (step % 2)] = torch.nan
        losses = []
        for model in (plain, compiled):
            loss = model(context, target=torch.ones(num_rows, 16)).objective.mean
            loss.backward()
            losses.append(loss.item())
        assert abs(losses[0] - losses[1]) <= 1e-5 * abs(losses[0])
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[0] > 0, "nothing was compiled"
    assert graphs[7] == graphs[-1], "the same blocks were compiled again for new sizes"
    torch._dynamo.reset()
