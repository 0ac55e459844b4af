"""What comes with foreloom, a checkout's or an installed package's: recipes, models and example data."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from foreloom.config.located import RecipeError

EXAMPLES = "examples"


def _shipped(folder: str) -> Path:
    """A folder of the installed package, or of the checkout that it is run from."""
    package = Path(__file__).resolve().parents[1]
    installed = package / folder
    return installed if installed.is_dir() else package.parents[1] / folder


def shipped_recipes() -> dict[str, Path]:
    """The recipes that come with foreloom, by name."""
    return {path.stem: path for path in sorted(_shipped("recipes").glob("*.yaml"), key=lambda path: path.stem)}


def shipped_models() -> dict[str, Path]:
    """The folders of the trained models that come with foreloom, by name."""
    return {path.parent.name: path.parent for path in sorted(_shipped("pretrained").glob("*/config.json"))}


def find_recipe(name: str | Path) -> Path:
    """A path as given, or the shipped recipe of that name (`chronos2-test`)."""
    path, shipped = Path(name), shipped_recipes()
    if path.is_file():
        return path
    if str(name) in shipped:
        return shipped[str(name)]
    close = difflib.get_close_matches(path.stem, shipped, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    raise RecipeError(
        [
            f"{name}: no such file, and no shipped recipe of that name ({', '.join(shipped)}).{hint} "
            "`foreloom show --list` says what each is for."
        ]
    )


def purpose(recipe: Path) -> str:
    """The first sentence of the comment a recipe begins with; empty without one."""
    found = re.match(r"(?:# (?! ).*\n)*", recipe.read_text(encoding="utf-8"))
    comment = " ".join(line.removeprefix("# ") for line in found.group().splitlines()) if found else ""
    return re.split(r"(?<=\.)\s+(?=[A-Z])", comment)[0]


def find_example(path: Path) -> Path:
    """`examples/...` where there is none: the one that comes with foreloom. Any other path as given."""
    if path.parts[:1] != (EXAMPLES,) or path.exists():
        return path
    shipped = _shipped(EXAMPLES).joinpath(*path.parts[1:])
    return shipped if shipped.exists() else path
