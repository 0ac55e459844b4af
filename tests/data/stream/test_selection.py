"""Excluded series: lines that name series, and lines that do not."""

from __future__ import annotations

import json

import numpy as np
import pytest

from foreloom.config.located import RecipeError
from foreloom.data.config import DataConfig, SourceConfig
from foreloom.data.source import MemorySource, Series
from foreloom.data.stream.held_out import ValidationWindows
from foreloom.data.stream.selection import append_excluded, read_excluded
from loaders import series_loader

SOURCES = [
    MemorySource([Series(f"{name}{i}", np.arange(20.0)[None] + i) for i in range(5)], name=f"/somewhere/{name}")
    for name in "ab"
]


def write(path, *entries):
    path.write_text("\n".join(one if isinstance(one, str) else json.dumps(one) for one in entries))
    return path


def test_series_by_row_by_id_and_by_both(tmp_path):
    path = write(
        tmp_path / "q.jsonl", {"source": "a", "item": 3}, "", {"source": "/somewhere/b", "series": "b1"},
        {"source": "b", "item": 4, "series": "b4", "reason": "why"}, {"source": "a", "series": "a3"},
    )  # fmt: skip
    assert [items.tolist() for items in read_excluded([path], SOURCES)] == [[3], [1, 4]]


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({"source": "c", "item": 0}, "there is no source 'c' in data.sources"),
        ({"source": "a", "item": 5}, "has 5 series, numbered from 0: there is no item 5"),
        ({"source": "a", "item": "0"}, "there is no item '0'"),
        ({"source": "a", "series": "x"}, "/somewhere/a has no series 'x'"),
        ({"source": "a", "item": 1, "series": "a2"}, "is series 'a1', not 'a2'; the data have changed"),
        ({"source": "a"}, "expected an object such as"),
        ({"source": "a", "item": 1, "colour": 2}, "unknown colour; known are source, item, series, reason"),
        ("{oops", "this is not JSON"),
    ],
)
def test_a_line_that_names_no_series(tmp_path, entry, sentence):
    path = write(tmp_path / "q.jsonl", {"source": "a", "item": 0}, entry, {"source": "nowhere", "item": 0})
    with pytest.raises(RecipeError) as caught:
        read_excluded([path], SOURCES)
    assert f"{path}:2: " in str(caught.value) and sentence in str(caught.value)
    assert f"{path}:3: there is no source 'nowhere'" in str(caught.value), "all at once"


def test_a_name_of_two_sources(tmp_path):
    path = write(tmp_path / "q.jsonl", {"source": "a", "item": 0})
    with pytest.raises(RecipeError, match="'a' is the name of 2 sources; write the whole path"):
        read_excluded([path], [SOURCES[0], SOURCES[0]])


def test_appending_keeps_what_is_there(tmp_path):
    path = tmp_path / "deep" / "q.jsonl"
    entries = [{"source": "a", "item": i, "series": f"a{i}"} for i in (1, 2, 1)]
    assert append_excluded(path, entries) == 2
    assert append_excluded(path, [*entries, {"source": "b", "item": 0, "series": "b0"}]) == 1
    assert [items.tolist() for items in read_excluded([path], SOURCES)] == [[1, 2], [0]]


def test_what_is_left_out_is_never_drawn_and_is_part_of_the_fingerprint(tmp_path):
    def loader(**settings):
        config = DataConfig(
            sources=(SourceConfig(path="a"), SourceConfig(path="b")), context_length=8, prediction_length=4, **settings
        )
        return series_loader(config, seed=0, batch_size=400, sources=SOURCES)

    path = write(tmp_path / "q.jsonl", {"source": "a", "item": 3}, {"source": "b", "item": 0})
    copy = write(tmp_path / "copy.jsonl", {"source": "b", "series": "b0"}, {"source": "a", "series": "a3"})
    empty = write(tmp_path / "empty.jsonl", "")
    for settings in ({"exclude": str(path)}, {"exclude": str(path), "stride": 3}):
        its = loader(**settings)
        drawn = {(facts["source"][-1], facts["item"]) for facts in its.dataset.facts(its.drawn(0))}
        assert drawn == {(name, item) for name in "ab" for item in range(5)} - {("a", 3), ("b", 0)}
    fingerprint = lambda **settings: loader(**settings).state_dict()["fingerprint"]
    assert fingerprint() == fingerprint(exclude=str(empty)) != fingerprint(exclude=str(path))
    assert fingerprint(exclude=str(path)) == fingerprint(exclude=str(copy)), "what it lists counts, not the file"
    assert [one.left_out["excluded"] for one in loader(exclude=str(path)).dataset.statistics()] == [1, 1]
    every = write(tmp_path / "all.jsonl", *({"source": "b", "item": i} for i in range(5)))
    with pytest.raises(ValueError, match="/somewhere/b: data.exclude lists every usable series"):
        loader(exclude=str(every))


def test_validation_leaves_it_out_too(tmp_path):
    path = write(tmp_path / "q.jsonl", {"source": "a", "item": 3}, {"source": "b", "item": 0})
    config = DataConfig(
        sources=(SourceConfig(path="a"), SourceConfig(path="b", holdout=4)),
        context_length=8,
        prediction_length=4,
        exclude=str(path),
    )
    windows = ValidationWindows(config, max_windows=99, opened=SOURCES)
    assert {item for batch in windows for item in batch.item_R.tolist()} == {1, 2, 3, 4}
    apart = ValidationWindows(config, [SourceConfig(path="b", holdout=4)], max_windows=99, opened=SOURCES[1:])
    assert {item for batch in apart for item in batch.item_R.tolist()} == set(range(5)), "a set of its own"
