"""The coordinate check: do the numbers inside a model, and their changes in training, keep their size as it grows?

For every module, mean |x_t| and mean |x_t - x_0| after t updates on one batch, over widths (or depths); their slopes on
log2 size are near 0 where the parametrization holds (Yang et al. 2022, appendix D.1).

The change of a head, W_t h_t - W_0 h_0, has two parts: what it learned, (W_t - W_0) h_t, which is level, and what its
initial values make of the change before it, W_0 (h_t - h_0), which falls as the root of the width where W_0 is random:
under muP a wide model's begin as a sum that averages out. A head is judged by the first.
"""

from __future__ import annotations

import contextlib
import fnmatch
import itertools
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from foreloom.lab.mup.trial import Bench, Trial
from foreloom.models.common.parametrization import ScaledKind
from foreloom.run.parametrize import ParameterRow

LIMIT = 0.2
"""Of a slope, either way, after step 0."""
LOGITS = "logits"
LAST_BLOCK = "last block"
Axis = Literal["width", "depth"]

RULES = {
    ScaledKind.INPUT: "tables and first projections keep learning rate and initial values",
    ScaledKind.HIDDEN: "hidden matrices have learning rate / m_in and initial std / sqrt(m_in)",
    ScaledKind.OUTPUT: "heads keep learning rate and initial values, and what they say is divided by m_in",
    ScaledKind.TIED: "a tied table keeps learning rate and initial values, and its logits are divided by m",
    ScaledKind.VECTOR: "gains and biases keep their learning rate",
    ScaledKind.SCALAR: "what does not grow keeps everything",
}
"""muP's, in words."""


@dataclass(frozen=True)
class Slope:
    """How one module's numbers grow with the size, after `step` updates."""

    module: str
    step: int
    slope: float
    """Of log2 mean |x_t| on log2 size."""
    delta_slope: float | None
    """Of log2 mean |x_t - x_0|; None at step 0, and where nothing moved."""
    judged_slope: float | None
    """The same, of a head of what it learned alone."""
    sizes: tuple[float, ...]
    """mean |x_t| at each size, the mean over seeds."""
    judged: tuple[float, ...]
    """mean |x_t - x_0| at each size, of a head mean |(W_t - W_0) h_t|."""


@dataclass(frozen=True)
class Check:
    """What was found of one parametrization."""

    kind: str
    axis: Axis
    sizes: tuple[int, ...]
    slopes: list[Slope]
    failures: list[str]
    """A sentence each; empty where the check passes."""

    @property
    def passes(self) -> bool:
        return not self.failures

    def worst(self) -> Slope | None:
        """The change that grows or shrinks the most after step 0."""
        moved = [one for one in self.slopes if one.judged_slope is not None]
        return max(moved, key=lambda one: abs(one.judged_slope or 0.0), default=None)


Values = dict[str, Tensor]


class Size(NamedTuple):
    """Of one module's numbers after some updates."""

    value: float
    """mean |x_t|."""
    change: float
    """mean |x_t - x_0|."""
    judged: float
    """The same, of a head mean |(W_t - W_0) h_t|."""


@contextlib.contextmanager
def recorded(module: nn.Module, names: Mapping[str, str]) -> Generator[Values]:
    """What the named modules give (name -> what it is called) within, flattened and one behind the other where a module
    is called more than once."""
    found: Values = {}

    def note(called: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            tensor = output if isinstance(output, Tensor) else output[0] if isinstance(output, tuple) else None
            if isinstance(tensor, Tensor):
                flat = tensor.detach().float().flatten()
                found[called] = torch.cat([found[called], flat]) if called in found else flat

        return hook

    handles = [module.get_submodule(name).register_forward_hook(note(called)) for name, called in names.items()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


class _Heads(TorchFunctionMode):
    """Notes what heads are given: families call them as modules, or take their matrices for a product."""

    def __init__(self, heads: Mapping[str, nn.Parameter]) -> None:
        super().__init__()
        self.heads = {id(weight): name for name, weight in heads.items()}
        self.calls: list[tuple[str, Tensor, Tensor]] = []
        """Name of the head, input and output."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if func is nn.functional.linear and id(args[1]) in self.heads:
            self.calls.append((self.heads[id(args[1])], args[0], output))
        return output


def watched(trial: Trial, axis: Axis) -> dict[str, str]:
    """The modules to record, by name, and what each is called: those with parameters of their own and all blocks; where
    depths are compared those outside the blocks and the last of each stack."""
    model, patterns = trial.parallel.model, trial.family.sharding.blocks
    blocks = [
        name
        for name, _ in model.named_modules()
        if any(fnmatch.fnmatchcase(name, one) for one in patterns) and name.rpartition(".")[2].isdigit()
    ]
    blocks = [one for one in blocks if not any(one.startswith(f"{other}.") for other in blocks)]
    own = [name for name, one in model.named_modules() if name and one._parameters]
    if axis == "width":
        return {name: name for name in [*own, *(one for one in blocks if one not in own)]}
    stacks = {name.rpartition(".")[0]: name for name in blocks}  # the last of each stack
    named = {last: f"{stack} {LAST_BLOCK}".strip() for stack, last in stacks.items()}
    outside = [name for name in own if not any(f"{name}.".startswith(f"{block}.") for block in blocks)]
    return {name: name for name in outside} | named


def measured(
    trial: Trial, batch: Any, num_steps: int, axis: Axis, head_names: Collection[str]
) -> list[dict[str, Size]]:
    """For steps 0 to `num_steps`, of each module and of the logits. `head_names`: of their matrices."""
    model, family = trial.parallel.model, trial.family
    logits = family.scaling.logits if family.scaling else None
    forward = logits or (lambda module, arguments: module(**arguments))
    names, stepper = watched(trial, axis), trial.stepper(carries=False)
    arguments = [family.batch(model, one, trial.process.device) for one in batch.micro_batches]
    named = dict(model.named_parameters())
    heads = {name.rpartition(".")[0]: named[name] for name in head_names if name in named}
    weight_of_0 = {name: weight.detach().clone() for name, weight in heads.items()}
    first: Values = {}
    rows = []
    for step in range(num_steps + 1):
        found: Values = {}
        learned: Values = {}
        for one in arguments:
            with torch.no_grad(), trial.parallel.autocast(trial.process.device):
                with recorded(model, names) as values, _Heads(heads) as noted:
                    said = forward(model, one)
                parts: dict[str, list[Tensor]] = {}
                for name, input, output in noted.calls:
                    part = nn.functional.linear(input, heads[name] - weight_of_0[name]).float().flatten()
                    if logits and output.data_ptr() == said.data_ptr():
                        parts[LOGITS] = [part]
                    # What a tied table gives as a module is an embedding.
                    if not isinstance(model.get_submodule(name), nn.Embedding):
                        parts.setdefault(name, []).append(part)
                if logits:
                    values[LOGITS] = said.detach().float().flatten()
            for all_of, some in ((found, values), (learned, {name: torch.cat(x) for name, x in parts.items()})):
                for name, x in some.items():
                    x = x / trial.unfolded.get(name, 1.0)
                    all_of[name] = torch.cat([all_of[name], x]) if name in all_of else x
        first = first or found
        mean = lambda x: x.abs().mean().item()
        changes = {name: x - first[name] for name, x in found.items()}
        rows.append({n: Size(mean(x), mean(changes[n]), mean(learned.get(n, changes[n]))) for n, x in found.items()})
        if step < num_steps:
            stepper.run(batch, trial.learning_rate)
    return rows


def check(
    bench: Bench,
    kind: str,
    axis: Axis,
    sizes: Sequence[int],
    *,
    num_seeds: int,
    num_steps: int,
    tell: Callable[[str], None] = lambda sentence: None,
) -> Check:
    """Train models of each size from each seed for a few steps on the same batch, and judge how their insides grow."""
    batch = bench.batch()
    largest = bench.section_at(**{axis: sizes[-1]})
    rules = bench.rows("mup", largest)
    heads = {row.name for row in rules if row.kind in (ScaledKind.OUTPUT, ScaledKind.TIED)}
    by_size: list[list[dict[str, Size]]] = []
    for size in sizes:
        section = bench.section_at(**{axis: size})
        runs = []
        for seed in range(num_seeds):
            tell(f"{kind}: {axis} {size}, seed {seed + 1} of {num_seeds}")
            runs.append(measured(bench.trial(kind, section, seed=seed), batch, num_steps, axis, heads))
        by_size.append([_mean([run[step] for run in runs]) for step in range(num_steps + 1)])
    slopes = slopes_of(sizes, by_size)
    reasons = failures(slopes, bench.rows(kind, largest), rules, axis, sizes[-1], kind)
    return Check(kind, axis, tuple(sizes), slopes, reasons)


def _mean(runs: Sequence[dict[str, Size]]) -> dict[str, Size]:
    return {
        name: Size(*np.mean([run[name] for run in runs], axis=0).tolist())
        for name in runs[0]
        if all(name in run for run in runs)
    }


def slopes_of(sizes: Sequence[int], by_size: Sequence[Sequence[dict[str, Size]]]) -> list[Slope]:
    """The least-squares lines through what was measured at each size and step, of modules that all sizes have."""
    names = [name for name in by_size[0][0] if all(name in steps[0] for steps in by_size)]
    found = []
    for name, step in itertools.product(names, range(len(by_size[0]))):
        means, changes, judged = zip(*(steps[step][name] for steps in by_size), strict=True)
        slope = _slope(sizes, means)
        if slope is not None:
            found.append(Slope(name, step, slope, _slope(sizes, changes), _slope(sizes, judged), means, judged))
    return found


def _slope(sizes: Sequence[int], values: Sequence[float]) -> float | None:
    if not all(0 < value < np.inf for value in values):
        return None
    return float(np.polyfit(np.log2(sizes), np.log2(values), 1)[0])


def failures(
    slopes: Sequence[Slope],
    rows: Sequence[ParameterRow],
    rules: Sequence[ParameterRow],
    axis: Axis,
    size: int,
    kind: str,
) -> list[str]:
    """A sentence for each module whose change grows or shrinks after step 0, in the order of the forward, with the rule
    of muP that its parameters, or those before it, depart from."""
    modules = list(dict.fromkeys(one.module for one in slopes))
    found = []
    for name in modules:
        bad = [
            one
            for one in slopes
            if one.module == name and one.judged_slope is not None and abs(one.judged_slope) > LIMIT
        ]
        if bad:
            worst = max(bad, key=lambda one: abs(one.judged_slope or 0.0))
            assert worst.judged_slope is not None
            way = "grows" if worst.judged_slope > 0 else "shrinks"
            before = modules[: modules.index(name) + 1]
            found.append(
                f"{name}: its change {way} with the {axis}, slope {worst.judged_slope:+.2f} after step {worst.step}. "
                + _blame(name, before, rows, rules, axis, size)
            )
    return found


def _blame(
    name: str, before: Sequence[str], rows: Sequence[ParameterRow], rules: Sequence[ParameterRow], axis: Axis, size: int
) -> str:
    """What departs from muP: the module's own parameters first, then those of the nearest module before it."""
    wrong: dict[str, str] = {}
    for row, rule in zip(rows, rules, strict=True):
        if parts := _departures(row, rule):
            wrong.setdefault(row.name, f"{row.name} has {', '.join(parts)} at {axis} {size}: {RULES[rule.kind]}.")
    if name == LOGITS:
        heads = [row.name for row in rows if row.kind in (ScaledKind.OUTPUT, ScaledKind.TIED)]
        own = [wrong[one] for one in heads if one in wrong]
    else:
        inside = name.removesuffix(LAST_BLOCK).strip()
        own = [sentence for parameter, sentence in wrong.items() if parameter.startswith(f"{inside}.")]
    for module in [] if own else reversed(before):
        own = own or [sentence for parameter, sentence in wrong.items() if parameter.startswith(f"{module}.")]
    if own:
        return own[0]
    if wrong:
        return f"Its own parameters follow muP; what moves it comes after: {next(iter(wrong.values()))}"
    if axis == "depth":
        return "Branches add up: parametrization.depth: completep, or depth-mup, is the rule for that."
    return "All parameters follow muP: fewer rows, a lower learning rate or a larger base width may be all it needs."


def _departures(row: ParameterRow, rule: ParameterRow) -> list[str]:
    pairs = [
        ("learning rate", row.rule.learning_rate, rule.rule.learning_rate),
        ("forward factor", row.rule.forward, rule.rule.forward),
        ("initial std", row.std, rule.std),
    ]
    return [
        f"{what} {'x ' if what != 'initial std' else ''}{has:.3g} where muP has {wants:.3g}"
        for what, has, wants in pairs
        if has is not None and wants is not None and abs(has - wants) > 0.01 * abs(wants)
    ]
