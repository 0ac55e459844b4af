"""A small run through the real trainer, in this process or on several gloo ranks: what the laws and trainer tests use.

`python toy_run.py '[{...}, ...]'` trains one run after another, each with its settings, as the rank its environment
names.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from foreloom.checkpoint.checkpointer import CheckpointConfig, Checkpointer
from foreloom.checkpoint.manifest import Manifest
from foreloom.data.batch import Dataset
from foreloom.data.config import GroupConfig, SourceConfig
from foreloom.data.loader import BatchLoader
from foreloom.data.stream.series import SeriesData
from foreloom.data.stream.windows import Windows
from foreloom.data.text.config import TextSource
from foreloom.data.text.section import TextData
from foreloom.distributed.mesh import ParallelConfig
from foreloom.distributed.parallelize import parallelize
from foreloom.distributed.process import Process, among_ranks, start
from foreloom.distributed.sharding import Sharding
from foreloom.evaluation.benchmark import TrainingBenchmark
from foreloom.evaluation.config import BenchmarkConfig
from foreloom.evaluation.tasks import EvaluationTask
from foreloom.models.common.lora import AdapterConfig, FrozenWeights, attach_adapter
from foreloom.models.common.parametrization import ParametrizationConfig
from foreloom.models.family import ExpertHooks, ModelFamily, Tally
from foreloom.models.registry import get
from foreloom.models.time_moe.forecast import TimeMoeForecaster
from foreloom.monitoring.monitor import Monitor, MonitoringConfig
from foreloom.monitoring.record import BenchmarkRecord, Tier
from foreloom.objectives.loss import Loss
from foreloom.run.parametrize import parametrize
from foreloom.training.config import TrainingConfig, autocast_dtype
from foreloom.training.optimizer import OptimizerConfig, build_optimizer
from foreloom.training.scoring import Validation
from foreloom.training.trainer import Trainer, TrainResult
from forked import Rank
from toy_text import TOY_RECURRENT, TOY_TOKENS, ToyTextData

torch.set_num_threads(1)  # ranks share the machine
DATA = Path(__file__).resolve().parents[1] / "examples" / "data" / "m3_monthly.parquet"
TEXT = Path(__file__).resolve().parents[1] / "tests" / "models" / "causal_lm" / "alice.txt"
CONTEXT_LENGTH, PREDICTION_LENGTH = 32, 8


class ToyOutput(NamedTuple):
    loss: Tensor
    objective: Loss
    tally: Tally


class ToyBlock(nn.Module):
    """Its `group` layer serves rows that have company; without any it takes no part, so gradients differ by rank."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.linear = nn.Linear(CONTEXT_LENGTH, CONTEXT_LENGTH)
        self.group = nn.Linear(CONTEXT_LENGTH, CONTEXT_LENGTH, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor, has_company: Tensor | None) -> Tensor:
        h = h + self.dropout(torch.tanh(self.linear(h)))
        return h if has_company is None else h + self.group(h) * has_company


class ToyModel(nn.Module):
    """Its `offset` is moved after each update by what the tally says, as a router's bias is, not by the optimizer."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ToyBlock(dropout) for _ in range(2))
        self.head = nn.Linear(CONTEXT_LENGTH, PREDICTION_LENGTH)
        self.unused = nn.Parameter(torch.ones(3))
        self.register_buffer("offset", torch.zeros(()))

    def forward(self, context: Tensor, target: Tensor, has_company: Tensor | None) -> ToyOutput:
        h = context
        for block in self.blocks:
            h = block(h, has_company)
        observed = ~target.isnan()
        error = torch.where(observed, self.head(h) + self.offset - target.nan_to_num(), 0.0)
        loss = Loss((error**2).sum(), observed.sum())
        terms = torch.stack([error.detach().sum(), observed.sum()])
        return ToyOutput(loss.mean, loss, {"error": terms, "by_step": error.detach().abs().sum(0)})


def toy_batch(module: nn.Module, windows: Windows, device: torch.device) -> Mapping[str, Any]:
    context = np.zeros((windows.num_rows, CONTEXT_LENGTH), np.float32)
    context[:, CONTEXT_LENGTH - windows.context_RC.shape[1] :] = np.nan_to_num(windows.context_RC)
    _, group_R, size_of_group = np.unique(windows.group_R, return_inverse=True, return_counts=True)
    has_company = torch.from_numpy(size_of_group[group_R] > 1)[:, None]
    return {
        "context": torch.from_numpy(context * 1e-4).to(device),
        "target": torch.from_numpy(windows.future_RH * 1e-4).to(device),
        "has_company": has_company.to(device) if has_company.any() else None,
    }


def toy_initialize(model: nn.Module, seed: int) -> None:
    for index, parameter in enumerate(model.parameters()):
        generator = torch.Generator().manual_seed(seed + index)
        with torch.no_grad():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)


def toy_after_update(model: nn.Module, tally: Tally, applied: Tensor) -> None:
    error_sum, count = tally["error"]
    move = torch.where(applied > 0, 0.1 * error_sum / count, 0.0)
    model.offset.sub_(move.to(model.offset.dtype))  # type: ignore[operator, union-attr]


def toy_figures(model: nn.Module, tally: Mapping[str, np.ndarray]) -> Mapping[str, float]:
    error_sum, count = tally["error"]
    return {"error": float(error_sum / count), "last_to_first": float(tally["by_step"][-1] / tally["by_step"][0])}


TOY = ModelFamily(
    name="toy",
    config=dict,
    build=lambda section, data: ToyModel(**section),
    initialize=toy_initialize,
    batch=toy_batch,
    sharding=Sharding(blocks=("blocks.*",)),
    recognises=lambda config: False,
    load=lambda folder: ToyModel(0.0),
    save=lambda model, state, folder: save_file(dict(state), folder / "model.safetensors"),
    flops_per_row=lambda model, data: 1e6,
    experts=ExpertHooks(after_update=toy_after_update, figures=toy_figures),
)


TOYS = {family.name: family for family in (TOY, TOY_TOKENS, TOY_RECURRENT)}
"""One for each kind of data that the trainer must serve: series, tokens, streams of tokens that go on."""
FAMILIES = (*TOYS, "chronos2", "chronos_bolt", "chronos_t5", "time_moe", "decoder", "lstm", "causal_lm")
TEXT_FAMILIES = ("decoder", "lstm", "causal_lm")


class ScriptedBenchmark:
    """Gives the scores of a script, by step, and notes which checkpoints lie there after each step but the last.

    `stop_at`: a step, a rank and a signal; that rank alone is told to stop there. The mode the model was in is in
    `asked`.
    """

    def __init__(
        self, run_dir: Path, scores: Mapping[int, float], rank: int = 0, stop_at: Sequence[int] | None = None
    ) -> None:
        self.scores, self.asked = scores, list[tuple[int, bool]]()
        self._run_dir, self._rank = run_dir, rank
        self._stop_at, stop_rank, self._signal = stop_at or (None, 0, 0)
        self._is_told = stop_rank == rank

    def due(self, step: int, *, is_last: bool) -> list[Tier]:
        kept = sorted(int(path.name[-8:]) for path in (self._run_dir / "checkpoints").glob("step-*[0-9]"))
        with (self._run_dir / f"kept-{self._rank}.jsonl").open("a") as file:
            file.write(json.dumps([step - 1, kept]) + "\n")
        if step == self._stop_at and self._is_told:
            os.kill(os.getpid(), self._signal)
        return ["lite"] if step in self.scores and (step, False) not in self.asked else []

    def run(self, step: int, tier: Tier, model: nn.Module, run_seconds: Callable[[], float]) -> BenchmarkRecord:
        self.asked.append((step, model.training))
        score = {"wql": self.scores[step]}
        return BenchmarkRecord(step, "lite", score, {"t": score}, "wql", score["wql"], step, None, 0.0, 0.0)

    def resume(self, step: int) -> None:
        self.asked = []


def benchmark_of(
    settings: Mapping[str, Any], family: ModelFamily, run_dir: Path, process: Process
) -> TrainingBenchmark:
    """`settings`: data, the fields of the section, and the most steps of a Time-MoE forward."""
    its = dict(settings)
    TimeMoeForecaster.max_steps = its.pop("most_steps", TimeMoeForecaster.max_steps)
    task = {"path": its.pop("data"), "prediction_length": 12, "season_length": 4}
    tasks = [
        EvaluationTask(name="joint", variates="joint", num_rolls=3, **task),
        EvaluationTask(name="split", **task),
    ]
    config = BenchmarkConfig(tasks="none", **its)
    return TrainingBenchmark(config, {"lite": tasks}, run_dir, family.forecaster, process, scores_start=False)


def build_trainer(process: Process, run_dir: Path, settings: Mapping[str, Any], **more: Any) -> Trainer:
    """`settings`: family, dropout, resume, validation (its section), and the fields of the other sections by their
    names; the rest has small values."""
    s = {"family": "toy", "dropout": 0.0, "resume": False, "steps": 6, "batch_size": 24, "micro_batch_size": 0} | dict(
        settings
    )
    training = TrainingConfig(
        steps=s["steps"], batch_size=s["batch_size"], micro_batch_size=s["micro_batch_size"], device="cpu",
        save_steps=s.get("save_steps", 1000), activation_checkpointing=s.get("activation_checkpointing", False),
        compile=s.get("compile", False), precision=s.get("precision", "auto"),
        save_total_limit=s.get("save_total_limit", 0), max_skipped_steps=s.get("max_skipped_steps", 50),
    )  # fmt: skip
    optimizer = OptimizerConfig(learning_rate=3e-3, warmup_steps=2, schedule="linear", **s.get("optimizer", {}))
    parallel = ParallelConfig(**{k: s[k] for k in ("strategy", "dp_replicate", "dp_shard", "ep") if k in s})
    checkpointing = CheckpointConfig(**s.get("checkpoint", {}))
    checkpointer = Checkpointer(
        run_dir, checkpointing, process, save_total_limit=training.save_total_limit, resume=s["resume"]
    )
    monitoring = MonitoringConfig(
        log_steps=s.get("log_steps", 1), health_steps=s.get("health_steps", 1000), trackers=("none",)
    )
    monitor = Monitor(run_dir, s["steps"], monitoring, process.is_main)
    ranks = {"rank": process.rank, "world_size": process.world_size}
    data, dataset = data_of(s)
    sizes = {"batch_size": s["batch_size"], "micro_batch_size": s["micro_batch_size"]}
    loader = BatchLoader(dataset, **sizes, **ranks)
    if "validation" in s and "validation" not in more:
        validation = data.validation(max_windows=50, **s["validation"])
        more["validation"] = Validation(validation, data.held_out(validation, dataset, micro_batch_size=16, **ranks))
    family = TOYS[s["family"]] if s["family"] in TOYS else get(s["family"])
    section = family.config(**small_config(s["family"], s["dropout"]))
    scaled = parametrize(family, section, data, ParametrizationConfig(**s.get("parametrization", {})), optimizer)
    model = family.build(scaled.section, data)
    family.initialize(model, training.seed)
    scaled.scale(model)
    if "adapter" in s:
        attach_adapter(model, AdapterConfig(kind="lora", **s["adapter"]), family.lora, training.seed)
        more["frozen"] = FrozenWeights(model)
    if "benchmark" in s:
        more["benchmark"] = benchmark_of(s["benchmark"], family, run_dir, process)
    if "script" in s:
        scores = {int(step): score for step, score in s["script"].items()}
        more["benchmark"] = ScriptedBenchmark(run_dir, scores, process.rank, s.get("stop_at"))
    kinds, flops_per_row = family.kinds(model), family.flops_per_row(model, data)
    wrapped = parallelize(
        model, family.sharding, parallel, process, activation_checkpointing=training.activation_checkpointing,
        compile_blocks=training.compile, autocast_dtype=autocast_dtype(training.precision, process.device),
    )  # fmt: skip
    built = build_optimizer(
        optimizer, wrapped.named_parameters(), kinds, max_grad_norm=training.max_grad_norm,
        multipliers=scaled.multipliers,
    )  # fmt: skip
    learning_rate = lambda step: optimizer.learning_rate_of(step, training.num_steps)
    if "room" in s and process.world_size > 1:
        more["counted_bytes"] = 1
    trainer = Trainer(
        training, family, wrapped, built, learning_rate, loader, process, checkpointer, monitor,
        flops_per_row=flops_per_row, **more,
    )  # fmt: skip
    if "room" in s:
        run_out_of_memory(trainer, **s["room"])
    if "stuck_save" in s:
        hold_up(checkpointer, s["stuck_save"])
    return trainer


def hold_up(checkpointer: Checkpointer, step: int) -> None:
    """The disk takes all of a checkpoint but the last, and never answers again."""
    finish = checkpointer._finish

    def stuck(unfinished: Path, target: Path, manifest: Manifest, step_to_keep: int | None) -> None:
        while manifest.step == step:
            time.sleep(60)
        finish(unfinished, target, manifest, step_to_keep)

    checkpointer._finish = stuck  # type: ignore[method-assign]


def run_out_of_memory(trainer: Trainer, *, rows: int, from_step: int, rank: int = 0) -> None:
    """A device of a rank that from a step on has room for so many rows: the end of each larger backward pass fails,
    when nearly all parameters have their gradients."""
    model, num_rows = trainer.parallel.model, 0

    def look(module: nn.Module, args: Any, arguments: Mapping[str, Any]) -> None:
        nonlocal num_rows
        num_rows = len(next(iter(arguments.values())))

    def fail(parameter: nn.Parameter) -> None:
        if trainer.progress.step + 1 >= from_step and num_rows > rows and trainer.process.rank == rank:
            raise torch.OutOfMemoryError(f"no room for {num_rows} rows")

    model.register_forward_pre_hook(look, with_kwargs=True)
    first = next(parameter for name, parameter in model.named_parameters() if "." in name)
    first.register_post_accumulate_grad_hook(fail)


def data_of(s: Mapping[str, Any]) -> tuple[Any, Dataset]:
    """The data section of a run, and its samples."""
    if s["family"] in ("toy_tokens", "toy_recurrent"):
        text = ToyTextData(is_stream=s["family"] == "toy_recurrent")
        return text, text.open(5, batch_size=s["batch_size"])
    if s["family"] in TEXT_FAMILIES:
        letters = TextData(
            sources=(TextSource(path=str(TEXT), separator="\n\n"),),
            max_seq_length=16 if s["family"] == "lstm" else 48,
            tokenizer="bytes",
            packing="streams" if s["family"] == "lstm" else "documents",
            holdout=0.3 if "validation" in s else 0.0,
        )
        return letters, letters.open(5, batch_size=s["batch_size"])
    data = SeriesData(
        sources=(SourceConfig(path=str(DATA), holdout=PREDICTION_LENGTH if "validation" in s else 0),),
        context_length=CONTEXT_LENGTH,
        prediction_length=PREDICTION_LENGTH,
        group=GroupConfig(probability=0.2, max_size=3),
        normalization="zero" if s["family"] == "time_moe" else "none",
    )
    return data, data.open(5, batch_size=s["batch_size"])


def small_config(family: str, dropout: float) -> dict[str, Any]:
    """Fields of a small model of a family; its objective does not depend on how a batch is cut."""
    if family in TOYS:
        return {"dropout": dropout}
    if family == "causal_lm":
        shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "sliding_window": 16}
        layers = {"model_type": "gemma3_text", "layer_types": ["sliding_attention", "full_attention"]}
        return {"size": "tiny", "config": shape | layers | {"attention_dropout": dropout}}
    if family == "lstm":
        return {"size": "test", "layer_norm": "both", "input_dropout": dropout, "recurrent_dropout": dropout}
    if family == "decoder":
        return {"size": "test", "num_heads": 2, "activation": "swiglu", "norm": "rms", "dropout": dropout}
    if family == "time_moe":
        more = {"horizon_lengths": (1, 8), "balance": "bias", "attention_dropout": dropout}
        return {"size": "test", "hidden_size": 32, "intermediate_size": 64, **more}
    if family == "chronos_t5":
        small = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_heads": 4, "num_layers": 2, "n_tokens": 64}
        moe = {"use_moe": True, "num_experts": 4, "router_hidden_dim": 16, "load_balancing_weight": 0.5}
        return {"size": "tiny", "dropout_rate": dropout, "initializer_factor": 1.0, **small, **moe}
    return {"size": "test", "d_model": 32, "d_kv": 8, "d_ff": 64, "num_heads": 4, "dropout_rate": dropout}


def train_here(run_dir: Path, **settings: Any) -> TrainResult:
    """A run in this process."""
    return build_trainer(Process(0, 1, 0, torch.device("cpu")), run_dir, settings).train()


def launch(
    world_size: int, runs: Sequence[Mapping[str, Any]], timeout_seconds: float = 180, script: str = __file__
) -> None:
    """Train `runs` (settings with `run_dir`) one after another on `world_size` gloo ranks; fail if a rank does, or if
    they take longer than so many seconds and ten more a run. Or do what another `script` does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks = [start_rank(runs, rank=rank, world_size=world_size, port=port, script=script) for rank in range(world_size)]
    deadline = time.monotonic() + timeout_seconds + 10 * len(runs)
    try:
        while any(rank.poll() is None for rank in ranks) and not any(rank.poll() for rank in ranks):
            assert time.monotonic() < deadline, f"still running after {timeout_seconds} s"
            time.sleep(0.02)
    finally:
        for rank in ranks:
            rank.kill()
    failed = {number: rank.output() for number, rank in enumerate(ranks) if rank.wait(10)}
    assert not failed, failed


def start_rank(
    runs: Sequence[Mapping[str, Any]], *, rank: int = 0, world_size: int = 1, port: int = 0, script: str = __file__
) -> Rank:
    own = {"RANK": rank, "WORLD_SIZE": world_size, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    environment = os.environ | {name: str(value) for name, value in own.items()} | {"OMP_NUM_THREADS": "1"}
    settings = json.dumps([dict(run, run_dir=str(run["run_dir"])) for run in runs])
    return Rank(Path(script), [settings], environment)


def losses(run_dir: Path) -> dict[int, float]:
    """Loss of each step, the newest entry where a step was done twice."""
    records = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return {record["step"]: record["loss"] for record in records if record["kind"] == "step"}


def weights(run_dir: Path) -> dict[str, Tensor]:
    """Of the final checkpoint."""
    return load_file(run_dir / "checkpoints" / "final" / "hf" / "model.safetensors")


if __name__ == "__main__":
    code = 0
    with among_ranks():
        this = start("cpu", timeout_minutes=0.5)
        for run in json.loads(sys.argv[1]):
            code = build_trainer(this, Path(run.pop("run_dir")), run).train().exit_code
    sys.exit(code)
