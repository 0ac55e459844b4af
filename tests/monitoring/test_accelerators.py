"""The catalogue of accelerators: by name, by what drivers call them, and whether its figures hang together."""

from __future__ import annotations

import pytest

from foreloom.monitoring.accelerators import accelerators, find_accelerator, peak_flops


@pytest.mark.parametrize(
    ("name", "teraflops"),
    [
        ("NVIDIA H200", 989.4),
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA H100 NVL", 835.5),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA A10G", 70.0),
        ("NVIDIA A10", 125.0),
        ("NVIDIA L40S", 362.1),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA GH200 480GB", 989.4),
        ("AMD Instinct MI250X", 191.5),  # torch sees the two halves of a card
        ("AMD Instinct MI300X", 1307.4),
    ],
)
def test_known_devices(name, teraflops):
    assert peak_flops(name) == pytest.approx(teraflops * 1e12)


@pytest.mark.parametrize(
    "name",
    ["NVIDIA A100-SXM4-40GB MIG 1g.5gb", "NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA GeForce RTX 4090 D",
     "NVIDIA GeForce RTX 3090 Ti", "NVIDIA H20", "NVIDIA H800", "Tesla V100-SXM2-16GB", "cpu"],
)  # fmt: skip
def test_unknown_devices_have_no_peak(name):
    assert peak_flops(name) is None


def test_the_catalogue_hangs_together() -> None:
    """A slip of a digit or a unit is out of proportion to its neighbours."""
    known = accelerators()
    assert {"v100-32gb", "a100-40gb", "a100-80gb", "h100-sxm", "h100-pcie", "h200", "l4", "l40s", "a10g", "t4"} <= set(
        known
    )
    assert {"rtx-4090", "b200", "mi300x"} <= set(known)
    for name, one in known.items():
        assert one.name == name and one.source and 16 <= one.memory_bytes / 2**30 <= 300
        assert 3e11 <= one.bandwidth <= 9e12 and one.link <= one.bandwidth and one.network <= 1e12, name
        assert 8e12 <= one.fp32_flops <= one.tf32_flops and 60 <= one.watts <= 1500, name
        assert one.bf16_flops is None or 1.9 <= one.bf16_flops / one.tf32_flops <= 4.1, name
        assert one.bf16_flops is None or 1e11 <= one.bf16_flops / one.watts <= 3e12, name
    assert known["a100-80gb"].memory_bytes == 2 * known["a100-40gb"].memory_bytes
    assert find_accelerator("A100 80GB") == known["a100-80gb"]
    with pytest.raises(
        ValueError, match=r"'a100-80' is not known. Did you mean a100-80gb\? Known: v100-16gb, .* --peak"
    ):
        find_accelerator("a100-80")
    with pytest.raises(ValueError, match=r"'A100' is not known. Did you mean a100-40gb or a100-80gb or a100-pcie"):
        find_accelerator("A100")
    with pytest.raises(ValueError, match=r"Did you mean rtx-4090\?"):
        find_accelerator("rtx4090")
