"""The chunked cross entropy beside the plain one, on the head of Gemma 3 270M: time and memory, interleaved.

    python benchmarks/linear_cross_entropy.py --tokens 8192 --rounds 3 [--device cuda --bf16]
    OMP_NUM_THREADS=1 python benchmarks/linear_cross_entropy.py --tokens 1024 --cpu-time
    python benchmarks/linear_cross_entropy.py --tokens 64 --rounds 1      # does it still run?

`plain` and `chunked` are the loss of hidden states with its backward (beside them liger-kernel on CUDA, where it is
installed). `trainer` and `foreloom` are a step without the optimizer, by the Hugging Face Trainer and by us, of one
Gemma-3 layer below that head. Each is measured in processes of its own, in turn, so that the peak of one is not that of
another: medians, and the peak above what weights, their gradient and inputs take. A step of T tokens is 1e9 T
operations of the head alone, so 8,192 tokens take minutes on a core.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F

from foreloom import subnormals
from foreloom.models.causal_lm.model import CausalLm
from foreloom.objectives.linear_cross_entropy import linear_cross_entropy

WIDTH, VOCABULARY, ROW = 640, 262_144, 2_048
PEERS = {"chunked": "plain", "liger": "plain", "foreloom": "trainer"}
Step = Callable[[int], torch.Tensor]


def loss_of(way: str, device: str, bf16: bool) -> Step:
    """A call that takes a number of tokens, and gives their mean loss after its backward."""
    torch.manual_seed(0)
    weight = (torch.randn(VOCABULARY, WIDTH, device=device) * 0.02).requires_grad_()
    weight.grad = torch.zeros_like(weight)
    total = {
        "plain": lambda h, label: F.cross_entropy(F.linear(h, weight).float(), label, reduction="sum"),
        "chunked": lambda h, label: linear_cross_entropy(h, weight, label).total,
        "liger": lambda h, label: _liger()(h, weight, label, reduction="sum"),
    }[way]

    def step(tokens: int) -> torch.Tensor:
        h = torch.randn(tokens, WIDTH, device=device).requires_grad_()
        weight.grad = None
        with torch.autocast(device, dtype=torch.bfloat16, enabled=bf16):
            loss = total(h, torch.randint(VOCABULARY, (tokens,), device=device)) / tokens
        loss.backward()
        return loss.detach()

    return step


def _liger() -> Any:
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

    return liger_fused_linear_cross_entropy


def step_of(way: str, device: str, bf16: bool) -> Step:
    """The same for a step of a model with that head and one layer."""
    from transformers import AutoConfig, AutoModelForCausalLM, Trainer, TrainingArguments

    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "gemma3_text", vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=2048, num_hidden_layers=1,
        num_attention_heads=4, num_key_value_heads=1, head_dim=256, layer_types=["full_attention"],
    )  # fmt: skip
    lm = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").to(device).train()
    with tempfile.TemporaryDirectory() as out:
        arguments = TrainingArguments(out, bf16=bf16, use_cpu=device == "cpu", report_to="none")
        trainer = Trainer(lm, arguments)
    ours = CausalLm(lm, None).train()
    for parameter in lm.parameters():
        parameter.grad = torch.zeros_like(parameter)

    def step(tokens: int) -> torch.Tensor:
        ids = torch.randint(VOCABULARY, (max(tokens // ROW, 1), min(tokens, ROW)), device=device)
        lm.zero_grad()
        if way == "trainer":
            return trainer.training_step(lm, {"input_ids": ids, "labels": ids}, num_items_in_batch=ids[:, 1:].numel())
        label = F.pad(ids[:, 1:], (0, 1), value=-100)
        with torch.autocast(device, dtype=torch.bfloat16, enabled=bf16):
            loss = ours(ids, label).objective.mean
        loss.backward()
        return loss.detach()

    return step


def measure(way: str, tokens: int, device: str, bf16: bool, cpu_time: bool) -> dict[str, float]:
    """Seconds of one call after a warm-up, bytes above those of its inputs, the loss."""
    step = (step_of if way in ("trainer", "foreloom") else loss_of)(way, device, bf16)
    is_cuda = device == "cuda"
    clock = time.process_time if cpu_time else time.perf_counter
    peak = lambda: torch.cuda.max_memory_allocated() if is_cuda else 1024 * resource.getrusage(0).ru_maxrss
    before = peak()
    step(tokens if is_cuda else 16)
    with subnormals.flushed() if way in ("chunked", "foreloom") else nullcontext():
        torch.cuda.synchronize() if is_cuda else None
        began = clock()
        loss = step(tokens)
        torch.cuda.synchronize() if is_cuda else None
        seconds = clock() - began
    return {"seconds": seconds, "bytes": peak() - before, "loss": float(loss)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--cpu-time", action="store_true", help="of all threads together, in place of the clock's")
    parser.add_argument("--way", help="measure one way in this process")
    asked = parser.parse_args()
    if asked.way:
        print(json.dumps(measure(asked.way, asked.tokens, asked.device, asked.bf16, asked.cpu_time)))
        return
    ways = ["plain", "chunked", "trainer", "foreloom"]
    if asked.device == "cuda" and importlib.util.find_spec("liger_kernel"):
        ways.insert(2, "liger")
    found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for number in range(asked.rounds):
        for way in ways:
            command = [sys.executable, __file__, *sys.argv[1:], "--way", way]
            printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            found[way].append(json.loads(printed.splitlines()[-1]))
            print(f"round {number + 1}: {way} {found[way][-1]}", file=sys.stderr, flush=True)
    print("| way | seconds | memory | seconds of its peer | memory of its peer | loss |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    median = lambda way, name: statistics.median(one[name] for one in found[way])
    for way, runs in found.items():
        peer = PEERS.get(way, way)
        share = {name: median(way, name) / median(peer, name) for name in ("seconds", "bytes")}
        print(
            f"| {way} | {median(way, 'seconds'):.2f} | {median(way, 'bytes') / 1e6:,.0f} MB | "
            f"{share['seconds']:.2f} | {share['bytes']:.0%} | {runs[0]['loss']:.5f} |"
        )


if __name__ == "__main__":
    main()
