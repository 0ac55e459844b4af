"""The chunked cross entropy beside the plain one, on the head of Gemma 3 270M: time and memory, interleaved.

python benchmarks/linear_cross_entropy.py --tokens 8192 --rounds 5 [--device cuda --bf16]

Each way runs in processes of its own, in turn, so that the peak of one is not that of the other. Printed are medians of
a forward with its backward, and the peak above what weights, their gradient and inputs take. On CUDA liger-kernel runs
beside them where it is installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
WIDTH, VOCABULARY = 640, 262_144
WARM_UP = 1


def step(way: str, h, weight, label, autocast):
    """A sum of losses, ready for its backward."""
    import torch.nn.functional as F

    if way == "chunked":
        from foreloom.objectives.linear_cross_entropy import linear_cross_entropy

        with autocast:
            return linear_cross_entropy(h, weight, label).total
    if way == "liger":
        from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

        with autocast:
            return liger_fused_linear_cross_entropy(h, weight, label, reduction="sum")
    with autocast:
        logits = F.linear(h, weight)
    return F.cross_entropy(logits.float(), label, reduction="sum")


def measure(way: str, tokens: int, device: str, bf16: bool) -> dict[str, float]:
    """One process: seconds of a forward with its backward after a warm-up, bytes above those of its inputs."""
    import torch

    torch.manual_seed(0)
    weight = (torch.randn(VOCABULARY, WIDTH, device=device) * 0.02).requires_grad_()
    h = torch.randn(tokens, WIDTH, device=device).requires_grad_()
    label = torch.randint(VOCABULARY, (tokens,), device=device)
    autocast = torch.autocast(device, dtype=torch.bfloat16, enabled=bf16)
    weight.grad, h.grad = torch.zeros_like(weight), torch.zeros_like(h)
    peak = lambda: torch.cuda.max_memory_allocated() if device == "cuda" else 1024 * resource.getrusage(0).ru_maxrss
    before = peak()
    for _ in range(1 + WARM_UP):
        weight.grad = h.grad = None
        if device == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        total = step(way, h, weight, label, autocast)
        total.backward()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - began
    return {"seconds": seconds, "bytes": peak() - before, "loss": float(total) / tokens}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--way", help="Measure one way in this process.")
    asked = parser.parse_args()
    if asked.way:
        print(json.dumps(measure(asked.way, asked.tokens, asked.device, asked.bf16)))
        return
    ways = ["plain", "chunked"]
    if asked.device == "cuda" and importlib.util.find_spec("liger_kernel"):
        ways.append("liger")
    found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for _ in range(asked.rounds):
        for way in ways:
            command = [sys.executable, __file__, *sys.argv[1:], "--way", way]
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found[way].append(json.loads(printed.splitlines()[-1]))
    plain = {name: statistics.median(one[name] for one in found["plain"]) for name in ("seconds", "bytes")}
    for way, runs in found.items():
        seconds, num_bytes = (statistics.median(one[name] for one in runs) for name in ("seconds", "bytes"))
        print(
            f"{way:8} {seconds:8.3f} s ({seconds / plain['seconds']:.2f}x) {num_bytes / 2**20:8.0f} MB "
            f"({num_bytes / plain['bytes']:.0%}) loss {runs[0]['loss']:.6f}"
        )


if __name__ == "__main__":
    main()
