"""Which files of a repository make a data set: the card's configurations, folders, files."""

from __future__ import annotations

import hashlib

import pytest

from foreloom.evaluation.suites.repository import HubFile, Listing, card_patterns

PATHS = [
    "README.md",
    "ETT/15T/train-00000-of-00001.parquet",
    "ETT/1H/train-00000-of-00001.parquet",
    "m4_hourly/train-00000-of-00001.parquet",
    "bitbrains/5T/data-00000-of-00001.arrow",
    "bitbrains/5T/state.json",
    "bitbrains/H/state.json",
    "ETT-small/ETTh1.csv",
    "dict/dataset_dict.json",
    "dict/train/state.json",
]


@pytest.fixture
def listing() -> Listing:
    files = tuple(HubFile(path, 1, "0" * 40) for path in PATHS)
    patterns = card_patterns(
        [
            {"config_name": "ETT_15T", "data_files": [{"split": "train", "path": "ETT/15T/train-*"}]},
            {"config_name": "ETTh1", "data_files": "ETT-small/ETTh1.csv"},
            {"config_name": "no files"},
        ]
    )
    return Listing("owner/sets", "a" * 40, files, patterns)


@pytest.mark.parametrize(
    ("config", "folder", "expected"),
    [
        ("ETT_15T", "ETTm", {"ETTm/train-00000-of-00001.parquet": "ETT/15T/train-00000-of-00001.parquet"}),
        ("ETTh1", "ETT-small", {"ETT-small/ETTh1.csv": "ETT-small/ETTh1.csv"}),
        ("ETT-small/ETTh1.csv", "x", {"x/ETTh1.csv": "ETT-small/ETTh1.csv"}),
        ("bitbrains/H", "bitbrains/H", {"bitbrains/H/state.json": "bitbrains/H/state.json"}),
        (
            "bitbrains/5T",
            "b",
            {
                "b/data-00000-of-00001.arrow": "bitbrains/5T/data-00000-of-00001.arrow",
                "b/state.json": "bitbrains/5T/state.json",
            },
        ),
        (
            "dict",
            "d",
            {"d/dataset_dict.json": "dict/dataset_dict.json", "d/train/state.json": "dict/train/state.json"},
        ),
    ],
)
def test_files_of_a_data_set(listing, config, folder, expected):
    selected = listing.select(config, folder)
    assert {local: file.path for local, file in selected.items()} == expected


def test_what_is_not_there_is_told_with_near_names(listing):
    with pytest.raises(ValueError, match=r"owner/sets has no configuration, folder or file 'ETT_1T'; it has ETT_15T"):
        listing.select("ETT_1T", "n")


@pytest.mark.parametrize(("config", "path"), [("a", "a/../../../y.csv"), ("/etc", "/etc/y.csv"), ("", "/y.csv")])
def test_a_listing_that_leads_out_of_the_data_root_is_refused(config, path):
    files = tuple(HubFile(path, 1, "0" * 40) for path in ("a/x.csv", path))
    evil = Listing("owner/sets", "a" * 40, files, {"all": ("*",)})
    for asked in (config, "all"):
        with pytest.raises(ValueError, match=f"lists '{path}', which leads out of the data root"):
            evil.select(asked, "n")


def test_every_form_of_a_card():
    assert card_patterns(
        [
            {"config_name": "one", "data_files": "a.csv"},
            {"config_name": "list", "data_files": ["a.csv", "b.csv"]},
            {"config_name": "lists", "data_files": [{"split": "train", "path": ["a", "b"]}]},
            {"config_name": "no train", "data_files": [{"split": "x", "path": "x*"}, {"split": "y", "path": "y*"}]},
            {
                "config_name": "train and test",
                "data_files": [{"split": "test", "path": "t"}, {"split": "train", "path": "s"}],
            },
        ]
    ) == {
        "one": ("a.csv",),
        "list": ("a.csv", "b.csv"),
        "lists": ("a", "b"),
        "no train": ("x*", "y*"),
        "train and test": ("s",),
    }


def test_checksums_are_those_of_sha256sum_and_git(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"hello\n")
    assert not HubFile("f", 6, "ce013625030ba8dba906f756967f9e9ca394464a").flaw(file)  # git hash-object
    assert not HubFile("f", 6, hashlib.sha256(b"hello\n").hexdigest()).flaw(file)
    assert HubFile("f", 6, "0" * 64).flaw(file) == f"{file} has another checksum than the hub's file."
    assert HubFile("f", 6, "0" * 64).flaw(file, by_size=True) == ""
    assert HubFile("f", 1234, "0" * 64).flaw(file) == f"{file} has 6 B where the hub's file has 1.2 kB."
    assert HubFile("f", 6, "0" * 64).flaw(tmp_path / "none") == f"{tmp_path / 'none'} is missing."
