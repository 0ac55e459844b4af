"""Checkpoints of a run: folders that are whole or absent, verified before they are used, written behind training where
asked; and which ones stay."""

from __future__ import annotations

import errno
import json
import math
import shutil
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TextIO

from pydantic import Field
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException

from foreloom.checkpoint import tensors
from foreloom.checkpoint.claim import claim
from foreloom.checkpoint.manifest import (
    VALIDATION_LOSS,
    CheckpointError,
    FileRecord,
    Manifest,
    OtherVersionError,
    file_record,
    find_damage,
    sync_folder,
    write_json,
)
from foreloom.config.section import section
from foreloom.distributed.process import Process, apart
from foreloom.distributed.reduce import from_rank_zero, gather_objects
from foreloom.distributed.waiting import waiting

_UNFINISHED = ".saving-"
_REPLACED = f"{_UNFINISHED}replaced-"

# One process needs no group of ranks, and that is no news to the user.
warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")


@section
class CheckpointConfig:
    """How checkpoints are written, and which are kept beside the newest (`training.save_total_limit`) and the final
    one."""

    background: bool = False
    """Copy the state in memory and write the copy while training goes on; the next save, and the end, wait for it. The
    copy takes host memory: three times the weights with AdamW, a rank's share of them with fsdp."""
    keep_best: Annotated[int, Field(ge=0)] = 3
    """Checkpoints of the best scores kept; only steps at which the benchmark or a validation ran have one."""
    best_metric: str | None = None
    """The score that decides, lower is better: validation_loss, or one of the benchmark's (wql, mase, composite,
    extended_wql ...). Unset: benchmark.metric in a run with a benchmark, else validation_loss."""
    export: Literal["all", "final"] = "all"
    """Which checkpoints get hf/, the folder that the reference library loads. With validation.restore_best each best
    model so far has it too."""


@dataclass(frozen=True)
class CheckpointFolder:
    path: Path
    manifest: Manifest

    @property
    def step(self) -> int:
        return self.manifest.step


Export = Callable[[Path, Mapping[str, Tensor]], object]
"""export(folder, weights) writes hf/."""


@dataclass(frozen=True)
class Written:
    """How the writing of a checkpoint has gone."""

    step: int
    seconds: float
    num_bytes: int = 0
    failure: str = ""
    """Why there is none, in a sentence."""


class Checkpointer:
    """Writes and finds `run_dir/checkpoints/step-00000200/` with `state/`, `hf/` and `manifest.json`.

    All ranks construct one and call every method together. `checkpoints/final` points at the final one.

        checkpointer = Checkpointer(run_dir, recipe.checkpoint, process, save_total_limit=3, resume=False)
        folder = checkpointer.newest()              # None in a fresh run
        position = checkpointer.load(folder, state) # fills the tensors of `state` in place
        checkpointer.save(manifest, state, position, export=lambda hf, weights: family.save(...), weights=weights)
        checkpointer.wait()                         # where it is written in the background
        checkpointer.close()

    Construct it before anything writes to the run folder: it refuses a folder that belongs to another run
    (ValueError), and removes what a killed save left behind.
    """

    def __init__(
        self,
        run_dir: str | Path,
        config: CheckpointConfig,
        process: Process,
        *,
        save_total_limit: int = 3,
        resume: bool = False,
    ) -> None:
        self.run_dir = Path(run_dir)
        self.folder = self.run_dir / "checkpoints"
        self.config = config
        self.save_total_limit = save_total_limit
        self._process = process
        self.notices: list[str] = []
        """On rank 0: what the user should know of missing and damaged checkpoints and of saves cut short."""
        self.written: Written | None = None
        """The newest save that has come to an end, on this rank."""
        self._lock: TextIO | None = None
        self._writing: Future[CheckpointFolder] | None = None
        self._staging, self._writer = tensors.Staging(), ThreadPoolExecutor(1, "foreloom-checkpoint")
        self._behind = apart(process) if config.background else process
        from_rank_zero(lambda: self._open(resume), process)

    def save(
        self,
        manifest: Manifest,
        state: Mapping[str, Any],
        position: Mapping[str, Any],
        *,
        export: Export | None = None,
        weights: Mapping[str, Tensor] | None = None,
        step_to_keep: int | None = None,
    ) -> CheckpointFolder:
        """Write a checkpoint beside the others, rename it when it is whole, then delete those that need not stay.

        `state` holds (possibly sharded) tensors, `position` plain JSON values equal on all ranks; `export(folder,
        weights)` writes hf/ and is called on rank 0. The manifest's `files` are filled in here. The checkpoint of
        `step_to_keep` stays whatever its age and score. Raises CheckpointError on every rank where the disk refuses;
        the checkpoints already there are then untouched.

        With `background` this gives back what will be, once all is copied: `wait` tells of its end. It waits for the
        save before, whose error it raises.
        """
        self.wait()
        weights = weights or {}
        if not self.config.background:
            return self._write(manifest, state, position, export, weights, step_to_keep)
        state, weights = self._staging.copy(state), self._staging.copied(weights)
        position = json.loads(json.dumps(position))  # its parts go on, too
        self._writing = self._writer.submit(self._write, manifest, state, position, export, weights, step_to_keep)
        return CheckpointFolder(self._folder_of(manifest.step), manifest)

    def wait(self) -> None:
        """Until nothing is being written. Collective; raises what `save` raises, without `background`."""
        writing, self._writing = self._writing, None
        if writing:
            with waiting("the checkpoint that is being written"):
                writing.result()

    def _write(
        self,
        manifest: Manifest,
        state: Mapping[str, Any],
        position: Mapping[str, Any],
        export: Export | None,
        weights: Mapping[str, Tensor],
        step_to_keep: int | None,
    ) -> CheckpointFolder:
        """All of `save` that the disk has a say in."""
        process, began = self._behind, time.perf_counter()
        target = self._folder_of(manifest.step)
        unfinished = self.folder / (_UNFINISHED + target.name)
        try:
            from_rank_zero(lambda: _make_empty(unfinished), process)
            tensors.save(state, unfinished / "state", is_alone=process.world_size == 1, group=process.group)
            from_rank_zero(lambda: _write_rest(unfinished, position, export, weights), process)
            manifest = replace(manifest, files=_record_files(unfinished, process))
            from_rank_zero(lambda: self._finish(unfinished, target, manifest, step_to_keep), process)
        except (OSError, CheckpointException) as error:
            from_rank_zero(lambda: self._take_back(unfinished), process)
            sentence = (
                f"the checkpoint of step {manifest.step:,} could not be written to {self.folder} ({_reason(error)}); "
                "the earlier checkpoints are intact"
            )
            self.written = Written(manifest.step, time.perf_counter() - began, failure=sentence)
            raise CheckpointError(sentence) from error
        num_bytes = sum(record.size_bytes for record in manifest.files.values())
        self.written = Written(manifest.step, time.perf_counter() - began, num_bytes)
        return CheckpointFolder(target, manifest)

    def newest(self) -> CheckpointFolder | None:
        """The newest checkpoint whose files are all as written; damaged ones before it are set aside with a warning.

        None where there is no checkpoint at all. Raises CheckpointError, touching nothing, where all are damaged, and
        where one that would be taken is of another version.
        """
        damaged: dict[Path, str] = {}
        for path in from_rank_zero(self._newest_first, self._process):
            found = from_rank_zero(lambda path=path: _read_folder(path), self._process)
            if isinstance(found, str):
                damaged[path] = found
                continue
            mine = sorted(found.manifest.files)[self._process.rank :: self._process.world_size]
            of_ranks = gather_objects(find_damage(found.path, found.manifest.files, mine), self._process)
            damage = [sentence for sentences in of_ranks for sentence in sentences]
            if not damage:
                from_rank_zero(lambda: [self._set_aside(path, why) for path, why in damaged.items()], self._process)
                return found
            damaged[path] = damage[0]
        if damaged:
            raise CheckpointError(
                f"no checkpoint in {self.folder} is whole ({next(iter(damaged.values()))}); put one back from a copy, "
                "or start again in another folder"
            )
        return None

    def load(self, folder: CheckpointFolder, state: dict[str, Any]) -> dict[str, Any]:
        """Fill the tensors of `state` in place, whatever the world size was, and return the position saved with them.

        Raises CheckpointError where the checkpoint is of another model, or holds what is no tensor.
        """
        try:
            tensors.load(state, folder.path / "state", is_alone=self._process.world_size == 1)
        except CheckpointError:
            raise
        except (CheckpointException, RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"{folder.path} does not fit this run's model or optimizer ({_reason(error)}); resume with the recipe "
                "it was written with, or start in another folder"
            ) from error
        position = folder.path / "state" / "position.json"
        return from_rank_zero(lambda: json.loads(position.read_text()), self._process)

    def export_of(self, step: int) -> Path | None:
        """hf/ of the checkpoint of a step; None where there is none, or it is not as it was written."""

        def find() -> Path | None:
            found = _read_folder(self._folder_of(step))
            if isinstance(found, str) or found.manifest.export_step != step:
                return None
            files = found.manifest.files
            damage = find_damage(found.path, files, [name for name in files if name.startswith("hf/")])
            return None if damage else found.path / "hf"

        return from_rank_zero(find, self._process)

    def close(self) -> None:
        """Give up the claim on the run folder, once nothing is being written to it."""
        self._writer.shutdown()
        if self._lock:
            self._lock.close()
            self._lock = None

    def _open(self, resume: bool) -> None:
        self._lock = claim(self.run_dir, resume=resume)
        self.folder.mkdir(exist_ok=True)
        self._put_back_replaced()
        for leftover in self.folder.glob(f"{_UNFINISHED}*"):
            self.notices.append(f"{leftover} was removed: its save was cut short.")
            if leftover.is_symlink():
                leftover.unlink()
            shutil.rmtree(leftover, ignore_errors=True)
        if resume and not self._newest_first():
            self.notices.append(f"{self.folder} holds no checkpoint to go on from: the run begins at its first step.")

    def _put_back_replaced(self) -> None:
        """Where a save was cut short between taking a checkpoint away and putting its successor in place."""
        for replaced in self.folder.glob(f"{_REPLACED}*"):
            target = self.folder / replaced.name.removeprefix(_REPLACED)
            if not target.exists():
                replaced.rename(target)

    def _take_back(self, unfinished: Path) -> None:
        shutil.rmtree(unfinished, ignore_errors=True)
        self._put_back_replaced()

    def _finish(self, unfinished: Path, target: Path, manifest: Manifest, step_to_keep: int | None) -> None:
        manifest.write(unfinished)
        for folder in (unfinished, *(path for path in unfinished.rglob("*") if path.is_dir())):
            sync_folder(folder)
        replaced = self.folder / (_REPLACED + target.name)
        if target.exists():
            target.rename(replaced)
        unfinished.rename(target)
        if manifest.final:
            link = self.folder / f"{_UNFINISHED}final"
            link.unlink(missing_ok=True)
            link.symlink_to(target.name)
            shutil.rmtree(self.folder / "final", ignore_errors=True)  # a folder where a copy has followed the link
            link.replace(self.folder / "final")
        sync_folder(self.folder)
        shutil.rmtree(replaced, ignore_errors=True)
        self._prune(step_to_keep)

    def _prune(self, step_to_keep: int | None) -> None:
        manifests = {}
        for path in self.folder.glob("step-*[0-9]"):
            try:
                manifests[path] = Manifest.read(path)
            except OtherVersionError:
                continue
            except ValueError as error:
                self._set_aside(path, str(error))
        last_final = max((m.step for m in manifests.values() if m.final), default=None)
        is_validated = any(VALIDATION_LOSS in manifest.scores for manifest in manifests.values())
        metric = self.config.best_metric or (VALIDATION_LOSS if is_validated else "wql")
        keep = steps_to_keep(
            (
                Candidate(m.step, m.scores.get(metric), needed=m.step in (last_final, step_to_keep))
                for m in manifests.values()
            ),
            num_latest=self.save_total_limit,
            num_best=self.config.keep_best,
        )
        for path, manifest in manifests.items():
            if manifest.step not in keep:
                condemned = self.folder / f"{_UNFINISHED}removed-{path.name}"
                path.rename(condemned)  # so that a kill never leaves half a checkpoint under its name
                shutil.rmtree(condemned, ignore_errors=True)

    def _folder_of(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    def _newest_first(self) -> list[Path]:
        return sorted(self.folder.glob("step-*[0-9]"), reverse=True)

    def _set_aside(self, path: Path, why: str) -> None:
        aside = path.with_name(path.name + ".damaged")
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
        self.notices.append(f"{path} is damaged ({why}); it is now {aside.name} and the one before it is used.")


def _read_folder(path: Path) -> CheckpointFolder | str:
    """The checkpoint, or what is wrong with it. Raises OtherVersionError."""
    try:
        return CheckpointFolder(path, Manifest.read(path))
    except OtherVersionError:
        raise
    except ValueError as error:
        return str(error)


def _write_rest(
    unfinished: Path, position: Mapping[str, Any], export: Export | None, weights: Mapping[str, Tensor]
) -> None:
    write_json(unfinished / "state" / "position.json", position)
    if export:
        export(unfinished / "hf", weights)


def _record_files(unfinished: Path, process: Process) -> dict[str, FileRecord]:
    """Every file's record; the ranks share the reading."""
    paths = from_rank_zero(lambda: sorted(p for p in unfinished.rglob("*") if p.is_file()), process)
    records: dict[str, FileRecord] | OSError
    try:
        mine = paths[process.rank :: process.world_size]
        records = {path.relative_to(unfinished).as_posix(): file_record(path) for path in mine}
    except OSError as error:
        records = error
    of_ranks = gather_objects(records, process)
    found: dict[str, FileRecord] = {}
    for of_rank in of_ranks:
        if isinstance(of_rank, OSError):
            raise of_rank
        found |= of_rank
    return dict(sorted(found.items()))


def _make_empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _reason(error: BaseException) -> str:
    """The sentence inside: DCP wraps what went wrong on each rank."""
    if isinstance(error, CheckpointException):
        error = next(iter(error.failures.values()))[0]
    text = str(error).strip().partition("\n")[0]
    # Only Python says it by errno: safetensors says it in words, and torch's zip writer tells of a write cut short.
    is_full = isinstance(error, OSError) and error.errno == errno.ENOSPC
    if is_full or "No space left on device" in text or "unexpected pos" in text:
        return "the disk is full"
    return text


@dataclass(frozen=True)
class Candidate:
    step: int
    score: float | None = None
    """Lower is better; None or NaN where the step was not scored."""
    needed: bool = False
    """Kept whatever its age and score: the final one, or the one a run will end with."""


def steps_to_keep(checkpoints: Iterable[Candidate], *, num_latest: int, num_best: int) -> set[int]:
    """The `num_latest` newest (0: all), the `num_best` of lowest score (the newer of equals), and every needed one."""
    newest_first = sorted(checkpoints, key=lambda c: c.step, reverse=True)
    latest = newest_first[:num_latest] if num_latest else newest_first
    scored = [(c.score, -c.step) for c in newest_first if c.score is not None and not math.isnan(c.score)]
    best = {-negative for _, negative in sorted(scored)[:num_best]}
    return {c.step for c in latest} | best | {c.step for c in newest_first if c.needed}
