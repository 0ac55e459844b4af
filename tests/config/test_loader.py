"""Recipes: every error at once, at its place; extends, overrides and the resolved recipe."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from foreloom.config.loader import apply_overrides, load_recipe
from foreloom.config.located import Located, RecipeError
from foreloom.config.section import section


@section
class Part:
    path: str
    """Where it is."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """How much of it."""


@section
class Whole:
    parts: list[Part]
    """What it is made of."""
    steps: int = 3
    """How long."""
    kind: Literal["uniform", "length"] = "uniform"
    """Which way."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Optional bound."""

    def __post_init__(self):
        if self.steps == 7:
            raise ValueError("steps: 7 is not possible; choose 8.")


@section
class Narrowed(Whole):
    kind: Literal["length"] = "length"
    """The only way."""


@section
class Parts:
    parts: Annotated[tuple[Part, ...], Field(min_length=1)]
    """One at least."""


SECTIONS = {"whole": Whole}


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def problems(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides, SECTIONS)
    return [p.replace(str(path.parent) + "/", "") for p in caught.value.problems]


def test_a_wrong_entry_does_not_make_its_list_short(tmp_path):
    path = write(tmp_path, "a.yaml", "whole:\n  parts:\n    - path: x\n")
    expected = "command line: whole.parts.0.pth: unknown setting. Did you mean path?"
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, ["whole.parts.0.pth=y"], {"whole": Parts})
    assert caught.value.problems == [expected]
    with pytest.raises(RecipeError, match=r"whole.parts: expected a list of at least 1, got \[\]"):
        load_recipe(path, ["whole.parts=[]"], {"whole": Parts})


def test_all_errors_at_once_each_at_its_line(tmp_path):
    path = write(
        tmp_path,
        "a.yaml",
        "whole:\n  parts:\n    - path: x\n      wieght: 1\n    - weight: -1\n      path: y\n"
        "  stepz: 3\n  kind: unifrm\n  limit: 0\n  steps: many\nwhloe:\n  a: 1\n",
    )
    assert problems(path) == [
        "a.yaml:4: whole.parts.0.wieght: unknown setting. Did you mean weight?",
        "a.yaml:5: whole.parts.1.weight: expected a number above 0.0, got -1.",
        "a.yaml:7: whole.stepz: unknown setting. Did you mean steps?",
        "a.yaml:8: whole.kind: expected 'uniform' or 'length', got 'unifrm'. Did you mean uniform?",
        "a.yaml:9: whole.limit: expected a number of at least 1, got 0.",
        "a.yaml:10: whole.steps: expected a whole number, got 'many'.",
        "a.yaml:11: whloe: unknown section. Did you mean whole?",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("whole:\n  steps: 1\n", "a.yaml:1: whole.parts: is required and not given."),
        ("whole:\n  parts: []\n  steps: 7\n", "a.yaml:1: whole: steps: 7 is not possible; choose 8."),
        ("whole:\n  steps: 1\n  steps: 2\n", "a.yaml:3: whole.steps: written twice (first at a.yaml:2)."),
        ("whole: [1, 2\n", "a.yaml:2: not valid YAML"),
        ("whole: 3\n", "a.yaml:1: whole: expected a section of settings, got 3."),
        ("- 3\n", "a.yaml: expected sections"),
        ("extends: nowhere\nwhole: {parts: []}\n", "a.yaml:1: extends: nowhere: no such file"),
        ("extends: a.yaml\n", "a.yaml: extends itself (a.yaml -> a.yaml)."),
        ("whole: {start: 2024-13-01}\n", "a.yaml:1: whole.start: 2024-13-01 cannot be read (month must be in 1..12)."),
        ("whole: &a {limit: *a}\n", "a.yaml:1: its aliases (*name) stand for too much; write the values out."),
        ("whole: " + "[" * 5000 + "\n", "a.yaml: is nested too deep to be a recipe."),
        (
            "whole: {parts: [{path: x, weight: .nan}]}\n",
            "a.yaml:1: whole.parts.0.weight: expected a finite number",
        ),
    ],
)
def test_bad_files_get_a_sentence(tmp_path, text, expected):
    found = problems(write(tmp_path, "a.yaml", text))
    assert len(found) == 1
    assert found[0].replace(str(tmp_path) + "/", "").startswith(expected)


def test_a_small_file_of_aliases_is_refused_at_once(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 8)}]" for n in range(1, 9)]
    assert len("\n".join(lines)) < 500
    started = time.monotonic()
    (problem,) = problems(write(tmp_path, "a.yaml", "\n".join(lines)))
    assert "aliases (*name) stand for too much" in problem and time.monotonic() - started < 5
    aliased = write(tmp_path, "b.yaml", "whole:\n  parts: [&one {path: x}, *one, *one]\n  kind: length\n")
    assert load_recipe(aliased, [], SECTIONS).sections["whole"].parts == [Part(path="x")] * 3


def test_overrides_reach_into_lists_and_are_named_in_errors(tmp_path):
    path = write(tmp_path, "a.yaml", "whole:\n  kind: length\n  parts:\n    - path: x\n    - path: y\n")
    recipe = load_recipe(path, ["whole.parts.1.weight=1e-4", "whole.steps=5", "whole.limit=null"], SECTIONS)
    assert recipe.sections["whole"] == Whole(
        parts=[Part(path="x"), Part(path="y", weight=1e-4)], steps=5, kind="length"
    )
    assert problems(path, "whole.parts.2.weight=1", "steps=4") == [
        "command line: whole.parts.2.weight: 2 is not an entry of a list of 2, counted from 0.",
        "command line: 'steps=4': write an override as section.setting=value; here: training.steps=N.",
    ]
    assert problems(path, "whole.setps=4") == ["command line: whole.setps: unknown setting. Did you mean steps?"]
    changed = apply_overrides(Located({"a": {"b": 1}}), ["a.b=[1, {c: 2}]", "d.e=null"])
    assert changed.values == {"a": {"b": [1, {"c": 2}]}, "d": {"e": None}}
    assert problems(path, "whole.kind.x=4") == [
        "command line: whole.kind.x: whole.kind is 'length', which holds no settings."
    ]


def test_extends_merges_sections_and_keeps_places(tmp_path):
    write(tmp_path, "base.yaml", "whole:\n  parts:\n    - path: x\n  steps: 9\n  kind: length\n")
    path = write(tmp_path, "a.yaml", "extends: base.yaml\nwhole:\n  steps: 4\n")
    recipe = load_recipe(path, [], SECTIONS)
    assert recipe.sections["whole"] == Whole(parts=[Part(path="x")], steps=4, kind="length")
    assert recipe.where("whole.steps").endswith("a.yaml:3")
    assert recipe.where("whole.kind").endswith("base.yaml:5")
    assert recipe.where("whole.parts.0.path").endswith("base.yaml:3")


def test_resolved_recipe_loads_to_the_same_run(tmp_path):
    path = write(tmp_path, "a.yaml", "whole:\n  parts:\n    - {path: x, weight: 1e-4}\n  kind: length\n")
    recipe = load_recipe(path, ["whole.steps=11"], SECTIONS)
    again = load_recipe(write(tmp_path, "resolved.yaml", recipe.to_yaml()), [], SECTIONS)
    assert again.sections == recipe.sections
    assert again.to_yaml() == recipe.to_yaml()


def test_every_field_carries_its_docstring():
    assert Whole.__pydantic_fields__["steps"].description == "How long."


def test_an_inherited_field_has_the_sentence_of_its_class():
    fields = Narrowed.__pydantic_fields__
    assert fields["steps"].description == "How long." and fields["kind"].description == "The only way."
