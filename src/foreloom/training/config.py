"""The recipe's `training` section."""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn

from foreloom.config.section import section
from foreloom.models.common.lora import fits

TARGET_MEMORY_USAGE = 0.8


@section
class TrainingConfig:
    """How long, on how much and where a run trains."""

    steps: Annotated[int, Field(ge=1)] | None = None
    """Optimizer steps of the whole run, resumed parts included. Give this or epochs."""
    epochs: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Times the run goes through all windows; needs data.stride, without which windows are drawn without end."""
    batch_size: Annotated[int, Field(ge=1)] = 256
    """Rows of the global batch, over all ranks and micro-batches. A row is one variate of one sample."""
    micro_batch_size: Annotated[int, Field(ge=0)] | Literal["auto"] = 0
    """Most rows of one forward on one device; 0: a rank's whole share; auto: the largest that target_memory_usage
    allows by count, halved where the device has no room for it after all. Changes memory and speed, not results (but
    for an auxiliary loss of experts, which is a statistic of each forward, and what dropout drops)."""
    target_memory_usage: Annotated[float, Field(gt=0, le=1)] = TARGET_MEMORY_USAGE
    """Share of the device's memory that micro_batch_size: auto fills; the rest is for what cannot be counted: kernels,
    communication, gaps between tensors."""
    force_conservative_cpu: bool = False
    """Compute on a quarter of the cores, 6 at most, as is good manners on a machine that others use too."""
    seed: Annotated[int, Field(ge=0)] = 42
    """Of the initial weights, the order of the data and dropout."""
    output_dir: str = ""
    """The run folder; empty: runs/ and the recipe's name."""
    save_steps: Annotated[int, Field(ge=1)] = 5000
    """Steps between checkpoints. The last step, and a run that is told to stop, write one anyway."""
    save_total_limit: Annotated[int, Field(ge=0)] = 3
    """Newest checkpoints kept (0: all). The best and the final one are kept besides."""
    max_grad_norm: Annotated[float, Field(ge=0)] = 1.0
    """Gradients whose global norm is above this are scaled down to it; 0: never."""
    max_skipped_steps: Annotated[int, Field(ge=0)] = 50
    """A run ends with an error when so many steps in a row were skipped, their loss or gradient not finite or without
    anything to learn from; 0: it never does."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of compute; weights and optimizer are fp32 always. auto: bf16 on CUDA devices that have it, fp32 elsewhere."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """auto: MPS, else CUDA, else the CPU."""
    compile: bool = False
    """torch.compile each block."""
    activation_checkpointing: bool = False
    """Recompute each block in the backward pass instead of keeping its activations: less memory, more compute."""
    train_only: tuple[str, ...] = ()
    """Names of the parameters that are trained, * standing for anything (output_patch_embedding.*); empty: all."""
    freeze: tuple[str, ...] = ()
    """Names of parameters that stay as they are (encoder.block.[0-5].*)."""

    def __post_init__(self) -> None:
        if self.steps is None and self.epochs is None:
            raise ValueError("steps, or epochs where data.stride is set, is required and not given")
        if self.steps is not None and self.epochs is not None:
            raise ValueError("steps and epochs say the same thing; keep one and set the other to null")
        if self.micro_batch_size != "auto" and self.target_memory_usage != TARGET_MEMORY_USAGE:
            raise ValueError("target_memory_usage has no effect without micro_batch_size: auto; set that, or remove it")
        if self.train_only and self.freeze:
            raise ValueError("train_only and freeze say the same thing; keep one")

    def with_micro_batches(self, num_rows: int) -> TrainingConfig:
        """The same, with what micro_batch_size: auto has come to."""
        return dataclasses.replace(self, micro_batch_size=num_rows, target_memory_usage=TARGET_MEMORY_USAGE)

    @property
    def num_micro_rows(self) -> int:
        """`micro_batch_size`, where it is a number or `with_micro_batches` has made it one."""
        assert self.micro_batch_size != "auto"
        return self.micro_batch_size

    @property
    def num_steps(self) -> int:
        """`steps`, where `in_steps` or the recipe has given them."""
        assert self.steps is not None
        return self.steps

    def in_steps(self, num_epoch_batches: float | None) -> TrainingConfig:
        """The same with `epochs` turned into steps, the last one begun. `num_epoch_batches`: steps of one epoch, None
        where windows are drawn without end."""
        if self.epochs is None:
            return self
        assert num_epoch_batches, "epochs need data.stride"
        num_steps = math.ceil(round(self.epochs * num_epoch_batches, 6))  # 3 * (7 / 3) is to be 7
        return dataclasses.replace(self, steps=max(num_steps, 1), epochs=None)


def autocast_dtype(precision: Literal["auto", "fp32", "bf16"], device: torch.device) -> torch.dtype | None:
    """The dtype of matrix products, None for fp32."""
    if precision == "auto":
        precision = (
            "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
        )
    return torch.bfloat16 if precision == "bf16" else None


def freeze(module: nn.Module, config: TrainingConfig) -> None:
    """Leave to be trained what the section says, in place. ValueError names a pattern that fits no parameter."""
    names = [name for name, _ in module.named_parameters()]
    for key, patterns in (("train_only", config.train_only), ("freeze", config.freeze)):
        for pattern in patterns:
            if not any(fits(name, pattern) for name in names):
                raise ValueError(
                    f"training.{key}: {pattern!r} fits no parameter of the model, whose names are like {names[0]} and "
                    f"{names[-1]} (`foreloom report parameters` counts them)."
                )
    for name, parameter in module.named_parameters():
        is_named = any(fits(name, pattern) for pattern in (*config.train_only, *config.freeze))
        if is_named if config.freeze else config.train_only and not is_named:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise ValueError("training.freeze: nothing is left to be trained; name fewer parameters.")
