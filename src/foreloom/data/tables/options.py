"""What a table does not say itself: one record, for every verb that reads tables, for sources, tasks and Python."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator

from foreloom.config.loader import validate
from foreloom.config.located import Located
from foreloom.config.section import section


def _split(names: object) -> object:
    """`store,item`, as it is typed."""
    return tuple(name for part in names.split(",") if (name := part.strip())) if isinstance(names, str) else names


Names = Annotated[tuple[str, ...], BeforeValidator(_split)]


@section
class TableOptions:
    """What a table does not say itself. The default names stand for all that are known, see `long_table`."""

    id_column: Names = ("item_id",)
    """The column that names the series, or several that do together: store,item."""
    timestamp_column: str = "timestamp"
    """The column of times."""
    target: Names = ("target",)
    """The column(s) of values to forecast."""
    known_ahead: Names = ()
    """Covariates known over the horizon too: promo,holiday."""
    past: Names | None = None
    """Covariates known over the past only; columns that nothing names are then left out (unset: they are such)."""
    static: Names = ()
    """Columns of one value a series: kept beside it, and no covariates."""
    category: Names = ()
    """Covariates whose numbers are labels (a store's type, a code)."""
    date_format: str | None = None
    """How times are written, where two readings fit: %d/%m/%Y or %m/%d/%Y."""
    freq: str | None = None
    """The step between rows: h, D, B, W, MS ... (unset: told from the times)."""
    fill_gaps: bool | None = None
    """Are absent steps missing values? Unset: where the frequency is plain; else it is an error. No: rows are taken as
    consecutive."""
    separator: str | None = None
    """Between the columns of a text file; unset: a comma, a tab in .tsv files."""
    decimal: str | None = None
    """The decimal point of a text file; unset: a point."""

    def __post_init__(self) -> None:
        if self.separator == "tab":
            object.__setattr__(self, "separator", "\t")
        for name, value in (("separator", self.separator), ("decimal", self.decimal)):
            if value is not None and len(value) != 1:
                raise ValueError(f"{name} {value!r}: one character is wanted, such as ; or a comma.")


def table_options(said: Mapping[str, Any]) -> TableOptions:
    """Those that were said; None says nothing. ValueError with a sentence for each that is wrong."""
    given = {name: value for name, value in said.items() if value is not None}
    options, problems = validate(TableOptions, given, Located({}, {}), "")
    if problems:
        raise ValueError(" ".join(problem.removeprefix(": ") for problem in problems))
    return options


def changes(options: TableOptions) -> dict[str, Any]:
    """What was said: those that are not as they are by default."""
    return {name: value for name, value in vars(options).items() if value != getattr(_NOTHING_SAID, name)}


def refuse_table_options(path: object, options: TableOptions) -> None:
    """For data with a series a row, of which there is nothing to say."""
    if said := changes(options):
        raise ValueError(
            f"{path} holds a series a row, so there is no table to say anything of: leave {', '.join(said)} out."
        )


_NOTHING_SAID = TableOptions()
