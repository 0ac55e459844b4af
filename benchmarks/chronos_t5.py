"""Chronos-T5 beside chronos-forecasting and transformers, and its experts beside a dense run of all of them.

    OMP_NUM_THREADS=2 python benchmarks/chronos_t5.py            # about ten minutes
    OMP_NUM_THREADS=2 python benchmarks/chronos_t5.py --quick    # does it still run?

Both sides hold the same weights. Training: the same tokens (context 512, horizon 64, dropout 0.1), fused AdamW, beside
transformers' T5ForConditionalGeneration as chronos-forecasting trains it. Forecasts: 20 samples of 64 steps, beside
ChronosPipeline.predict. Experts: forward and backward of the head for 16 experts of which 2 are active, beside running
all 16 and mixing.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from chronos import ChronosPipeline

from foreloom.data.forecast_input import ForecastInput
from foreloom.models.chronos_t5.architecture import Architecture, ChronosT5Config
from foreloom.models.chronos_t5.experts import SampleExperts, SampleRouting
from foreloom.models.chronos_t5.family import FAMILY
from foreloom.models.chronos_t5.forecast import ChronosT5Forecaster
from foreloom.models.family import WindowLengths
from turns import Call, compare, training_step

CONTEXT, HORIZON = 512, 64
SEED = 0


def both_sides(size: str, folder: Path) -> tuple[torch.nn.Module, ChronosPipeline]:
    """Our module and their pipeline on the same weights; theirs is loaded from the folder that we write."""
    config = ChronosT5Config(size=size, initializer_factor=1.0)  # with 0.05 every token is as likely as any other
    model = FAMILY.build(config, WindowLengths(CONTEXT, HORIZON))
    FAMILY.initialize(model, SEED)
    FAMILY.save(model, model.state_dict(), folder)
    return model, ChronosPipeline.from_pretrained(folder)


def random_walks(num_rows: int) -> np.ndarray:
    """float32 (rows, CONTEXT + HORIZON)."""
    steps = np.random.default_rng(SEED).normal(size=(num_rows, CONTEXT + HORIZON))
    return steps.cumsum(1).astype(np.float32)


def training_pair(size: str, num_rows: int, folder: Path) -> tuple[Call, Call]:
    ours, pipeline = both_sides(size, folder)
    walks = torch.from_numpy(random_walks(num_rows))
    context = ours.tokenizer.encode_context(walks[:, :CONTEXT])
    labels = ours.tokenizer.encode_labels(walks[:, CONTEXT:], context.scale_R)
    batch = {"input_ids": context.id_RS, "attention_mask": context.mask_RS, "labels": labels}
    theirs = pipeline.inner_model.train()
    return training_step(ours, batch), training_step(theirs, batch)


def forecasting_pair(size: str, num_rows: int, folder: Path) -> tuple[Call, Call]:
    ours, pipeline = both_sides(size, folder)
    contexts = random_walks(num_rows)[:, :CONTEXT]
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
    outputs = [weight_BE[:, i, None, None] * expert(h_BTD) for i, expert in enumerate(moe.experts)]
    return torch.stack(outputs).sum(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one turn of small batches")
    parser.add_argument("--only", choices=["train", "forecast", "experts"], help="one of the three")
    parser.add_argument("--size", default="tiny", choices=["tiny", "mini", "small", "base"])
    parser.add_argument("--turns", type=int, default=7)
    arguments = parser.parse_args()
    turns = 1 if arguments.quick else arguments.turns
    wants = lambda what: arguments.only in (None, what)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {arguments.size}, {turns} interleaved turns")
    with tempfile.TemporaryDirectory() as folder:
        for rows in [2] if arguments.quick else [8, 32]:
            if wants("train"):
                compare(f"training step, batch {rows}", training_pair(arguments.size, rows, Path(folder)), turns)
            if wants("forecast"):
                name = f"forecast, {rows} series of 20 samples"
                compare(name, forecasting_pair(arguments.size, rows, Path(folder)), turns)
    if wants("experts"):
        pair = experts_pair(4 if arguments.quick else 32, 16, 2)
        compare("16 experts, 2 active, 32 series", pair, turns, peer="all experts dense")


if __name__ == "__main__":
    main()
