"""A section of a recipe: a frozen dataclass that documents each field and refuses keys it does not know."""

from __future__ import annotations

from typing import TypeVar, dataclass_transform

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

T = TypeVar("T")

FINITE = ConfigDict(allow_inf_nan=False)
"""Numbers are finite, unless a field's own annotation says otherwise."""
_CONFIG = ConfigDict(**FINITE, extra="forbid", use_attribute_docstrings=True, validate_default=True)


@dataclass_transform(frozen_default=True, kw_only_default=True)
def section(cls: type[T]) -> type[T]:
    """Make `cls` a recipe section.

    Every field carries a docstring on the line below it: `foreloom show` prints it beside the value. Its floats are
    finite, unless a field says otherwise (`Annotated[float, Field(allow_inf_nan=True)]`). Checks that span
    several fields go into `__post_init__` and raise `ValueError` with a sentence; the loader adds file and line. A
    section whose empty fields stand for something has a method `implied()` that says for what.
    """
    made = dataclass(frozen=True, kw_only=True, config=_CONFIG)(cls)
    # pydantic reads the docstrings of the class at hand only: an inherited field has that of its own class.
    for base in cls.__mro__[1:]:
        for name, field in getattr(base, "__pydantic_fields__", {}).items():
            own = made.__pydantic_fields__[name]
            own.description = own.description or field.description
    return made  # type: ignore[return-value]
