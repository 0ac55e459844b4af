"""The recipe's `optimizer` section, the optimizer it builds, and the learning rate of each update.

k is the update (1 .. S), S the number of updates of the run, W of the warm-up, D of the final decay.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Annotated, Any, Literal, Protocol

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from foreloom.config.section import section
from foreloom.models.common.count import ParameterKind
from foreloom.models.common.parametrization import Multipliers

Schedule = Literal["cosine", "linear", "wsd", "constant"]
Ratio = Annotated[float, Field(ge=0.0, le=1.0)]


@section
class OptimizerConfig:
    """What turns gradients into updates."""

    name: Literal["adamw", "muon", "sgd"] = "adamw"
    """adamw: with decoupled weight decay (Loshchilov and Hutter, 2019). muon: hidden matrices move by their
    orthogonalised momentum (Jordan et al., 2024), as far as an AdamW update would, so that one learning rate serves
    both (Liu et al., 2025); the rest by AdamW. sgd: with momentum, and with decoupled weight decay too."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    """At the peak of the schedule."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    """Decay rates of the running mean of the gradient and of its square."""
    epsilon: Annotated[float, Field(gt=0)] = 1e-8
    """Added to the root of the second moment."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Of muon and sgd: decay rate of the running sum of gradients."""
    nesterov: bool = True
    """Of muon and sgd: look one gradient ahead of the momentum."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Share of a parameter taken off it in each update, times the learning rate."""
    weight_decay_on: Literal["matrices", "all_but_biases"] = "matrices"
    """matrices: parameters of two and more dimensions, so neither biases nor norm weights. all_but_biases: all whose
    name does not contain "bias", so norm weights too, as the published Time-MoE was trained."""
    schedule: Schedule = "cosine"
    """cosine and linear fall over the whole run; wsd stays at the peak until its decay; constant never falls."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps of linear warm-up."""
    warmup_ratio: Ratio = 0.0
    """The same as a share of training.steps."""
    decay_steps: Annotated[int, Field(ge=0)] = 0
    """wsd only: steps of the decay at the end."""
    decay_ratio: Ratio = 0.0
    """wsd only: the same as a share of training.steps."""
    decay_shape: Literal["linear", "sqrt"] = "linear"
    """wsd only: how the end falls; sqrt is one minus the root of how far it is (Hägele et al., 2024)."""
    final_ratio: Ratio = 0.0
    """Where the schedule ends, as a share of learning_rate."""

    def __post_init__(self) -> None:
        idle = {"adamw": ("momentum", "nesterov"), "sgd": ("betas", "epsilon"), "muon": ()}[self.name]
        for one in fields(self):
            if one.name in idle and getattr(self, one.name) != one.default:
                raise ValueError(f"{one.name} has no effect with name: {self.name}; remove it")
        if self.warmup_steps and self.warmup_ratio:
            raise ValueError("warmup_steps and warmup_ratio say the same thing; keep one")
        if self.decay_steps and self.decay_ratio:
            raise ValueError("decay_steps and decay_ratio say the same thing; keep one")
        has_decay = bool(self.decay_steps or self.decay_ratio)
        if self.schedule == "wsd" and not has_decay:
            raise ValueError("schedule: wsd needs decay_steps or decay_ratio (a fifth of the run is common: 0.2)")
        if self.schedule != "wsd" and has_decay:
            raise ValueError(
                f"decay_steps and decay_ratio have no effect with schedule: {self.schedule}; remove them, or use wsd"
            )
        if self.schedule != "wsd" and self.decay_shape != "linear":
            raise ValueError(f"decay_shape has no effect with schedule: {self.schedule}; remove it, or use wsd")
        if not self.weight_decay and self.weight_decay_on != "matrices":
            raise ValueError(f"weight_decay_on: {self.weight_decay_on} has no effect with weight_decay: 0; remove it")
        if self.schedule == "constant" and self.final_ratio:
            raise ValueError("final_ratio has no effect with schedule: constant; remove it")

    def learning_rate_of(self, update: int, num_updates: int) -> float:
        """The learning rate of update `update` (from 1) of `num_updates`.

        Raises ValueError where warm-up and decay together are longer than the run.
        """
        warmup = num_warmup_updates(num_updates, warmup_steps=self.warmup_steps, warmup_ratio=self.warmup_ratio)
        decay = self.decay_steps or max(1, round(self.decay_ratio * num_updates)) if self.schedule == "wsd" else 0
        if warmup + decay > num_updates:
            given = [
                name for name in ("warmup_steps", "warmup_ratio", "decay_steps", "decay_ratio") if getattr(self, name)
            ]
            raise ValueError(
                f"optimizer: {warmup} steps of warm-up and {decay} of decay exceed training.steps={num_updates}: lower "
                f"{' or '.join(f'optimizer.{name}' for name in given)}, or raise training.steps"
            )
        factor = schedule_factor(
            self.schedule,
            update,
            num_updates,
            num_warmup=warmup,
            num_decay=decay,
            decay_shape=self.decay_shape,
            final_ratio=self.final_ratio,
        )
        return self.learning_rate * factor


class Optimizer(Protocol):
    """A `torch.optim.Optimizer` that turns gradients of a global batch's loss *sum* into one update."""

    max_grad_norm: float
    """Gradients of a larger global norm are scaled down to it; 0: never."""
    param_groups: list[dict[str, Any]]
    """Each with `name`, the kinds in it; `lr_scale`; `gradient_scale`, of gradients in the norm they are clipped by."""

    def zero_grad(self) -> None: ...

    def update(self, totals: Tensor, learning_rate: float) -> Tensor:
        """Divide the gradients by the count, clip them, and step.

        `totals`: (loss, gradient norm, count) on the device, the norm that of the divided gradients. A step whose loss
        or gradient is not finite, or that has no target at all, changes nothing: no weight, no moment, no step count. A
        group's rate is `learning_rate` times its `lr_scale`. Returns 1 where the step was applied, 0 where it was
        skipped, on the device, which is not waited for.
        """
        ...


class FusedAdamW(torch.optim.AdamW):
    """AdamW in one pass over the parameters: the kernel divides by `grad_scale` and stands still where `found_inf` is
    1."""

    def __init__(self, groups: list[dict[str, Any]], *, max_grad_norm: float, **settings: Any) -> None:
        super().__init__(groups, fused=True, **settings)
        self.max_grad_norm = max_grad_norm
        self.grad_scale: Tensor | None = None
        self.found_inf: Tensor | None = None

    def update(self, totals: Tensor, learning_rate: float) -> Tensor:
        """See `Optimizer`."""
        norm, count = totals[1], totals[2]
        divisor = count
        if self.max_grad_norm:
            # the 1e-6 of torch's clip_grad_norm_
            divisor = count * ((norm + 1e-6) / self.max_grad_norm).clamp(min=1)
        skip = ~torch.isfinite(totals).all() | (count == 0)
        self.grad_scale, self.found_inf = divisor.float(), skip.float()
        for group in self.param_groups:
            group["lr"] = learning_rate * group["lr_scale"]
        self.step()
        return 1.0 - skip.float()


class GroupwiseOptimizer(FusedAdamW):
    """Each group by its own `rule`: adamw, muon or sgd."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """One update of every group, by the divisor and the verdict that `update` left."""
        groups = self.param_groups
        self.param_groups = [group for group in groups if group["rule"] == "adamw"]
        if self.param_groups:
            super().step(closure)
        self.param_groups = groups
        for group in groups:
            if group["rule"] != "adamw":
                for parameter in group["params"]:
                    self._move(parameter, group)

    def __setstate__(self, state: dict[str, Any]) -> None:
        torch.optim.Optimizer.__setstate__(self, state)  # AdamW's expects a step count of every parameter

    def _move(self, parameter: Tensor, group: dict[str, Any]) -> None:
        """M <- m M + G; W <- (1 - lr d) W - lr f(M), or f(G + m M) for nesterov. f is the identity, or Muon's."""
        if parameter.grad is None:
            return
        gradient, zero = parameter.grad, parameter.grad.new_zeros(())
        skip = zero.bool() if self.found_inf is None else self.found_inf > 0
        if self.grad_scale is not None:
            gradient = gradient / self.grad_scale
        gradient = torch.where(skip, zero, gradient)  # NaN times 0 would be NaN
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        momentum = state["momentum_buffer"]
        momentum.mul_(torch.where(skip, zero + 1, zero + group["momentum"])).add_(gradient)
        ahead = gradient.add(momentum, alpha=group["momentum"]) if group["nesterov"] else momentum
        direction = orthogonalised(ahead) if group["rule"] == "muon" else ahead
        rate = torch.where(skip, zero, zero + group["lr"])
        parameter.mul_(1 - rate * group["weight_decay"]).sub_(rate * direction)


def orthogonalised(matrix: Tensor) -> Tensor:
    """U V^T of U S V^T, about: every singular value brought near 1 by five steps of Newton and Schulz (Jordan et al.,
    2024, "Muon"), times 0.2 sqrt(max(rows, columns)), the size of an AdamW update (Liu et al., 2025, eq. 4).

    (..., rows, columns), a matrix each. A sharded one is gathered, and the share of this rank given back.
    """
    if isinstance(matrix, DTensor):
        whole = orthogonalised(matrix.full_tensor())
        return distribute_tensor(whole, matrix.device_mesh, matrix.placements, src_data_rank=None)
    x = matrix.reshape(-1, *matrix.shape[-2:])
    x = x.bfloat16() if matrix.device.type == "cuda" else x
    is_tall = x.shape[-2] > x.shape[-1]
    x = x.mT if is_tall else x
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    x = x.mT if is_tall else x
    return x.reshape(matrix.shape).to(matrix.dtype) * (0.2 * max(matrix.shape[-2:]) ** 0.5)


def build_optimizer(
    config: OptimizerConfig,
    parameters: Iterable[tuple[str, nn.Parameter]],
    kinds: Mapping[str, ParameterKind],
    *,
    max_grad_norm: float,
    multipliers: Mapping[str, Multipliers] | None = None,
) -> FusedAdamW:
    """The optimizer of the trainable ones of `parameters`, in groups by what the recipe does to their `kinds` and by
    their `multipliers`, where a parametrization gives them."""
    groups: dict[tuple[str, bool, Multipliers, tuple[str, ...]], dict[str, nn.Parameter]] = {}
    for name, parameter in parameters:
        if parameter.requires_grad:
            kind = kinds[name]
            is_matrix = kind is not ParameterKind.VECTOR
            decays = "bias" not in name if config.weight_decay_on == "all_but_biases" else is_matrix
            rule = "adamw" if config.name == "muon" and kind is not ParameterKind.HIDDEN else config.name
            scale = multipliers[name]._replace(init=1.0) if multipliers else Multipliers()
            # A fused update is of parameters that are sharded alike.
            axes = parameter.device_mesh.mesh_dim_names or () if isinstance(parameter, DTensor) else ()
            groups.setdefault((rule, decays, scale, axes), {})[name] = parameter
    ordered = sorted(groups.items(), key=lambda group: group[0], reverse=True)
    names = [" and ".join(sorted({kinds[name] for name in members})) for _, members in ordered]
    of_rule = {} if config.name == "adamw" else {"momentum": config.momentum, "nesterov": config.nesterov}
    optimizer = FusedAdamW if config.name == "adamw" else GroupwiseOptimizer
    return optimizer(
        [
            {
                # Groups of like kinds are numbered.
                "name": name if names.count(name) == 1 else f"{name} {names[: i + 1].count(name)}",
                "params": list(members.values()),
                "rule": rule,
                "weight_decay": config.weight_decay * scale.weight_decay if decays else 0.0,
                "lr_scale": scale.learning_rate,
                "eps": config.epsilon * scale.epsilon,
                "gradient_scale": scale.gradient,
            }
            | of_rule
            for i, (name, ((rule, decays, scale, _), members)) in enumerate(zip(names, ordered, strict=True))
        ],
        max_grad_norm=max_grad_norm,
        lr=config.learning_rate,
        betas=config.betas,
        eps=config.epsilon,
    )


def fill_missing(parameters: Sequence[nn.Parameter]) -> None:
    """Give a zero gradient to parameters that took no part, so that an update never depends on how a batch was cut.

    (AdamW passes over parameters without a gradient; with a zero one their moments and weights decay.)
    """
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)


def make_moments(optimizer: Optimizer, parameters: Sequence[nn.Parameter]) -> None:
    """Take the memory that the optimizer keeps, by an update that changes nothing: the first one takes it otherwise,
    when the activations of its step are gone."""
    optimizer.zero_grad()
    fill_missing(parameters)
    optimizer.update(torch.full((3,), torch.nan, device=parameters[0].device), 0.0)
    optimizer.zero_grad()


def num_warmup_updates(num_updates: int, *, warmup_steps: int, warmup_ratio: float) -> int:
    """W, from whichever of the two settings is given."""
    return warmup_steps or math.ceil(round(warmup_ratio * num_updates, 6))  # 0.07 of 100 is to be 7


def schedule_factor(
    schedule: Schedule,
    k: int,
    num_updates: int,
    *,
    num_warmup: int = 0,
    num_decay: int = 0,
    decay_shape: Literal["linear", "sqrt"] = "linear",
    final_ratio: float = 0.0,
) -> float:
    """What update `k` multiplies the peak learning rate by.

    Warm-up rises linearly: k / (W + 1) for k <= W, so that update W + 1 is the first at the peak. After it, with
    u = (k - 1 - W) / (S - W):

    - cosine: (1 + cos(pi u)) / 2 (Loshchilov and Hutter, 2017)
    - linear: 1 - u
    - wsd: 1 until the last D updates (warmup-stable-decay; Hu et al., 2024), then, with v from 0 to 1 over them,
      1 - v, or 1 - sqrt(v)
    - constant: 1

    The decaying part ends at `final_ratio` instead of 0. Update S itself is one notch above the end, as update 1 is at
    the peak.
    """
    assert 1 <= k <= num_updates and num_warmup + num_decay <= num_updates
    if k <= num_warmup:
        return k / (num_warmup + 1)
    match schedule:
        case "constant":
            return 1.0
        case "wsd":
            shape = min(1.0, (num_updates - k + 1) / num_decay)
            shape = 1.0 - math.sqrt(1.0 - shape) if decay_shape == "sqrt" else shape
        case "linear":
            shape = 1.0 - (k - 1 - num_warmup) / (num_updates - num_warmup)
        case "cosine":
            shape = (1.0 + math.cos(math.pi * (k - 1 - num_warmup) / (num_updates - num_warmup))) / 2.0
    return final_ratio + (1.0 - final_ratio) * shape
