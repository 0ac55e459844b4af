"""What a recipe costs, its steps, its parameters and the FLOPs of a step, and what its loss is counted in: before
anything is trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from foreloom.checkpoint.locate import find_model_folder
from foreloom.config.loader import Recipe
from foreloom.data.loader import BatchLoader
from foreloom.models import registry
from foreloom.report.ab.plan import Size


def sizes(recipes: Sequence[Recipe]) -> list[Size]:
    """The size of each, from models that are built in another process: see `training.train` for why. ValueError, as
    the trainer would raise it, where a model cannot be built."""
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
        return list(pool.map(size_of, recipes))


def size_of(recipe: Recipe) -> Size:
    """Builds the model, without values where it is new, and opens the data."""
    config, data, training = (recipe.sections[name] for name in ("model", "data", "training"))
    loader = BatchLoader(data.open(training.seed), batch_size=training.batch_size)
    if config.pretrained is not None:
        config = dataclasses.replace(config, pretrained=str(find_model_folder(config.pretrained)))
    family = registry.get(config.family)
    model = family.build(config, data)
    return Size(
        num_steps=training.in_steps(loader.num_epoch_batches).num_steps,
        num_parameters=sum(p.numel() for p in model.parameters()),
        flops_per_step=training.batch_size * family.flops_per_row(model, data),
        loss_units=family.loss_units(model),
    )
