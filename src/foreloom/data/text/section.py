"""The recipe's `data` section of families that read text: how its token files are made, and what is held out."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from foreloom.config.section import section
from foreloom.data.batch import Find, Problem
from foreloom.data.text.config import TextConfig, TextValidation
from foreloom.data.text.dataset import TextDataset, Tokens, full_rows, held_out
from foreloom.data.text.held_out import HeldOutStream, HeldOutText
from foreloom.data.text.token_file import is_made, token_file
from foreloom.data.text.tokenizer import TextTokenizer, load_tokenizer

logger = logging.getLogger(__name__)


@section
class TextData(TextConfig):
    """What a run reads and how text becomes rows of tokens."""

    validation: ClassVar[type] = TextValidation

    @property
    def its_tokenizer(self) -> TextTokenizer:
        """ValueError where none is named; a family fills in that of its pretrained model."""
        if self.tokenizer is None:
            raise ValueError(
                "data.tokenizer is not given: a new model needs one, a folder or hub id, or bytes, where every byte is "
                "a token."
            )
        return load_tokenizer(self.tokenizer)

    def open(self, seed: int, *, batch_size: int) -> TextDataset:
        """The rows of a run, whatever the batches, but for streams. Raises ValueError where the text is too little."""
        tokenizer = self.its_tokenizer
        files = [token_file(source, self, tokenizer) for source in self.sources]
        dataset = TextDataset(self, files, tokenizer, seed=seed, num_lanes=batch_size)
        if lost := dataset.num_lost_tokens:
            why = "cut off by data.truncate and left at the end" if self.truncate == "document" else "left at the end"
            logger.info("%s tokens are never learned: %s of the corpus", f"{lost:,}", why)
        self._tell_of_long_chats(dataset)
        return dataset

    def _tell_of_long_chats(self, dataset: TextDataset) -> None:
        """An answer that stands beyond the first row of its conversation is learned without what it answers."""
        length_D = np.concatenate([corpus.num_whole_tokens_D for corpus in dataset.corpora])
        if self.packing != "documents" or not any(source.messages_column for source in self.sources):
            return
        if num_long := int((length_D > self.max_seq_length).sum()):
            left = "left out" if self.truncate == "document" else "learned apart from it, as a beginning of their own"
            logger.warning(
                "%s of %s conversations are longer than data.max_seq_length (%s tokens; the longest has %s): what "
                "stands beyond is %s. Raise it, up to what the model reads.",
                *(f"{n:,}" for n in (num_long, len(length_D), self.max_seq_length, length_D.max())),
                left,
            )

    def full_rows(self, num_rows: int) -> Tokens:
        """See `DataSection.full_rows`."""
        return full_rows(self, self.its_tokenizer, num_rows)

    def held_out(
        self, validation: TextValidation, dataset: TextDataset, *, micro_batch_size: int, rank: int, world_size: int
    ) -> HeldOutText | HeldOutStream | None:
        """The documents that `validation` measures the loss on; None where it measures nothing."""
        if not validation.steps:
            return None
        if validation.sources:
            files = [token_file(source, self, dataset.tokenizer) for source in validation.sources]
            chosen = [np.arange(len(file.end_D)) for file in files]
        else:
            files = list(dataset.files)
            chosen = [np.flatnonzero(held_out(file, self.holdout)) for file in files]
        its = {"length": self.max_seq_length, "max_rows": validation.max_windows}
        ranks = {"rank": rank, "world_size": world_size}
        if validation.as_stream:
            return HeldOutStream(files, chosen, dataset.tokenizer, **its, **ranks)
        return HeldOutText(files, chosen, dataset.tokenizer, **its, **ranks, micro_batch_size=micro_batch_size)

    def find_files(self, validation: TextValidation, find: Find) -> tuple[TextData, TextValidation, list[Problem]]:
        """Both sections with the paths of sources and of the tokenizer found."""
        problems: list[Problem] = []
        sections = {"data": self, "validation": validation}
        for name, one in sections.items():
            sources = []
            for i, source in enumerate(one.sources):
                if source.path is not None:
                    key = f"{name}.sources.{i}.path"
                    if found := find(source.path, key):
                        source = dataclasses.replace(source, path=str(found))
                    else:
                        problems.append(Problem(key, f"no such file or folder: {source.path}.", is_missing=True))
                sources.append(source)
            sections[name] = dataclasses.replace(one, sources=tuple(sources))
        data, validation = sections["data"], sections["validation"]
        if self.tokenizer is not None and (folder := find(self.tokenizer, "data.tokenizer")):
            data = dataclasses.replace(data, tokenizer=str(folder))
        return data, validation, problems

    def contradictions(self, validation: TextValidation) -> list[Problem]:
        """Validation without anything to validate on, or with two things; what is held out for nothing."""
        problems = []
        if validation.steps and not validation.sources and not self.holdout:
            sentence = (
                "there is nothing to validate on: give data.holdout, the share of the documents that training then "
                "leaves alone, or texts of their own in validation.sources."
            )
            problems.append(Problem("validation.steps", sentence))
        if validation.as_stream and self.packing != "streams":
            sentence = "reads as data.packing: streams does in training; set that, or remove it."
            problems.append(Problem("validation.as_stream", sentence))
        if self.holdout and (validation.sources or not validation.steps):
            why = "validation.sources is what is measured" if validation.sources else "validation.steps is 0"
            problems.append(Problem("data.holdout", f"holds documents out of training for nothing: {why}; remove one."))
        return problems

    def why_endless(self) -> str:
        """Sources are drawn by weight without end."""
        if not self.is_mixture:
            return ""
        return (
            "cannot be counted where sources have weights, which are drawn without end. Give training.steps instead, "
            "or no weights."
        )

    def is_there(self) -> bool:
        """Are the token files in the cache, and the tokenizer on this machine?"""
        if self.tokenizer is None or not Path(self.tokenizer).is_dir():
            return False
        if any(source.path is None or not Path(source.path).exists() for source in self.sources):
            return False
        return all(is_made(source, self, self.its_tokenizer) for source in self.sources)

    def in_words(self) -> Mapping[str, str]:
        """How rows are made."""
        return {
            "row": f"{self.max_seq_length:,} tokens, {self.packing}",
            "tokenizer": self.tokenizer or "that of the model",
        }
