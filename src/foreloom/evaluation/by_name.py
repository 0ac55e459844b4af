"""Which forecaster a name on the command line is: a model of ours, a baseline, or one that another package loads."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

from foreloom.checkpoint.locate import find_model_folder, load_newest
from foreloom.evaluation.adapters.chronos import ChronosPipeline, is_pipeline
from foreloom.evaluation.adapters.statistical import StatisticalForecaster
from foreloom.evaluation.baselines import Drift, Naive, SeasonalNaive
from foreloom.evaluation.skill import BASELINE
from foreloom.models.calibration import calibrated
from foreloom.models.common.hub_folder import CONFIG_FILE, read_json
from foreloom.models.family import Forecaster
from foreloom.models.lookbacks import forecaster_of
from foreloom.models.registry import family_of, recognise

BASELINES: Mapping[str, Callable[[], Forecaster]] = {
    BASELINE: SeasonalNaive,
    "naive": Naive,
    "drift": Drift,
    "auto-ets": partial(StatisticalForecaster, "AutoETS"),
    "auto-theta": partial(StatisticalForecaster, "AutoTheta"),
    "auto-arima": partial(StatisticalForecaster, "AutoARIMA"),
}
"""Names that may stand where a model stands; a folder of such a name is given as ./naive."""
PIPELINE_PREFIX = "chronos:"
"""Before a folder or hub id that the chronos-forecasting package is to load."""


def forecasters_by_name(models: Sequence[str | Path], device: torch.device) -> dict[str, Forecaster]:
    """What each model is called in tables -> its forecaster, in the order given, Seasonal Naive last.

    A model is a run folder, a checkpoint, a model folder or a hub id, of a family of ours or one that
    chronos-forecasting loads (`chronos:` before it says so, where both could), or one of `BASELINES`. Raises ValueError
    for a name that is none of these (with the nearest) or is there twice.
    """
    names = [str(model) for model in models]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"the model {name} is there twice; name it once.")
    forecasters = {label: _load(name, device) for name, label in zip(names, labels(names), strict=True)}
    baseline = forecasters.pop(BASELINE, None)
    return {**forecasters, BASELINE: baseline or SeasonalNaive()}


def labels(models: Sequence[str]) -> list[str]:
    """A folder's name, or the hub id; what was typed, where two folders have the same name."""
    short = [_label(name) for name in models]
    return [label if short.count(label) == 1 else name for label, name in zip(short, models, strict=True)]


def _label(name: str) -> str:
    path = Path(name.removeprefix(PIPELINE_PREFIX))
    if name in BASELINES or not path.exists():
        return str(path)
    label = path.resolve().name
    return str(path) if label in BASELINES else label


def _load(name: str, device: torch.device) -> Forecaster:
    if name in BASELINES:
        return BASELINES[name]()
    if name.startswith(PIPELINE_PREFIX):
        path = Path(name.removeprefix(PIPELINE_PREFIX))
        return ChronosPipeline.load(find_model_folder(path) if path.exists() else str(path), device)
    if not Path(name).exists() and (close := difflib.get_close_matches(name, BASELINES, n=1)):
        raise ValueError(f"there is no folder {name}, and no baseline of that name. Did you mean {close[0]}?")
    return load_newest(name, partial(_of_folder, device=device))


def _of_folder(folder: Path, device: torch.device) -> Forecaster:
    if (folder / CONFIG_FILE).is_file():
        config = read_json(folder / CONFIG_FILE)
        if is_pipeline(config) and not family_of(config):
            return ChronosPipeline.load(folder, device)
    family = recognise(folder)
    return calibrated(forecaster_of(family, family.load(folder).to(device).eval()), folder)
