"""Laws on a CUDA device: what holds on the CPU holds there, as far as its arithmetic allows, and nothing waits."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import pytest
import torch

from foreloom.distributed.process import Process
from foreloom.training.trainer import TrainResult
from toy_run import build_trainer, losses, train_here, weights

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
every_family = pytest.mark.parametrize("family", ["toy", "chronos2", "chronos_bolt", "chronos_t5", "time_moe"])


def train_on_cuda(run_dir: Path, **settings: object) -> TrainResult:
    process = Process(0, 1, 0, torch.device("cuda", 0))
    return build_trainer(process, run_dir, {"precision": "bf16", **settings}).train()


@every_family
def test_the_losses_are_those_of_the_cpu(tmp_path: Path, family: str) -> None:
    settings = {"family": family, "precision": "fp32", "steps": 4}  # later ones drift: experts are chosen or not
    train_here(tmp_path / "cpu", **settings)
    train_on_cuda(tmp_path / "fp32", **settings)
    train_on_cuda(tmp_path / "bf16", **settings | {"precision": "bf16"})
    expected, fp32, bf16 = (losses(tmp_path / name) for name in ("cpu", "fp32", "bf16"))
    assert fp32[1] == pytest.approx(expected[1], rel=1e-5)  # before any update
    assert fp32 == pytest.approx(expected, rel=2e-3)
    assert bf16 == pytest.approx(expected, rel=2e-2)  # 8 bits
    assert bf16 != fp32, "nothing was computed in bf16"


@every_family
def test_a_resumed_run_is_as_near_to_the_whole_one_as_that_is_to_itself(tmp_path: Path, family: str) -> None:
    """Bit for bit where two runs without a stop are equal; sums whose order the device chooses may tell them apart."""
    settings = {"family": family, "dropout": 0.1, "steps": 12, "save_steps": 6}
    whole, again, stopped = (tmp_path / name for name in ("whole", "again", "stopped"))
    train_on_cuda(whole, **settings)
    train_on_cuda(again, **settings)
    shutil.copytree(whole, stopped, symlinks=True)
    shutil.rmtree(stopped / "checkpoints" / "step-00000012")
    (stopped / "checkpoints" / "final").unlink()
    train_on_cuda(stopped, **settings, resume=True)
    noise, difference = (largest_difference(whole, other) for other in (again, stopped))
    warnings.warn(f"{family}: two equal runs differ by {noise:.3g}, a resumed one by {difference:.3g}", stacklevel=1)
    assert difference <= 10 * noise


def largest_difference(one: Path, other: Path) -> float:
    first, second = weights(one), weights(other)
    return max((first[name].double() - second[name].double()).abs().max().item() for name in first)


@every_family
def test_a_step_waits_for_nothing(tmp_path: Path, family: str) -> None:
    """Runs of other lengths, without log lines between, make the host wait for the device equally often."""

    def num_waits(steps: int) -> int:
        settings = {"family": family, "dropout": 0.1, "log_steps": 1000, "steps": steps}
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                train_on_cuda(tmp_path / str(steps), **settings)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        return sum("synchronizing CUDA operation" in str(warning.message) for warning in seen)

    few = num_waits(4)
    assert few > 0, "the last log line reads the device, so this test would tell"
    assert num_waits(12) == few


def test_compiled_blocks_give_the_losses_of_plain_ones(tmp_path: Path) -> None:
    settings = {"family": "chronos2", "precision": "fp32", "steps": 4}
    train_on_cuda(tmp_path / "plain", **settings)
    train_on_cuda(tmp_path / "compiled", **settings, compile=True)
    torch._dynamo.reset()
    assert losses(tmp_path / "compiled") == pytest.approx(losses(tmp_path / "plain"), rel=1e-3)
