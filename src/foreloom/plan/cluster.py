"""The devices that a plan is for: of the catalogue, or as they are described, with what is assumed of them."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

from foreloom.monitoring.accelerators import NETWORK, Accelerator, accelerators, find_accelerator
from foreloom.run.machine import parse_bytes

Precision = Literal["bf16", "fp32"]


@dataclass(frozen=True)
class Cluster:
    """The devices, and what is assumed of them."""

    accelerator: Accelerator
    num_gpus: int
    per_machine: int
    peak_flops: float
    """In the precision of the run."""
    mfu: float
    """Share of the peak that forward and backward reach."""
    price: float | None
    """Of a device and hour."""

    def __post_init__(self) -> None:
        assert self.num_gpus > 0 and self.per_machine > 0


def find_cluster(
    precision: Literal["auto", "bf16", "fp32"],
    *,
    gpu: str,
    num_gpus: int,
    per_machine: int,
    mfu: float,
    price: float | None = None,
    memory: str | None = None,
    peak: float | None = None,
    bandwidth: float | None = None,
    link: float | None = None,
    network: float | None = None,
    watts: float | None = None,
) -> tuple[Cluster, Precision]:
    """`num_gpus` of those named, whatever is told of them instead of what their sheets say, and the precision that
    `training.precision` comes to on them.

    ValueError for a name that is not known, for no name without `memory` ("80GB") and `peak`, and for bf16 on a GPU
    that has none.
    """
    size = parse_bytes(memory) if memory else None
    if gpu:
        sheet = find_accelerator(gpu)
    elif size is None or peak is None:
        raise ValueError(
            f"which GPU? --gpu names one of {', '.join(accelerators())}; of any other tell what it has: --memory 80GB "
            "--peak 312e12."
        )
    else:
        sheet = Accelerator(f"GPU of {memory}", size, peak, peak, peak, math.inf, math.inf, NETWORK, None, "as told")
    settled: Precision = precision if precision != "auto" else "bf16" if sheet.bf16_flops else "fp32"
    if settled == "bf16" and not sheet.bf16_flops:
        raise ValueError(f"training.precision: bf16, and a {sheet.name} computes none; set training.precision=fp32.")
    told: dict[str, Any] = {
        "memory_bytes": size,
        "bandwidth": bandwidth,
        "link": link,
        "network": network,
        "watts": watts,
    }
    sheet = dataclasses.replace(sheet, **{name: value for name, value in told.items() if value is not None})
    of_sheet = sheet.bf16_flops if settled == "bf16" else sheet.fp32_flops
    assert of_sheet
    return Cluster(sheet, num_gpus, per_machine, peak or of_sheet, mfu, price), settled
