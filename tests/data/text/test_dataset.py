"""Rows of text: what is cut where, that every token is met once an epoch, and that shares hold by tokens."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from foreloom.data.loader import BatchLoader
from foreloom.data.text.config import TextSource, TextValidation
from foreloom.data.text.corpus import best_fit
from foreloom.data.text.dataset import NO_TARGET, Mixture, TextDataset, Tokens
from foreloom.data.text.section import TextData


def section(path, **settings) -> TextData:
    source = {name: settings.pop(name) for name in ("separator", "messages_column") if name in settings}
    its = {"max_seq_length": 32, "tokenizer": "bytes", "num_prefetch": 0} | settings
    return TextData(sources=(TextSource(path=str(path), **source),), **its)


def epoch(dataset: TextDataset) -> list[Tokens]:
    count = dataset.num_epoch_samples
    return [dataset.gather(dataset.draw(0, count), np.array([n])) for n in range(count)]


def targets(rows: list[Tokens]) -> Counter:
    return Counter(int(target) for row in rows for target in row.target_RT[row.target_RT != NO_TARGET])


def test_blocks_hold_every_token_but_one_remainder(corpus_file):
    dataset = section(corpus_file).open(3, batch_size=8)
    file, eos = dataset.files[0], dataset.tokenizer.eos_id
    num_tokens = int(file.end_D[-1])
    assert num_tokens == sum(1 + (37 * n) % 119 for n in range(60)) + 60, "a token a byte, and the end of each"
    assert (np.asarray(file.token_T) == eos).sum() == 60
    rows = epoch(dataset)
    assert {row.token_RT.shape for row in rows} == {(1, 32)} and rows[0].position_RT is None
    lost = num_tokens - 1 - 32 * len(rows)
    assert 0 <= lost < 32 and dataset.num_lost_tokens == lost
    assert targets(rows) == Counter(file.token_T[1 : 1 + 32 * len(rows)].tolist())
    assert all((row.token_RT[0, 1:] == row.target_RT[0, :-1]).all() for row in rows)
    assert sum(row.num_bytes_R.sum() for row in rows) == pytest.approx(file.num_bytes_D.sum(), rel=0.02)
    again = [dataset.gather(dataset.draw(len(rows), len(rows)), np.array([n])) for n in range(len(rows))]
    assert targets(again) == targets(rows) and (again[0].token_RT != rows[0].token_RT).any(), "another order"


def test_streams_go_on_where_they_ended(corpus_file):
    lanes = 5
    dataset = section(corpus_file, packing="streams", reset_probability=0.25).open(3, batch_size=lanes)
    text_N = dataset.corpora[0].read(0, dataset.corpora[0].num_tokens).astype(int)
    num_rows = (len(text_N) - 1) // 32 // lanes
    assert dataset.num_epoch_samples == lanes * num_rows
    assert dataset.num_lost_tokens == len(text_N) - 1 - 32 * dataset.num_epoch_samples
    batches = [dataset.gather(dataset.draw(lanes * n, lanes), np.arange(lanes)) for n in range(2 * num_rows)]
    for lane in range(lanes):
        read = np.concatenate([[*batch.token_RT[lane], batch.target_RT[lane, -1]] for batch in batches])
        pieces = read.reshape(-1, 33)
        jumps = [n for n in range(1, len(pieces)) if pieces[n, 0] != pieces[n - 1, -1]]
        begin = lane * num_rows * 32
        assert (pieces[:, :32].ravel()[: num_rows * 32] == text_N[begin : begin + num_rows * 32]).all()
        assert jumps in ([], [num_rows]) and (not jumps or lane == lanes - 1), "but at the end of the text"
        starts = [n for n in range(len(pieces)) if (lane * num_rows + n) % (lanes * num_rows) == 0]
        assert all(batches[n].resets_R[lane] for n in starts), "which begins without what stood at its end"
    assert targets(batches[:num_rows]) == targets(batches[num_rows:]) == Counter(text_N[1 : 1 + 32 * lanes * num_rows])
    share = np.mean([batch.resets_R for batch in batches])
    assert 0.15 < share < 0.4
    assert np.array_equal(dataset.gather(dataset.draw(7, 3), np.array([1])).resets_R, batches[1].resets_R[3:4])
    never = section(corpus_file, packing="streams").open(3, batch_size=lanes)
    assert (
        sum(never.gather(never.draw(lanes * n, lanes), np.arange(lanes)).resets_R.sum() for n in range(num_rows)) == 1
    )
    assert never.largest(2).resets_R.tolist() == [False, False]
    assert never.fingerprint != section(corpus_file, packing="streams").open(3, batch_size=4).fingerprint
    with pytest.raises(
        ValueError, match=r"make 1\d\d rows of 32, and training\.batch_size asks for 1,000 streams of at"
    ):
        section(corpus_file, packing="streams").open(3, batch_size=1000)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"packing": "streams", "truncate": "document"}, "remove the sources' weights and truncate"),
        ({"reset_probability": 0.1}, "reset_probability has no effect without packing: streams"),
    ],
)
def test_what_streams_leave_no_room_for(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        section("a", **settings)


def test_documents_share_rows_and_nothing_is_lost(corpus_file):
    dataset = section(corpus_file, packing="documents").open(3, batch_size=8)
    file = dataset.files[0]
    rows = epoch(dataset)
    is_first = np.zeros(int(file.end_D[-1]), bool)
    is_first[np.r_[0, file.end_D[:-1]]] = True
    assert targets(rows) == Counter(np.asarray(file.token_T)[~is_first].tolist()) and dataset.num_lost_tokens == 0
    assert sum(row.num_bytes_R.sum() for row in rows) == pytest.approx(file.num_bytes_D.sum())
    filled = np.array([(row.target_RT != NO_TARGET).sum() for row in rows])
    assert filled.max() <= 32 and filled.mean() > 30, "best fit leaves little room"
    for row in rows:
        begins = np.flatnonzero(row.position_RT[0] == 0)
        for begin, end in zip(begins, [*begins[1:], None], strict=True):
            letters = row.token_RT[0, begin:end]
            assert len(set(letters.tolist())) == 1, "a piece is of one document"


def test_best_fit_is_that_of_one_piece_after_another():
    rng = np.random.default_rng(0)
    length_P = rng.integers(1, 50, 300)
    row_P, num_rows = best_fit(length_P, 50)
    used = np.bincount(row_P, weights=length_P, minlength=num_rows)
    assert used.max() <= 50 and used.min() > 0
    free: list[int] = []
    for length in sorted(length_P.tolist(), reverse=True):
        fits = [room for room in free if room >= length]
        if fits:
            free.remove(min(fits))
        free.append((min(fits) if fits else 50) - length)
    assert num_rows == len(free) and sorted(50 - used) == sorted(free)
    assert best_fit(np.empty(0, np.int64), 50)[1] == 0


def test_truncation_is_counted(corpus_file):
    dataset = section(corpus_file, truncate="document").open(3, batch_size=8)
    lengths = np.diff(np.r_[0, dataset.files[0].end_D])
    assert dataset.corpora[0].num_tokens == np.minimum(lengths, 32).sum()
    assert (
        dataset.num_lost_tokens == (lengths - np.minimum(lengths, 32)).sum() + (dataset.corpora[0].num_tokens - 1) % 32
    )


def test_held_out_documents_are_never_trained_on_and_do_not_depend_on_the_seed(corpus_file):
    data = section(corpus_file, packing="documents", holdout=0.3)
    validation = TextValidation(steps=1)
    held: list[Counter] = []
    for seed in (1, 2):
        dataset = data.open(seed, batch_size=4)
        parts = [data.held_out(validation, dataset, micro_batch_size=3, rank=rank, world_size=2) for rank in range(2)]
        assert len({len(list(part)) for part in parts}) == 1
        held.append(targets([row for part in parts for row in part]))
        assert not set(held[0]) & set(targets(epoch(dataset))) - {dataset.tokenizer.eos_id}
        assert dataset.statistics()[0].left_out["held out"] == parts[0].num_documents > 8
    assert held[0] == held[1]


def test_a_mixture_holds_by_tokens_and_goes_through_each_source(tmp_path, corpus_file):
    other = tmp_path / "other.txt"
    other.write_text("\n".join("z" * n for n in range(2, 12)))
    data = TextData(
        sources=(TextSource(path=str(corpus_file), weight=3), TextSource(path=str(other), weight=1, separator="\n")),
        max_seq_length=64, tokenizer="bytes", packing="documents",
    )  # fmt: skip
    dataset = data.open(0, batch_size=8)
    assert dataset.num_epoch_samples is None and "weights" in data.why_endless()
    drawn = dataset.draw(1000, 100_000)
    tokens_S = np.bincount(drawn.stream_N, weights=drawn.length_N)
    assert tokens_S[0] / tokens_S.sum() == pytest.approx(0.75, abs=0.01)
    one = dataset.draw(50_321, 1)
    assert (one.stream_N[0], one.row_N[0]) == (drawn.stream_N[49_321], drawn.row_N[49_321])
    for stream in range(2):
        counts = np.bincount(drawn.row_N[drawn.stream_N == stream])
        assert counts.max() - counts.min() <= 2, "each row as often as any"


def test_the_numbers_of_a_mixture_leave_none_out():
    stream_N, number_N = Mixture([0.5, 0.3, 0.2], seed=1).draw(np.arange(200_000))
    for stream in range(3):
        assert (number_N[stream_N == stream] == np.arange((stream_N == stream).sum())).all()


def test_ranks_read_disjoint_rows_that_are_those_of_one(corpus_file):
    dataset = section(corpus_file, packing="documents").open(3, batch_size=8)
    whole = BatchLoader(dataset, batch_size=8, num_prefetch=0).batch(16)
    parts = [BatchLoader(dataset, batch_size=8, num_prefetch=0, rank=r, world_size=3).batch(16) for r in range(3)]
    assert sorted(np.concatenate([part.samples for part in parts])) == whole.samples.tolist() == list(range(16, 24))
    assert sum((targets(part.micro_batches) for part in parts), Counter()) == targets(whole.micro_batches)


@pytest.mark.parametrize(
    ("content", "settings", "sentence"),
    [
        ("", {}, r"no document to learn from \(1 empty\)"),
        ("\n \n", {"separator": "\n"}, r"no document to learn from \(3 empty\)"),
        ("short", {}, r"6 tokens make no row of 32 and one to tell; lower data\.max_seq_length"),
        ("a" * 99, {"holdout": 0.999999999}, r"leaves no document to train on"),
    ],
)
def test_too_little_text(tmp_path, content, settings, sentence):
    (tmp_path / "a.txt").write_text(content)
    with pytest.raises(ValueError, match=sentence):
        section(tmp_path / "a.txt", **settings).open(0, batch_size=1)


def test_another_text_is_another_run(corpus_file):
    before = section(corpus_file).open(0, batch_size=1).fingerprint
    assert section(corpus_file).open(0, batch_size=1).fingerprint == before
    assert section(corpus_file, max_seq_length=31).open(0, batch_size=1).fingerprint != before
    copy = corpus_file.with_name("copy.jsonl")
    copy.write_bytes(corpus_file.read_bytes())
    assert section(copy).open(0, batch_size=1).fingerprint == before, "content counts, not its name"
    copy.write_text(copy.read_text().replace("A", "a"))
    assert section(copy).open(0, batch_size=1).fingerprint != before
