"""A training run in which some ranks fail: `python failing_rank.py PHASE RANKS recipe settings ...`, as one rank.

PHASE is one of `PLACES`; RANKS which ones, `1` or `0,1`. In phase `killed` they are killed in a step, in phase `hung`
they come to no end of it, which others soon tell; in phase `disk` it is full, in `file` what they read has gone.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from typing import Any

from torch.distributed.checkpoint import FileSystemWriter

from foreloom import cli
from foreloom.data.stream.dataset import SeriesDataset
from foreloom.distributed import waiting
from foreloom.evaluation.benchmark import TrainingBenchmark
from foreloom.run import composition
from foreloom.training.scoring import Validation
from foreloom.training.trainer import Trainer

PLACES: dict[str, tuple[Any, str]] = {
    "recipe": (composition, "load"),
    "loading": (composition, "parallelize"),
    "step": (Trainer, "_log"),
    "validation": (Validation, "run"),
    "benchmark": (TrainingBenchmark, "run"),
    "file": (SeriesDataset, "gather"),
    "disk": (FileSystemWriter, "write_data"),
    "killed": (Trainer, "_log"),
    "hung": (Trainer, "_log"),
}


def fail(*_: Any, **__: Any) -> None:
    if phase == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    while phase == "hung":
        time.sleep(1)
    if phase in ("disk", "file"):
        number = errno.ENOSPC if phase == "disk" else errno.ENOENT
        raise OSError(number, os.strerror(number), "planted here")
    raise ValueError("planted here")


if __name__ == "__main__":
    phase, ranks, *arguments = sys.argv[1:]
    waiting.PATIENCE_SECONDS = 1.0 if phase == "hung" else waiting.PATIENCE_SECONDS
    if os.environ["RANK"] in ranks.split(","):
        place, name = PLACES[phase]
        setattr(place, name, fail)
    sys.argv = ["foreloom", "train", *arguments]
    cli.main()
