"""Checksums as the hub states them: SHA-256 of large files, git's SHA-1 of a blob for the others."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_BLOCK_BYTES = 2**20


@dataclass(frozen=True)
class Checksum:
    """A digest and the rule it is made by."""

    kind: Literal["sha256", "git"]
    digest: str
    """Lower-case hexadecimal."""

    def fits(self, path: Path) -> bool:
        """Whether the file's content has this digest. Reads the whole file."""
        if self.kind == "sha256":
            made = hashlib.sha256()
        else:
            made = hashlib.sha1(f"blob {path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                made.update(block)
        return made.hexdigest() == self.digest
