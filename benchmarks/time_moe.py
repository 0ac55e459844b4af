"""Time-MoE beside the same model written plainly (plain_time_moe.py): training steps, forecasts, the layer of experts.

    OMP_NUM_THREADS=2 python benchmarks/time_moe.py                  # trains a model first: minutes
    OMP_NUM_THREADS=1 python benchmarks/time_moe.py --cpu-time --only train --trained FOLDER
    OMP_NUM_THREADS=2 python benchmarks/time_moe.py --quick          # does it still run?
    python benchmarks/time_moe.py --device cuda                      # time-moe-50m: tokens/s, MFU and a profile

Both sides hold the same trained weights (on a GPU: random ones) and see the same rows; results are asserted equal
before anything is timed. They take turns, so a busy machine slows both; medians of the turns and of their ratios are
printed. --cpu-time, with one thread, is what that disturbs least. On a GPU both compute in bf16 under autocast, and the
optimizer's step is timed too.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
from typing import Any

import torch
from torch import Tensor, nn

from foreloom.models.common.moe import MixtureOfExperts
from foreloom.models.family import WindowLengths
from foreloom.models.time_moe.architecture import SIZES, Architecture, flops_per_row
from foreloom.models.time_moe.checkpoint import initialize, official_views
from foreloom.models.time_moe.family import FAMILY
from foreloom.models.time_moe.model import TimeMoeForPrediction
from plain_time_moe import PlainExperts, plain_copy
from trained import EXAMPLES, trained_folder
from turns import SEED, Call, Table, parser, random_walks

SMALL: dict[str, Any] = {
    "hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 8, "num_attention_heads": 8, "num_experts": 8,
}  # fmt: skip
"""8 layers, 8 experts of width 512, top-2, and a shared one of 1024."""
OVERRIDES = [
    *(f"model.{name}={value}" for name, value in SMALL.items()), "model.initializer_range=0.05",
    "model.horizon_lengths=[1, 8, 32, 64]",
    f"data.sources=[{{path: {EXAMPLES / 'm4_hourly.parquet'}}}]", "data.context_length=64",
    "data.prediction_length=64", "data.min_past=64",
    "validation.steps=0", "validation.stride=null", "validation.patience=0",
    "training.steps=120", "training.batch_size=4", "optimizer.learning_rate=1e-3",
]  # fmt: skip
"""Of time-moe-etth1, on example data and short windows."""
PEAK_BF16_FLOPS = {"A100": 312e12, "H100": 989e12, "H200": 989e12, "L4": 121e12, "L40S": 362e12, "A10G": 70e12}
"""Dense bf16 products a second by the vendor's data sheet, for MFU = model FLOPs a second / this. Model FLOPs are those
of `time_moe.architecture.flops_per_row`: 6 a multiply-add weight that a token uses, and causal attention; nothing
recomputed."""


def new_model(arch: Architecture) -> TimeMoeForPrediction:
    """Of random weights."""
    model = TimeMoeForPrediction(arch)
    initialize(model, SEED)
    return model


def rows_of(num_rows: int, num_steps: int) -> Tensor:
    """(rows, steps), each row scaled as a window is."""
    walks = torch.from_numpy(random_walks(num_rows, num_steps))
    return (walks - walks.mean(1, keepdim=True)) / walks.std(1, keepdim=True)


def training_pair(
    model: TimeMoeForPrediction, num_rows: int, num_steps: int, device: torch.device = torch.device("cpu")
) -> tuple[Call, Call]:
    """Forward and backward; on a GPU in bf16 and with a step of fused AdamW."""
    model.protocol = "reference"  # the loss that the plain model has
    model.to(device)
    plain = plain_copy(model)
    rows = rows_of(num_rows, num_steps + 1).to(device)
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


def forecasting_pair(model: TimeMoeForPrediction, num_rows: int, num_steps: int, num_new: int) -> tuple[Call, Call]:
    plain, x = plain_copy(model), rows_of(num_rows, num_steps)
    return lambda: model.generate(x, num_new), lambda: plain.generate(x, num_new)


def layer_pair(
    model: TimeMoeForPrediction, num_tokens: int, device: torch.device = torch.device("cpu")
) -> tuple[Call, Call]:
    """Forward and backward of the experts of one layer; on a GPU in bf16."""
    arch = model.architecture
    layer = copy.deepcopy(model.model.layers[0].ffn_layer)
    assert isinstance(layer, MixtureOfExperts)
    plain = PlainExperts(arch.hidden_size, arch.expert_width, arch.num_experts, arch.num_experts_per_tok,
                         arch.intermediate_size)  # fmt: skip
    views = official_views({f"ffn_layer.{name}": value for name, value in layer.state_dict().items()})
    plain.load_state_dict({name.removeprefix("ffn_layer."): view for name, view in views.items()})
    x = torch.randn(1, num_tokens, arch.hidden_size, generator=torch.Generator().manual_seed(SEED)).to(device)

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


def on_cpu(arguments: argparse.Namespace) -> None:
    quick, only = arguments.quick, arguments.only
    overrides = [*OVERRIDES, "model.num_hidden_layers=1"] if quick else OVERRIDES
    with trained_folder(arguments.trained, "time-moe-etth1", quick=quick, overrides=overrides) as folder:
        model = FAMILY.load(folder)
    table = Table(arguments, "plain")
    num_tokens, rows = (256, [2]) if quick else (4096, arguments.rows or [8, 2])
    if only in (None, "layer"):
        for num in (8, 64, 512) if quick else (8, 64, 512, 4096):
            pair = layer_pair(model, num)
            table.compare(f"layer of experts, {num} tokens", pair, trains=True, tolerance=1e-5, times=5)
    if only in (None, "train"):
        for num_rows in rows:
            num_steps = num_tokens // num_rows
            pair = training_pair(model, num_rows, num_steps)
            table.compare(f"forward and backward, {num_rows} × {num_steps}", pair, trains=True, tolerance=1e-5)
    if only in (None, "forecast"):
        for num_rows in rows:
            num_steps = num_tokens // num_rows
            num_new = 336 if num_steps > 1024 else 96
            pair = forecasting_pair(model, num_rows, num_steps, num_new)
            table.compare(f"generate, {num_rows} × {num_steps} → {num_new}", pair, tolerance=1e-3)


def on_cuda(arguments: argparse.Namespace) -> None:
    device = torch.device("cuda")
    model = new_model(Architecture(**SIZES["50m"]))
    (num_rows,), num_steps = arguments.rows or [32], arguments.steps
    pair = training_pair(model, num_rows, num_steps, device)
    name = f"time-moe-50m, bf16, training step, {num_rows} × {num_steps}"
    step_seconds = Table(arguments, "plain").compare(name, pair, tolerance=2e-2)
    flops = num_rows * flops_per_row(model, WindowLengths(num_steps, 1))
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
    options = parser(__doc__, turns=7, only=["layer", "train", "forecast"])
    options.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    options.add_argument("--steps", type=int, default=1024, help="of a row on a GPU")
    arguments = options.parse_args()
    if arguments.device == "cuda":
        on_cuda(arguments)
    else:
        on_cpu(arguments)


if __name__ == "__main__":
    main()
