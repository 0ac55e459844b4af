"""What comes with foreloom is found by name and from anywhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from foreloom.config.located import RecipeError
from foreloom.config.shipped import find_example, find_recipe, purpose, shipped_recipes


def test_what_comes_with_foreloom_is_listed_and_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    purposes = {name: purpose(path) for name, path in shipped_recipes().items()}
    assert purposes["quickstart"].endswith("a small Chronos-2 from random weights on the example data.")
    assert purposes["chronos-t5-tiny"].endswith("the recipe of the paper (Ansari et al. 2024, Chronos).")
    assert all(20 < len(sentence) < 200 for sentence in purposes.values()), "a line each"
    births = find_example(Path("examples/births.csv"))
    assert births.is_file() and find_example(Path("elsewhere/births.csv")) == Path("elsewhere/births.csv")
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "births.csv").touch()
    assert find_example(Path("examples/births.csv")) == Path("examples/births.csv"), "what is there is meant"
    assert find_example(Path("examples/tasks.yaml")).is_file()


def test_missing_recipe_names_the_nearest_shipped_one():
    with pytest.raises(RecipeError, match="no shipped recipe of that name.*Did you mean chronos2-test?"):
        find_recipe("chronos2-tst")
