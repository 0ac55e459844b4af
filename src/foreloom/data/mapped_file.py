"""One Arrow file, IPC stream or file format, in memory-mapped form."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import pyarrow as pa

FILE_MAGIC = b"ARROW1"


class NotMappable(Exception):
    """The values cannot be used where they lie (compressed, bit-packed, unaligned): the file must be rewritten."""


class MappedFile:
    """One Arrow file in memory-mapped form."""

    def __init__(self, path: Path):
        with path.open("rb") as file:
            try:
                self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except ValueError:
                raise ValueError(f"{path}: the file is empty, not an Arrow file. Write it again.") from None
        self.buffer = pa.py_buffer(self.map)
        self.path = path
        try:
            if self.map[: len(FILE_MAGIC)] == FILE_MAGIC:
                reader = pa.ipc.open_file(self.buffer)
                batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
            else:
                reader = batches = pa.ipc.open_stream(self.buffer)
            self.schema = reader.schema
            self.batches = []
            for batch in batches:
                if not self.batches:
                    self._refuse_compressed(batch)
                self.batches.append(batch)
        except (pa.ArrowInvalid, OSError) as error:
            raise ValueError(
                f"{path}: not a readable Arrow file ({error}). It may be cut short: copy or write it again."
            ) from error

    def flat(self, dtype: np.dtype) -> np.ndarray:
        """The whole file as numbers of one type; a remainder at the end is left out."""
        return np.frombuffer(self.map, dtype=dtype, count=len(self.map) // dtype.itemsize)

    def position(self, buffer: pa.Buffer, item_bytes: int) -> int:
        """Where in `flat` a buffer starts."""
        begin = buffer.address - self.buffer.address
        if not 0 <= begin <= len(self.map) or begin % item_bytes:
            raise NotMappable(f"{self.path}: a buffer is compressed or not aligned")
        return begin // item_bytes

    def _refuse_compressed(self, batch: pa.RecordBatch) -> None:
        for column in batch.columns:
            for buffer in column.buffers():
                if buffer is not None and buffer.size:
                    self.position(buffer, 1)

    def forget_pages(self) -> None:
        """Give back the pages read so far: the kernel keeps them cached, but they no longer count as ours."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self.map.madvise(mmap.MADV_DONTNEED)
