"""Text kept out of training, as rows of whole documents: what a loss, a perplexity, bits per byte are measured on.

Axes: N rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from foreloom.data.loader import plan_micro_batches
from foreloom.data.text.corpus import Corpus, document_rows
from foreloom.data.text.dataset import Tokens, read_row, stacked
from foreloom.data.text.token_file import TokenFile
from foreloom.data.text.tokenizer import TextTokenizer


class HeldOutText:
    """`batch.HeldOut` over documents. Each is scored on its own, whatever `data.packing`: the loss of a document does
    not depend on its neighbours, nor on how documents share rows. One longer than `length` tokens is cut, and each part
    begins without the ones before. Every token but the first of a document counts once.

    `chosen` are numbers of documents, an array a file. Of more than `max_rows` rows, so many evenly spread ones are
    taken. ValueError where there is nothing to score.
    """

    def __init__(
        self,
        files: Sequence[TokenFile],
        chosen: Sequence[np.ndarray],
        tokenizer: TextTokenizer,
        *,
        length: int,
        max_rows: int | None = None,
        micro_batch_size: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._tokenizer = tokenizer
        self._corpus = Corpus(files, chosen)
        self._rows = document_rows(self._corpus, length)
        num_rows = len(self._rows)
        if not num_rows:
            raise ValueError(f"{', '.join(file.name for file in files)}: nothing is held out that could be scored.")
        self.num_documents = len(self._corpus.end_D)
        self.num_windows = min(num_rows, max_rows or num_rows)
        self._row_N = np.arange(self.num_windows) * num_rows // self.num_windows
        length_N = self._rows.length_N[self._row_N]
        self._shortest = int(np.argmin(length_N))
        self._plan = plan_micro_batches(
            np.ones(self.num_windows, np.int64), length_N, world_size=world_size, micro_batch_size=micro_batch_size
        )[rank]

    def __iter__(self) -> Iterator[Tokens]:
        for positions in self._plan:
            yield self._gather(positions) if len(positions) else self._gather(np.array([self._shortest])).masked()

    def _gather(self, positions: np.ndarray) -> Tokens:
        found = [read_row(self._corpus, self._rows, int(row)) for row in self._row_N[positions]]
        return stacked(found, np.full(len(found), -1), pad=self._tokenizer.pad_id, has_borders=True)
