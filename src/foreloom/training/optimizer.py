"""The recipe's `optimizer` section, the optimizer it builds, and the learning rate of each update."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn

from foreloom.config.section import section
from foreloom.training.schedule import Schedule, num_warmup_updates, schedule_factor

Ratio = Annotated[float, Field(ge=0.0, le=1.0)]


@section
class OptimizerConfig:
    """What turns gradients into updates."""

    name: Literal["adamw"] = "adamw"
    """AdamW with decoupled weight decay (Loshchilov and Hutter, 2019)."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    """At the peak of the schedule."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    """Decay rates of the running mean of the gradient and of its square."""
    epsilon: Annotated[float, Field(gt=0)] = 1e-8
    """Added to the root of the second moment."""
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
    final_ratio: Ratio = 0.0
    """Where the schedule ends, as a share of learning_rate."""

    def __post_init__(self) -> None:
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
            raise ValueError(
                f"optimizer: {warmup} steps of warm-up and {decay} of decay exceed training.steps={num_updates}"
            )
        factor = schedule_factor(
            self.schedule, update, num_updates, num_warmup=warmup, num_decay=decay, final_ratio=self.final_ratio
        )
        return self.learning_rate * factor


def build_optimizer(config: OptimizerConfig, model: nn.Module) -> torch.optim.AdamW:
    """AdamW over `model`'s trainable parameters, weight decay on those that the recipe says, in one pass (fused)."""
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = "bias" not in name if config.weight_decay_on == "all_but_biases" else parameter.ndim >= 2
            (decayed if decays else others).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.learning_rate,
        betas=config.betas,
        eps=config.epsilon,
        fused=True,
    )
