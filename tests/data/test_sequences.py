"""Random access to sequences equals the published data sets', but for their bugs."""

from __future__ import annotations

import json

import numpy as np
import pytest

from foreloom.data.sequences import SequenceDataset


def test_binary_folders_equal_the_published_ones(shared) -> None:
    folder = shared / "oracles" / "time_moe" / "data" / "binary"
    expected = np.load(folder / "expected.npz")
    compared = 0
    for name in expected:
        place, *rest = name.split("|")
        path = folder / "root" if place == "root" else folder / "root" / place
        if rest in (["num_tokens"], ["num_sequences"]):
            dataset = SequenceDataset(path)
            assert {"num_tokens": dataset.num_tokens, "num_sequences": len(dataset)}[rest[0]] == expected[name]
            continue
        normalization, index = rest
        dataset = SequenceDataset(path, "none" if normalization == "None" else normalization)
        values = dataset[int(index)]
        # float16 was reduced in float16 there.
        tolerance = 2e-2 if expected[name].dtype == np.float16 else 2e-6
        np.testing.assert_allclose(values, expected[name], atol=tolerance)
        assert dataset.get_sequence_length_by_idx(int(index)) == len(values)
        compared += 1
    assert compared == 33


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a2d.npy", "one.pkl", "multi.pkl"])
def test_files_equal_the_published_ones(shared, name) -> None:
    folder = shared / "oracles" / "time_moe" / "data" / "formats"
    expected = {key: value for key, value in np.load(folder / "formats.npz").items() if key.rsplit("_", 1)[0] == name}
    dataset = SequenceDataset(folder / name)
    assert len(dataset) == len(expected) == 3
    for number, values in enumerate(dataset):
        np.testing.assert_array_equal(values, expected[f"{name}_{number}"])
        assert values.dtype == expected[f"{name}_{number}"].dtype


def test_integers_are_scaled_as_numbers(shared) -> None:
    folder = shared / "oracles" / "time_moe" / "data" / "windows"
    expected = np.load(folder / "ints.npz")
    values = SequenceDataset(folder / "ints.jsonl", "zero")[0]
    np.testing.assert_allclose(values, expected["sane_float"], atol=1e-6)
    assert not np.allclose(values, expected["official_truncated"], atol=0.1)


def test_variates_are_sequences_of_their_own(tmp_path) -> None:
    lines = [
        {"target": [1, 2, None, 4], "past__x": [9, 9, 9, 9]},
        {"target": [[1, 2], [3, 4], [5, 7]], "future__y": [0, 0]},
        {"target": []},
        {"target": [8]},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    dataset = SequenceDataset(tmp_path / "a.jsonl")
    found = [values.tolist() for values in dataset]
    assert str(found) == "[[1.0, 2.0, nan, 4.0], [1.0, 2.0], [3.0, 4.0], [5.0, 7.0], [], [8.0]]"
    assert [dataset.get_sequence_length_by_idx(n) for n in range(6)] == [4, 2, 2, 2, 0, 1]
    assert (len(dataset), dataset.num_tokens, dataset[-1].tolist()) == (6, 11, [8.0])
    np.testing.assert_allclose(SequenceDataset(tmp_path / "a.jsonl", "max")[3], [5 / 7, 1])
    for index in (6, -7):
        with pytest.raises(IndexError, match=f"no sequence {index}: the data set has 6"):
            dataset[index]
    with pytest.raises(ValueError, match="no such file or folder"):
        SequenceDataset(tmp_path / "nowhere")
