"""Our coordinate check beside that of the package `mup` from PyPI, in turns: CPU time of the same decoder's check.

    pip install --no-deps mup pandas
    OMP_NUM_THREADS=1 python benchmarks/coordinate_check.py --widths 64,128,256 --seeds 5 --steps 5

Both see the same tokens at the same widths, of models of the same shape (two blocks, learned positions, a head of its
own), by muP's AdamW, and record what every module gives before each update and after the last. `mup` records mean |x_t|
in the forward that it trains on, ours also mean |x_t - x_0|, what the check is about.
"""

from __future__ import annotations

import argparse
import functools
import math
import statistics
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from foreloom.config.shipped import find_recipe
from foreloom.lab.mup.coordinates import LOGITS, Check, check
from foreloom.lab.mup.trial import parse_numbers, standing
from language_models import NUM_HEADS, PlainBlock

NUM_LAYERS = 2


class PlainGpt(nn.Module):
    """With a head of mup's; transformers' way of arguments and results, which `mup` knows."""

    def __init__(self, num_words: int, length: int, width: int, base: int, head: type[nn.Linear]) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(num_words, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList([PlainBlock(width, math.sqrt(base / width)) for _ in range(NUM_LAYERS)])
        self.norm = nn.LayerNorm(width, bias=False)
        self.head = head(width, num_words, bias=False)

    def forward(self, tokens: Tensor, labels: Tensor) -> dict[str, Tensor]:
        x = self.words(tokens) + self.places(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        logits = self.head(self.norm(x))
        return {"loss": nn.functional.cross_entropy(logits.view(-1, logits.shape[-1]), labels.view(-1))}


def peer(rows: Any, num_words: int, widths: list[int], seeds: int, steps: int, rate: float) -> Any:
    """The table that `mup` makes."""
    import mup
    from mup.coord_check import get_coord_data

    tokens, labels = torch.from_numpy(rows.token_RT), torch.from_numpy(rows.target_RT)
    of_width = lambda width: PlainGpt(num_words, tokens.shape[1], width, widths[0], mup.MuReadout)

    def made(width: int) -> nn.Module:
        return mup.set_base_shapes(of_width(width), of_width(widths[0]), delta=of_width(widths[1]))

    return get_coord_data(
        {width: functools.partial(made, width) for width in widths}, [{"tokens": tokens, "labels": labels}],
        optimizer="adamw", lr=rate, nseeds=seeds, nsteps=steps + 1, dict_in_out=True, cuda=False, show_progress=False,
    )  # fmt: skip


def slope(sizes: list[int], means: list[float]) -> float:
    return float(np.polyfit(np.log2(sizes), np.log2(means), 1)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", default="64,128,256")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=64)
    options = parser.parse_args()
    widths, seeds, steps = parse_numbers(options.widths, "--widths"), options.seeds, options.steps
    settings = [
        f"model.num_layers={NUM_LAYERS}", f"model.num_heads={NUM_HEADS}", "model.positions=learned",
        "model.tie_embeddings=false", "model.init=xavier", "data.packing=blocks", "optimizer.learning_rate=1e-3",
        f"training.batch_size={options.rows}", f"data.max_seq_length={options.length}",
    ]  # fmt: skip
    seconds: dict[str, list[float]] = {"foreloom": [], "mup": []}
    with standing(find_recipe("decoder-tiny"), settings, widths) as (bench, _):
        (rows,) = bench.batch().micro_batches
        num_words = len(bench.data.its_tokenizer.hf)
        for _ in range(options.turns):
            began = time.process_time()
            ours: Check = check(bench, "mup", "width", widths, num_seeds=seeds, num_steps=steps)
            middle = time.process_time()
            theirs = peer(rows, num_words, widths, seeds, steps, bench.optimizer.learning_rate)
            seconds["foreloom"].append(middle - began)
            seconds["mup"].append(time.process_time() - middle)
            print(f"{middle - began:.1f} s and {seconds['mup'][-1]:.1f} s", flush=True)
    ratio = statistics.median(b / a for a, b in zip(*seconds.values(), strict=True))
    print(*(f"{name}: {statistics.median(one):.1f} s of CPU" for name, one in seconds.items()), f"{ratio:.2f}x")
    last = theirs[theirs.t == steps + 1].groupby(["module", "width"]).l1.mean()
    names = {LOGITS: "head"} | {
        f"layers.{block}.{own}": f"blocks.{block}.{its}"
        for block in range(NUM_LAYERS)
        for own, its in (("attention.output", "proj"), ("feed_forward.output", "down"))
    }
    for one in ours.slopes:
        if one.step == steps and one.module in names:
            other = slope(widths, [float(last[names[one.module], width]) for width in widths])
            own = f"{one.slope:+.2f}, of its change {one.judged_slope:+.2f}"
            print(f"{one.module}: slope of |x| over widths {own}; mup's of |x| {other:+.2f}")
    print(*(ours.failures or ["passes"]), sep="\n")


if __name__ == "__main__":
    main()
