"""Recipes: one YAML file is one run. Reads, extends, overrides and validates it, reports every error at once, and tells
it in words: every setting with the sentence that documents it."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import re
import textwrap
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from foreloom.config.elsewhere import setting_here, value_here
from foreloom.config.located import Located, RecipeError, merge, read_yaml
from foreloom.config.shipped import find_recipe

T = TypeVar("T")

COMMAND_LINE = "command line"
"""Where a setting was written that is in no file."""

SectionChoice = type | Callable[[Mapping[str, Any]], type]
"""A section's class, or a function that picks it from the raw values of the whole recipe."""

_EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "datetime_type": "a date (2024-01-31)",
    "datetime_parsing": "a date (2024-01-31)",
    "datetime_from_date_parsing": "a date (2024-01-31)",
    "dataclass_type": "a group of settings (key: value)",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "less_than": "a number below {lt}",
    "less_than_equal": "a number of at most {le}",
    "too_short": "a list of at least {min_length}",
    "string_too_short": "text",
}
"""What pydantic's kinds of errors wanted."""


@dataclass(frozen=True)
class Recipe:
    """A validated recipe. `sections` holds one instance a section; `located` says where each value came from, and
    `problems` what is wrong with the sections that are left out."""

    path: Path
    sections: Mapping[str, Any]
    located: Located
    problems: tuple[str, ...] = ()

    def where(self, key: str) -> str:
        """`file:line` (or `command line`) of a dotted key, for errors found after validation."""
        return self.located.where(key)

    def to_yaml(self) -> str:
        """The resolved run, every setting spelled out; loading it again gives the same run."""
        return yaml.safe_dump(plain(self.sections), sort_keys=False, allow_unicode=True, width=120)


def load_recipe(path: str | Path, overrides: Sequence[str], sections: Mapping[str, SectionChoice]) -> Recipe:
    """Read a recipe, apply `extends` and dotted overrides, and validate it.

    `overrides` are `section.key=value` with the value in YAML (`data.sources.0.weight=0.5`). `sections` maps each
    allowed section to its class, or to a function that picks the class. A section that is absent takes its defaults.

    Raises `RecipeError` listing every problem as `file:line: key: what was expected`.
    """
    recipe = read_recipe(path, overrides, sections)
    if recipe.problems:
        raise RecipeError(sorted(recipe.problems, key=line_of))
    return recipe


def read_recipe(path: str | Path, overrides: Sequence[str], sections: Mapping[str, SectionChoice]) -> Recipe:
    """`load_recipe`, but for its problems, which the recipe tells: its other sections can be looked at further.

    Raises `RecipeError` for a file that cannot be read. An override that is none is a problem like others.
    """
    path = find_recipe(path)
    located = _read_extended(path, ())
    located, problems = _with_overrides(located, overrides)
    validated: dict[str, Any] = {}
    for name in located.values:
        if name not in sections:
            told = _of_others(name, located.values[name])
            hint = _nearest(name, sections, list_all=not told)
            problems.append(f"{located.where(name)}: {name}: unknown section.{hint}{told}")
    for name, choice in sections.items():
        raw = located.values.get(name)
        raw = {} if raw is None else raw
        if not isinstance(raw, Mapping):
            problems.append(f"{located.where(name)}: {name}: expected a section of settings, got {raw!r}.")
            continue
        try:
            cls = choice if isinstance(choice, type) else choice(located.values)
        except ValueError as error:
            problems.extend(f"{located.where(name)}: {line}" for line in str(error).splitlines())
            continue
        instance, wrong = validate(cls, raw, located, name, setting_here)
        problems.extend(wrong)
        if not wrong:
            validated[name] = instance
    return Recipe(path, validated, located, tuple(problems))


def validate(
    cls: type, raw: Any, located: Located, prefix: str, elsewhere: Callable[[str], str | None] = lambda name: None
) -> tuple[Any, list[str]]:
    """`raw` as an instance of section `cls`, and what is wrong with it: a line a problem, with file and line.

    `elsewhere` says what is called here what others call an unknown setting.
    """
    try:
        return TypeAdapter(cls).validate_python(raw), []
    except ValidationError as error:
        problems = error.errors()
        return None, [_explain(cls, one, located, prefix, elsewhere) for one in problems if not _follows(one, problems)]


def from_words(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """Section `cls` from values that stand in no file. `RecipeError` says what is wrong with them, `where` (an option
    of the command line, a file:line) in front."""
    made, problems = validate(cls, values, Located(values, {"": where}), "")
    if problems:
        raise RecipeError(problems)
    return made


def apply_overrides(located: Located, overrides: Iterable[str]) -> Located:
    """Values with `a.b.c=value` settings put in; a number reaches into a list (`data.sources.0.path`). `RecipeError`
    lists those that cannot be."""
    changed, problems = _with_overrides(located, overrides)
    if problems:
        raise RecipeError(problems)
    return changed


def _with_overrides(located: Located, overrides: Iterable[str]) -> tuple[Located, list[str]]:
    """With those settings that can be put in, and what is wrong with the others."""
    values, origins = copy.deepcopy(located.values), dict(located.origins)
    problems: list[str] = []
    for text in overrides:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals or not re.fullmatch(r"[A-Za-z_]\w*(\.\w+)+", key):
            problems.append(f"command line: {text!r}: {_no_override(key)}")
            continue
        try:
            _put(values, key.split("."), yaml.safe_load(value))
        except (yaml.YAMLError, ValueError) as error:
            what = error if isinstance(error, ValueError) else f"{value!r} is not a YAML value."
            problems.append(f"command line: {key}: {what}")
            continue
        origins = {known: place for known, place in origins.items() if not known.startswith(f"{key}.")}
        origins[key] = COMMAND_LINE
    return Located(values, origins), problems


def _of_others(name: str, section: Any) -> str:
    """What is called here what an unknown section holds, a sentence each."""
    known = {str(key): setting_here(str(key)) for key in section} if isinstance(section, Mapping) else {}
    return "".join(f" {name}.{key}, here: {here}." for key, here in known.items() if here and f".{key}=" not in here)


def _no_override(key: str) -> str:
    """What to write instead."""
    plain_key = re.sub(r"\[(\w+)\]", r".\1", key.lstrip("+-"))
    here = setting_here(key) if "." not in plain_key else None
    known = f"; here: {here}" if here else f"; here: {plain_key}=VALUE" if plain_key != key else ""
    return f"write an override as section.setting=value{known}."


def _put(tree: Any, keys: Sequence[str], value: Any) -> None:
    """tree[keys] = value, making sections on the way. ValueError where the way leads through a plain value."""
    node = tree
    for depth, key in enumerate(keys, start=1):
        slot: Any = key
        if isinstance(node, list):
            if not key.isdigit() or int(key) >= len(node):
                raise ValueError(f"{key} is not an entry of a list of {len(node)}, counted from 0.")
            slot = int(key)
        elif not isinstance(node, dict):
            raise ValueError(f"{'.'.join(keys[: depth - 1])} is {node!r}, which holds no settings.")
        if depth == len(keys):
            node[slot] = value
            return
        if isinstance(node, dict) and node.get(slot) is None:
            node[slot] = {}
        node = node[slot]


def _read_extended(path: Path, seen: tuple[Path, ...]) -> Located:
    if path.resolve() in seen:
        raise RecipeError([f"{path}: extends itself ({' -> '.join(p.name for p in (*seen, path))})."])
    located = read_yaml(path)
    if located.values is None:
        located.values = {}
    if not isinstance(located.values, dict):
        raise RecipeError([f"{path}: expected sections (model, data, training, ...), got {located.values!r}."])
    base = located.values.pop("extends", None)
    if base is None:
        return located
    where = located.origins.pop("extends")
    beside = path.parent / str(base)
    candidates = [beside, beside.with_name(f"{beside.name}.yaml")]
    found = next((c for c in candidates if c.is_file()), None)
    if found is None:
        try:
            found = find_recipe(str(base))
        except RecipeError as error:
            raise RecipeError([f"{where}: extends: {error}"]) from None
    return merge(_read_extended(found, (*seen, path.resolve())), located)


def _follows(problem: Any, problems: Sequence[Any]) -> bool:
    """Is a list too short only because entries of it are wrong, each a problem of its own?"""
    loc = problem["loc"]
    return problem["type"] == "too_short" and any(one["loc"][: len(loc)] == loc != one["loc"] for one in problems)


def _explain(cls: type, problem: Any, located: Located, prefix: str, elsewhere: Callable[[str], str | None]) -> str:
    loc = [str(part) for part in problem["loc"] if not _is_union_tag(part)]
    key = ".".join([prefix, *loc] if prefix else loc)
    where = located.where(key)
    kind, context = problem["type"], problem.get("ctx", {})
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        owner = _class_at(cls, loc[:-1])
        known = [f.name for f in dataclasses.fields(owner)] if owner else []
        here = elsewhere(loc[-1])
        sentence = f"unknown setting. Here: {here}." if here else f"unknown setting.{_nearest(loc[-1], known)}"
    elif kind in ("missing", "missing_argument"):
        sentence = "is required and not given."
    elif kind == "value_error":
        sentence = str(context.get("error", problem["msg"]))
        if any(place == COMMAND_LINE for setting, place in located.origins.items() if setting.startswith(f"{key}.")):
            where = COMMAND_LINE  # a rule of several settings: the newest of them is the likely culprit
    elif kind == "literal_error":
        options = re.findall(r"'([^']*)'", str(context["expected"]))
        meant = value_here(problem["input"], options)
        hint = f" Did you mean {meant}?" if meant else _nearest(problem["input"], options, list_all=False)
        sentence = f"expected {context['expected']}, got {problem['input']!r}.{hint}"
    else:
        expected = _EXPECTED[kind].format_map(context) if kind in _EXPECTED else problem["msg"]
        sentence = f"expected {expected}, got {problem['input']!r}."
        if kind in ("list_type", "tuple_type") and isinstance(problem["input"], str | int | float):
            sentence += f" Write [{problem['input']}]."
    return ": ".join(part for part in (where, key, sentence) if part)


def line_of(problem: str) -> int:
    """The line that a problem names, to sort by; 0 for the command line."""
    found = re.match(r".*?:(\d+): ", problem)
    return int(found.group(1)) if found else 0


def _nearest(name: Any, known: Iterable[str], *, list_all: bool = True) -> str:
    known = list(known)
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.6)
    if close:
        return f" Did you mean {close[0]}?"
    return f" Known: {', '.join(known)}." if list_all and known else ""


def _is_union_tag(part: Any) -> bool:
    """Pydantic adds the tried member of a union (`list[...]`, `float`) to an error's place."""
    return isinstance(part, str) and (not part.isidentifier() or part in ("float", "int", "str", "bool"))


def _class_at(cls: Any, loc: Sequence[str]) -> type | None:
    """The section class that holds the setting at `loc` below `cls`."""
    for part in loc:
        if part.isdigit():
            continue
        if not dataclasses.is_dataclass(cls):
            return None
        cls = next(iter(_dataclasses_in(typing.get_type_hints(cls).get(part))), None)
    return cls if dataclasses.is_dataclass(cls) and isinstance(cls, type) else None


def _dataclasses_in(hint: Any) -> Iterable[type]:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        yield hint
    for inner in typing.get_args(hint):
        yield from _dataclasses_in(inner)


def plain(value: Any) -> Any:
    """Sections, tuples and paths as what YAML can say: mappings, lists and text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def flatten(values: Any, key: str = "") -> dict[str, Any]:
    """Nested values by dotted key: {"data.sources.0.path": "x"}. Empty lists and mappings are values."""
    if isinstance(values, Mapping | list) and values:
        inner = values.items() if isinstance(values, Mapping) else enumerate(values)
        return {
            dotted: value
            for name, below in inner
            for dotted, value in flatten(below, f"{key}.{name}" if key else str(name)).items()
        }
    return {key: values}


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
                               subsequent_indent=f"{indent}# ", break_on_hyphens=False)  # fmt: skip
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
