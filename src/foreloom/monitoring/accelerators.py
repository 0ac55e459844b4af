"""What accelerators can do at best: their data sheets (accelerators.yaml), by name and by what a driver calls them."""

from __future__ import annotations

import difflib
import functools
import re
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import yaml

NETWORK = 12.5e9
"""Out of a machine, where its vendor builds no network with it: 100 Gb/s."""


@dataclass(frozen=True)
class Accelerator:
    """One device. Figures of data sheets, which nothing reaches; bytes and operations are of a second."""

    name: str
    memory_bytes: int
    bf16_flops: float | None
    """Of dense matrix products added up in float32; None where it has no bf16."""
    fp32_flops: float
    tf32_flops: float
    bandwidth: float
    """Between it and its memory."""
    link: float
    """To the other devices of its machine, one direction."""
    network: float
    """Out of the machine, shared by its devices, one direction."""
    watts: float | None
    source: str


def _read(name: str, sheet: dict[str, Any]) -> Accelerator:
    bf16 = sheet.get("bf16_tflops")
    return Accelerator(
        name,
        memory_bytes=round(sheet["memory_gib"] * 2**30),
        bf16_flops=bf16 and bf16 * 1e12,
        fp32_flops=sheet["fp32_tflops"] * 1e12,
        tf32_flops=sheet["tf32_tflops"] * 1e12,
        bandwidth=sheet["bandwidth_gbs"] * 1e9,
        link=sheet["link_gbs"] * 1e9,
        network=sheet["network_gbs"] * 1e9 if "network_gbs" in sheet else NETWORK,
        watts=sheet["watts"],
        source=sheet["source"],
    )


@functools.cache
def _sheets() -> dict[str, dict[str, Any]]:
    return yaml.safe_load(files("foreloom.monitoring").joinpath("accelerators.yaml").read_text(encoding="utf-8"))


def accelerators() -> dict[str, Accelerator]:
    """All that are known, by name."""
    return {name: _read(name, sheet) for name, sheet in _sheets().items()}


def find_accelerator(name: str) -> Accelerator:
    """By its name here, in any case; ValueError lists those that are known."""
    known = accelerators()
    plain = re.sub(r"[\s_]+", "-", name.strip().lower())
    if plain in known:
        return known[plain]
    # `a100` is short for several, though a10 is spelled more like it.
    of_name = [one for one in known if one.startswith(f"{plain}-")]
    close = of_name or difflib.get_close_matches(plain, known, n=1)
    nearest = f" Did you mean {' or '.join(close)}?" if close else ""
    raise ValueError(
        f"the GPU {name!r} is not known.{nearest} Known: {', '.join(known)}. Of any other, tell what it has: "
        "--memory 80GB --peak 312e12."
    )


def peak_flops(device_name: str) -> float | None:
    """The bf16 peak of one device by the name its driver gives (`NVIDIA H100 80GB HBM3`); None where it is not known.

    The longest `cuda_name` whose words the name holds, so that an H100 NVL is not taken for an H100. Parts of a GPU
    (MIG) and lesser or larger variants (Laptop, D, Ti) are not in the table.
    """
    name = " ".join(re.split(r"[\s\-_]+", device_name.lower()))
    if re.search(r"\b(mig|laptop|d|ti)\b", name):
        return None
    of_names = {sheet["cuda_name"]: sheet.get("bf16_tflops") for sheet in _sheets().values()}
    found = [known for known in of_names if re.search(rf"\b{re.escape(known.lower())}\b", name)]
    teraflops = of_names[max(found, key=len)] if found else None
    return teraflops and teraflops * 1e12
