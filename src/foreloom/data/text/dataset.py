"""The text of a run as samples: rows of a corpus, each once an epoch, or of a mixture of corpora by weight.

Axes: N samples, P places of a round, S streams, R rows of a micro-batch, T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np

from foreloom.data.batch import SourceStatistics
from foreloom.data.hashing import permute, uniform
from foreloom.data.text.config import TextConfig
from foreloom.data.text.corpus import Corpus, Rows, block_rows, document_rows
from foreloom.data.text.token_file import NOT_LEARNED, TokenFile
from foreloom.data.text.tokenizer import TextTokenizer

NO_TARGET = -100
_ROUND = 2**16
"""Samples in which a mixture keeps its shares to one sample."""
_HELD_OUT_STEPS = 2.0**64


@dataclass(frozen=True)
class Tokens:
    """The rows of one micro-batch, padded on the right, where nothing looks."""

    token_RT: np.ndarray
    target_RT: np.ndarray
    """The token after each; `NO_TARGET` where there is none."""
    position_RT: np.ndarray | None
    """Of a token in its document; None where rows are blocks, in which attention crosses documents."""
    num_bytes_R: np.ndarray
    """Bytes of text that the targets stand for."""
    sample_R: np.ndarray
    length_R: np.ndarray
    """Tokens of a row; what is behind them is padding."""
    resets_R: np.ndarray | None = None
    """bool: the row begins anew, without what its stream has left behind; None where rows are of no streams."""

    @property
    def num_rows(self) -> int:
        return len(self.token_RT)

    @property
    def size(self) -> str:
        rows = "1 row" if self.num_rows == 1 else f"{self.num_rows} rows"
        return f"{rows} of {self.token_RT.shape[1]} tokens"

    def masked(self) -> Tokens:
        nothing = {"target_RT": np.full_like(self.target_RT, NO_TARGET), "num_bytes_R": np.zeros(self.num_rows)}
        nothing |= {"sample_R": np.full(self.num_rows, -1), "length_R": np.zeros_like(self.length_R)}
        return replace(self, **nothing)


class Row(NamedTuple):
    """One row, read."""

    token_T: np.ndarray
    target_T: np.ndarray
    position_T: np.ndarray
    num_bytes: float


def read_row(corpus: Corpus, rows: Rows, row: int) -> Row:
    """A row of a corpus, its targets beside it."""
    pieces = range(rows.first_piece_N[row], rows.first_piece_N[row + 1])
    tokens, targets, positions, num_bytes = [], [], [], 0.0
    for piece in pieces:
        begin, length = int(rows.begin_P[piece]), int(rows.length_P[piece])
        stretch_T = corpus.read(begin, begin + length + 1)
        token_T = (stretch_T & ~NOT_LEARNED).astype(np.int64)
        tokens.append(token_T[:-1])
        targets.append(np.where(stretch_T[1:] & NOT_LEARNED, NO_TARGET, token_T[1:]))
        positions.append(np.arange(length))
        up_to = corpus.num_bytes_up_to(np.array([begin, begin + length]))
        num_bytes += float(up_to[1] - up_to[0])
    return Row(np.concatenate(tokens), np.concatenate(targets), np.concatenate(positions), num_bytes)


def stacked(found: Sequence[Row], sample_R: np.ndarray, *, pad: int, has_borders: bool) -> Tokens:
    """Rows side by side; `has_borders` keeps where documents begin, so that attention stops there."""
    shape = len(found), max(len(row.token_T) for row in found)
    token_RT, target_RT = np.full(shape, pad, np.int64), np.full(shape, NO_TARGET, np.int64)
    position_RT = np.zeros(shape, np.int64)
    for number, row in enumerate(found):
        token_RT[number, : len(row.token_T)] = row.token_T
        target_RT[number, : len(row.token_T)] = row.target_T
        position_RT[number, : len(row.token_T)] = row.position_T
    return Tokens(
        token_RT,
        target_RT,
        position_RT if has_borders else None,
        np.array([row.num_bytes for row in found]),
        np.asarray(sample_R),
        np.array([len(row.token_T) for row in found]),
    )


class Mixture:
    """Which of several streams each sample comes from, and its number there: shares hold to one sample a round.

    Every round has each stream's share of places, in an order of its own, so the n-th sample of a stream is found
    without drawing those before.
    """

    def __init__(self, shares: Sequence[float], seed: int) -> None:
        self._up_to = tuple((np.cumsum(shares)[:-1] / np.sum(shares)).tolist())
        self._seed = seed

    def draw(self, index_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(stream, number in the stream) of each sample."""
        stream_N, number_N = np.empty_like(index_N), np.empty_like(index_N)
        round_N, place_N = np.divmod(index_N, _ROUND)
        for number in np.unique(round_N).tolist():
            its = np.flatnonzero(round_N == number)
            stream_P, number_P = _round(self._up_to, self._seed, number)
            stream_N[its], number_N[its] = stream_P[place_N[its]], number_P[place_N[its]]
        return stream_N, number_N


@lru_cache(maxsize=8)
def _round(up_to: tuple[float, ...], seed: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """(stream, number in the stream) of every place of a round."""
    before_S, after_S = (_counts(up_to, num_rounds) for num_rounds in (number, number + 1))
    slot_P = permute(seed, "mixture", np.full(_ROUND, number), np.arange(_ROUND), _ROUND)
    first_S = np.cumsum(after_S - before_S) - (after_S - before_S)
    stream_P = np.searchsorted(first_S, slot_P, side="right") - 1
    number_P = np.empty(_ROUND, np.int64)
    order = np.argsort(stream_P, kind="stable")
    number_P[order] = np.arange(_ROUND) + np.repeat(before_S - first_S, after_S - before_S)
    return stream_P, number_P


def _counts(up_to: tuple[float, ...], num_rounds: int) -> np.ndarray:
    """Samples of each stream in the first rounds."""
    num_samples = num_rounds * _ROUND
    return np.diff(np.r_[0, np.floor(num_samples * np.array(up_to) + 0.5).astype(np.int64), num_samples])


class DrawnRows(NamedTuple):
    """See `batch.Drawn`."""

    first: int
    num_rows_N: np.ndarray
    length_N: np.ndarray
    stream_N: np.ndarray
    row_N: np.ndarray

    def __len__(self) -> int:
        return len(self.row_N)


class TextDataset:
    """`batch.Dataset` over token files, one a source of `config`, without the documents that are held out.

    `num_lanes`: the streams of `packing: streams`, a row of each in every global batch. The text is cut into as many
    stretches; a lane reads one an epoch, and the next one of the text in the next, so that it never jumps but at the
    text's end.
    """

    num_sample_rows: int | None = 1

    def __init__(
        self, config: TextConfig, files: Sequence[TokenFile], tokenizer: TextTokenizer, *, seed: int, num_lanes: int = 1
    ) -> None:
        self.config, self.files, self.tokenizer = config, files, tokenizer
        self._seed, self._num_lanes = seed, num_lanes if config.packing == "streams" else 1
        kept = [np.flatnonzero(~held_out(file, config.holdout)) for file in files]
        self._num_held_out = [len(file.end_D) - len(one) for file, one in zip(files, kept, strict=True)]
        groups = [[number] for number in range(len(files))] if config.is_mixture else [range(len(files))]
        most_tokens = config.max_seq_length if config.truncate == "document" else None
        self.corpora = [Corpus([files[n] for n in group], [kept[n] for n in group], most_tokens) for group in groups]
        cut = document_rows if config.packing == "documents" else block_rows
        self.rows = [cut(corpus, config.max_seq_length) for corpus in self.corpora]
        self._length = [rows.length_N for rows in self.rows]
        self._check()
        self.num_epoch_samples: int | None = len(self.rows[0]) // self._num_lanes * self._num_lanes
        if config.is_mixture:
            self.num_epoch_samples = None
        self._mixture = None
        if config.is_mixture:
            means = [length_N.mean() for length_N in self._length]
            weights = [source.weight or 1.0 for source in config.sources]
            self._mixture = Mixture([weight / mean for weight, mean in zip(weights, means, strict=True)], seed)
        self.made_of: Mapping[str, str] = self._made_of()
        self.fingerprint = blake2b(repr(sorted(self.made_of.items())).encode(), digest_size=16).hexdigest()

    def draw(self, first: int, count: int) -> DrawnRows:
        """Samples first, ..., first + count - 1."""
        index_N = np.arange(first, first + count)
        stream_N, number_N = self._mixture.draw(index_N) if self._mixture else (np.zeros_like(index_N), index_N)
        row_N, length_N = np.empty_like(index_N), np.empty_like(index_N)
        for stream, rows in enumerate(self.rows):
            its = np.flatnonzero(stream_N == stream)
            if self.config.packing == "streams":
                row_N[its] = self._row_of_lanes(number_N[its])
            else:
                epoch, place = np.divmod(number_N[its], len(rows))
                row_N[its] = permute(self._seed, f"text {stream}", epoch, place, len(rows))
            length_N[its] = self._length[stream][row_N[its]]
        return DrawnRows(first, np.ones(count, np.int64), length_N, stream_N, row_N)

    def _row_of_lanes(self, index_N: np.ndarray) -> np.ndarray:
        """Sample i is the next row of lane i % num_lanes."""
        assert self.num_epoch_samples is not None
        num_rows = self.num_epoch_samples // self._num_lanes
        round_N, lane_N = np.divmod(index_N, self._num_lanes)
        epoch_N, place_N = np.divmod(round_N, num_rows)
        return (lane_N + epoch_N) % self._num_lanes * num_rows + place_N

    def gather(self, drawn: DrawnRows, positions: np.ndarray) -> Tokens:
        """Those of the drawn samples, read."""
        has_borders = self.config.packing == "documents"
        found = [
            read_row(self.corpora[stream], self.rows[stream], row)
            for stream, row in zip(drawn.stream_N[positions], drawn.row_N[positions].tolist(), strict=True)
        ]
        sample_R = drawn.first + positions
        tokens = stacked(found, sample_R, pad=self.tokenizer.pad_id, has_borders=has_borders)
        if self.config.packing != "streams":
            return tokens
        resets_R = uniform(self._seed, "text", "resets", sample_R) < self.config.reset_probability
        return replace(tokens, resets_R=resets_R | (drawn.row_N[positions] == 0))  # the text begins anew

    def largest(self, num_rows: int) -> Tokens:
        """See `full_rows`."""
        return full_rows(self.config, self.tokenizer, num_rows)

    def facts(self, drawn: DrawnRows) -> list[dict[str, Any]]:
        """The documents of each sample, by source and number there, and how its text begins."""
        found = []
        for number, (stream, row) in enumerate(zip(drawn.stream_N.tolist(), drawn.row_N.tolist(), strict=True)):
            corpus, rows = self.corpora[stream], self.rows[stream]
            pieces = slice(rows.first_piece_N[row], rows.first_piece_N[row + 1])
            places = [(int(begin), int(begin + length)) for begin, length in
                      zip(rows.begin_P[pieces], rows.length_P[pieces], strict=True)]  # fmt: skip
            of_row = [
                n for begin, end in places for n in range(corpus.document_at(begin), corpus.document_at(end - 1) + 1)
            ]
            beginning = corpus.read(places[0][0], min(places[0][1], places[0][0] + 40)) & ~NOT_LEARNED
            found.append({
                "sample": drawn.first + number,
                "source": corpus.files[corpus.file_D[of_row[0]]].name,
                "documents": [int(corpus.document_D[n]) for n in of_row],
                "tokens": int(drawn.length_N[number]),
                "text": self.tokenizer.hf.decode(beginning.tolist()),
            })  # fmt: skip
        return found

    def statistics(self) -> list[SourceStatistics]:
        """Each source, in the recipe's order; shares are of the tokens."""
        size = np.array([float(file.end_D[-1]) for file in self.files])
        if self.config.is_mixture:
            size = np.array([source.weight for source in self.config.sources])
        return [
            SourceStatistics(
                name=file.name,
                share=float(share),
                num_items=len(file.end_D) - held,
                num_bytes=file.num_bytes,
                unit="documents",
                left_out={**file.left_out, "held out": held},
                num_epoch_samples=len(self.rows[number]) if self.config.is_mixture else None,
            )
            for number, (file, share, held) in enumerate(
                zip(self.files, size / size.sum(), self._num_held_out, strict=True)
            )
        ]

    def _check(self) -> None:
        for corpus, rows in zip(self.corpora, self.rows, strict=True):
            names = ", ".join(file.name for file in corpus.files)
            if not len(corpus.end_D):
                raise ValueError(
                    f"{names}: data.holdout {self.config.holdout:g} leaves no document to train on. Lower it, or part "
                    "the text into documents (separator)."
                )
            if not len(rows):
                raise ValueError(
                    f"{names}: {corpus.num_tokens:,} tokens make no row of {self.config.max_seq_length:,} and one to "
                    "tell; lower data.max_seq_length, or set data.packing: documents."
                )
            if len(rows) < self._num_lanes:
                raise ValueError(
                    f"{names}: {corpus.num_tokens:,} tokens make {len(rows):,} rows of {self.config.max_seq_length:,}, "
                    f"and training.batch_size asks for {self._num_lanes:,} streams of at least one; lower one of the "
                    "two."
                )

    @property
    def num_lost_tokens(self) -> int:
        """That never are targets, though they follow another: the remainders of blocks, and what was cut off."""
        remainder = 0
        if self.config.packing != "documents":
            remainder = sum(
                corpus.num_tokens - 1 - len(rows) // self._num_lanes * self._num_lanes * self.config.max_seq_length
                for corpus, rows in zip(self.corpora, self.rows, strict=True)
            )
        return remainder + sum(corpus.num_cut_tokens for corpus in self.corpora)

    def _made_of(self) -> dict[str, str]:
        """All that decides what sample i is, by setting and source."""
        names = ("max_seq_length", "packing", "truncate", "holdout")
        decides = {f"data.{name}": str(getattr(self.config, name)) for name in names}
        decides |= {"training.seed": str(self._seed), "the order of samples": "version 1"}
        if self.config.packing == "streams":
            decides |= {"training.batch_size": str(self._num_lanes)}
            decides |= {"data.reset_probability": str(self.config.reset_probability)}
        for number, (source, file) in enumerate(zip(self.config.sources, self.files, strict=True)):
            decides[f"data.sources.{number}.weight"] = str(source.weight)
            decides[f"text or tokenizer of data.sources.{number}"] = file.key.rpartition("-")[2]
        return decides


def full_rows(config: TextConfig, tokenizer: TextTokenizer, num_rows: int) -> Tokens:
    """Rows as long as any, of two documents each where documents share rows; nothing is read."""
    length = config.max_seq_length
    token_RT = np.arange(num_rows * length).reshape(num_rows, length) % tokenizer.vocabulary_size
    position_T = np.r_[np.arange(length // 2), np.arange(length - length // 2)]
    position_RT = np.tile(position_T, (num_rows, 1)) if config.packing == "documents" else None
    resets_R = np.zeros(num_rows, bool) if config.packing == "streams" else None
    whole_R = np.full(num_rows, length)
    return Tokens(token_RT, token_RT, position_RT, np.ones(num_rows), np.full(num_rows, -1), whole_R, resets_R)


def held_out(file: TokenFile, share: float) -> np.ndarray:
    """bool (D,): the documents of a file that training leaves alone, by the hash of their tokens."""
    return file.hash_D / _HELD_OUT_STEPS < share
