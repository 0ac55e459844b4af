"""A language model continued by foreloom and by the Hugging Face Trainer: the same steps, and how fast, in turns.

    OMP_NUM_THREADS=1 python benchmarks/language_model.py MODEL TEXT.txt HELD_OUT.txt --separator $'\\n\\n' --steps 30

`blocks`: both read the same rows in the same order. `documents`: ours packs whole documents into rows; the Trainer is
given those of each step as one batch, `padded` to its longest as its collators do, or `flattened` into one long row
(transformers' padding-free way, which is made for flash attention), and, as `grouped`, documents of like length padded
(its `group_by_length`), as many a batch as ours has on average. Schedules are the same, so perplexities after are to
agree, but for `grouped`, whose steps are others. Tokens are those that are told. CPU time of the training calls alone,
a checkpoint at the end and our rehearsal of the largest batch among them, so few steps tell less.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

from foreloom.checkpoint.locate import find_model_folder
from foreloom.data.text.config import TextSource
from foreloom.distributed.process import Process
from foreloom.evaluation.text import score_text
from foreloom.run import build, load

LENGTH, ROWS, RATE = 256, 8, 1e-3
ALONE = Process(0, 1, 0, torch.device("cpu"))
WAYS = {"blocks": ["padded"], "documents": ["padded", "flattened", "grouped"]}
"""Of the Trainer, by our packing. Rows of blocks are of one length, so nothing is padded there."""
Rows = list[dict[str, torch.Tensor]]


def settings(asked: argparse.Namespace, packing: str) -> list[str]:
    source = json.dumps([{"path": str(asked.text.resolve()), "separator": asked.separator}])
    return [
        f"model.pretrained={asked.model.resolve()}", "model.size=null", "data.tokenizer=null", f"data.sources={source}",
        f"data.packing={packing}", f"data.max_seq_length={LENGTH}", "data.holdout=0", "validation.steps=0",
        "validation.prompts=[]", f"training.steps={asked.steps}", f"training.batch_size={ROWS}",
        "training.save_steps=100000", f"optimizer.learning_rate={RATE}", "optimizer.schedule=linear",
        "optimizer.warmup_ratio=0", "monitoring.trackers=[none]", "training.max_grad_norm=1.0",
    ]  # fmt: skip


def ours(asked: argparse.Namespace, packing: str, out: Path) -> tuple[float, Path, list[Rows]]:
    """CPU seconds, the folder of the model, the documents (or blocks) of each step."""
    trainer = build(load("tiny-lm", settings(asked, packing)), out, ALONE)
    began = time.process_time()
    trainer.train()
    seconds = time.process_time() - began
    steps = [rows_of(trainer.loader.batch(step * ROWS).micro_batches[0]) for step in range(asked.steps)]
    return seconds, find_model_folder(out), steps


def theirs(asked: argparse.Namespace, steps: list[Rows], way: str, out: Path) -> tuple[float, int, Path]:
    """CPU seconds and tokens of the same number of the Trainer's steps."""
    lm = AutoModelForCausalLM.from_pretrained(asked.model, dtype=torch.float32)
    is_grouped = way == "grouped"
    every = [row for rows in steps for row in rows]
    arguments = TrainingArguments(
        str(out), max_steps=asked.steps, per_device_train_batch_size=-(-len(every) // len(steps)) if is_grouped else 1,
        learning_rate=RATE, weight_decay=0.01, lr_scheduler_type="linear", max_grad_norm=1.0, save_steps=asked.steps,
        report_to="none", use_cpu=True, remove_unused_columns=False, disable_tqdm=True, logging_steps=25,
        train_sampling_strategy="group_by_length" if is_grouped else "sequential",
    )  # fmt: skip
    tokens = 0

    def collate(found: list[Any]) -> dict[str, torch.Tensor]:
        nonlocal tokens
        rows = found if is_grouped else found[0]
        tokens += sum(int((row["labels"] >= 0).sum()) for row in rows)
        names = {"input_ids": 0, "labels": -100}
        if way == "flattened":
            made = {name: torch.cat([row[name] for row in rows])[None] for name in names}
            made["position_ids"] = torch.cat([torch.arange(len(row["labels"])) for row in rows])[None]
        else:
            made = {
                name: torch.nn.utils.rnn.pad_sequence([row[name] for row in rows], batch_first=True, padding_value=fill)
                for name, fill in names.items()
            }
            lengths = torch.tensor([len(row["labels"]) for row in rows])
            made["attention_mask"] = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
        return made | {"shift_labels": made["labels"]}

    trainer = Trainer(lm, arguments, train_dataset=every if is_grouped else steps, data_collator=collate)  # type: ignore[arg-type]
    began = time.process_time()
    trainer.train()
    seconds = time.process_time() - began
    lm.save_pretrained(out)
    for file in asked.model.glob("tokenizer*"):
        shutil.copy(file, out)
    return seconds, tokens, out


def rows_of(batch: Any) -> Rows:
    """Blocks as they are; of packed rows each document by itself."""
    found = []
    for row, length in enumerate(batch.length_R.tolist()):
        begins = [0] if batch.position_RT is None else [t for t in range(length) if batch.position_RT[row, t] == 0]
        for begin, end in zip(begins, [*begins[1:], length], strict=True):
            pair = {"input_ids": batch.token_RT, "labels": batch.target_RT}
            found.append({name: torch.from_numpy(values[row, begin:end].copy()) for name, values in pair.items()})
    return found


def compare(asked: argparse.Namespace, packing: str, place: Path) -> None:
    """Rounds in which ours and each way of the Trainer's train once; medians and the range of the ratios."""
    separator = asked.separator if packing == "documents" else None
    source = TextSource(path=str(asked.held_out), separator=separator)
    score = lambda folder: score_text(folder, source, max_seq_length=LENGTH, process=ALONE).perplexity
    ways = [way for way in WAYS[packing] if way in (asked.ways or WAYS[packing])]
    speeds: dict[str, list[float]] = {way: [] for way in ("foreloom", *ways)}
    after: dict[str, float] = {}
    for number in range(asked.rounds):
        seconds, folder, steps = ours(asked, packing, place / f"{packing}-{number}")
        tokens = sum(int((row["labels"] >= 0).sum()) for rows in steps for row in rows)
        speeds["foreloom"].append(tokens / seconds)
        if not number:
            lengths = [len(row["labels"]) for rows in steps for row in rows]
            told = f"{len(lengths) / asked.steps:.1f} a step, {tokens / asked.steps:,.0f} of {ROWS * LENGTH:,} tokens"
            tenths = statistics.quantiles(lengths, n=10)[::4]
            print(f"{packing}: {told}, 10, 50 and 90 % of lengths {tenths}", flush=True)
            print(f"perplexity before {score(asked.model):.3f}, after {score(folder):.3f}", flush=True)
        for way in ways:
            seconds, tokens, folder = theirs(asked, steps, way, place / f"{packing}-{number}-{way}")
            speeds[way].append(tokens / seconds)
            after.setdefault(way, score(folder) if not number else 0.0)
        told = ", ".join(f"{way} {found[-1]:,.0f}" for way, found in speeds.items())
        print(f"{packing}, round {number + 1}: {told} tokens/s", flush=True)
    for way in ways:
        ratios = [a / b for a, b in zip(speeds["foreloom"], speeds[way], strict=True)]
        print(f"| {packing}, the Trainer's {way} | {statistics.median(speeds['foreloom']):,.0f} | "
              f"{statistics.median(speeds[way]):,.0f} | **{statistics.median(ratios):.2f}×** | {min(ratios):.2f} to "
              f"{max(ratios):.2f} | {after[way]:.3f} |", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("held_out", type=Path)
    parser.add_argument("--separator", default="\n\n")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=list(WAYS))
    parser.add_argument("--ways", choices=WAYS["documents"], nargs="+", help="of the Trainer; all by default")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        for packing in [asked.only] if asked.only else WAYS:
            compare(asked, packing, Path(place))


if __name__ == "__main__":
    main()
