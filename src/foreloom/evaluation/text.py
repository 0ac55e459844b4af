"""Language models scored on text: loss of a token, perplexity, bits per byte, the same on any number of ranks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from foreloom.checkpoint.locate import find_model_folder
from foreloom.data.text.config import TextConfig, TextSource
from foreloom.data.text.held_out import HeldOutText
from foreloom.data.text.token_file import token_file
from foreloom.data.text.tokenizer import load_tokenizer
from foreloom.distributed.process import Process
from foreloom.distributed.reduce import sum_over_ranks
from foreloom.evaluation.by_name import BASELINES, PIPELINE_PREFIX, labels
from foreloom.models.common.hub_folder import CONFIG_FILE, read_json
from foreloom.models.registry import recognise, whole_model

DEFAULT_LENGTH = 2048
"""Tokens of a row, where neither the caller nor the model wants fewer."""


@dataclass(frozen=True)
class TextScores:
    """What a model makes of a text."""

    loss: float
    """Nats a token: the mean of -log p over every token but the first of each document."""
    perplexity: float
    bits_per_byte: float
    """What the text costs by its bytes in UTF-8: models with other tokenizers share it."""
    num_tokens: int
    num_documents: int
    left_out: Mapping[str, int]
    """Documents that were not scored, by reason: `empty`, `without an answer`."""


def language_models(models: Sequence[str]) -> dict[str, Path] | None:
    """The folders of models that write text, by label; None where none does. ValueError where some do."""
    folders = {name: folder for name in models if (folder := _folder_of_text(name))}
    if not folders:
        return None
    if others := [name for name in models if name not in folders]:
        raise ValueError(f"{', '.join(folders)} writes text and {', '.join(others)} does not; score them apart.")
    return {label: folders[name] for name, label in zip(models, labels(models), strict=True)}


def _folder_of_text(name: str) -> Path | None:
    if name in BASELINES or name.startswith(PIPELINE_PREFIX):
        return None
    try:
        folder = find_model_folder(name)
        return folder if recognise(folder).generator else None
    except ValueError:  # whatever it is, whoever loads it tells
        return None


def score_text(
    folder: Path,
    source: TextSource,
    *,
    max_seq_length: int | None = None,
    batch_size: int = 8,
    device: torch.device | str = "cpu",
    process: Process,
) -> TextScores:
    """Score the model of a folder, or of a LoRA adapter's, on a text, in float32; of conversations, their answers.
    Collective: ranks share the rows.

    Documents are scored each on its own; one longer than `max_seq_length` tokens (default: 2,048, fewer where the model
    reads fewer) in parts, each of which begins without the ones before.
    """
    family, whole = recognise(folder), whole_model(folder)
    limit = read_json(whole / CONFIG_FILE).get("max_position_embeddings") or DEFAULT_LENGTH
    asked = TextConfig(sources=(source,), max_seq_length=max_seq_length or min(DEFAULT_LENGTH, limit))
    text = family.data_for(family.config(pretrained=str(whole)), asked)
    tokenizer = load_tokenizer(text.tokenizer)
    file = token_file(source, text, tokenizer)
    rows = HeldOutText(
        [file],
        [np.arange(len(file.end_D))],
        tokenizer,
        length=text.max_seq_length,
        micro_batch_size=batch_size,
        rank=process.rank,
        world_size=process.world_size,
    )
    module = family.load(folder).to(device).eval()
    sums = torch.zeros(3, dtype=torch.float64)
    with torch.no_grad():
        for tokens in rows:
            tally = module(**family.batch(module, tokens, torch.device(device))).tally
            sums += torch.cat([tally["token_loss"], tally["text_bytes"]]).double().cpu()
    loss, count, num_bytes = sum_over_ranks(sums, process).tolist()
    bits = loss / math.log(2) / num_bytes
    return TextScores(loss / count, math.exp(loss / count), bits, int(count), rows.num_documents, file.left_out)
