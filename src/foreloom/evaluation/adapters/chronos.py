"""Models that the chronos-forecasting package loads (Chronos, Chronos-Bolt, Chronos-2) as forecasters.

Axes: V targets, L context steps, H horizon steps, Q quantile levels, R rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from foreloom.data.forecast_input import ForecastInput
from foreloom.evaluation.adapters.adapter import Adapter, past_of


class ChronosPipeline(Adapter):
    """One of the package's pipelines.

    Chronos and Chronos-Bolt forecast each target alone and read no covariates; Chronos-2 takes targets and covariates
    of an input as one group. Chronos draws samples: the generator is seeded for every batch, so scores repeat.
    """

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline
        self.context_length = pipeline.model_context_length
        self.prediction_length = pipeline.model_prediction_length
        self.quantile_levels = tuple(getattr(pipeline, "quantiles", Adapter.quantile_levels))

    @classmethod
    def load(cls, folder_or_hub_id: str | Path, device: torch.device) -> ChronosPipeline:
        """ValueError where the package is not installed or cannot load the model."""
        try:
            from chronos import BaseChronosPipeline
        except ModuleNotFoundError:
            raise ValueError(
                f"{folder_or_hub_id}: chronos-forecasting loads this model, and it is not installed: "
                "pip install 'foreloom[reference]'."
            ) from None
        try:
            loaded = BaseChronosPipeline.from_pretrained(
                str(folder_or_hub_id), device_map=str(device), torch_dtype=torch.float32
            )
        except (OSError, ValueError) as error:
            raise ValueError(f"{folder_or_hub_id}: chronos-forecasting cannot load it. {error}") from error
        return cls(loaded)

    def forecast(
        self, inputs: Sequence[ForecastInput], prediction_length: int, quantile_levels: Sequence[float]
    ) -> Sequence[np.ndarray]:
        from chronos import Chronos2Pipeline

        def ask(asked: list[Any]) -> Any:
            answers, _ = self.pipeline.predict_quantiles(
                asked, prediction_length=prediction_length, quantile_levels=list(quantile_levels)
            )
            return answers

        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(0)
            if not isinstance(self.pipeline, Chronos2Pipeline):
                ends = np.cumsum([one.num_targets for one in inputs])
                return np.split(ask(_rows(inputs)).numpy(), ends[:-1])
            forecasts: dict[int, np.ndarray] = {}
            for alike in _alike(inputs):  # the package takes inputs with equally many targets and covariates together
                answers = ask([_group(inputs[i]) for i in alike])
                forecasts |= {i: answer.numpy() for i, answer in zip(alike, answers, strict=True)}
        return [forecasts[i] for i in range(len(inputs))]


def is_pipeline(config: Mapping[str, Any]) -> bool:
    """Does this config.json say that the package loads the model?"""
    return "chronos_config" in config or "chronos_pipeline_class" in config


def _rows(inputs: Sequence[ForecastInput]) -> list[torch.Tensor]:
    return [torch.from_numpy(row_L.astype(np.float32)) for one in inputs for row_L in past_of(one)]


def _alike(inputs: Sequence[ForecastInput]) -> list[list[int]]:
    """Positions of the inputs with the same numbers of rows of each role."""
    positions: dict[tuple[int, int, int], list[int]] = {}
    for i, one in enumerate(inputs):
        positions.setdefault((one.num_targets, one.num_past, one.num_future), []).append(i)
    return list(positions.values())


def _group(one: ForecastInput) -> dict[str, Any]:
    """As the package wants a group: covariates by name, here by the number of their row."""
    covariates = range(one.num_targets, len(one.context_RC))
    known_ahead = range(len(one.context_RC) - one.num_future, len(one.context_RC))
    return {
        "target": past_of(one).astype(np.float32),
        "past_covariates": {str(row): one.context_RC[row].astype(np.float32) for row in covariates},
        "future_covariates": {str(row): one.future_RH[row].astype(np.float32) for row in known_ahead},
    }
