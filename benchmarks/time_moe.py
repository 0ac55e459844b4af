"""Time-MoE beside the same model written plainly (plain_time_moe.py): training steps, forecasts, the layer of experts.

    OMP_NUM_THREADS=2 python benchmarks/time_moe.py                  # minutes; a Markdown table
    OMP_NUM_THREADS=2 python benchmarks/time_moe.py --quick          # does it still run?
    python benchmarks/time_moe.py --device cuda                      # time-moe-50m: tokens/s, MFU and a profile

Both sides hold the same weights and see the same rows; results are asserted equal before anything is timed. They take
turns, so a busy machine slows both; medians of the turns and of their ratios are printed. On a GPU both compute in bf16
under autocast, and the optimizer's step is timed too.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from foreloom.models.common.moe import MixtureOfExperts
from foreloom.models.time_moe.architecture import SIZES, Architecture, flops_per_row
from foreloom.models.time_moe.checkpoint import initialize, official_views
from foreloom.models.time_moe.model import TimeMoeForPrediction
from plain_time_moe import PlainExperts, PlainTimeMoe, plain_copy

SMALL = Architecture(
    hidden_size=256, intermediate_size=1024, num_hidden_layers=8, num_attention_heads=8, horizon_lengths=(1, 8, 32, 64)
)
"""8 layers, 8 experts of width 512, top-2, and a shared one of 1024."""
SEED = 0
PEAK_BF16_FLOPS = {"A100": 312e12, "H100": 989e12, "H200": 989e12, "L4": 121e12, "L40S": 362e12, "A10G": 70e12}
"""Dense bf16 products a second by the vendor's data sheet, for MFU = model FLOPs a second / this. Model FLOPs are those
of `time_moe.architecture.flops_per_row`: 6 a multiply-add weight that a token uses, and causal attention; nothing
recomputed."""
Call = Callable[[], Tensor]


def both_models(arch: Architecture, device: torch.device) -> tuple[TimeMoeForPrediction, PlainTimeMoe]:
    model = TimeMoeForPrediction(arch)
    initialize(model, SEED)
    model.protocol = "reference"  # the loss that the plain model has
    model.to(device)
    return model, plain_copy(model)


def training_pair(arch: Architecture, num_rows: int, num_steps: int, device: torch.device) -> tuple[Call, Call]:
    """Forward and backward; on a GPU in bf16 and with a step of fused AdamW."""
    model, plain = both_models(arch, device)
    rows = torch.randn(num_rows, num_steps + 1, generator=torch.Generator().manual_seed(SEED)).to(device)
    x, labels, mask = rows[:, :-1], rows[:, 1:], torch.ones(num_rows, num_steps, device=device)

    def step_of(module: nn.Module, loss_of: Call) -> Call:
        on_gpu = device.type == "cuda"
        optimizer = torch.optim.AdamW(module.parameters(), lr=1e-6, fused=True) if on_gpu else None

        def step() -> Tensor:
            with torch.autocast("cuda", dtype=torch.bfloat16) if on_gpu else contextlib.nullcontext():
                loss = loss_of()
            loss.backward()
            if optimizer is not None:
                optimizer.step()
            module.zero_grad()
            return loss.detach()

        return step

    return (
        step_of(model, lambda: model(x, labels=labels, loss_masks=mask).loss),
        step_of(plain, lambda: plain.loss(x, labels, mask)),
    )


def forecasting_pair(arch: Architecture, num_rows: int, num_steps: int, num_new: int) -> tuple[Call, Call]:
    model, plain = both_models(arch, torch.device("cpu"))
    x = torch.randn(num_rows, num_steps, generator=torch.Generator().manual_seed(SEED))
    return lambda: model.generate(x, num_new), lambda: plain.generate(x, num_new)


def layer_pair(
    num_tokens: int, width: int, expert_width: int, device: torch.device = torch.device("cpu")
) -> tuple[Call, Call]:
    """Forward and backward of one mixture of 8 experts, top-2, with the shared expert; on a GPU in bf16."""
    torch.manual_seed(SEED)
    layer = MixtureOfExperts(width, expert_width, 8, 2, shared_width=2 * expert_width)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.05)
    plain = PlainExperts(width, expert_width, 8, 2, 2 * expert_width)
    views = official_views({f"ffn_layer.{name}": value for name, value in layer.state_dict().items()})
    plain.load_state_dict({name.removeprefix("ffn_layer."): view for name, view in views.items()})
    x = torch.randn(1, num_tokens, width, device=device)

    def step_of(module: nn.Module) -> Call:
        module.to(device)

        def step() -> Tensor:
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
                y = module(x)[0]
            y.backward(x.to(y.dtype))
            module.zero_grad()
            return y.detach()

        return step

    return step_of(layer), step_of(plain)


def seconds(call: Call, device: torch.device) -> float:
    wait = torch.cuda.synchronize if device.type == "cuda" else (lambda: None)
    wait()
    start = time.perf_counter()
    call()
    wait()
    return time.perf_counter() - start


def compare(name: str, pair: Sequence[Call], num_turns: int, device: torch.device, tolerance: float) -> float:
    """Assert that both agree, take turns, print a row of the table; our median in seconds."""
    ours, theirs = (call() for call in pair)
    torch.testing.assert_close(ours.float(), theirs.float(), rtol=tolerance, atol=tolerance)
    turns = [(seconds(pair[0], device), seconds(pair[1], device)) for _ in range(num_turns)]
    ours_seconds, theirs_seconds = (statistics.median(column) for column in zip(*turns, strict=True))
    ratio = statistics.median(b / a for a, b in turns)
    print(f"| {name} | {ours_seconds * 1e3:,.1f} ms | {theirs_seconds * 1e3:,.1f} ms | **{ratio:.2f}×** |", flush=True)
    return ours_seconds


def on_cpu(num_turns: int, only: str | None, *, quick: bool) -> None:
    cpu = torch.device("cpu")
    arch = Architecture(**{**vars(SMALL), "num_hidden_layers": 1}) if quick else SMALL
    if only in (None, "layer"):
        for num_tokens in (8, 64, 512) if quick else (8, 64, 512, 4096):
            pair = layer_pair(num_tokens, 256, 512)
            compare(f"layer of experts, {num_tokens} tokens", pair, 5 * num_turns, cpu, 1e-5)
    if only in (None, "train"):
        for num_rows, num_steps in ((2, 128),) if quick else ((8, 512), (2, 2048)):
            pair = training_pair(arch, num_rows, num_steps, cpu)
            compare(f"forward and backward, {num_rows} × {num_steps}", pair, num_turns, cpu, 1e-5)
    if only in (None, "forecast"):
        for num_rows, num_steps, num_new in ((2, 128, 96),) if quick else ((8, 512, 96), (2, 2048, 336)):
            pair = forecasting_pair(arch, num_rows, num_steps, num_new)
            compare(f"generate, {num_rows} × {num_steps} → {num_new}", pair, num_turns, cpu, 1e-4)


def on_cuda(num_turns: int, num_rows: int, num_steps: int) -> None:
    device = torch.device("cuda")
    arch = Architecture(**SIZES["50m"])
    pair = training_pair(arch, num_rows, num_steps, device)
    name = f"time-moe-50m, bf16, training step, {num_rows} × {num_steps}"
    step_seconds = compare(name, pair, num_turns, device, 2e-2)
    flops = num_rows * flops_per_row(TimeMoeForPrediction(arch), num_steps, 1)
    card = torch.cuda.get_device_name()
    peak = next((peak for part, peak in PEAK_BF16_FLOPS.items() if part in card.replace("-", " ").split()), None)
    mfu = f"{flops / step_seconds / peak:.1%}" if peak else "unknown, no peak is listed for this card"
    print(f"\n{card}: {num_rows * num_steps / step_seconds:,.0f} tokens/s, MFU {mfu}; "
          f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB with both models\n")  # fmt: skip
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        pair[0]()
        torch.cuda.synchronize()
    print(profile.key_averages().table(sort_by="self_cuda_time_total", row_limit=25, max_name_column_width=60))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--quick", action="store_true", help="one turn of small cases, one layer")
    parser.add_argument("--only", choices=["layer", "train", "forecast"], help="one of the three, on a CPU")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--rows", type=int, default=32, help="of a batch on a GPU")
    parser.add_argument("--steps", type=int, default=1024, help="of a row on a GPU")
    arguments = parser.parse_args()
    num_turns = 1 if arguments.quick else arguments.turns
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, medians of {num_turns} interleaved turns\n")
    print("| what | foreloom | plain | ratio |\n| --- | ---: | ---: | ---: |")
    if arguments.device == "cuda":
        on_cuda(num_turns, arguments.rows, arguments.steps)
    else:
        on_cpu(num_turns, arguments.only, quick=arguments.quick)


if __name__ == "__main__":
    main()
