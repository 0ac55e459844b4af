"""A language model continued by foreloom and by the Hugging Face Trainer: the same steps, and how fast, in turns.

    OMP_NUM_THREADS=1 python benchmarks/language_model.py MODEL TEXT.txt HELD_OUT.txt --separator $'\\n\\n' --steps 30

Blocks: both read the same rows in the same order with the same schedule, so perplexities after are to agree. Documents:
ours packs whole documents into rows, the Trainer pads a batch of them to its longest, as its collator does. Tokens are
those that are text. CPU time of the training calls alone, start-up and evaluation left out.
"""

from __future__ import annotations

import argparse
import json
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

LENGTH, ROWS, DOCUMENTS, RATE = 256, 8, 24, 1e-3
ALONE = Process(0, 1, 0, torch.device("cpu"))


def settings(asked: argparse.Namespace, packing: str) -> list[str]:
    source = json.dumps([{"path": str(asked.text.resolve()), "separator": asked.separator}])
    return [
        f"model.pretrained={asked.model.resolve()}", "model.size=null", "data.tokenizer=null", f"data.sources={source}",
        f"data.packing={packing}", f"data.max_seq_length={LENGTH}", "data.holdout=0", "validation.steps=0",
        "validation.prompts=[]", f"training.steps={asked.steps}", f"training.batch_size={ROWS}",
        "training.save_steps=100000", f"optimizer.learning_rate={RATE}", "optimizer.schedule=linear",
        "optimizer.warmup_ratio=0", "monitoring.trackers=[none]", "training.max_grad_norm=1.0",
    ]  # fmt: skip


def ours(asked: argparse.Namespace, packing: str, out: Path) -> tuple[float, int, Path, list[Any]]:
    """CPU seconds, tokens, the folder of the model, the batches that it saw."""
    trainer = build(load("tiny-lm", settings(asked, packing)), out, ALONE)
    began = time.process_time()
    trainer.train()
    seconds = time.process_time() - began
    batches = [trainer.loader.batch(step * ROWS).micro_batches[0] for step in range(asked.steps)]
    return seconds, sum(int((one.target_RT >= 0).sum()) for one in batches), find_model_folder(out), batches


def theirs(asked: argparse.Namespace, rows: list[dict[str, Any]], size: int, out: Path) -> tuple[float, Path]:
    """The same of the Trainer over rows in their order, `size` a batch, padded to the longest."""
    lm = AutoModelForCausalLM.from_pretrained(asked.model, dtype=torch.float32)
    arguments = TrainingArguments(
        str(out), max_steps=asked.steps, per_device_train_batch_size=size, learning_rate=RATE, weight_decay=0.01,
        lr_scheduler_type="linear", max_grad_norm=1.0, save_strategy="no", report_to="none", use_cpu=True,
        remove_unused_columns=False, train_sampling_strategy="sequential", disable_tqdm=True, logging_steps=25,
    )  # fmt: skip

    def collate(found: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        fill = {"input_ids": 0, "labels": -100, "shift_labels": -100, "attention_mask": 0}
        names = [name for name in fill if name in found[0]]
        padded = lambda name: torch.nn.utils.rnn.pad_sequence(
            [one[name] for one in found], batch_first=True, padding_value=fill[name]
        )
        return {name: padded(name) for name in names}

    trainer = Trainer(lm, arguments, train_dataset=rows, data_collator=collate)  # type: ignore[arg-type]
    began = time.process_time()
    trainer.train()
    seconds = time.process_time() - began
    lm.save_pretrained(out)
    return seconds, out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("held_out", type=Path)
    parser.add_argument("--separator", default="\n\n")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=2)
    asked = parser.parse_args()
    score = lambda folder: (
        score_text(folder, TextSource(path=str(asked.held_out)), max_seq_length=LENGTH, process=ALONE).perplexity
    )
    with tempfile.TemporaryDirectory() as place:
        print(f"perplexity before: {score(asked.model):.3f}", flush=True)
        for packing in ("blocks", "documents"):
            speeds: list[tuple[float, float]] = []
            for number in range(asked.rounds):
                at = Path(place) / f"{packing}-{number}"
                seconds, tokens, folder, batches = ours(asked, packing, at / "ours")
                rows = [row for one in batches for row in rows_of(one)]
                size = ROWS if packing == "blocks" else DOCUMENTS
                rows = rows[: asked.steps * size]
                their_tokens = sum(int((row["labels"] >= 0).sum()) for row in rows)
                their_seconds, their_folder = theirs(asked, rows, size, at / "theirs")
                for file in asked.model.glob("tokenizer*"):
                    (their_folder / file.name).write_bytes(file.read_bytes())
                speeds.append((tokens / seconds, their_tokens / their_seconds))
                print(f"{packing}: {speeds[-1][0]:,.0f} and {speeds[-1][1]:,.0f} tokens/s", flush=True)
            print(f"{packing}: ratio {statistics.median(a / b for a, b in speeds):.2f}", flush=True)
            print(f"perplexity after: {score(folder):.3f}, the Trainer's {score(their_folder):.3f}", flush=True)


def rows_of(batch: Any) -> list[dict[str, Any]]:
    """Blocks as they are; of packed rows each document by itself."""
    found = []
    for row, length in enumerate(batch.length_R.tolist()):
        begins = [0] if batch.position_RT is None else [t for t in range(length) if batch.position_RT[row, t] == 0]
        for begin, end in zip(begins, [*begins[1:], length], strict=True):
            target = torch.from_numpy(batch.target_RT[row, begin:end])
            one = {"input_ids": torch.from_numpy(batch.token_RT[row, begin:end]), "labels": target}
            more = {} if batch.position_RT is None else {"attention_mask": torch.ones(end - begin, dtype=torch.long)}
            found.append(one | {"shift_labels": target} | more)
    return found


if __name__ == "__main__":
    main()
