"""The parts of on_gpu.py: each measures one thing on the device and notes it, line by line.

    python benchmarks/gpu_parts.py time-moe --results on_gpu.jsonl --folder runs/on_gpu --until 1790000000

Heavy imports stand inside the parts: each runs in a process of its own and pays for what it uses.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import math
import os
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from on_gpu import ROOT, Results

if TYPE_CHECKING:
    from foreloom.distributed.process import Process

TRAINING_SECONDS = 180.0
"""Of the recipe that is scored, where there is time."""
SCORING_SECONDS = 60.0
"""Kept for scoring it, and for what surrounds training."""
CHRONOS = "model.num_layers=1 model.d_model=32 model.d_ff=32 model.num_heads=4 model.d_kv=8 data.context_length=96"
TINY = {
    "chronos2-base": f"model.size=test {CHRONOS} data.prediction_length=16 model.context_length=96",
    "chronos2-synthetic-gpu": f"model.size=test {CHRONOS} data.prediction_length=24",
    "time-moe-50m": "model.size=test model.hidden_size=32 model.intermediate_size=64 model.horizon_lengths=[1,8] "
    "data.context_length=64 data.stride=64",
    "chronos-t5-small": f"model.size=tiny {CHRONOS} data.prediction_length=16 model.n_tokens=64",
    "chronos-bolt-small": f"model.size=test {CHRONOS} data.prediction_length=16",
}
"""What --smoke makes of a recipe."""
NO_WARM_UP = "optimizer.warmup_steps=0"
"""For Time-MoE, whose recipe warms up for longer than a trial runs."""


@dataclass(frozen=True)
class Bench:
    """What a part is told."""

    part: str
    results: Results
    folder: Path
    """Of the whole run, for files that parts share."""
    data_root: Path | None
    smoke: bool
    until: float
    """Seconds since the epoch at which the part is ended."""

    @property
    def device(self) -> str:
        return "cpu" if self.smoke else "cuda"

    @property
    def seconds_left(self) -> float:
        return self.until - time.time()

    def note(self, what: str, **figures: Any) -> None:
        self.results.add(self.part, "figures", what=what, **figures)

    def size(self, real: int, tiny: int) -> int:
        return tiny if self.smoke else real

    def synchronize(self) -> None:
        import torch

        if not self.smoke:
            torch.cuda.synchronize()

    def settings(self, recipe: str, *overrides: str) -> list[str]:
        """Overrides of a recipe: this device, bf16, no checkpoint but the last, nothing said to trackers."""
        tiny = [*TINY[recipe].split(), "training.batch_size=8", "monitoring.peak_flops=1e11"]
        return [f"training.device={self.device}", "training.precision=bf16", "training.save_steps=1000000",
                "monitoring.trackers=[none]", *overrides, *(tiny if self.smoke else [])]  # fmt: skip

    def made_series(self) -> str:
        """An override: series without gaps, long enough for every recipe; made by the first part that asks."""
        from foreloom.data.convert import convert

        path = self.folder / "series.arrow"
        if not path.exists():
            mine = self.folder / f"series-{os.getpid()}.arrow"
            convert(f"synth://patterns?num_series={self.size(2048, 64)}&length={self.size(8192, 256)}", mine)
            mine.replace(path)
        return f"data.sources=[{{path: {path}}}]"


def card(bench: Bench) -> None:
    """Which device, which versions, and the two ceilings: matrix products and copies."""
    import torch

    name = "CPU" if bench.smoke else torch.cuda.get_device_name()
    memory_gib = 0.0 if bench.smoke else torch.cuda.get_device_properties(0).total_memory / 2**30
    versions = {"python": sys.version.split()[0], "torch": torch.__version__, "cuda": str(torch.version.cuda)}
    bench.note(name, memory_gib=memory_gib, **versions)
    n = bench.size(8192, 128)
    a, b = (torch.randn(n, n, device=bench.device, dtype=torch.bfloat16) for _ in range(2))
    tflops = 2e-12 * n**3 / _median_seconds(bench, lambda: a @ b, 10)
    wide = torch.randn(bench.size(2**30, 2**16), device=bench.device)
    copy = torch.empty_like(wide)
    tbs = 2e-12 * 4 * wide.numel() / _median_seconds(bench, lambda: copy.copy_(wide), 10)
    bench.note("ceilings", bf16_tflops=tflops, copy_tb_per_second=tbs)


def tests(bench: Bench) -> None:
    """pytest -m gpu on the files that have such tests."""
    files = [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if "pytest.mark.gpu" in path.read_text()]
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-v", "-ra", "-p", "no:cacheprovider", *map(str, files)]
    said = ""
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pytest:
        assert pytest.stdout is not None
        for line in pytest.stdout:
            print(line, end="", flush=True)  # what has passed stands in the log also where time runs out
            said = line
    counts = {outcome: int(number) for number, outcome in re.findall(r"(\d+) (passed|failed|skipped|error)", said)}
    bench.note("pytest -m gpu", **({"passed": 0, "failed": 0, "skipped": 0} | counts))
    if pytest.returncode:
        sys.exit(pytest.returncode)


def chronos2(bench: Bench, strategy: str, *, compiled: bool) -> None:
    """chronos2-base at context 2048 with a group of one; the micro-batch of the plain run is found by trying."""
    sizes = [_found(bench, "chronos2-ddp", 128)] if compiled or strategy == "fsdp" else [128, 256, 64, 512]
    overrides = [f"parallel.strategy={strategy}", f"training.compile={str(compiled).lower()}",
                 "training.activation_checkpointing=false", f"training.batch_size={bench.size(1024, 8)}"]  # fmt: skip
    _train_each(bench, "chronos2-base", sizes, overrides)


def time_moe(bench: Bench) -> None:
    """time-moe-50m at 4096 tokens a row: our training, then the same step beside a loop over experts."""
    _train_each(bench, "time-moe-50m", [16, 32, 8], [NO_WARM_UP, f"training.batch_size={bench.size(64, 8)}"])
    import torch

    from time_moe import SIZES, SMALL, Architecture, layer_pair, new_model, training_pair

    device = torch.device(bench.device)
    model = new_model(Architecture(**(SMALL | {"num_hidden_layers": 1} if bench.smoke else SIZES["50m"])))
    steps = bench.size(4096, 32)
    for rows in (2,) if bench.smoke else (1, 2, 4):  # the plain side keeps whole attention matrices
        figures = _beside(bench, lambda rows=rows: training_pair(model, rows, steps, device))
        bench.note(f"training step, {rows} x {steps}, beside the loop", rows=rows, **figures)
    for tokens in (64,) if bench.smoke else (4096, 65536):
        figures = _beside(bench, lambda tokens=tokens: layer_pair(model, tokens, device))
        bench.note(f"layer of experts, {tokens} tokens, beside the loop", **figures)


def chronos_small(bench: Bench) -> None:
    """Chronos-T5 small and Chronos-Bolt small, as their recipes train them."""
    for recipe in ("chronos-t5-small", "chronos-bolt-small"):
        _train_each(bench, recipe, [256, 64], [f"training.batch_size={bench.size(256, 8)}"], steps=45)


def forecasts(bench: Bench) -> None:
    """Forecasts a second of Chronos-2 base and Time-MoE 50M, with weights that have seen one step."""
    import numpy as np

    import foreloom

    def measure(recipe: str, num_series: int, num_steps: int, horizon: int, *overrides: str) -> None:
        folder = bench.folder / f"to-forecast-{recipe}"
        one_step = bench.settings(recipe, bench.made_series(), "training.steps=1", "training.batch_size=8", *overrides)
        foreloom.train(recipe, one_step, out=folder)
        model = foreloom.from_pretrained(folder, device=bench.device)
        shutil.rmtree(folder)
        contexts = np.random.default_rng(0).normal(size=(num_series, num_steps)).cumsum(1).astype(np.float32)
        predicted = []
        predict = lambda: predicted.append(model.predict(contexts, prediction_length=horizon))
        seconds = _median_seconds(bench, predict, bench.size(3, 1))
        assert np.isfinite(predicted[-1]).all()
        what = f"{recipe}, {num_series} x {num_steps} -> {horizon}"
        bench.note(what, forecasts_per_second=num_series / seconds)

    measure("chronos2-base", bench.size(2048, 4), bench.size(2048, 96), bench.size(64, 16))
    measure("time-moe-50m", bench.size(512, 4), bench.size(512, 64), bench.size(96, 16), NO_WARM_UP)


def peer(bench: Bench) -> None:
    """Training of Chronos-2 base beside chronos-forecasting: the same weights and rows, bf16 autocast, fused AdamW."""
    if importlib.util.find_spec("chronos") is None:
        bench.note("chronos-forecasting is not installed here: nothing to stand beside")
        return
    import torch

    from chronos2 import training_pair
    from foreloom.models.chronos2.architecture import Chronos2Config
    from foreloom.models.chronos2.family import FAMILY
    from foreloom.models.family import WindowLengths

    lengths = WindowLengths(bench.size(2048, 96), bench.size(64, 16))
    config = Chronos2Config(size="test") if bench.smoke else Chronos2Config(size="base", time_encoding_scale=8192)
    model = FAMILY.build(config, lengths)
    FAMILY.initialize(model, 0)
    folder = bench.folder / "peer"
    folder.mkdir()
    FAMILY.save(model, model.state_dict(), folder)
    for rows in (2,) if bench.smoke else (64, 128, 256):
        pair = lambda rows=rows: training_pair(rows, folder, lengths, torch.device(bench.device))
        figures = _beside(bench, pair)
        rates = {f"{ms.removesuffix('ms')}rows_per_second": rows / figures[ms] * 1e3 for ms in ("our_ms", "their_ms")
                 if ms in figures}  # fmt: skip
        bench.note(f"training step, {rows} rows, beside chronos-forecasting", **figures, **rates)


def recipe(bench: Bench) -> None:
    """chronos2-synthetic-gpu for three minutes, or for what is left, then scored zero-shot."""
    from foreloom import run

    name = "chronos2-synthetic-gpu"
    paths = _write_synthetic(bench)
    sources = [f"data.sources.{i}.path={path}" for i, path in enumerate(paths)]
    settings = bench.settings(name, *sources)
    process = _group(bench)
    log_steps = bench.size(10, 2)
    lengths = [f"training.steps={3 * log_steps}", f"monitoring.log_steps={log_steps}"]
    trial = _train(bench, name, [*settings, *lengths], process)
    bench.note("trial, to know its speed", **trial)
    seconds = min(TRAINING_SECONDS, bench.seconds_left - SCORING_SECONDS)
    if seconds < 20:
        sys.exit(f"only {seconds:.0f} s are left to train in")
    steps = bench.size(int(seconds * 1e3 / trial["step_ms"]), 4)
    out = bench.folder / "recipe"
    began = time.perf_counter()
    lengths = [f"training.steps={steps}", f"monitoring.log_steps={min(100, max(steps // 4, 1))}"]
    run.build(run.load(name, [*settings, *lengths]), out, process).train()
    bench.note("trained", steps=steps, train_seconds=time.perf_counter() - began, **_figures(out))
    tasks, root = ROOT / "benchmarks" / "zero_shot.yaml", bench.data_root
    if root is None:
        tasks, root = ROOT / "examples" / "tasks.yaml", ROOT / "examples"
    if bench.smoke:
        tasks = bench.folder / "one-task.yaml"
        tasks.write_text("tasks: [{name: births, path: data/us_births.parquet, prediction_length: 24}]")
    scores = bench.folder / "scores.csv"
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "foreloom", "evaluate", str(out), "--tasks", str(tasks), "--data-root",
                    str(root), "--out", str(scores), "--device", bench.device], check=True)  # fmt: skip
    score_seconds = time.perf_counter() - began
    bench.note(f"zero-shot on {tasks.name}", **_relative(scores), score_seconds=score_seconds)


def _write_synthetic(bench: Bench) -> list[Path]:
    """The files of the recipe, by the commands that docs/time_to_skill.md gives, with an eighth of the series."""
    guide = (ROOT / "docs" / "time_to_skill.md").read_text(encoding="utf-8")
    paths, commands = [], []
    for written in re.findall(r"^foreloom (data synth .*) &$", guide, flags=re.MULTILINE):
        command = shlex.split(written)
        number, out = (command.index(option) + 1 for option in ("--num-series", "--out"))
        command[number] = str(int(command[number]) // 8 if not bench.smoke else 20)
        command[out] = str(bench.folder / Path(command[out]).name)
        if bench.smoke:
            command[command.index("--length") + 1] = "200"
        paths.append(Path(command[out]))
        commands.append([sys.executable, "-m", "foreloom", *command])
    if bench.smoke:  # one of eight processes, read eight times
        commands = commands[-1:]
        paths = paths[-1:] * len(paths)
    with ThreadPoolExecutor(len(commands)) as pool:
        list(pool.map(lambda command: subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}),
                      commands))  # fmt: skip
    return paths


def _relative(scores: Path) -> dict[str, float]:
    """Geometric means over tasks of WQL and MASE relative to Seasonal Naive."""
    from foreloom.evaluation.skill import BASELINE, geometric_mean
    from foreloom.report.scores import read_scores
    from time_to_skill import known_ratios

    models = read_scores(scores).models
    (ours,) = (name for name in models if name != BASELINE)
    means = {f"{one}_relative": geometric_mean(known_ratios(models, ours, one).tolist()) for one in ("WQL", "MASE")}
    return {"tasks": len(models[ours]), **means}


def _train_each(bench: Bench, recipe: str, sizes: Sequence[int], overrides: Sequence[str], steps: int = 9) -> None:
    """Train a little with each micro-batch that fits, while there is time; one at least must fit."""
    from foreloom.distributed.process import stop

    process = _group(bench)
    steps = bench.size(steps, 3)
    longest_seconds, too_large, fitted = 0.0, math.inf, False
    for size in sizes[: 1 if bench.smoke else None]:
        what, began = f"{recipe}, micro-batch {size}", time.monotonic()
        if size >= too_large or bench.seconds_left < 1.3 * longest_seconds:
            bench.note(what, not_tried="a smaller one did not fit" if size >= too_large else "too little time is left")
            continue
        lengths = [f"training.micro_batch_size={size}", f"training.steps={steps}",
                   f"monitoring.log_steps={steps // 3}"]  # fmt: skip
        settings = bench.settings(recipe, bench.made_series(), *overrides, *lengths)
        try:
            figures = _train(bench, recipe, settings, process)
        except ValueError as error:
            if "does not fit" not in str(error):
                raise
            too_large = size
            bench.note(what, does_not_fit=str(error)[:200])
            continue
        fitted = True
        longest_seconds = max(longest_seconds, time.monotonic() - began)
        bench.note(what, micro_batch=size, **figures)
    stop()
    if not fitted:
        sys.exit("no micro-batch fitted")


def _found(bench: Bench, part: str, default: int) -> int:
    """The micro-batch with which an earlier part trained fastest; `default` where there is none."""
    tried = [line for line in bench.results.lines() if line["part"] == part and "micro_batch" in line]
    best = max(tried, key=lambda line: line["rows_per_second"], default={"micro_batch": default})
    return best["micro_batch"]


def _group(bench: Bench) -> Process:
    """This process on its device, and the group of one where torchrun has started it."""
    from foreloom.distributed.process import start

    return start(bench.device, group_of_one=True)


def _train(bench: Bench, recipe: str, overrides: Sequence[str], process: Process) -> dict[str, Any]:
    """A short run through the house's own trainer; the figures of its last log line, when everything is warm."""
    import torch

    from foreloom import run

    gc.collect()
    if not bench.smoke:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    out = bench.folder / f"{bench.part}-trial"
    resolved = run.load(recipe, overrides)
    try:
        run.build(resolved, out, process).train()
        figures = _figures(out)
    finally:
        shutil.rmtree(out, ignore_errors=True)
    tokens = figures["rows_per_second"] * resolved.sections["data"].context_length
    group = torch.distributed.get_backend_config() if torch.distributed.is_initialized() else "none"
    return figures | {"context_steps_per_second": tokens, "group": group}


def _figures(run_dir: Path) -> dict[str, Any]:
    """Of a run's last interval between log lines; MFU is the stated FLOPs over the card's dense bf16 peak."""
    lines = map(json.loads, (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    last = [line for line in lines if line["kind"] == "step"][-1]
    parts: Mapping[str, float] = last["seconds_by_part"]
    trained = sum(seconds for part, seconds in parts.items() if part not in ("evaluation", "checkpoint"))
    return {
        "rows_per_second": last["steps_per_second"] * last["rows_per_step"],
        "mfu": last["mfu"],
        "step_ms": 1e3 / last["steps_per_second"],
        "memory_gib": (last["memory_bytes"] or 0) / 2**30,  # the peak
        "data_wait": last["data_wait_share"],
        "forward_backward": parts["forward_backward"] / trained,
        "optimizer": parts["optimizer"] / trained,
        "loss": last["loss"],
    }


def _beside(bench: Bench, make: Callable[[], Sequence[Callable[[], Any]]]) -> dict[str, Any]:
    """Both sides in turns, medians in ms and the median ratio; what it says instead where one does not fit."""
    import torch

    try:
        pair = make()
        for call in (*pair, *pair):
            call()
        turns = [[_median_seconds(bench, call, 1) for call in pair] for _ in range(bench.size(7, 1))]
    except torch.OutOfMemoryError as error:
        return {"does_not_fit": str(error)[:100]}
    finally:
        pair = ()
        gc.collect()
        if not bench.smoke:
            torch.cuda.empty_cache()
    ours, theirs = (1e3 * statistics.median(side) for side in zip(*turns, strict=True))
    return {"our_ms": ours, "their_ms": theirs, "ratio": statistics.median(b / a for a, b in turns)}


def _median_seconds(bench: Bench, call: Callable[[], Any], repeats: int) -> float:
    """Of a call, from an idle device to an idle device; the first of several is not counted."""
    seconds = []
    for _ in range(repeats + (repeats > 1)):
        bench.synchronize()
        began = time.perf_counter()
        call()
        bench.synchronize()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[repeats > 1 :])


MEASURE: Mapping[str, Callable[[Bench], None]] = {
    "card": card,
    "tests": tests,
    "chronos2-ddp": lambda bench: chronos2(bench, "ddp", compiled=False),
    "chronos2-ddp-compiled": lambda bench: chronos2(bench, "ddp", compiled=True),
    "chronos2-fsdp": lambda bench: chronos2(bench, "fsdp", compiled=False),
    "chronos2-fsdp-compiled": lambda bench: chronos2(bench, "fsdp", compiled=True),
    "time-moe": time_moe,
    "chronos-small": chronos_small,
    "forecasts": forecasts,
    "peer": peer,
    "recipe": recipe,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=MEASURE)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--until", type=float, required=True)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--smoke", action="store_true")
    a = parser.parse_args()
    MEASURE[a.part](Bench(a.part, Results(a.results), a.folder, a.data_root, a.smoke, a.until))


if __name__ == "__main__":
    main()
