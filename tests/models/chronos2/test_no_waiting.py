"""A training step never looks at a number on the device.

The meta device has shapes and no numbers: whatever would make the host wait for an accelerator (`.item()`, `bool` of a
tensor, indexing by a mask) raises there, and all that is not the CPU takes the accelerator's path.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from foreloom.data.stream.windows import Role, Windows
from foreloom.distributed.process import Process
from foreloom.models.chronos2.architecture import Chronos2Config
from foreloom.models.chronos2.family import FAMILY
from foreloom.models.family import WindowLengths
from foreloom.objectives.loss import Loss
from foreloom.training.step import OutputSums, RunningTally, fill_missing, global_totals
from foreloom.training.stopwatch import Stopwatch

META = torch.device("meta")


def windows() -> Windows:
    rng = np.random.default_rng(0)
    context_RC = rng.normal(size=(6, 96)).astype(np.float32)
    context_RC[0, :40] = np.nan
    return Windows(
        context_RC=context_RC,
        future_RH=rng.normal(size=(6, 30)).astype(np.float32),
        role_R=np.array([Role.TARGET, Role.TARGET, Role.FUTURE, Role.PAST, Role.TARGET, Role.TARGET], dtype=np.int8),
        group_R=np.array([0, 1, 1, 2, 2, 3]),  # singletons and pairs mixed, so that rows are put in order
        sample_R=np.arange(6),
        source_R=np.zeros(6, dtype=np.int32),
        item_R=np.zeros(6, dtype=np.int64),
    )


def test_forward_backward_and_totals_do_not_wait():
    model = FAMILY.build(Chronos2Config(size="test"), WindowLengths(96, 32)).to(META).train()
    arguments = FAMILY.batch(model, windows(), META)
    assert arguments["layout"].order.device == META
    output = model(**arguments)
    output.objective.sum.backward()
    sums = OutputSums(META)
    sums.add(output)
    sums.add(output)
    parameters = list(model.parameters())
    fill_missing(parameters)
    process = Process(rank=0, world_size=1, local_rank=0, device=META)
    totals, entries = global_totals(sums.vector, parameters, process, Stopwatch(process.device))
    assert totals.device == META and totals.shape == (3,)
    assert entries.shape == (0,) and sums.tally(entries) == {}


def test_a_tally_is_kept_without_waiting():
    output = SimpleNamespace(
        objective=Loss(torch.ones((), device=META), torch.ones((), device=META)),
        tally={"expert_load": torch.ones(2, 4, device=META, dtype=torch.long)},
    )
    sums, running = OutputSums(META), RunningTally(META)
    sums.add(output)
    for _ in range(2):
        running.add(sums.tally(sums.vector[2:]), torch.ones((), device=META))
    with pytest.raises((RuntimeError, NotImplementedError)):
        running.take()


def test_the_meta_device_would_tell():
    values = torch.ones(3, device=META)
    for look in (values.sum().item, lambda: bool(values.any()), lambda: values[values > 0], values.cpu):
        with pytest.raises(RuntimeError):
            look()
