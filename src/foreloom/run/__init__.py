"""A run: from a recipe to a trainer."""

from foreloom.run.composition import build, train
from foreloom.run.recipe import RECIPE_NAME, SECTIONS, config_hash, data_of, describe, load, shapes_of

__all__ = ["RECIPE_NAME", "SECTIONS", "build", "config_hash", "data_of", "describe", "load", "shapes_of", "train"]
