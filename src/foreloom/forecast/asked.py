"""What is asked of a forecast: steps, levels and a device, each refused with a sentence where it will not do."""

from __future__ import annotations

import os
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch

from foreloom.distributed.launcher import choose_device, read_launch
from foreloom.forecast.telling import warn_user
from foreloom.models.family import Forecaster

DEFAULT_LEVELS = (0.1, 0.5, 0.9)
POINT_LEVELS = (0.5,)
"""Of models that forecast a single value a step."""


def levels_of(forecaster: Forecaster, asked: Sequence[float] | None) -> list[float]:
    """The quantile levels to forecast. TypeError for what are no numbers; ValueError for those outside (0, 1), and for
    any but the median of a model that forecasts single values."""
    is_point = len(forecaster.quantile_levels) == 1
    if asked is None:
        return list(POINT_LEVELS if is_point else DEFAULT_LEVELS)
    if isinstance(asked, str) or not all(isinstance(level, Real) for level in np.atleast_1d(asked)):
        raise TypeError(f"quantile_levels must be numbers between 0 and 1, such as [0.1, 0.5, 0.9], got {asked!r}.")
    levels = [float(level) for level in np.atleast_1d(asked)]
    if not levels or not all(0 < level < 1 for level in levels):
        raise ValueError(f"quantile_levels must lie between 0 and 1, got {levels}.")
    if is_point and levels != list(POINT_LEVELS):
        raise ValueError(
            f"quantile_levels {levels}: this model forecasts one value a step, not quantiles; ask for 0.5."
        )
    return levels


def horizon_of(forecaster: Forecaster, prediction_length: int | None, *, limited: bool = False) -> int:
    """The steps to forecast, by default those the model gives at once; more are unrolled, with a warning, or refused
    where `limited`."""
    trained = forecaster.prediction_length
    if prediction_length is None:
        return trained
    prediction_length = whole("prediction_length", prediction_length)
    if prediction_length > trained:
        sentence = f"prediction_length {prediction_length} is beyond the {trained} steps the model gives at once"
        if limited:
            raise ValueError(
                f"{sentence}. Ask for {trained} or less, or let it unroll (limit_prediction_length=False)."
            )
        if not forecaster.is_autoregressive:
            warn_user(f"{sentence}: the forecast is unrolled and less sure.")
    return prediction_length


def where_counts_lie(forecasts: list[np.ndarray], non_negative: bool, integer: bool) -> list[np.ndarray]:
    """Nothing below 0, whole numbers, as asked."""
    if non_negative:
        forecasts = [np.maximum(one, 0) for one in forecasts]
    return [np.rint(one) + 0.0 for one in forecasts] if integer else forecasts  # no -0


def whole(name: str, value: Any, unit: str = "steps", least: int = 1) -> int:
    """A number of steps or rows, `least` at least: 24.0 is one of 24."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    number = float(value) if is_number else float("nan")
    if not number.is_integer():
        raise ValueError(f"{name} must be a whole number of {unit}, got {value!r}.")
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {value}.")
    return int(number)


def find_device(device: str) -> torch.device:
    """The device of that name; `auto` is MPS, then CUDA, then CPU. ValueError for one that does not exist."""
    if device in ("auto", "cpu", "cuda", "mps"):
        launch = read_launch(os.environ)
        has_mps, num_cuda = torch.backends.mps.is_available(), torch.cuda.device_count()
        return torch.device(choose_device(device, launch, has_mps=has_mps, num_cuda=num_cuda))
    try:
        found = torch.device(device)
    except RuntimeError:
        raise ValueError(
            f"there is no device {device!r}; write auto, cpu, cuda, mps, or one by number: cuda:1."
        ) from None
    if found.type == "cuda" and (found.index or 0) >= (num_cuda := torch.cuda.device_count()):
        raise ValueError(f"there is no device {device!r}: torch sees {num_cuda} CUDA devices, counted from 0.")
    return found


def setting_of(device: torch.device) -> str:
    """`training.device` for a model that lies on `device`. ValueError for a GPU that training, which picks one by the
    process's rank, would not take."""
    if device.type == "cuda" and (taken := find_device("cuda")) != device:
        raise ValueError(
            f"the model is on {device}, and training takes {taken}: it knows no GPU by number. Show it that one alone, "
            f"CUDA_VISIBLE_DEVICES={device.index}, and load the model with device cuda."
        )
    return device.type


def warn_of_covariates(forecaster: Forecaster, are_there: bool) -> None:
    """A model that sees one series at a time passes them over; nobody shall believe otherwise."""
    if are_there and forecaster.is_univariate:
        warn_user("covariates are passed over: the model sees one series at a time.")
