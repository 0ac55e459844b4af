"""Tensors of a checkpoint go out and in; what else a run folder of someone else may hold is not run."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata

from foreloom.checkpoint import tensors
from foreloom.checkpoint.manifest import CheckpointError


def state(value: float) -> dict:
    return {"model": {"w": torch.full((4, 3), value)}, "step": torch.tensor(7, dtype=torch.int64)}


def load(folder: Path) -> dict:
    filled = {"model": {"w": torch.zeros(4, 3)}, "step": torch.tensor(0)}
    tensors.load(filled, folder, is_alone=True)
    return filled


class Planted:
    """Runs when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.proof),)


class OfAClass:
    """Reaches for what lies behind a class of DCP's."""

    def __reduce__(self) -> tuple:
        return getattr, (Metadata, "version")


def test_a_round_trip(tmp_path: Path) -> None:
    tensors.save(state(2.5), tmp_path, is_alone=True)
    filled = load(tmp_path)
    assert torch.equal(filled["model"]["w"], state(2.5)["model"]["w"]) and filled["step"] == 7
    with pytest.raises(ValueError, match=r"it holds model\.w, which this run does not train"):
        tensors.load({"model": {}, "step": torch.tensor(0)}, tmp_path, is_alone=True)


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("metadata", "it names posix.mkdir. Nothing of it was run"),
        ("function", "it names builtins.getattr"),
        ("rank", "No such file"),
        ("entry", "model.w is no tensor"),
        ("outside", "a file outside its folder, ../elsewhere/__0_0.distcp"),
        ("cut", "pickle data was truncated|Ran out of input"),
        ("other", "is not what a checkpoint's is"),
        ("memo", "is not what a checkpoint's is: place 268,435,456 of its memo, in 7 bytes"),
    ],
)
def test_a_run_folder_of_someone_else_runs_no_code(tmp_path: Path, place: str, sentence: str, capfd) -> None:
    proof, planted = tmp_path / "proof", state(1.0)
    if place == "entry":
        planted["model"]["w"] = Planted(proof)  # DCP pickles what is no tensor
    tensors.save(planted, tmp_path, is_alone=True)
    path = tmp_path / ".metadata"
    metadata = pickle.loads(path.read_bytes())
    if place in ("metadata", "rank"):
        metadata.planner_data = Planted(proof)
    elif place == "function":
        metadata.planner_data = OfAClass()
    elif place == "outside":
        for info in metadata.storage_data.values():
            info.relative_path = "../elsewhere/" + info.relative_path
    elif place == "other":
        metadata = ["not", "metadata"]
    path.write_bytes(pickle.dumps(metadata)[: -40 if place == "cut" else None])
    if place == "memo":
        path.write_bytes(b"]r\x00\x00\x00\x10.")
    if place == "rank":
        path.rename(path.with_name("__0.metadata"))  # where DCP looks next
    with pytest.raises((CheckpointError, CheckpointException), match=sentence):
        load(tmp_path)
    assert not proof.exists()
    assert "Traceback" not in capfd.readouterr().err


def test_a_class_of_dcp_is_not_changed(tmp_path: Path) -> None:
    tensors.save(state(1.0), tmp_path, is_alone=True)
    # the class, its state (None, {"version": "planted"}), BUILD
    module, name = b"torch.distributed.checkpoint.metadata", b"Metadata"
    attack = b"\x80\x04c" + module + b"\n" + name + b"\nN}\x8c\x07version\x8c\x07planteds\x86b."
    (tmp_path / ".metadata").write_bytes(attack)
    with pytest.raises(CheckpointError, match="not what a checkpoint's is"):
        load(tmp_path)
    assert Metadata.version is None
