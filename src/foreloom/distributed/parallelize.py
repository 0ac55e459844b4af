"""The one parallel path: a single-device model in, the same model ready to train on all ranks out."""

from __future__ import annotations

import contextlib
import fnmatch
import math
import sys
import warnings
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import _CHECKPOINT_PREFIX, checkpoint_wrapper
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from foreloom.distributed.experts import SharedExperts
from foreloom.distributed.mesh import MeshShape, ParallelConfig, mesh_shape
from foreloom.distributed.process import Process, has_group
from foreloom.distributed.sharding import Sharding
from foreloom.distributed.waiting import waiting


@dataclass(frozen=True)
class ParallelModel:
    """A model on its device, wrapped for its mesh. Gradients are *sums* over ranks, never means."""

    model: nn.Module
    """As the family knows it: what FSDP2 and DDP make of it is `module`."""
    module: nn.Module
    """To be called. Its state dict goes through `torch.distributed.checkpoint.state_dict`, which knows the wrappers."""
    mesh: MeshShape
    autocast_dtype: torch.dtype | None
    experts: SharedExperts | None = None
    """Those that ranks share."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The model's, sharded where they are, named as before anything was wrapped."""
        for name, parameter in self.model.named_parameters():
            yield name.replace(_CHECKPOINT_PREFIX, ""), parameter

    @contextlib.contextmanager
    def micro_batch(self, *, is_last: bool) -> Generator[None]:
        """Surrounds forward and backward of one micro-batch: ranks exchange gradients in the last one only."""
        if isinstance(self.module, FSDPModule):
            self.module.set_requires_gradient_sync(is_last)
            self.module.set_is_last_backward(is_last)
        with contextlib.ExitStack() as stack:
            if is_last or self.experts:
                stack.enter_context(waiting("the gradients of a step"))
            if isinstance(self.module, DistributedDataParallel) and not is_last:
                stack.enter_context(self.module.no_sync())
            yield
            if is_last and self.experts:
                self.experts.sum_gradients()

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Add the gradients over the ranks of DDP, where no micro-batch has been the last. Collective; all parameters
        have one."""
        with waiting("the gradients of a step"):
            for work in [dist.all_reduce(p.grad, async_op=True) for p in parameters]:
                work.wait()

    def autocast(self, device: torch.device) -> contextlib.AbstractContextManager[Any]:
        """Surrounds forward: matrix products in the compute precision, everything delicate in fp32."""
        return torch.autocast(device.type, dtype=self.autocast_dtype, enabled=self.autocast_dtype is not None)

    @contextlib.contextmanager
    def answering(self, device: torch.device) -> Generator[None]:
        """Surrounds forecasts of the module inside: as the saved model gives them, so nothing compiled and in fp32.

        Where sharded parameters come in the compute precision, forecasts are in that. Forecasts have a shape a batch,
        and compiling each would use up what torch allows before it stops compiling the training step too.
        """
        with contextlib.ExitStack() as stack:
            if "torch._dynamo" in sys.modules:  # nothing can be compiled otherwise, and importing it takes seconds
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            if isinstance(self.module, FSDPModule):
                stack.enter_context(self.autocast(device))
                self.module.unshard()  # parts of the model may be called by themselves
                stack.callback(self.module.reshard)
            for exchange in self.experts.exchanges if self.experts else []:
                stack.enter_context(exchange.gathered())
            yield


def parallelize(
    model: nn.Module,
    sharding: Sharding,
    parallel: ParallelConfig,
    process: Process,
    *,
    activation_checkpointing: bool = False,
    compile_blocks: bool = False,
    autocast_dtype: torch.dtype | None = None,
) -> ParallelModel:
    """Move `model` to the process's device and prepare it: experts shared -> activation checkpointing -> compile ->
    FSDP2 or DDP.

    The values of the parameters must be equal on all ranks. They stay fp32; `autocast_dtype` is for compute. Raises
    ValueError for a mesh that does not fit the ranks, and where a setting that works by block finds none.
    """
    num_parameters = sum(p.numel() for p in model.parameters())
    shape = mesh_shape(parallel, world_size=process.world_size, num_parameters=num_parameters)
    if any(tensor.device != process.device for tensor in (*model.parameters(), *model.buffers())):
        model.to(process.device)  # tensors without values cannot be moved, and need not be
    blocks = find_blocks(model, sharding)
    if not blocks and (activation_checkpointing or compile_blocks or shape.strategy == "fsdp"):
        raise ValueError(
            "this model names no blocks, so training.activation_checkpointing, training.compile and parallel.strategy: "
            "fsdp have nothing to work on; turn them off"
        )
    experts = SharedExperts(model, sharding, shape, process) if shape.ep > 1 else None
    if activation_checkpointing:
        blocks = [_replace(model, name, checkpoint_wrapper(block)) for name, block in blocks]
    if compile_blocks:
        for _, block in blocks:
            block.compile()
    if not has_group():
        return ParallelModel(model, model, shape, autocast_dtype)
    ignored = set(experts.parameters) if experts else set()
    if shape.strategy == "fsdp":
        module = _shard(model, blocks, shape, process, autocast_dtype, ignored)
    else:
        module = _replicate(model, process, ignored)
    return ParallelModel(model, module, shape, autocast_dtype, experts)


def local_part(tensor: Tensor) -> Tensor:
    """This rank's share of a sharded tensor; any other tensor as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def num_copies(parameter: Tensor, process: Process) -> int:
    """How many ranks hold the same share of a parameter: all of them, where it is not sharded."""
    if not isinstance(parameter, DTensor):
        return process.world_size
    sizes = zip(parameter.device_mesh.shape, parameter.placements, strict=True)
    return math.prod(size for size, placement in sizes if placement.is_replicate())


def find_blocks(model: nn.Module, sharding: Sharding) -> list[tuple[str, nn.Module]]:
    """The units of sharding, recomputing and compiling: the outermost modules that a pattern names (a `*` also matches
    what lies inside them)."""
    found: list[tuple[str, nn.Module]] = []
    for name, module in model.named_modules():
        inside = found and name.startswith(found[-1][0] + ".")
        if not inside and any(fnmatch.fnmatchcase(name, pattern) for pattern in sharding.blocks):
            found.append((name, module))
    return found


def _replace(model: nn.Module, name: str, wrapped: nn.Module) -> tuple[str, nn.Module]:
    parent, _, attribute = name.rpartition(".")
    model.get_submodule(parent).register_module(attribute, wrapped)
    return name, wrapped


def _replicate(model: nn.Module, process: Process, ignored: set[nn.Parameter]) -> nn.Module:
    # Which parameters take part differs by micro-batch (a batch of singletons skips the group attention's q and k).
    warnings.filterwarnings("ignore", message="find_unused_parameters=True was specified")
    warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")  # its successor is not in torch 2.11
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(
        model, [name for name, parameter in model.named_parameters() if parameter in ignored]
    )
    devices = [process.device] if process.device.type == "cuda" else None
    replicated = DistributedDataParallel(
        model, device_ids=devices, broadcast_buffers=False, gradient_as_bucket_view=True, find_unused_parameters=True
    )
    replicated.register_comm_hook(None, _sum_bucket)
    return replicated


def _sum_bucket(state, bucket):  # no annotations: DDP refuses postponed ones
    """DDP's communication hook; its default divides by the number of ranks."""
    future = dist.all_reduce(bucket.buffer(), async_op=True).get_future()
    return future.then(lambda done: done.value()[0])


def _shard(
    model: nn.Module,
    blocks: list[tuple[str, nn.Module]],
    shape: MeshShape,
    process: Process,
    autocast_dtype: torch.dtype | None,
    ignored: set[nn.Parameter],
) -> nn.Module:
    # Where a model returns a view, as of its quantiles, nobody writes into it.
    warnings.filterwarnings("ignore", message=r"FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(
        process.device.type, (shape.dp_replicate, shape.dp_shard), mesh_dim_names=("dp_replicate", "dp_shard")
    )
    # Inputs stay as they are: a series scaled in bf16 has lost its digits before the model can standardise it.
    compute = MixedPrecisionPolicy(param_dtype=autocast_dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for _, block in blocks:
        block.register_forward_hook(_reach_every_parameter)
        fully_shard(block, mesh=mesh, mp_policy=compute, ignored_params=ignored)
    model.register_forward_hook(_reach_every_parameter)
    ends = MixedPrecisionPolicy(reduce_dtype=torch.float32, cast_forward_inputs=False)
    fully_shard(model, mesh=mesh, mp_policy=ends, ignored_params=ignored)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo has no pre-multiplied sum
    return model


class _Zero(torch.autograd.Function):
    """The number 0, with a gradient of zero for every parameter."""

    @staticmethod
    def forward(ctx: Any, *parameters: Tensor) -> Tensor:
        ctx.like = [(p.shape, p.dtype, p.device) for p in parameters]
        return parameters[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        return tuple(torch.zeros((), dtype=dtype, device=device).expand(shape) for shape, dtype, device in ctx.like)


def _reach_every_parameter(module: nn.Module, inputs: Any, output: Any) -> Any:
    """Forward hook: ranks reduce-scatter the gradients they have, so all must have the same ones, zeros included."""
    parameters = [p for p in module.parameters() if p.requires_grad and not isinstance(p, DTensor)]
    if not parameters or not torch.is_grad_enabled():
        return output
    zero = _Zero.apply(*parameters)
    if isinstance(output, Tensor):
        return output + zero.to(output.dtype)
    if (objective := getattr(output, "objective", None)) is not None:  # the model itself; a named tuple
        return output._replace(objective=objective._replace(sum=objective.sum + zero))
    return (output[0] + zero.to(output[0].dtype), *output[1:])
