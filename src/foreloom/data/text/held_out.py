"""Text kept out of training, as rows of whole documents or as streams: what a loss, a perplexity, bits per byte are
measured on.

Axes: N rows, L lanes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from foreloom.data.loader import plan_micro_batches
from foreloom.data.text.corpus import Corpus, block_rows, document_rows
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
            names = ", ".join(file.name for file in files)
            raise ValueError(
                f"{names}: nothing is held out that could be scored. Raise data.holdout, part the text into more "
                "documents (separator), or give more text."
            )
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


_NUM_LANES = 8
"""Of a held-out text that is read as streams: its own number, so that the loss hangs on neither batch nor ranks."""


class HeldOutStream:
    """`batch.HeldOut` over documents one after another, for recurrent models: eight stretches of the text, fewer where
    there are not as many rows, each read from row to row. Only its first row begins anew.

    Arguments are those of `HeldOutText`; the stretches are shortened to `max_rows` rows together. What does not fill a
    row of all stretches is left out.
    """

    def __init__(
        self,
        files: Sequence[TokenFile],
        chosen: Sequence[np.ndarray],
        tokenizer: TextTokenizer,
        *,
        length: int,
        max_rows: int | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._tokenizer = tokenizer
        self._corpus = Corpus(files, chosen)
        self._rows = block_rows(self._corpus, length)
        if not len(self._rows):
            raise ValueError(
                f"{', '.join(file.name for file in files)}: what is held out makes no row of {length:,} tokens and one "
                "to tell; hold out more, or leave validation.as_stream out."
            )
        num_lanes = min(_NUM_LANES, len(self._rows))
        self._stretch = len(self._rows) // num_lanes
        self._num_rounds = min(self._stretch, max((max_rows or len(self._rows)) // num_lanes, 1))
        self.num_windows = num_lanes * self._num_rounds
        self._lane_L = np.array_split(np.arange(num_lanes), world_size)[rank]

    def __iter__(self) -> Iterator[Tokens]:
        lane_L = self._lane_L if len(self._lane_L) else np.array([0])
        for number in range(self._num_rounds):
            found = [read_row(self._corpus, self._rows, int(row)) for row in lane_L * self._stretch + number]
            rows = stacked(found, np.full(len(found), -1), pad=self._tokenizer.pad_id, has_borders=False)
            rows = replace(rows, resets_R=np.full(len(found), number == 0))
            yield rows if len(self._lane_L) else rows.masked()
