"""A training run in which some ranks fail: `python failing_rank.py PHASE RANKS recipe settings ...`, as one rank.

PHASE is where: `recipe`, `loading`, `step`, `validation` or `benchmark`; RANKS which ones, `1` or `0,1`.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from foreloom import cli
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
}


def fail(*_: Any, **__: Any) -> None:
    raise ValueError("planted here")


if __name__ == "__main__":
    phase, ranks, *arguments = sys.argv[1:]
    if os.environ["RANK"] in ranks.split(","):
        place, name = PLACES[phase]
        setattr(place, name, fail)
    sys.argv = ["foreloom", "train", *arguments]
    cli.main()
