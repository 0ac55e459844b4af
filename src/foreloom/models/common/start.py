"""What every family's section says of how a model begins: new, of a size, or from a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def check_start(config: Any, fixed_fields: Sequence[str]) -> None:
    """ValueError unless one of `size` and `pretrained` is set, and for `fixed_fields` set beside a checkpoint."""
    if (config.size is None) == (config.pretrained is None):
        raise ValueError(
            "set either size (a new model) or pretrained (a folder or hub id to start from), one of them null."
        )
    fixed = [name for name in fixed_fields if getattr(config, name) is not None]
    if config.pretrained is not None and fixed:
        raise ValueError(
            f"{', '.join(fixed)} cannot be set beside pretrained: the checkpoint fixes it. Take out, or set to "
            "null what a recipe below sets."
        )
