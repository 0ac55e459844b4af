"""Documents of token files as one stream of tokens, and the rows it is cut into.

Axes: D documents, E their beginnings and ends, S stretches that lie together in a file, P pieces of rows, N rows,
T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foreloom.data.text.token_file import TokenFile


class Corpus:
    """Chosen documents of files, one after another. Nothing is copied before it is read.

    `chosen` are numbers of documents, an array a file; of longer ones than `most_tokens` only the beginning is taken.
    """

    def __init__(
        self, files: Sequence[TokenFile], chosen: Sequence[np.ndarray], most_tokens: int | None = None
    ) -> None:
        self.files = files
        file_D = np.repeat(np.arange(len(files)), [len(one) for one in chosen])
        begin_D = np.concatenate([np.r_[0, file.end_D][one] for file, one in zip(files, chosen, strict=True)])
        length_D = np.concatenate([file.end_D[one] for file, one in zip(files, chosen, strict=True)]) - begin_D
        num_bytes_D = np.concatenate([file.num_bytes_D[one] for file, one in zip(files, chosen, strict=True)])
        self.num_whole_tokens_D = length_D
        """Tokens of the documents, before any is cut."""
        self.num_cut_tokens = 0
        """Left out because their documents are longer than `most_tokens`."""
        if most_tokens is not None:
            kept_D = np.minimum(length_D, most_tokens)
            self.num_cut_tokens = int((length_D - kept_D).sum())
            num_bytes_D = num_bytes_D * kept_D / np.maximum(length_D, 1)
            length_D = kept_D
        self.end_D = np.cumsum(length_D)
        """Where in the stream a document ends."""
        self.length_D = length_D
        self.file_D, self.document_D = file_D, np.concatenate([np.asarray(one) for one in chosen])
        # The first token of a document is no target of its own, so its bytes are those of the ones after it.
        start_D, bytes_up_to_D = self.end_D - length_D, np.cumsum(num_bytes_D, dtype=float)
        self._bound_E = np.stack([start_D, self.end_D - 1], 1).ravel()
        self._bytes_up_to_E = np.stack([bytes_up_to_D - num_bytes_D, bytes_up_to_D], 1).ravel()
        follows_D = np.zeros(len(file_D), bool)
        follows_D[1:] = (file_D[1:] == file_D[:-1]) & (begin_D[1:] == begin_D[:-1] + length_D[:-1])
        first_S = np.flatnonzero(~follows_D)
        self._file_S, self._begin_S = file_D[first_S], begin_D[first_S]
        self._start_S = (self.end_D - length_D)[first_S]

    @property
    def num_tokens(self) -> int:
        return int(self.end_D[-1]) if len(self.end_D) else 0

    def read(self, begin: int, end: int) -> np.ndarray:
        """uint32 (end - begin,): tokens of the stream, with the bit `NOT_LEARNED` where they are no targets."""
        parts = []
        stretch = int(np.searchsorted(self._start_S, begin, side="right")) - 1
        while begin < end:
            until = int(self._start_S[stretch + 1]) if stretch + 1 < len(self._start_S) else self.num_tokens
            at = int(self._begin_S[stretch]) + begin - int(self._start_S[stretch])
            length = min(end, until) - begin
            parts.append(self.files[self._file_S[stretch]].token_T[at : at + length])
            begin, stretch = begin + length, stretch + 1
        return np.concatenate(parts).astype(np.uint32)

    def num_bytes_up_to(self, place_N: np.ndarray) -> np.ndarray:
        """float64 (N,): bytes of text up to places of the stream; within a document they are spread evenly."""
        return np.interp(place_N, self._bound_E, self._bytes_up_to_E)

    def document_at(self, place: int) -> int:
        """The document (of this corpus) that a place of the stream lies in."""
        return int(np.searchsorted(self.end_D, place, side="right"))


@dataclass(frozen=True)
class Rows:
    """How a corpus is cut. A row has pieces; piece p gives tokens begin ... begin + length - 1 of the stream to the
    model, which is to tell the one after each: begin + 1 ... begin + length."""

    begin_P: np.ndarray
    length_P: np.ndarray
    first_piece_N: np.ndarray
    """(N + 1,): row n has pieces first_piece_N[n] ... first_piece_N[n + 1] - 1."""

    def __len__(self) -> int:
        return len(self.first_piece_N) - 1

    @property
    def length_N(self) -> np.ndarray:
        """Tokens given."""
        return np.add.reduceat(self.length_P, self.first_piece_N[:-1]) if len(self) else np.empty(0, np.int64)


def block_rows(corpus: Corpus, length: int) -> Rows:
    """The stream cut every `length` tokens, across documents. What is left at its end, fewer, is lost; every other
    token is a target once, but the very first."""
    num_rows = max(corpus.num_tokens - 1, 0) // length
    return Rows(np.arange(num_rows) * length, np.full(num_rows, length), np.arange(num_rows + 1))


def document_rows(corpus: Corpus, length: int) -> Rows:
    """Documents that share rows of at most `length` tokens: longest first, each into the row that it leaves fullest
    (best fit decreasing). Longer ones are cut first. Nothing is lost: all tokens of a document but its first are
    targets once."""
    # The last token of a document is a target only.
    given_D = np.maximum(corpus.length_D - 1, 0)
    num_pieces_D = -(-given_D // length)
    of_P = np.repeat(np.arange(len(given_D)), num_pieces_D)
    number_P = np.arange(len(of_P)) - np.repeat(np.cumsum(num_pieces_D) - num_pieces_D, num_pieces_D)
    begin_P = (corpus.end_D - corpus.length_D)[of_P] + number_P * length
    length_P = np.minimum(given_D[of_P] - number_P * length, length)
    row_P, num_rows = best_fit(length_P, length)
    order_P = np.argsort(row_P, kind="stable")
    return Rows(begin_P[order_P], length_P[order_P], np.searchsorted(row_P[order_P], np.arange(num_rows + 1)))


def best_fit(length_P: np.ndarray, capacity: int) -> tuple[np.ndarray, int]:
    """The row of each piece, and the number of rows: best fit decreasing, all pieces of one length at a time.

    Rows are kept by how much still fits into them, so the work is that of the lengths there are, not of the pieces.
    """
    row_P = np.empty(len(length_P), np.int64)
    open_rows: dict[int, np.ndarray] = {}
    num_rows = 0
    order_P = np.argsort(-length_P, kind="stable")
    bounds = np.r_[np.flatnonzero(np.diff(length_P[order_P])) + 1, len(order_P)]
    for pieces in np.split(order_P, bounds[:-1]):
        length = int(length_P[pieces[0]]) if len(pieces) else 0
        while len(pieces):
            room = min((room for room in open_rows if room >= length), default=0)
            if not room:
                room, count = capacity, -(-len(pieces) // max(capacity // length, 1))
                open_rows[room] = np.arange(num_rows, num_rows + count)
                num_rows += count
            rows = open_rows.pop(room)
            taken = min(len(rows), len(pieces))
            row_P[pieces[:taken]] = rows[:taken]
            if taken < len(rows):
                open_rows[room] = rows[taken:]
            if left := room - length:
                open_rows[left] = np.concatenate([open_rows.get(left, rows[:0]), rows[:taken]])
            pieces = pieces[taken:]
    return row_P, num_rows
