"""A pretrained model's limits follow the data: they are raised, never lowered, and each change is said."""

from __future__ import annotations

import logging

logger = logging.getLogger(__name__)


def raised_limit(name: str, has: int, needed: int, asked: int | None) -> int:
    """The limit of a model that `has` one, for data that need so much; ValueError where the recipe asks for less."""
    if asked is not None and asked < has:
        raise ValueError(
            f"model.{name} is {asked} and the checkpoint has {has}; a limit is never lowered, leave it out."
        )
    limit = max(has, needed, asked or 0)
    if limit != has:
        logger.info("%s: %s -> %s", name, has, limit)
    return limit
