"""YAML that remembers where every value was written, so that an error can name its file and line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml


class RecipeError(ValueError):
    """Everything wrong with a file at once, one line a problem."""

    def __init__(self, problems: list[str]):
        super().__init__(problems)
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(self.problems)


MOST_REPEATED = 10_000
"""Values that aliases (`*name`) may stand for in a file: one of 300 bytes can stand for billions."""
_DEEPEST = 100
"""Mappings and lists inside one another."""


@dataclass
class Located:
    """Plain values and, for each dotted key (`data.sources.0.path`), the place it was written."""

    values: Any
    origins: dict[str, str] = field(default_factory=dict)

    def where(self, key: str) -> str:
        """The place of `key`, or of the nearest thing inside or around it that was written down."""
        if key not in self.origins:
            key = next((known for known in self.origins if known.startswith(f"{key}.")), key)
        while key and key not in self.origins:
            key = key.rpartition(".")[0]
        return self.origins.get(key, "")


def read_yaml(path: Path) -> Located:
    """Read a YAML file; syntax errors and keys written twice are `RecipeError`s with file and line."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RecipeError([f"{path}: cannot be read ({error.strerror or error})."]) from None
    except UnicodeDecodeError:
        raise RecipeError([f"{path}: is not UTF-8 text, so it cannot be a YAML file."]) from None
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except RecursionError:
        raise RecipeError([f"{path}: is nested too deep to be a recipe."]) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise RecipeError([f"{path}:{line}: not valid YAML: {error.problem or error}."]) from None
    except yaml.YAMLError as error:
        raise RecipeError([f"{path}: not valid YAML: {error}."]) from None
    located = Located(None, {"": str(path)})
    if root is None:
        return located
    problems: list[str] = []
    constructor = yaml.SafeLoader("")
    built: set[int] = set()
    num_repeated = 0

    def build(node: yaml.Node, key: str, *, line: int) -> Any:
        nonlocal num_repeated
        num_repeated += id(node) in built
        built.add(id(node))
        if num_repeated > MOST_REPEATED or key.count(".") > _DEEPEST:
            raise RecipeError([f"{path}:{line}: its aliases (*name) stand for too much; write the values out."])
        located.origins.setdefault(key, f"{path}:{line}")
        if isinstance(node, yaml.MappingNode):
            mapping: dict[str, Any] = {}
            for name_node, value_node in node.value:
                name = str(constructor.construct_object(name_node))
                name_line = name_node.start_mark.line + 1
                dotted = f"{key}.{name}" if key else name
                if name in mapping:
                    problems.append(
                        f"{path}:{name_line}: {dotted}: written twice (first at {located.origins[dotted]})."
                    )
                    continue
                mapping[name] = build(value_node, dotted, line=name_line)
            return mapping
        if isinstance(node, yaml.SequenceNode):
            return [
                build(child, f"{key}.{i}" if key else str(i), line=child.start_mark.line + 1)
                for i, child in enumerate(node.value)
            ]
        try:
            return constructor.construct_object(node)
        except ValueError as error:  # a date that no calendar has, a whole number of thousands of digits
            problems.append(f"{path}:{line}: {key}: {node.value[:40]} cannot be read ({error}).")
            return None

    located.values = build(root, "", line=1)
    if problems:
        raise RecipeError(problems)
    return located


def merge(base: Located, over: Located) -> Located:
    """`over` on top of `base`: mappings are merged key by key, everything else (lists too) is replaced."""
    origins = dict(base.origins)

    def forget(key: str) -> None:
        for known in [k for k in origins if k == key or k.startswith(f"{key}.")]:
            del origins[known]

    def combine(below: Any, above: Any, key: str) -> Any:
        if isinstance(below, Mapping) and isinstance(above, Mapping):
            merged = dict(below)
            for name, value in above.items():
                dotted = f"{key}.{name}" if key else name
                merged[name] = combine(below[name], value, dotted) if name in below else value
            return merged
        forget(key)
        return above

    values = combine(base.values, over.values, "")
    return Located(values, origins | over.origins)
