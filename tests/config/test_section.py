"""What holds of every section of a recipe: its numbers are finite."""

from __future__ import annotations

import dataclasses
import math
import typing

import pytest

from foreloom import run
from foreloom.config.loader import validate
from foreloom.config.located import Located
from foreloom.data.config import GroupConfig, SourceConfig
from foreloom.data.synthetic import registry as processes
from foreloom.models import registry

FAMILIES = [registry.get(name).config for name in registry.names()]
FIXED = [choice for choice in run.SECTIONS.values() if isinstance(choice, type)]
SERIES = [registry.get("chronos2").data(), registry.get("chronos2").data().validation, SourceConfig, GroupConfig]
SYNTHETIC = [processes.get(name).settings for name in processes.names()]


def takes_a_float(hint) -> bool:
    return hint is float or any(map(takes_a_float, typing.get_args(hint)))


@pytest.mark.parametrize("section", [*FAMILIES, *FIXED, *SERIES, *SYNTHETIC], ids=lambda section: section.__name__)
def test_every_number_is_finite(section):
    hints = typing.get_type_hints(section)
    for field in dataclasses.fields(section):
        if takes_a_float(hints[field.name]):
            for wrong in (math.inf, -math.inf, math.nan):
                said = [
                    validate(section, {field.name: value}, Located({}), "it")[1] for value in (wrong, [wrong, wrong])
                ]
                assert any("finite number" in line for lines in said for line in lines), (field.name, wrong, said)
