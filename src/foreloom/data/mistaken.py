"""What a file is that is not what its name says, told by how it begins."""

from __future__ import annotations

from pathlib import Path

_BEGINNINGS = {
    b"PAR1": "It is a Parquet file: name it .parquet.",
    b"ARROW1": "It is an Arrow file: name it .arrow.",
    b"\x93NUMPY": "It is a NumPy array: name it .npy.",
    b"\x1f\x8b": "It is compressed by gzip: unpack it (gunzip).",
    b"\x28\xb5\x2f\xfd": "It is compressed by zstd: unpack it (unzstd).",
    b"PK\x03\x04": "It is a ZIP archive, or a spreadsheet: unpack it, or export a .csv.",
    b"version https://git-lfs": "It is a pointer of Git LFS, not the file itself: fetch that (git lfs pull).",
    b"<!DOCTYPE": "It is a web page: what was to be downloaded did not come.",
    b"<html": "It is a web page: what was to be downloaded did not come.",
}


def what_it_is(path: Path, otherwise: str) -> str:
    """A sentence on a file that could not be read as its name says; `otherwise` where its first bytes tell nothing."""
    with path.open("rb") as file:
        beginning = file.read(max(map(len, _BEGINNINGS)))
    own = path.suffix.encode()
    told = (says for begin, says in _BEGINNINGS.items() if beginning.lower().startswith(begin.lower()))
    return next((says for says in told if not says.encode().endswith(own + b".")), otherwise)
