"""A recipe's `model` section becomes a Chronos-Bolt: a new one, or a pretrained one that takes the data's contexts."""

from __future__ import annotations

from typing import Any

from foreloom.models.chronos_bolt import checkpoint
from foreloom.models.chronos_bolt.architecture import Architecture
from foreloom.models.chronos_bolt.config import ChronosBoltConfig, new_values
from foreloom.models.chronos_bolt.model import ChronosBoltModel
from foreloom.models.common.dropout import set_dropout_rate
from foreloom.models.common.files import resolve_folder
from foreloom.models.common.limits import raised_limit


def build(config: ChronosBoltConfig, *, context_length: int, prediction_length: int) -> ChronosBoltModel:
    """A new model without values, or a pretrained one whose context is raised to that of the data (in steps).

    ValueError for data with a horizon beyond the head; a shorter one trains the head's first steps only.
    """
    if config.pretrained is None:
        needed = {"context_length": context_length, "prediction_length": prediction_length}
        model = checkpoint.build_empty(_new_architecture(config, needed))
    else:
        model = checkpoint.load(resolve_folder(config.pretrained))
        _adapt(model, config, context_length, prediction_length)
    model.reduction = config.reduction
    return model


def _new_architecture(config: ChronosBoltConfig, needed: dict[str, int]) -> Architecture:
    values: dict[str, Any] = needed | new_values(config)
    for name, steps in needed.items():
        if values[name] < steps:
            raise ValueError(
                f"model.{name} is {values[name]} and the data's windows need {steps}; raise it or leave it out."
            )
    return Architecture(**values)


def _adapt(model: ChronosBoltModel, config: ChronosBoltConfig, context_length: int, prediction_length: int) -> None:
    arch = model.architecture
    if prediction_length > arch.prediction_length:
        raise ValueError(
            f"data.prediction_length is {prediction_length} and the head of {config.pretrained} has "
            f"{arch.prediction_length} steps; lower it. Longer horizons are forecast all the same, part by part."
        )
    limit = raised_limit("context_length", arch.context_length, context_length, config.context_length)
    dropout_rate = arch.dropout_rate if config.dropout_rate is None else config.dropout_rate
    model.architecture = arch.replace(context_length=limit, dropout_rate=dropout_rate)
    set_dropout_rate(model, dropout_rate)
