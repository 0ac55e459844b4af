"""Files that are whole or absent keep the permissions of any new file, and a full disk names the file."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from pathlib import Path

import pytest

from foreloom.files import check_writable, whole_or_absent, write_text


def test_a_file_is_as_readable_as_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    with whole_or_absent(tmp_path / "private") as beside:
        beside.write_text("whole")
        beside.chmod(0o600)  # as safetensors leaves its files
    assert (tmp_path / "private").read_text() == "whole"
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes["private"] == modes["plain"]


def test_an_error_names_the_file_and_leaves_the_old_one(tmp_path):
    target = tmp_path / "scores.csv"
    write_text(target, "old")
    with pytest.raises(OSError, match="No space left on device: .*scores.csv"), whole_or_absent(target) as beside:
        beside.write_text("half")
        raise OSError(28, os.strerror(28))
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("scores.csv", "old")]


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path):
    killed = subprocess.Popen(["true"])
    with whole_or_absent(tmp_path / "a") as mine:
        left = tmp_path / mine.name.replace(str(os.getpid()), str(killed.pid))
        elsewhere = tmp_path / f".0123abcd-{killed.pid}.partial.a"
        left.touch()
        elsewhere.touch()
        killed.wait()
        write_text(tmp_path / "b", "")
        assert not left.exists(), "the process that wrote it is gone"
        assert mine.exists(), "this one goes on"
        assert elsewhere.exists(), "of another machine's processes nothing is known here"


def test_where_nothing_can_be_written_the_path_asked_for_is_named():
    with pytest.raises(OSError, match="'/proc/scores.csv'"), whole_or_absent("/proc/scores.csv"):
        pass


def test_on_a_read_only_disk_the_path_asked_for_is_named(tmp_path, monkeypatch):
    def refuse(path, **_):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    for name in ("touch", "unlink"):
        monkeypatch.setattr(Path, name, refuse)
    with pytest.raises(OSError, match="Read-only file system: '.*/scores.csv'") as told:
        write_text(tmp_path / "scores.csv", "")
    assert told.value.filename == str(tmp_path / "scores.csv")


def test_a_place_that_takes_no_file_is_known_before(tmp_path):
    check_writable(tmp_path / "new" / "folders" / "scores.csv", "--out")
    (tmp_path / "file").touch()
    for path, sentence in (
        (tmp_path, "--out .* is a folder. Name a file in it"),
        (tmp_path / "file" / "below" / "scores.csv", "--out .*/file is a file, and nothing lies below a file"),
        ("/proc/scores.csv", "--out /proc/scores.csv: /proc takes no file"),
    ):
        with pytest.raises(ValueError, match=sentence):
            check_writable(path, "--out")
    for read in (tmp_path / "file", tmp_path):
        with pytest.raises(
            ValueError, match=f"--out .*file: {read} is read, and nothing is written over it or into it"
        ):
            check_writable(tmp_path / "." / "file", "--out", [tmp_path / "elsewhere", read])
    assert [path.name for path in tmp_path.iterdir()] == ["file"], "nothing is left behind"
