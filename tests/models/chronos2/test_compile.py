"""Compiled blocks: the same losses, and no new compilation for every new mix of group sizes."""

from __future__ import annotations

import numpy as np
import torch
from torch._dynamo.utils import counters

from foreloom.models.chronos2.architecture import Chronos2Config
from foreloom.models.chronos2.family import FAMILY
from foreloom.models.family import WindowLengths


def test_compiled_blocks_agree_and_settle():
    config = Chronos2Config(size="test", num_layers=1, d_model=32, num_heads=2, d_ff=32, dropout_rate=0.0)
    plain, compiled = (FAMILY.build(config, WindowLengths(128, 16)) for _ in range(2))
    for model in (plain, compiled):
        FAMILY.initialize(model, 0)
        model.train()
    for block in compiled.encoder.block:
        block.compile(backend="aot_eager")
    torch._dynamo.reset()
    counters.clear()
    generator = np.random.default_rng(0)
    graphs = []
    for step in range(16):
        num_rows = int(generator.integers(6, 20))
        num_groups = num_rows if step % 2 else num_rows // 2
        ids = torch.from_numpy(np.sort(generator.integers(0, num_groups, num_rows)))
        context = torch.from_numpy(generator.normal(size=(num_rows, 16 * int(generator.integers(2, 8)))))
        arguments = {"context": context.float(), "group_ids": ids, "future_target": torch.ones(num_rows, 16)}
        losses = []
        for model in (plain, compiled):
            loss = model(**arguments).objective.mean
            loss.backward()
            losses.append(loss.item())
        assert abs(losses[0] - losses[1]) <= 1e-5 * abs(losses[0])
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[0] > 0, "nothing was compiled"
    assert graphs[8] == graphs[-1], "the same blocks were compiled again for new group sizes"
    torch._dynamo.reset()
