"""Where a device's memory goes in a training step: counted, byte by byte, before anything of it is taken.

The run's own step is made with tensors that have shapes and no values (torch's FakeTensorMode), while every storage is
watched from the operation that makes it until it is let go. What is planned for an accelerator takes its way through
the model, so neither a GPU nor a torch that knows one is needed.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from foreloom.config.loader import Recipe
from foreloom.data.batch import MicroBatch
from foreloom.distributed.mesh import ParallelConfig, mesh_shape
from foreloom.distributed.parallelize import ParallelModel, find_blocks, parallelize
from foreloom.distributed.process import Process
from foreloom.distributed.simulated import Issued, leave_share
from foreloom.models import registry
from foreloom.models.common.count import ParameterKind
from foreloom.models.common.cpu import standing_for_accelerator
from foreloom.models.common.moe import StackedExperts
from foreloom.models.family import ModelFamily
from foreloom.run.parametrize import parametrize
from foreloom.run.recipe import choose_trained, data_of, found_model, shapes_of
from foreloom.training.optimizer import build_optimizer, fill_missing, make_moments
from foreloom.training.state import LaneCarry
from foreloom.training.step import OptimizerStep
from foreloom.training.stopwatch import Stopwatch

DeviceType = Literal["cpu", "cuda"]
TERMS = {
    "weights": "parameters and buffers",
    "gradients": "of the parameters that are trained",
    "optimizer": "what it remembers of the parameters that are trained",
    "gathered": "blocks of a sharded model, whole while they are computed, with their gradients",
    "inputs": "the micro-batch",
    "activations": "kept for the backward pass: by the blocks, and before them",
    "logits": "kept behind the last block: head and loss",
    "working": "made and let go on the way",
}
"""What memory goes into, in words."""


@dataclass(frozen=True)
class MemoryUse:
    """Bytes of one device at the moment of a step when they are most."""

    num_rows: int
    """Of the micro-batch."""
    terms: dict[str, int]
    """By the names of `TERMS`; they add up."""
    kept_bytes: int
    """What a forward leaves for the backward pass."""
    strategy: Literal["ddp", "fsdp"]
    exchanged_bytes: int = 0
    """What the device sends, itself included, to the experts that ranks share, and back, forward and backward."""

    @property
    def total(self) -> int:
        return sum(self.terms.values())


def count_memory(
    recipe: Recipe,
    largest: Callable[[int], MicroBatch],
    num_rows: int,
    *,
    device: DeviceType,
    world_size: int = 1,
    accumulates: bool = False,
) -> MemoryUse:
    """Of each of `world_size` devices that train the recipe's model on micro-batches of `largest(num_rows)`.

    `accumulates`: on several of them a step. Several ranks keep their gradients between steps, so it is the same with
    them. Conditions on values are taken to hold, and experts to get as many tokens each; FSDP2 is counted by its
    rules: a share of each parameter, and two blocks whole. Of experts that ranks share a device holds its own.
    """
    num_parameters = sum(p.numel() for p in shapes_of(recipe).parameters())
    shape = mesh_shape(recipe.sections["parallel"], world_size=world_size, num_parameters=num_parameters)
    use_of = count_step(
        recipe,
        largest,
        num_rows,
        device=device,
        keeps_gradients=accumulates or world_size > 1,
        is_sharded=shape.strategy == "fsdp",
    )
    return use_of(shape.dp_shard, accumulates)


def count_step(
    recipe: Recipe,
    largest: Callable[[int], MicroBatch],
    num_rows: int,
    *,
    device: DeviceType,
    keeps_gradients: bool,
    is_sharded: bool,
) -> Callable[[int, bool], MemoryUse]:
    """Make a step once, for f(ranks that share a copy of the model, does it accumulate?): what `count_memory` finds.

    `keeps_gradients`: all are there, of other ranks or an earlier micro-batch, when a forward begins.
    ValueError where ranks cannot share the experts as `parallel.ep` has it.
    """
    training = recipe.sections["training"]
    is_bf16 = training.precision == "bf16" or (training.precision == "auto" and device == "cuda")
    dtype = torch.bfloat16 if is_bf16 else None
    live, process, issued = LiveBytes(), Process(0, 1, 0, torch.device("cpu")), list[Issued]()
    with ExitStack() as stack:
        if device == "cuda":
            stack.enter_context(standing_for_accelerator())
        family, parallel, blocks, kinds = _built(recipe, live, dtype, issued)
        if is_sharded and dtype:
            for block in blocks:
                block.to(dtype)  # FSDP2 gathers them so, and nothing is left to cast
            for parameter in _of_shared_experts(parallel.model):
                parameter.data = parameter.data.float()
        micro_batch = largest(num_rows)
        arguments = family.batch(parallel.model, micro_batch, process.device)
        mode = stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.enter_context(live)
        without_values(parallel.module.train())
        labels = _Labels(live, parallel, blocks, keeps_gradients=keeps_gradients)
        optimizer = build_optimizer(
            recipe.sections["optimizer"], parallel.named_parameters(), kinds, max_grad_norm=training.max_grad_norm
        )
        lanes = family.carry(parallel.model, training.batch_size, process.device) if family.carry else None
        carry = LaneCarry(lanes, process) if lanes else None
        family = dataclasses.replace(family, batch=lambda *_: labels.inputs(arguments, mode))
        step = OptimizerStep(parallel, family, optimizer, process, Stopwatch(process.device), carry)
        make_moments(optimizer, step.parameters)
        labels.name_moments(optimizer)
        live.begin_anew()
        issued.clear()
        step.rehearse(micro_batch, accumulates=False)
        terms = labels.at_peak()

    def use_of(num_shards: int, accumulates: bool) -> MemoryUse:
        of_a_shard = _of_a_shard(parallel, blocks, optimizer, num_shards, accumulates) if is_sharded else {}
        its = {term: (terms | of_a_shard).get(term, 0) for term in TERMS}
        exchanged = sum(one.num_bytes for one in issued)
        return MemoryUse(num_rows, its, labels.kept_bytes, "fsdp" if is_sharded else "ddp", exchanged)

    return use_of


def _built(
    recipe: Recipe, live: LiveBytes, dtype: torch.dtype | None, issued: list[Issued]
) -> tuple[ModelFamily, ParallelModel, list[nn.Module], Mapping[str, ParameterKind]]:
    """The model as a single device trains it, without memory for its values, and with its own of the experts that ranks
    share, what it sends them being noted in `issued`; its blocks, and its parameters' kinds."""
    training, config, data = recipe.sections["training"], found_model(recipe), data_of(recipe)
    family = registry.get(config.family)
    scaled = parametrize(family, config, data, recipe.sections["parametrization"], recipe.sections["optimizer"])
    with torch.device("meta"), live:
        model = family.build(scaled.section, data)
        choose_trained(model, recipe)
        if (ep := recipe.sections["parallel"].ep) > 1:
            leave_share(model, family.sharding, ep, issued)
    kinds = family.kinds(model)
    blocks = [block for _, block in find_blocks(model, family.sharding)]
    parallel = parallelize(
        model,
        family.sharding,
        ParallelConfig(),
        Process(0, 1, 0, torch.device("meta")),
        activation_checkpointing=training.activation_checkpointing,
        autocast_dtype=dtype,
    )
    return family, parallel, blocks, kinds


def without_values(module: nn.Module) -> None:
    """Put tensors of this mode, of the CPU, in place of those of the meta device; what is shared stays so."""
    made: dict[int, Tensor] = {}
    for part in module.modules():
        for name, tensor in [*part._parameters.items(), *part._buffers.items()]:
            if tensor is None:
                continue
            if id(tensor) not in made:
                empty = torch.empty_like(tensor, device="cpu", requires_grad=False)
                is_parameter = isinstance(tensor, nn.Parameter)
                made[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if is_parameter else empty
            setattr(part, name, made[id(tensor)])


def _of_a_shard(
    parallel: ParallelModel,
    blocks: Iterable[nn.Module],
    optimizer: torch.optim.Optimizer,
    num_shards: int,
    accumulates: bool,
) -> dict[str, int]:
    """The terms that FSDP2 shares, of a rank: dimension 0 in equal parts, the last filled up; float32.

    Whole are what stands outside the blocks, all the time, and two blocks, the second gathered while the first is
    computed; of one their gradients too, before float32 is scattered. Where a step accumulates, ranks exchange
    gradients in its last micro-batch only, and keep them whole until then. Experts that ranks share are no part of it.
    """
    own = {id(p) for p in _of_shared_experts(parallel.model)}

    def share(p: nn.Parameter) -> int:
        rows = p.shape[0] if p.ndim else 1
        return 4 * (rows if id(p) in own else -(-rows // num_shards)) * (p.numel() // max(rows, 1))

    trained = [p for p in parallel.model.parameters() if p.requires_grad]
    kept = lambda p: sum(s.shape == p.shape for s in optimizer.state[p].values() if isinstance(s, Tensor))
    of_blocks = [[p for p in block.parameters() if id(p) not in own] for block in blocks]
    inside = own.union(id(p) for block in of_blocks for p in block)
    outside = [p for p in parallel.model.parameters() if id(p) not in inside]
    size = lambda parameters, width: sum(p.numel() * width for p in parameters)
    largest = max(of_blocks, key=lambda block: size(block, 1))
    width = largest[0].element_size()
    return {
        "weights": sum(map(share, parallel.model.parameters())) + sum(b.nbytes for b in parallel.model.buffers()),
        "gradients": sum(map(share, trained)) + size((p for p in trained if id(p) not in own), 4) * accumulates,
        "optimizer": sum(share(p) * kept(p) for p in trained),
        "gathered": size(outside, 4) + size(largest, 2 * width + width + 4),
    }


def _of_shared_experts(model: nn.Module) -> list[nn.Parameter]:
    shared = (one for one in model.modules() if isinstance(one, StackedExperts) and one.exchange is not None)
    return [p for one in shared for p in one.parameters()]


class AnswersWithoutValues(TorchDispatchMode):
    """What operations give where values are asked for that are not there: conditions are taken to hold, and experts to
    get as many tokens each. An LSTM's kernel keeps gates and cells in a buffer, of which its shape is not told."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, aten = kwargs or {}, torch.ops.aten
        if func is aten._local_scalar_dense.default and (isinstance(args[0], FakeTensor) or args[0].is_meta):
            return True
        if func is aten.bincount.default and isinstance(args[0], FakeTensor):
            number, num_experts = args[0].numel(), kwargs.get("minlength") or args[2]
            with unset_fake_temporarily():
                return torch.tensor([len(range(expert, number, num_experts)) for expert in range(num_experts)])
        result = func(*args, **kwargs)
        if func is aten.mkldnn_rnn_layer.default and isinstance(args[0], FakeTensor):
            *outputs, workspace = result  # of no bytes without values; oneDNN's own takes 15.1 to 16.3 floats a unit
            return *outputs, workspace.new_empty(64 * result[0].numel())
        return result


class LiveBytes(AnswersWithoutValues):
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
        result = super().__torch_dispatch__(func, types, args, kwargs)
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                self.watch(value)
        return result

    def watch(self, tensor: Tensor, label: Any = None) -> None:
        """Count a tensor's storage, once, under a label; one that is given moves what is counted already."""
        storage = tensor.untyped_storage()
        key, size = id(storage), storage.nbytes()  # `_let_go` drops an id before another object can have it
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


class _Labels:
    """Tells `live` what it watches, by who makes it and when."""

    def __init__(
        self, live: LiveBytes, parallel: ParallelModel, blocks: Iterable[nn.Module], *, keeps_gradients: bool
    ) -> None:
        self._live = live
        self._kept = [p for p in parallel.model.parameters() if p.requires_grad and keeps_gradients]
        self._num_left, self._is_forward = 0, False
        """Blocks that this forward has left behind."""
        self.kept_bytes = 0
        """What the newest forward has left."""
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

    def inputs(self, arguments: Any, mode: FakeTensorMode) -> Any:
        """The arguments of the model's forward without their values."""

        def without_values(tensor: Tensor) -> Tensor:
            tensor = mode.from_tensor(tensor)
            self._live.watch(tensor, "inputs")
            return tensor

        return tree_map_only(Tensor, without_values, arguments)

    def name_moments(self, optimizer: torch.optim.Optimizer) -> None:
        for tensor in tree_leaves(list(optimizer.state.values())):
            if isinstance(tensor, Tensor):
                self._live.watch(tensor, "optimizer")

    def at_peak(self) -> dict[str, int]:
        found: Counter[str] = Counter()
        for label, size in self._live.at_peak.items():
            if isinstance(label, int):  # made when so many blocks were left behind
                label = "logits" if label == self._num_left and label else "activations"
            found[label] += size
        return dict(found)

    def _begin(self, *_: Any) -> None:
        self._is_forward, self._num_left = True, 0
        self._live.label = "gradients"
        fill_missing(self._kept)
        self._live.label = 0

    def _end(self, *_: Any) -> None:
        self._is_forward = False
        self._live.label = "working"
        self.kept_bytes = sum(
            size for label, size in self._live.now.items() if label == "activations" or isinstance(label, int)
        )

    def _enter(self, *_: Any) -> None:
        self._live.label = "activations"

    def _leave(self, *_: Any) -> None:
        """In the backward pass: of a block that was computed again."""
        self._num_left += self._is_forward
        self._live.label = self._num_left if self._is_forward else "working"
