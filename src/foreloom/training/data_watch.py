"""What the data engine did between two log lines."""

from __future__ import annotations

from foreloom.data.loader import WindowLoader
from foreloom.monitoring.record import DataRecord


class DataWatch:
    """Turns the counts of a loader into records, each of what came since the one before."""

    def __init__(self, loader: WindowLoader) -> None:
        sources = loader.source_statistics()
        self._loader = loader
        self._num_series = sum(source.num_drawn for source in sources)
        self._mapped_bytes = sum(source.num_bytes for source in sources)
        self._before = loader.counts()

    def record(self) -> DataRecord:
        before, now = self._before, self._loader.counts()
        self._before = now
        depth = self._loader.queue_depth
        num_built = now.num_built - before.num_built
        num_taken = now.num_taken - before.num_taken
        num_ready = now.num_ready_when_taken - before.num_ready_when_taken
        return DataRecord(
            num_series=self._num_series,
            mapped_bytes=self._mapped_bytes,
            build_seconds=(now.build_seconds - before.build_seconds) / num_built if num_built else 0.0,
            queue_depth=depth,
            queue_fill=num_ready / (num_taken * depth) if num_taken else 0.0,
            num_ready=now.num_ready,
        )
