"""What the columns of a long table are: ids, times and targets by their known names, covariates by their roles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from foreloom.data.columns import ID_NAMES, TIME_NAMES
from foreloom.data.tables import values
from foreloom.data.tables.options import TableOptions
from foreloom.data.tables.read import Rows

TARGET_NAMES = ("target", "y")
Role = Literal["past", "future", "static"]
"""Of a column beside the targets: known up to the cut, known ahead, or one value a series."""
_PREFIXES: dict[str, tuple[Role, bool]] = {
    "past__": ("past", False), "past_cat__": ("past", True), "future__": ("future", False),
    "future_cat__": ("future", True), "static__": ("static", False),
}  # fmt: skip
"""How a column says its role itself, and whether it holds labels."""


@dataclass(frozen=True)
class Covariate:
    """A column beside ids, times and targets."""

    column: str
    name: str
    """Without the prefix that says its role."""
    role: Role
    is_label: bool
    """Said to hold labels, even if they look like numbers."""


def find(rows: Rows, asked: str) -> str | None:
    """The column of that name; for a default name, any that is known for the same thing."""
    if asked in rows.names:
        return asked
    known = next((names for names in (ID_NAMES, TIME_NAMES, TARGET_NAMES) if asked == names[0]), ())
    return next((name for name in known if name in rows.names), None)


def needed(rows: Rows, asked: str) -> str:
    found = find(rows, asked)
    if found is None:
        how = " Say which one holds the times: timestamp_column (--timestamp-column)." if asked == TIME_NAMES[0] else ""
        raise ValueError(f"{rows.name} has no column {asked!r}. {rows.nearest(asked)}{how}")
    return found


def columns_said(options: TableOptions) -> tuple[str, ...]:
    """The columns whose role is said."""
    return (*options.known_ahead, *(options.past or ()), *options.static)


def covariates_of(rows: Rows, used: set[str]) -> list[Covariate]:
    """What the columns that are not `used` are: as was said, else as their own names say, else known over the past."""
    options = rows.options
    short = {name: _by_prefix(name) for name in rows.names if name not in used}

    def columns_of(names: Sequence[str]) -> set[str]:
        found = set()
        for asked in names:
            mine = [asked] if asked in rows.names else [name for name, (known, *_) in short.items() if known == asked]
            if not mine:
                raise ValueError(f"{rows.name} has no column {asked!r}. {rows.nearest(asked)}")
            found.update(mine)
        return found

    said: dict[str, Role] = {}
    roles: dict[Role, Sequence[str]] = {
        "future": options.known_ahead,
        "past": options.past or (),
        "static": options.static,
    }
    for role, names in roles.items():
        said.update(dict.fromkeys(columns_of(names), role))
    labels = columns_of(options.category)
    if labels & used:
        raise ValueError(f"{rows.name}: {min(labels & used)!r} is an id, the time or a target, and no category.")
    covariates, left_out = [], []
    for column, (name, own_role, is_label) in short.items():
        role = said.get(column, own_role)
        if not has_values(rows, column):
            continue
        if role is None and options.past is not None:
            left_out.append(column)
            continue
        if name in (one.name for one in covariates):
            raise ValueError(f"{rows.name} has two columns for the covariate {name!r}. Rename or drop one.")
        covariates.append(Covariate(column, name, role or "past", is_label or column in labels))
    if left_out:
        rows.say(f"{rows.name}: {', '.join(left_out)}: left out, as the past covariates are named without.")
    return covariates


def short_name(column: str) -> str:
    """Without the prefix that says a role: promo of future__promo."""
    return _by_prefix(column)[0]


def _by_prefix(column: str) -> tuple[str, Role | None, bool]:
    """A column's name without its prefix, the role that says, and whether it says labels."""
    for prefix, (role, is_label) in _PREFIXES.items():
        if column.startswith(prefix) and len(column) > len(prefix):
            return column.removeprefix(prefix), role, is_label
    return column, None, False


def has_values(rows: Rows, name: str) -> bool:
    """A column without any value is left out; a note says so."""
    if values.is_empty(rows, name):
        rows.say(f"{rows.name}: column {name!r} holds no value and is left out.")
        return False
    return True
