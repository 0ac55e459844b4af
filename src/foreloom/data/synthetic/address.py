"""Addresses of synthetic data, `synth://kernel?num_series=1000&length=128..512&seed=1`, which stand for a path.

After the question mark come `num_series`, `length`, `seed` and the settings of the process, joined by `&`. Characters
that would end a value are escaped as in a URL (%26 for &, %2C for a comma in a name).
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, unquote

from pydantic import AfterValidator, Field

from foreloom.config.loader import validate
from foreloom.config.located import Located
from foreloom.config.section import section
from foreloom.data.synthetic import registry

SCHEME = "synth://"
_MOST_LENGTHS = 2**26
"""Half a gigabyte."""
SOURCES = "sources"
"""The setting that names other data, paths or processes, separated by commas."""


def _length(text: str) -> str:
    shortest, _, longest = text.partition("..")
    if not re.fullmatch(r"\d+(\.\.\d+)?", text) or not 1 <= int(shortest) <= int(longest or shortest):
        raise ValueError(f"expected a number of steps, or a range such as 128..2048, got {text!r}.")
    return text


@section
class CollectionConfig:
    """How many series of a process, how long, and which."""

    num_series: Annotated[int, Field(ge=1, le=2**32)] = 2**20
    """Series that there are; none is made before it is asked for."""
    length: Annotated[str, AfterValidator(_length)]
    """Steps of a series: a number, or a range such as 128..2048, from which each series draws its own."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Another seed gives other series."""

    def __post_init__(self) -> None:
        shortest, longest = self.length_range
        if shortest != longest and self.num_series > _MOST_LENGTHS:
            raise ValueError(
                f"num_series {self.num_series:,} with lengths of their own: at most {_MOST_LENGTHS:,} lengths are "
                "kept; ask for fewer series or for one length."
            )

    @property
    def length_range(self) -> tuple[int, int]:
        """Steps of the shortest and of the longest series."""
        shortest, _, longest = self.length.partition("..")
        return int(shortest), int(longest or shortest)


@dataclass(frozen=True)
class Address:
    """An address, read and checked."""

    text: str
    process: registry.Record
    collection: CollectionConfig
    settings: Any
    """An instance of `process.settings`."""


def is_synthetic(path: str | Path) -> bool:
    """Is it an address? Also one that went through `Path`, which makes one of its two slashes, or none at the end."""
    return str(path).startswith("synth:/") or str(path) == "synth:"


def short_name(path: str) -> str:
    """A path without the folders in it, as people are shown it: `m4.arrow`, `tsmixup?sources=m4.arrow,kernel`."""
    return re.sub(r"[^=,]*/", "", path) if is_synthetic(path) else Path(path).name


def read_address(path: str | Path) -> Address:
    """Raises ValueError, with the whole address, for a process, a setting or a value that there is not."""
    text = _restored(path)
    name, values = _split(text)
    try:
        process = registry.get(name)
    except ValueError as error:
        raise ValueError(f"{text}: {error}") from None
    ours = [field.name for field in dataclasses.fields(CollectionConfig)]
    known = [*ours, *(field.name for field in dataclasses.fields(process.settings))]
    problems = [_unknown(key, known) for key in values if key not in known]
    settings, wrong = _checked(process.settings, {key: values[key] for key in values if key in known[len(ours) :]})
    values = {"length": process.length} | values
    collection, more = _checked(CollectionConfig, {key: values[key] for key in ours if key in values})
    if problems := [*problems, *more, *wrong]:
        raise ValueError(f"{text}: {' '.join(problems)}")
    return Address(text, process, collection, settings)


def write_address(process: str, values: Mapping[str, Any]) -> str:
    """The address of a process with settings; a list is a value of several, separated by commas."""
    query = "&".join(
        f"{key}={','.join(quote(str(one), safe='/:. ') for one in (value if isinstance(value, list) else [value]))}"
        for key, value in values.items()
    )
    return f"{SCHEME}{process}{'?' * bool(query)}{query}"


def parse_settings(parts: Iterable[str]) -> dict[str, Any]:
    """The values of `name=value`, unescaped, `sources` as a list. Raises ValueError for what is not of this form."""
    values: dict[str, Any] = {}
    for part in parts:
        key, equals, value = part.partition("=")
        if not equals or key in values:
            raise ValueError(f"{key} is given twice." if equals else f"{part!r} is no setting: write name=value.")
        values[key] = [unquote(one) for one in value.split(",") if one] if key == SOURCES else unquote(value)
    return values


def locate(path: str | Path, find: Callable[[str], Path | None]) -> tuple[str, list[str]]:
    """A path as `find` finds it, and the same of each path in an address; what is not found comes second.

    Raises ValueError as `read_address` does.
    """
    if not is_synthetic(path):
        found = find(str(path))
        return (str(found), []) if found else (str(path), [str(path)])
    text = read_address(path).text
    name, values = _split(text)
    if SOURCES not in values:
        return text, []
    located = [(one, []) if one in registry.names() else locate(one, find) for one in values[SOURCES]]
    values[SOURCES] = [one for one, _ in located]
    return write_address(name, values), [one for _, missing in located for one in missing]


def missing_data(path: str | Path) -> list[str]:
    """Files and folders that a path or an address names and that are not there."""
    return locate(path, lambda one: Path(one) if Path(one).exists() else None)[1]


def _restored(path: str | Path) -> str:
    return re.sub("^synth:/*", SCHEME, str(path))


def _split(text: str) -> tuple[str, dict[str, Any]]:
    """The process's name and the values."""
    name, _, query = text.removeprefix(SCHEME).partition("?")
    try:
        return name, parse_settings([part for part in query.split("&") if part])
    except ValueError as error:
        raise ValueError(f"{text}: {error}") from None


def _unknown(key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    hint = f"Did you mean {close[0]}?" if close else f"Known: {', '.join(known)}."
    return f"{key}: unknown setting. {hint}"


def _checked(cls: type, values: Mapping[str, Any]) -> tuple[Any, list[str]]:
    settings, problems = validate(cls, values, Located(values), "")
    return settings, [problem.removeprefix(": ") for problem in problems]
