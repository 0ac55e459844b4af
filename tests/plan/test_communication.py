"""Bytes that ranks send by formula, against sums done by hand."""

from __future__ import annotations

import pytest

from foreloom.distributed.mesh import MeshShape
from foreloom.plan.communication import ParameterCounts, collectives_of_step

COUNTS = ParameterCounts(total=1000, trained=1000, in_blocks=900)


def sent(
    shape: MeshShape, *, parts: int = 1, per_machine: int = 8, counts: ParameterCounts = COUNTS
) -> dict[str, float]:
    found = collectives_of_step(counts, shape, num_micro_batches=parts, compute_bytes=2, per_machine=per_machine)
    return {one.kind: one.sent_bytes for one in found}


def test_bytes_by_strategy() -> None:
    assert sent(MeshShape("ddp", 1, 1)) == {}
    assert sent(MeshShape("ddp", 4, 1)) == {"all-reduce": pytest.approx(2 * 3 / 4 * 4000)}
    gathered = 2 * 2 * 900 + 4 * 100  # blocks twice in bf16, the rest once as it is kept
    fsdp = sent(MeshShape("fsdp", 1, 4))
    assert fsdp == {"all-gather": pytest.approx(3 / 4 * gathered), "reduce-scatter": pytest.approx(3 / 4 * 4000)}
    assert sent(MeshShape("fsdp", 1, 4), parts=3) == fsdp | {"all-gather": pytest.approx(3 * fsdp["all-gather"])}
    hsdp = sent(MeshShape("fsdp", 2, 4))
    assert hsdp == fsdp | {"all-reduce": pytest.approx(2 * 1 / 2 * 4000 / 4)}
    frozen = ParameterCounts(total=1000, trained=10, in_blocks=900)
    assert sent(MeshShape("fsdp", 1, 4), counts=frozen)["reduce-scatter"] == pytest.approx(3 / 4 * 40)
    muon = ParameterCounts(total=1000, trained=1000, in_blocks=900, orthogonalised=800)
    assert sent(MeshShape("fsdp", 1, 4), counts=muon)["all-gather"] == pytest.approx(3 / 4 * (gathered + 3200))


def test_what_leaves_a_machine_decides_where_the_network_is_slow() -> None:
    def seconds(shape: MeshShape, link: float, network: float) -> list[float]:
        found = collectives_of_step(COUNTS, shape, num_micro_batches=1, compute_bytes=2, per_machine=8)
        return [one.seconds(link, network) for one in found]

    within, across = MeshShape("ddp", 8, 1), MeshShape("ddp", 16, 1)
    assert seconds(within, 1000, 1) == [pytest.approx(2 * 7 / 8 * 4)]
    assert seconds(across, 1000, 10) == [pytest.approx(2 * 15 / 16 * 400)]
    gather, scatter, reduce = seconds(MeshShape("fsdp", 2, 8), 1000, 100)
    assert (gather, scatter) == (pytest.approx(7 / 8 * 4), pytest.approx(7 / 8 * 4))  # each copy within its machine
    assert reduce == pytest.approx(8 * (2 * 1 / 2 * 500) / 100)  # eight shares leave side by side
