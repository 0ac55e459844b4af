"""A launcher's only rank forms a group where the recipe asks for one: what many ranks will do, on one device."""

from __future__ import annotations

import json
import socket

import pytest
import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from foreloom import run
from foreloom.distributed.process import start, stop

SETTINGS = [
    "training.steps=4", "training.batch_size=6", "training.precision=fp32", "data.context_length=64",
    "data.prediction_length=16", "model.num_layers=1", "model.d_model=32", "model.d_ff=32", "monitoring.log_steps=1",
    "monitoring.trackers=[none]",
]  # fmt: skip
ON_CUDA = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.fixture
def only_rank(monkeypatch):
    """What torchrun tells the only rank."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    told = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for name, value in told.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=ON_CUDA)])
def test_ddp_and_fsdp_of_one_train_as_one_process_does(tmp_path, only_rank, device):
    def losses(strategy: str) -> list[float]:
        process = start(device, group_of_one=strategy != "auto")
        try:
            assert dist.is_initialized() == (strategy != "auto")
            recipe = run.load("chronos2-test", [*SETTINGS, f"parallel.strategy={strategy}"])
            trainer = run.build(recipe, tmp_path / strategy, process)
            kinds = {"ddp": DistributedDataParallel, "fsdp": FSDPModule}
            assert strategy == "auto" or isinstance(trainer.parallel.module, kinds[strategy])
            trainer.train()
        finally:
            stop()
        lines = map(json.loads, (tmp_path / strategy / "metrics.jsonl").read_text().splitlines())
        return [line["loss"] for line in lines if line["kind"] == "step"]

    alone = losses("auto")
    assert losses("ddp") == pytest.approx(alone, rel=1e-5)
    assert losses("fsdp") == pytest.approx(alone, rel=1e-5)
    log = (tmp_path / "fsdp" / "training.log").read_text()
    assert "fsdp, 1 x 1" in log
    assert "single process" in (tmp_path / "auto" / "training.log").read_text()
