"""A recipe in words: every setting of the run with the sentence that documents it."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from foreloom.config.loader import Recipe, plain


def describe_recipe(recipe: Recipe, implied: Mapping[str, Mapping[str, Any]]) -> str:
    """The resolved recipe as YAML, a sentence above each setting, and where each value came from.

    `implied` says by section and setting what empty ones stand for, beside what the sections say of themselves.
    """
    lines = [f"# {recipe.path}: every setting of the run. This text is itself a recipe.", ""]
    for name, section in recipe.sections.items():
        lines += [f"{name}:", *_describe_section(section, name, recipe, "  ", implied.get(name, {})), ""]
    return "\n".join(lines)


def _describe_section(section: Any, prefix: str, recipe: Recipe, indent: str, implied: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    if hasattr(section, "implied"):
        implied = {**implied, **section.implied()}
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        key = f"{prefix}.{field.name}"
        sentence = " ".join((section.__pydantic_fields__[field.name].description or "").split())
        origin = _beside(recipe.located.origins.get(key, "default"))
        if value is None and field.name in implied:
            origin = f"default, here {plain(implied[field.name])}"
        lines += textwrap.wrap(f"{sentence} ({origin})", 118 - len(indent), initial_indent=f"{indent}# ",
                               subsequent_indent=f"{indent}# ")  # fmt: skip
        if dataclasses.is_dataclass(value):
            lines += [f"{indent}{field.name}:", *_describe_section(value, key, recipe, indent + "  ", {})]
            continue
        text = yaml.safe_dump({field.name: plain(value)}, sort_keys=False, allow_unicode=True, width=1000)
        lines += textwrap.indent(text, indent).splitlines()
    return lines


def _beside(origin: str) -> str:
    """`file:line` with the file named from the working directory, where it lies inside."""
    file, colon, line = origin.rpartition(":")
    return (
        f"{Path(file).resolve().relative_to(Path.cwd())}:{line}"
        if colon and Path(file).resolve().is_relative_to(Path.cwd())
        else origin
    )
