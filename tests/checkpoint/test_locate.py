"""Models of a run that goes on: its newest checkpoint, whichever that is by the time it is read."""

from __future__ import annotations

import shutil

import pytest

from foreloom.checkpoint.locate import load_newest


def test_a_checkpoint_deleted_meanwhile_gives_way_to_the_newest(tmp_path, monkeypatch):
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    found = iter([tmp_path / "old", tmp_path / "new", tmp_path / "new"])
    monkeypatch.setattr("foreloom.checkpoint.locate.find_model_folder", lambda _: next(found))

    def load(folder):
        if folder.name == "old":
            shutil.rmtree(folder)
            raise OSError(f"{folder} is gone")
        return folder.name

    assert load_newest(tmp_path, load) == "new"


def test_what_is_wrong_with_a_model_that_stays_is_told(tmp_path):
    (tmp_path / "config.json").touch()

    def load(folder):
        raise ValueError("damaged")

    with pytest.raises(ValueError, match="damaged"):
        load_newest(tmp_path, load)
