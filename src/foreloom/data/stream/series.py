"""The recipe's `data` section of families that read series: how its data set is opened, and what is held out of it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from foreloom.config.section import section
from foreloom.data.batch import Find, Problem
from foreloom.data.config import DataConfig, SeriesValidation
from foreloom.data.stream.dataset import SeriesDataset
from foreloom.data.stream.held_out import ValidationWindows
from foreloom.data.stream.windows import Role, Windows
from foreloom.data.synthetic.address import locate, missing_data


@section
class SeriesData(DataConfig):
    """What a run reads and how series become windows."""

    validation: ClassVar[type] = SeriesValidation

    def open(self, seed: int, *, batch_size: int) -> SeriesDataset:
        """The windows of a run, whatever the batches. Raises ValueError where no series is long enough for one."""
        return SeriesDataset(self, seed=seed)

    def full_rows(self, num_rows: int) -> Windows:
        """See `DataSection.full_rows`."""
        whole = lambda length: np.tile(np.sin(np.arange(length, dtype=np.float32)), (num_rows, 1))
        nowhere_R = np.full(num_rows, -1)
        return Windows(
            context_RC=whole(self.context_length),
            future_RH=whole(self.prediction_length),
            role_R=np.full(num_rows, Role.TARGET, np.int8),
            group_R=np.arange(num_rows),
            sample_R=nowhere_R,
            source_R=nowhere_R.astype(np.int32),
            item_R=nowhere_R,
        )

    def held_out(
        self, validation: SeriesValidation, dataset: SeriesDataset, *, micro_batch_size: int, rank: int, world_size: int
    ) -> ValidationWindows | None:
        """The windows that `validation` measures the loss on; None where it measures nothing."""
        if not validation.steps:
            return None
        return ValidationWindows(
            self,
            validation.sources,
            max_windows=validation.max_windows,
            stride=validation.stride,
            micro_batch_rows=micro_batch_size,
            rank=rank,
            world_size=world_size,
            opened=None if validation.sources else dataset.sources,
        )

    def find_files(
        self, validation: SeriesValidation, find: Find
    ) -> tuple[SeriesData, SeriesValidation, list[Problem]]:
        """Both sections with the paths of sources and of `exclude` found; an address of synthetic data that is wrong is
        a problem too."""
        problems: list[Problem] = []
        sections = {"data": self, "validation": validation}
        for name, one in sections.items():
            sources = []
            for i, source in enumerate(one.sources):
                key = f"{name}.sources.{i}.path"
                try:
                    found, missing = locate(source.path, functools.partial(find, key=key))
                except ValueError as error:
                    problems.append(Problem(key, str(error)))
                    found, missing = source.path, []
                problems += [Problem(key, f"no such file or folder: {path}.", is_missing=True) for path in missing]
                sources.append(dataclasses.replace(source, path=found))
            sections[name] = dataclasses.replace(one, sources=tuple(sources))
        data, validation = sections["data"], sections["validation"]
        lists = {path: find(path, "data.exclude") for path in data.exclude}
        data = dataclasses.replace(data, exclude=tuple(str(file or path) for path, file in lists.items()))
        problems += [
            Problem("data.exclude", f"no such file: {path}.", is_missing=True)
            for path, file in lists.items()
            if file is None
        ]
        return data, validation, problems

    def contradictions(self, validation: SeriesValidation) -> list[Problem]:
        """Validation without anything to validate on."""
        if validation.steps and not validation.sources and not any(source.holdout for source in self.sources):
            sentence = (
                "there is nothing to validate on: give data.sources.0.holdout, the last steps of every series that "
                "training then leaves alone, or data sets of their own in validation.sources."
            )
            return [Problem("validation.steps", sentence)]
        return []

    def why_endless(self) -> str:
        """Windows are drawn at random where there is no stride."""
        if self.stride is not None:
            return ""
        return (
            "needs data.stride: without it windows are drawn at random, without end. "
            f"data.stride={self.context_length + self.prediction_length} cuts series without overlap; or give "
            "training.steps instead."
        )

    def is_there(self) -> bool:
        """Is every source there, and every list of excluded series?"""
        has_lists = all(Path(path).is_file() for path in self.exclude)
        return has_lists and not any(missing_data(source.path) for source in self.sources)

    def in_words(self) -> Mapping[str, str]:
        """The lengths of a window."""
        return {"window": f"{self.context_length:,} context, {self.prediction_length:,} horizon"}
