"""Seconds, energy and price from stated rates; which GPUs are meant, and what is said of those that are not known."""

from __future__ import annotations

import dataclasses
import math

import pytest

from foreloom.plan.cluster import find_cluster
from foreloom.plan.communication import Collective
from foreloom.plan.estimate import cost_run, time_step

ASKED = {"num_gpus": 4, "per_machine": 8, "mfu": 0.5, "price": 3.0}


def test_a_step_and_a_run() -> None:
    cluster, precision = find_cluster("auto", gpu="a100-80gb", **ASKED)
    assert (precision, cluster.peak_flops, cluster.accelerator.watts) == ("bf16", 312e12, 400)
    moved = [Collective("all-reduce", 3e11, 4, 0)]
    its = {"collectives": moved, "optimizer": "adamw", "num_updated": 2039e9 / 28}
    step = time_step(cluster, flops=312e12, recomputes=False, **its)
    assert step.compute == pytest.approx(2.0) and step.communication == pytest.approx(1.5)
    assert step.update == pytest.approx(1.0) and step.total == pytest.approx(3.0)  # what is moved is hidden
    again = time_step(cluster, flops=312e12, recomputes=True, **its)
    assert again.compute == pytest.approx(8 / 3) and again.communication == step.communication
    cost = cost_run(cluster, 3.6, 1000)
    assert (cost.seconds, cost.kwh, cost.price) == (pytest.approx(3600), pytest.approx(1.6), pytest.approx(12.0))
    free = cost_run(dataclasses.replace(cluster, price=None), 3.6, 1000)
    assert free.price is None


def test_a_gpu_by_name_or_as_it_is_told() -> None:
    old, precision = find_cluster("auto", gpu="V100_32GB", **ASKED)
    assert (precision, old.peak_flops) == ("fp32", 15.7e12)
    with pytest.raises(ValueError, match=r"precision: bf16, and a v100-32gb computes none"):
        find_cluster("bf16", gpu="v100-32gb", **ASKED)
    with pytest.raises(
        ValueError, match=r"the GPU 'h100' is not known.* Known: v100-16gb, .*--memory 80GB --peak 312e12"
    ):
        find_cluster("auto", gpu="h100", **ASKED)
    with pytest.raises(ValueError, match=r"which GPU\? --gpu names one of v100-16gb, .*--peak 312e12"):
        find_cluster("auto", gpu="", memory="80GB", **ASKED)
    told, precision = find_cluster("auto", gpu="", memory="48GB", peak=1e14, network=5e9, **ASKED)
    assert (told.accelerator.memory_bytes, told.peak_flops, precision) == (48 * 2**30, 1e14, "bf16")
    assert told.accelerator.network == 5e9 and math.isinf(told.accelerator.link)
    assert cost_run(told, 1.0, 10).kwh is None
    cut, _ = find_cluster("fp32", gpu="h100-sxm", memory="40GB", watts=350, **ASKED)
    assert (cut.accelerator.memory_bytes, cut.accelerator.watts) == (40 * 2**30, 350)
    assert cut.peak_flops == pytest.approx(66.9e12)
