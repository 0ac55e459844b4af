"""For how long training stands still for a checkpoint: written while it waits, and written in the background.

    OMP_NUM_THREADS=1 python benchmarks/checkpoint_stall.py            # 120M parameters, 2 GB a checkpoint
    OMP_NUM_THREADS=1 python benchmarks/checkpoint_stall.py --quick    # 1M parameters

Two runs of Chronos-2 through the real trainer take turns, alike but for `checkpoint.background`; each keeps one
checkpoint. The figures are those of their own log. Ends with an error where a save in the background holds training up
for more than a tenth of the other's time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from foreloom import run

MOST = 0.1
LARGE = ("model.d_model=768", "model.d_kv=64", "model.num_heads=12", "model.d_ff=3072", "model.num_layers=12")
SMALL = ("model.d_model=128", "model.d_kv=32", "model.num_heads=4", "model.d_ff=256", "model.num_layers=4")
RECIPE = (
    *("training.batch_size=4", "data.context_length=64", "data.prediction_length=16", "training.save_total_limit=1"),
    *("checkpoint.keep_best=0", "monitoring.log_steps=1", "monitoring.trackers=[none]", "training.device=cpu"),
)


def measure(folder: Path, model: tuple[str, ...], *, background: bool, save_steps: int) -> dict[str, list[float]]:
    """Seconds of the saves that training did not end with, the first left out: it takes the memory of the copy."""
    own = (f"checkpoint.background={background}", f"training.save_steps={save_steps}")
    run.train("chronos2-test", [*RECIPE, *model, *own, f"training.steps={save_steps * 3 + 1}"], out=folder)
    events = list(map(json.loads, (folder / "metrics.jsonl").read_text().splitlines()))
    saves = [event for event in events if event["kind"] == "save"][1:-1]
    saved_at = {event["step"] for event in saves}
    steps = {event["step"]: event for event in events if event["kind"] == "step"}
    seconds = {step: sum(event["seconds_by_part"][part] for part in ("forward_backward", "optimizer"))
               for step, event in steps.items() if step > save_steps}  # fmt: skip
    return {
        "stall": [event["stall_seconds"] for event in saves],
        "write": [event["write_seconds"] for event in saves],
        "gigabytes": [event["num_bytes"] / 1e9 for event in saves],
        "step after a save": [seconds[step + 1] for step in saved_at],
        "other steps": [value for step, value in seconds.items() if step - 1 not in saved_at],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small model, no gate")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--save-steps", type=int, default=8)
    options = parser.parse_args()
    found: dict[bool, dict[str, list[float]]] = {False: {}, True: {}}
    for _ in range(options.turns):
        for background, figures in found.items():
            with tempfile.TemporaryDirectory() as folder:
                of_turn = measure(
                    Path(folder) / "run",
                    SMALL if options.quick else LARGE,
                    background=background,
                    save_steps=options.save_steps,
                )
            for name, values in of_turn.items():
                figures.setdefault(name, []).extend(values)
    table = Table("medians", "training waits", "in the background")
    for name in found[False]:
        table.add_row(name, *(f"{statistics.median(found[background][name]):.3f}" for background in (False, True)))
    Console().print(table)
    ratio = statistics.median(found[True]["stall"]) / statistics.median(found[False]["stall"])
    print(f"stall in the background / training waits: {ratio:.3f} (expected: below {MOST})")
    if ratio > MOST and not options.quick:
        sys.exit(1)


if __name__ == "__main__":
    main()
