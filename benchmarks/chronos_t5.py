"""Chronos-T5 beside chronos-forecasting and transformers, and its experts beside a dense run of all of them.

    OMP_NUM_THREADS=2 python benchmarks/chronos_t5.py            # trains a model first; about ten minutes
    OMP_NUM_THREADS=2 python benchmarks/chronos_t5.py --quick    # does it still run?

Both sides hold the same trained weights. Training: the same tokens (context 512, horizon 64, dropout 0.1), fused AdamW,
beside transformers' T5ForConditionalGeneration as chronos-forecasting trains it. Forecasts: 20 samples of 64 steps,
beside ChronosPipeline.predict. Experts: forward and backward of a head of 16 experts of which 2 are active, beside
running all 16 and mixing; their weights are random, and the gradients of a mean square are far from subnormal.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from chronos import ChronosPipeline

from foreloom.data.forecast_input import ForecastInput
from foreloom.models.chronos_t5.architecture import Architecture
from foreloom.models.chronos_t5.experts import SampleExperts, SampleRouting
from foreloom.models.chronos_t5.family import FAMILY
from foreloom.models.chronos_t5.forecast import ChronosT5Forecaster
from trained import trained_folder
from turns import Call, Table, parser, random_walks, training_step

CONTEXT, HORIZON = 512, 64
OVERRIDES = [
    f"data.context_length={CONTEXT}", f"data.prediction_length={HORIZON}", "data.drop_values=0",
    "data.sources=[{path: 'synth://patterns?num_series=50&length=800'}]", "validation.steps=0",
    "model.n_tokens=4096", "model.low_limit=-15", "model.high_limit=15", "model.num_samples=20",
]  # fmt: skip
"""The published tokens and samples, and longer windows than those of the sample recipe."""


def both_sides(folder: Path) -> tuple[torch.nn.Module, ChronosPipeline]:
    """Our module and their pipeline on the same weights."""
    return FAMILY.load(folder), ChronosPipeline.from_pretrained(folder)


def training_pair(num_rows: int, folder: Path) -> tuple[Call, Call]:
    ours, pipeline = both_sides(folder)
    walks = torch.from_numpy(random_walks(num_rows, CONTEXT + HORIZON))
    context = ours.tokenizer.encode_context(walks[:, :CONTEXT])
    labels = ours.tokenizer.encode_labels(walks[:, CONTEXT:], context.scale_R)
    batch = {"input_ids": context.id_RS, "attention_mask": context.mask_RS, "labels": labels}
    theirs = pipeline.inner_model.train()
    return training_step(ours, batch), training_step(theirs, batch)


def forecasting_pair(num_rows: int, folder: Path) -> tuple[Call, Call]:
    ours, pipeline = both_sides(folder)
    contexts = random_walks(num_rows, CONTEXT)
    inputs = [ForecastInput(row[None], np.empty((1, HORIZON), np.float32), num_targets=1) for row in contexts]
    forecaster = ChronosT5Forecaster(ours.eval())
    pipeline.inner_model.eval()
    tensor = torch.from_numpy(contexts)
    return (
        lambda: float(np.concatenate(forecaster.predict(inputs, HORIZON)).mean()),
        lambda: float(pipeline.predict(tensor, prediction_length=HORIZON).mean()),
    )


def experts_pair(num_rows: int, num_experts: int, top_k: int) -> tuple[Call, Call]:
    arch = Architecture(d_model=256, use_moe=True, num_experts=num_experts, num_active_experts=top_k)
    moe = SampleExperts(arch).eval()
    h_BTD = torch.randn(num_rows, HORIZON + 1, 256)
    routing = moe.route(torch.randn(num_rows, CONTEXT, 256), None)

    def sparse() -> float:
        return learn(moe(h_BTD, routing))

    def dense() -> float:
        return learn(dense_mixture(moe, h_BTD, routing))

    def learn(logits: torch.Tensor) -> float:
        moe.zero_grad()
        loss = logits.square().mean()
        loss.backward(retain_graph=True)
        return loss.item()

    assert abs(sparse() - dense()) < 1e-4
    return sparse, dense


def dense_mixture(moe: SampleExperts, h_BTD: torch.Tensor, routing: SampleRouting) -> torch.Tensor:
    """Every expert on every sample, weighed by 0 where it was not chosen."""
    weight_BE = torch.zeros_like(routing.logits_BE).scatter(1, routing.expert_BK, routing.weight_BK)
    expert_BE = torch.arange(weight_BE.shape[1]).expand_as(weight_BE)
    return moe.experts(h_BTD, expert_BE, weight_BE)


def main() -> None:
    options = parser(__doc__, turns=7, only=["train", "forecast", "experts"])
    options.add_argument("--size", default="tiny", choices=["tiny", "mini", "small", "base"])
    arguments = options.parse_args()
    wants = lambda what: arguments.only in (None, what)
    if arguments.only != "experts":
        overrides = [*OVERRIDES, f"model.size={arguments.size}"]
        with trained_folder(
            arguments.trained, "chronos-t5-tiny-sample", quick=arguments.quick, overrides=overrides
        ) as folder:
            table = Table(arguments, "chronos-forecasting")
            for rows in arguments.rows or ([2] if arguments.quick else [8, 32]):
                if wants("train"):
                    table.compare(
                        f"{arguments.size}, training step, batch {rows}", training_pair(rows, folder), trains=True
                    )
                if wants("forecast"):
                    pair = forecasting_pair(rows, folder)
                    table.compare(f"{arguments.size}, forecast, {rows} series of 20 samples", pair)
    if wants("experts"):
        pair = experts_pair(4 if arguments.quick else 32, 16, 2)
        Table(arguments, "all experts dense").compare("16 experts, 2 active, 32 series", pair, trains=True)


if __name__ == "__main__":
    main()
