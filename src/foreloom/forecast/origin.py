"""How sentences call a table and its rows: as the argument it was given as, or as the file it was read from."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

_KEY = "foreloom.origin"


@dataclass(frozen=True)
class Origin:
    """A table's name and the number its first row has for its owner."""

    name: str
    first_row: int = 0
    """0 for frames; 2 for text files, whose first row stands below the header."""

    def row(self, position: int) -> str:
        return f"row {position + self.first_row}"

    @classmethod
    def of(cls, df: pd.DataFrame, argument: str) -> Origin:
        """Where `df` was read from, or else the argument it is."""
        return cls(**df.attrs[_KEY]) if _KEY in df.attrs else cls(argument)


def mark(df: pd.DataFrame, path: Path, first_row: int) -> pd.DataFrame:
    """`df` itself, which now knows the file it came from."""
    df.attrs[_KEY] = asdict(Origin(str(path), first_row))  # plain values: pandas writes attrs into Parquet as JSON
    return df
