"""Models of a run that goes on: its newest checkpoint, whichever that is by the time it is read."""

from __future__ import annotations

import shutil

import pytest

from foreloom.checkpoint.claim import claim
from foreloom.checkpoint.locate import check_hides_no_run, find_model_folder, load_newest


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


def test_a_model_that_comes_with_foreloom_is_found_by_name_where_no_folder_of_it_is(tmp_path, monkeypatch):
    shipped, here = tmp_path / "package" / "small", tmp_path / "here"
    for folder in (shipped, here / "small"):
        folder.mkdir(parents=True)
    (shipped / "config.json").touch()
    monkeypatch.setattr("foreloom.config.shipped._shipped", lambda folder: shipped.parent)
    monkeypatch.chdir(here)
    assert find_model_folder("small") == shipped, "the folder of that name holds no model"
    with pytest.raises(ValueError, match="no folder smal. Did you mean small?"):
        find_model_folder("smal")
    with pytest.raises(ValueError, match=r"no folder huge.* or what comes with foreloom \(small\)"):
        find_model_folder("huge")
    with pytest.raises(ValueError, match="small holds no model"):
        find_model_folder(here / "small")
    (here / "small" / "config.json").touch()
    with pytest.warns(UserWarning, match="small is the folder here, not the model that comes with foreloom"):
        assert find_model_folder("small").resolve() == here / "small"


@pytest.mark.parametrize("name", ["config.json", "hf/config.json", "hf/adapter_config.json"])
def test_a_run_is_not_begun_where_another_model_would_be_taken_for_it(tmp_path, name):
    (tmp_path / "hf").mkdir()
    (tmp_path / name).touch()
    with pytest.raises(ValueError, match=rf"holds a model \({name}\), .* choose another folder"):
        claim(tmp_path, resume=False)
    (tmp_path / name).unlink()
    claim(tmp_path, resume=False).close()


@pytest.mark.parametrize("name", ["checkpoints/step-00000003", "hf/config.json"])
def test_no_model_is_written_before_a_run_or_a_fit(tmp_path, name):
    check_hides_no_run(tmp_path)
    (tmp_path / name).mkdir(parents=True)
    with pytest.raises(ValueError, match=rf"holds a run or a fit \({name}\), .*Name another folder"):
        check_hides_no_run(tmp_path)
