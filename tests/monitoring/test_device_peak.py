"""Peaks by the names that drivers give."""

from __future__ import annotations

import pytest
import torch

from foreloom.monitoring.device_peak import find_peak, peak_flops, utilisation


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


def test_a_run_says_where_its_peak_comes_from_or_why_it_has_none():
    cpu = torch.device("cpu")
    assert find_peak(cpu, None).flops is None
    assert "'cpu' is not known; monitoring.peak_flops" in find_peak(cpu, None).sentence
    assert find_peak(cpu, 2e11) == (2e11, "of 0.2 TFLOP/s a device, as monitoring.peak_flops says")


def test_utilisation():
    assert utilisation(8e15, seconds=2.0, num_devices=4, peak=1e15) == 1.0
