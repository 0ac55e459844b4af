from __future__ import annotations

import errno
import json
import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint.api import CheckpointException

from foreloom.checkpoint import tensors
from foreloom.checkpoint.checkpointer import (
    Candidate,
    CheckpointConfig,
    Checkpointer,
    CheckpointError,
    CheckpointFolder,
    steps_to_keep,
)
from foreloom.checkpoint.claim import claim
from foreloom.checkpoint.manifest import Manifest
from foreloom.distributed.process import Process

PROCESS = Process(0, 1, 0, torch.device("cpu"))


def manifest(step: int, *, final: bool = False, **scores: float) -> Manifest:
    return Manifest(
        step=step, num_rows=step * 8, flops=0.0, final=final, scores=scores, fingerprint="f", config_hash="c",
        world_size=1, versions={},
    )  # fmt: skip


def state(value: float) -> dict:
    return {"model": {"w": torch.full((4, 3), value)}, "optimizer": {"m": torch.full((4, 3), -value)}}


@pytest.fixture
def reopen(tmp_path: Path) -> Callable[..., Checkpointer]:
    """A checkpointer on the test's run folder, as a new session opens it."""
    opened: list[Checkpointer] = []

    def reopen(background: bool = False, **settings) -> Checkpointer:
        for checkpointer in opened:
            checkpointer.close()
        config = CheckpointConfig(keep_best=1, background=background)
        opened.append(Checkpointer(tmp_path, config, PROCESS, **{"resume": True} | settings))
        return opened[-1]

    return reopen


def names(run_dir: Path) -> list[str]:
    return sorted(path.name for path in (run_dir / "checkpoints").iterdir())


def test_round_trip_retention_and_final(tmp_path: Path, reopen) -> None:
    checkpointer = reopen(save_total_limit=1, resume=False)
    assert checkpointer.newest() is None
    for step, score in ((1, 0.5), (2, 0.2), (3, 0.4), (4, 0.3)):
        checkpointer.save(manifest(step, wql=score), state(step), {"trainer": {"step": step}})
    assert names(tmp_path) == ["step-00000002", "step-00000004"]
    checkpointer.save(
        manifest(5, final=True), state(5.0), {"trainer": {"step": 5}}, export=lambda folder, weights: folder.mkdir()
    )
    assert names(tmp_path) == ["final", "step-00000002", "step-00000005"]
    assert (tmp_path / "checkpoints" / "final" / "hf").is_dir()

    checkpointer = reopen()
    folder = checkpointer.newest()
    assert folder and folder.step == 5 and folder.manifest.final and folder.manifest.num_rows == 40
    filled = state(0.0)
    assert checkpointer.load(folder, filled) == {"trainer": {"step": 5}}
    assert torch.equal(filled["model"]["w"], state(5.0)["model"]["w"])
    assert torch.equal(filled["optimizer"]["m"], state(5.0)["optimizer"]["m"])
    with pytest.raises(CheckpointError, match="does not fit this run's model"):
        checkpointer.load(folder, {"model": {"other": torch.zeros(2)}})


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing", "manifest"])
def test_damage_is_seen_and_the_one_before_is_used(tmp_path: Path, reopen, damage: str) -> None:
    checkpointer = reopen(resume=False)
    for step in (1, 2):
        checkpointer.save(manifest(step), state(step), {})
    newest = tmp_path / "checkpoints" / "step-00000002"
    data = next((newest / "state").glob("*.distcp"))
    content = data.read_bytes()
    match damage:
        case "truncated":
            data.write_bytes(content[:-1])
        case "flipped":
            data.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        case "missing":
            data.unlink()
        case "manifest":
            (newest / "manifest.json").write_text("{")
    checkpointer = reopen()
    folder = checkpointer.newest()
    assert folder and folder.step == 1
    assert len(checkpointer.notices) == 1 and "step-00000002 is damaged" in checkpointer.notices[0]
    assert names(tmp_path) == ["step-00000001", "step-00000002.damaged"]


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path, reopen, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk fills up at each of the writes in turn, until there are none left to refuse."""
    checkpointer = reopen(resume=False)
    checkpointer.save(manifest(1), state(1.0), {})
    real_fsync, refusals = os.fsync, 0
    for allowed in range(100):
        calls = 0

        def fsync(descriptor: int, allowed: int = allowed) -> None:
            nonlocal calls
            calls += 1
            if calls > allowed:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real_fsync(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)
        try:
            checkpointer.save(manifest(2), state(2.0), {}, export=lambda folder, weights: folder.mkdir())
        except CheckpointError as error:
            refusals += 1
            assert "the disk is full" in str(error) and "earlier checkpoints are intact" in str(error)
        else:
            break
        finally:
            monkeypatch.setattr(os, "fsync", real_fsync)
        assert not [name for name in names(tmp_path) if name.startswith(".saving-step")]
        folder = checkpointer.newest()
        assert folder is not None and not checkpointer.notices
    assert refusals >= 5
    assert names(tmp_path) == ["step-00000001", "step-00000002"]


@pytest.mark.parametrize(
    "refusal",
    [
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598"),
        OSError("hf: Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_told_of_in_the_libraries_words_too(tmp_path: Path, reopen, refusal: Exception) -> None:
    def export(folder: Path, weights: object) -> None:
        raise CheckpointException("save", {0: (refusal, None)})

    with pytest.raises(CheckpointError, match=r"step 1 could not be written .*\(the disk is full\)"):
        reopen(resume=False).save(manifest(1), state(1.0), {}, export=export)


def test_written_behind_training(tmp_path: Path, reopen, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is saved is the state at the time; the next save waits, and so do a failure's words."""
    checkpointer = reopen(resume=False, background=True)
    may_go_on, refuses = threading.Event(), False
    real = tensors.save

    def save(*arguments, **more) -> None:
        assert may_go_on.wait(60)
        if refuses:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(*arguments, **more)

    def export(folder: Path, weights) -> None:
        folder.mkdir()
        torch.save(dict(weights), folder / "weights.pt")

    monkeypatch.setattr(tensors, "save", save)
    live, frozen, position = state(1.0), torch.ones(2), {"loss": [0.5]}
    weights = {"w": live["model"]["w"], "frozen": frozen}
    promised = checkpointer.save(manifest(1), live, position, export=export, weights=weights)
    live["model"]["w"].fill_(2.0)
    position["loss"].append(0.25)
    assert promised.step == 1 and checkpointer.written is None and names(tmp_path) in ([], [".saving-step-00000001"])
    threading.Timer(0.1, may_go_on.set).start()
    checkpointer.save(manifest(2), live, position, export=export, weights=weights)  # waits for the one before
    assert "step-00000001" in names(tmp_path)
    checkpointer.wait()
    assert checkpointer.written.step == 2 and checkpointer.written.num_bytes > 96 and not checkpointer.written.failure
    for step, losses in ((1, [0.5]), (2, [0.5, 0.25])):
        filled, folder = state(0.0), tmp_path / "checkpoints" / f"step-{step:08d}"
        assert checkpointer.load(CheckpointFolder(folder, manifest(step)), filled) == {"loss": losses}
        assert torch.equal(filled["model"]["w"], state(step)["model"]["w"])
        exported = torch.load(folder / "hf" / "weights.pt")
        assert torch.equal(exported["w"], state(step)["model"]["w"]) and torch.equal(exported["frozen"], frozen)

    refuses = True
    checkpointer.save(manifest(3), live, position)
    for ask in (checkpointer.wait, lambda: checkpointer.save(manifest(5), live, position)):
        with pytest.raises(CheckpointError, match="step [34] could not be written .*the disk is full.*are intact"):
            ask()
        refuses = ask == checkpointer.wait
        if refuses:
            checkpointer.save(manifest(4), live, position)
    assert names(tmp_path) == ["step-00000001", "step-00000002"]
    refuses = False
    checkpointer.save(manifest(6), live, position)
    checkpointer.close()  # not without what is being written
    assert names(tmp_path) == ["step-00000001", "step-00000002", "step-00000006"]


def test_one_run_a_folder(tmp_path: Path, reopen) -> None:
    first = reopen(resume=False)
    with pytest.raises(ValueError, match=rf"still going on \(process {os.getpid()} on "):
        Checkpointer(tmp_path, CheckpointConfig(), PROCESS, resume=True)
    first.save(manifest(7), state(1.0), {})
    first.close()
    with pytest.raises(ValueError, match="holds an earlier run .its newest checkpoint is step-00000007.*--resume"):
        Checkpointer(tmp_path, CheckpointConfig(), PROCESS)
    assert reopen().newest().step == 7


def test_nothing_to_go_on_from_is_told_of(tmp_path: Path, reopen) -> None:
    assert not reopen(resume=False).notices
    empty = reopen()
    assert empty.newest() is None
    assert len(empty.notices) == 1 and "holds no checkpoint to go on from: the run begins at its" in empty.notices[0]


def test_leftovers_of_a_killed_save_are_removed(tmp_path: Path, reopen) -> None:
    checkpointer = reopen(resume=False)
    checkpointer.save(manifest(1), state(1.0), {})
    shutil.copytree(tmp_path / "checkpoints" / "step-00000001", tmp_path / "checkpoints" / ".saving-step-00000002")
    (tmp_path / "checkpoints" / ".saving-final").symlink_to("step-00000001")
    checkpointer = reopen()
    assert names(tmp_path) == ["step-00000001"] and len(checkpointer.notices) == 2
    assert checkpointer.newest().step == 1


def test_a_checkpoint_that_was_to_be_replaced_is_put_back(tmp_path: Path, reopen, monkeypatch) -> None:
    """Its successor is not in place yet: the process is killed, or the disk refuses."""
    checkpointer = reopen(resume=False, save_total_limit=1)
    checkpointer.save(manifest(1), state(1.0), {})
    real = Path.rename

    def rename(path: Path, target: Path) -> Path:
        if path.name == ".saving-step-00000001":
            raise failure
        return real(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    failure: BaseException = OSError(errno.EIO, "Input/output error")
    with pytest.raises(CheckpointError, match="earlier checkpoints are intact"):
        checkpointer.save(manifest(1, wql=0.5), state(2.0), {})
    assert names(tmp_path) == ["step-00000001"]
    failure = SystemExit()  # nothing is tidied up after it
    with pytest.raises(SystemExit):
        checkpointer.save(manifest(1, wql=0.5), state(2.0), {})
    assert names(tmp_path) == [".saving-replaced-step-00000001", ".saving-step-00000001"]
    checkpointer = reopen()
    assert names(tmp_path) == ["step-00000001"]
    filled, folder = state(0.0), checkpointer.newest()
    assert folder and not folder.manifest.scores
    checkpointer.load(folder, filled)
    assert torch.equal(filled["model"]["w"], state(1.0)["model"]["w"])


def test_the_final_checkpoint_of_a_run_made_longer_goes_when_there_is_another(tmp_path: Path, reopen) -> None:
    checkpointer = reopen(save_total_limit=1, resume=False)
    for step, kept in ((2, [2]), (3, [2, 3]), (4, [4]), (5, [4, 5])):
        checkpointer.save(manifest(step, final=step in (2, 4)), state(step), {})
        assert names(tmp_path) == ["final", *(f"step-{one:08d}" for one in kept)]
    assert (tmp_path / "checkpoints" / "final").resolve().name == "step-00000004"
    final = tmp_path / "checkpoints" / "final"
    final.unlink()
    shutil.copytree(tmp_path / "checkpoints" / "step-00000004", final)  # as of a folder copied with its links followed
    checkpointer.save(manifest(5, final=True), state(5.0), {})
    assert final.is_symlink() and final.resolve().name == "step-00000005"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda values: values | {"epoch": 3},
            "has 'epoch', which is not known here: it was written by foreloom 9.1, ",
        ),
        (lambda values: {key: value for key, value in values.items() if key != "flops"}, "lacks something .*'flops'"),
    ],
)
def test_a_checkpoint_of_another_version_is_named_and_left_alone(tmp_path: Path, reopen, change, sentence) -> None:
    checkpointer = reopen(resume=False)
    for step in (1, 2):
        checkpointer.save(replace(manifest(step), versions={"foreloom": "9.1"}), state(step), {})
    path = tmp_path / "checkpoints" / "step-00000002" / "manifest.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    checkpointer = reopen()
    with pytest.raises(CheckpointError, match=f"{sentence}.*nothing was changed"):
        checkpointer.newest()
    assert names(tmp_path) == ["step-00000001", "step-00000002"] and not checkpointer.notices


def test_the_best_is_by_the_validation_loss_where_the_run_validates(tmp_path: Path, reopen) -> None:
    checkpointer = reopen(save_total_limit=1, resume=False)
    scores = [{"wql": 0.1, "validation_loss": 3.0}, {"wql": 0.2, "validation_loss": 1.0}, {"wql": 0.3}, {}]
    for step, of_step in enumerate(scores, start=1):
        checkpointer.save(manifest(step, **of_step), state(step), {})
    assert names(tmp_path) == ["step-00000002", "step-00000004"]


def test_the_step_to_keep_stays_until_another_is_named(tmp_path: Path, reopen) -> None:
    checkpointer = reopen(save_total_limit=1, resume=False)
    for step, step_to_keep in ((1, 1), (2, 1), (3, 1), (4, 4), (5, 4), (6, None)):
        checkpointer.save(manifest(step), state(step), {}, step_to_keep=step_to_keep)
        kept = {step} if step_to_keep is None else {step, step_to_keep}
        assert names(tmp_path) == sorted(f"step-{one:08d}" for one in kept)


def test_an_export_is_given_only_whole_and_only_as_that_step_s_own(tmp_path: Path, reopen) -> None:
    def export(folder: Path, weights: object) -> None:
        folder.mkdir()
        (folder / "config.json").write_text("{}")

    checkpointer = reopen(resume=False)
    checkpointer.save(replace(manifest(1), export_step=1), state(1.0), {}, export=export)
    checkpointer.save(replace(manifest(2), export_step=1), state(1.0), {}, export=export)
    checkpointer.save(manifest(3), state(1.0), {})
    first = tmp_path / "checkpoints" / "step-00000001" / "hf"
    assert [checkpointer.export_of(step) for step in (1, 2, 3, 4)] == [first, None, None, None]
    (first / "config.json").write_text("[]")
    assert checkpointer.export_of(1) is None


def test_scripted_run() -> None:
    """Ten checkpoints, every second one scored: what the folder holds after each save."""
    scores = {2: 0.9, 4: 0.5, 6: 0.7, 8: float("nan"), 10: 0.5}
    kept: list[Candidate] = []
    history = {}
    for step in range(1, 11):
        kept.append(Candidate(step, scores.get(step), needed=step == 10))
        keep = steps_to_keep(kept, num_latest=2, num_best=2)
        kept = [candidate for candidate in kept if candidate.step in keep]
        history[step] = sorted(keep)
    assert history == {
        1: [1],
        2: [1, 2],
        3: [2, 3],
        4: [2, 3, 4],
        5: [2, 4, 5],
        6: [4, 5, 6],
        7: [4, 6, 7],
        8: [4, 6, 7, 8],
        9: [4, 6, 8, 9],
        10: [4, 9, 10],
    }


def test_limits_of_zero() -> None:
    candidates = [Candidate(1, 0.1), Candidate(2), Candidate(3, 0.2)]
    assert steps_to_keep(candidates, num_latest=0, num_best=0) == {1, 2, 3}
    assert steps_to_keep(candidates, num_latest=1, num_best=0) == {3}
    needed_first = [Candidate(1, needed=True), Candidate(2), Candidate(3)]
    assert steps_to_keep(needed_first, num_latest=1, num_best=1) == {1, 3}


def test_a_full_disk_is_told_of_the_run_folder(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(ValueError, match=r"the run folder .*/run cannot be written \(No space left on device\)"):
            claim(tmp_path / "run", resume=False)
    with (
        claim(tmp_path / "run", resume=False),
        pytest.raises(ValueError, match=f"process {os.getpid()} on .* since 20"),
    ):
        claim(tmp_path / "run", resume=False)
