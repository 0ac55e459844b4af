"""Where a device's memory goes in a training step: counted, byte by byte, before anything of it is taken.

The run's own step is made with tensors that have shapes and no values (torch's FakeTensorMode), while every storage is
watched from the operation that makes it until it is let go.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from foreloom.config.loader import Recipe
from foreloom.data.batch import Dataset
from foreloom.distributed.parallelize import ParallelModel, find_blocks, parallelize
from foreloom.distributed.process import Process
from foreloom.models import registry
from foreloom.models.common.cpu import standing_for_accelerator
from foreloom.models.family import ModelFamily
from foreloom.run.recipe import data_of, found_model
from foreloom.training.optimizer import build_optimizer, make_moments
from foreloom.training.step import OptimizerStep
from foreloom.training.stopwatch import Stopwatch

DeviceType = Literal["cpu", "cuda"]
TERMS = {
    "weights": "parameters and buffers",
    "gradients": "of the parameters that are trained",
    "optimizer": "moments of the parameters that are trained",
    "inputs": "the micro-batch",
    "activations": "kept by the blocks, and before them, for the backward pass",
    "logits": "behind the last block: head and loss",
    "working": "made and let go on the way",
}
"""What memory goes into, in words."""


@dataclass(frozen=True)
class MemoryUse:
    """Bytes by term at the moment of a step when they are most; they add up to the peak."""

    num_rows: int
    """Of the micro-batch."""
    terms: dict[str, int]
    """In the order of `TERMS`."""

    @property
    def total(self) -> int:
        return sum(self.terms.values())


def count_memory(
    recipe: Recipe, dataset: Dataset, num_rows: int, *, device: DeviceType, accumulates: bool = False
) -> MemoryUse:
    """Of one device that trains the recipe's model on micro-batches of `num_rows` rows, the largest there are; with
    `accumulates`, on several of them a step."""
    training = recipe.sections["training"]
    config, data = found_model(recipe), data_of(recipe)
    family = registry.get(config.family)
    micro_batch = dataset.largest(num_rows)
    live, process = LiveBytes(), Process(0, 1, 0, torch.device("cpu"))
    is_bf16 = training.precision == "bf16" or (training.precision == "auto" and device == "cuda")
    with ExitStack() as stack:
        if device == "cuda":
            stack.enter_context(standing_for_accelerator())
        with torch.device("meta"), live:
            model = family.build(config, data)
        kinds, blocks = family.kinds(model), find_blocks(model, family.sharding)
        parallel = parallelize(
            model,
            family.sharding,
            recipe.sections["parallel"],
            Process(0, 1, 0, torch.device("meta")),
            activation_checkpointing=training.activation_checkpointing,
            autocast_dtype=torch.bfloat16 if is_bf16 else None,
        )
        mode = stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.enter_context(live)
        parallel.module.to_empty(device="cpu").train()
        optimizer = build_optimizer(
            recipe.sections["optimizer"], parallel.named_parameters(), kinds, max_grad_norm=training.max_grad_norm
        )
        labels = _Labels(live, parallel, [block for _, block in blocks])
        step = OptimizerStep(parallel, labels.watching(family, mode), optimizer, process, Stopwatch(process.device))
        make_moments(optimizer, step.parameters)
        labels.name_moments(optimizer)
        live.begin_anew()
        step.rehearse(micro_batch, accumulates=accumulates)
    return MemoryUse(num_rows, labels.at_peak())


class _Labels:
    """Tells `live` what it watches: by who makes it, and when."""

    def __init__(self, live: LiveBytes, parallel: ParallelModel, blocks: list[nn.Module]) -> None:
        self._live = live
        self._num_left, self._is_forward = 0, False
        """Blocks that this forward has left behind."""
        for tensor in [*parallel.module.parameters(), *parallel.module.buffers()]:
            live.watch(tensor, "weights")
        for parameter in parallel.model.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(lambda p: live.watch(p.grad, "gradients"))
        parallel.module.register_forward_pre_hook(self._begin)
        parallel.module.register_forward_hook(self._end)
        for block in blocks:
            block.register_forward_pre_hook(self._enter)
            block.register_forward_hook(self._leave)

    def watching(self, family: ModelFamily, mode: FakeTensorMode) -> ModelFamily:
        """The family, feeding its model tensors without values."""

        def without_values(tensor: Tensor) -> Tensor:
            tensor = mode.from_tensor(tensor)
            self._live.watch(tensor, "inputs")
            return tensor

        batch = lambda *its: tree_map_only(Tensor, without_values, family.batch(*its))
        return dataclasses.replace(family, batch=batch)

    def name_moments(self, optimizer: torch.optim.Optimizer) -> None:
        for tensor in tree_leaves(list(optimizer.state.values())):
            if isinstance(tensor, Tensor):
                self._live.watch(tensor, "optimizer")

    def at_peak(self) -> dict[str, int]:
        found = Counter()
        for label, size in self._live.at_peak.items():
            if isinstance(label, int):  # made when so many blocks were left behind
                label = "logits" if label == self._num_left and label else "activations"
            found[label] += size
        return {term: found[term] for term in TERMS}

    def _begin(self, *_: Any) -> None:
        self._is_forward, self._num_left = True, 0
        self._live.label = 0

    def _end(self, *_: Any) -> None:
        self._is_forward = False
        self._live.label = "working"

    def _enter(self, *_: Any) -> None:
        self._live.label = "activations"

    def _leave(self, *_: Any) -> None:
        """In the backward pass: a block that was computed again."""
        self._num_left += self._is_forward
        self._live.label = self._num_left if self._is_forward else "working"


class LiveBytes(TorchDispatchMode):
    """Watches the storages that operations make: the bytes that live, by label, now and when they were most."""

    def __init__(self) -> None:
        super().__init__()
        self.label: Any = "working"
        """Of what is made from here on."""
        self.now: Counter[Any] = Counter()
        self.at_peak: Counter[Any] = Counter()
        self._total = self._peak = 0
        self._labels: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = _answer(func, args, kwargs or {})
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                self.watch(value)
        return result

    def watch(self, tensor: Tensor, label: Any = None) -> None:
        """Count a tensor's storage, once, under a label; one that is given moves what is counted already."""
        storage = tensor.untyped_storage()
        key, size = id(storage), storage.nbytes()
        if key not in self._labels:
            self._labels[key] = self.label if label is None else label
            self._add(self._labels[key], size)
            weakref.finalize(storage, self._let_go, key, size)
        elif label is not None:
            before, self._labels[key] = self._labels[key], label
            self.now[before] -= size
            self.now[label] += size

    def begin_anew(self) -> None:
        """The peak so far is forgotten."""
        self._peak, self.at_peak = self._total, Counter(self.now)

    def _add(self, label: Any, size: int) -> None:
        self.now[label] += size
        self._total += size
        if self._total > self._peak:
            self.begin_anew()

    def _let_go(self, key: int, size: int) -> None:
        self._add(self._labels.pop(key), -size)


def _answer(func: Any, args: Any, kwargs: Any) -> Any:
    """What an operation gives. Values that are not there are asked for in two places: conditions, which are taken to
    hold, and the tokens of each expert, which are taken to be as many for each."""
    aten = torch.ops.aten
    if func is aten._local_scalar_dense.default and (isinstance(args[0], FakeTensor) or args[0].is_meta):
        return True
    if func is aten.bincount.default:
        number = args[0].numel()
        return torch.tensor([len(range(e, number, n)) for n in [kwargs["minlength"]] for e in range(n)])
    return func(*args, **kwargs)
