"""Expert parallelism: each rank of a group holds its share of the experts, and tokens travel to them and back.

Axes: M pairs (token, expert) of this rank sorted by expert, R pairs received for the experts held here, E experts. The
other axes travel as they are.
"""

from __future__ import annotations

import contextlib
import fnmatch
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard

from foreloom.distributed.mesh import MeshShape
from foreloom.distributed.process import Process
from foreloom.distributed.sharding import Sharding


class GroupExchange:
    """The exchange of one module's experts (see `sharding.Exchange`) among the ranks of a group, which hold equally
    many, in order."""

    def __init__(self, module: nn.Module, group: dist.ProcessGroup) -> None:
        self._parameters = list(module.parameters())
        self._group, self._num_ranks = group, dist.get_world_size(group)
        self._num_experts = len(self._parameters[0])
        self.whole: Sequence[Tensor] | None = None

    def own(self, parameter: Tensor) -> Tensor:
        """The experts held here."""
        assert isinstance(parameter, DTensor)
        return parameter.to_local()

    def route(self, expert_M: Tensor) -> GroupRoute:
        """Where the pairs go, known to all. Collective; waits for the device, as sizes of messages are data."""
        count_E = expert_M.bincount(minlength=self._num_experts)
        received_E = torch.empty_like(count_E)
        dist.all_to_all_single(received_E, count_E, group=self._group)
        sent, received = (x_E.view(self._num_ranks, -1) for x_E in (count_E, received_E))
        local = torch.arange(received.shape[1], device=expert_M.device).repeat(self._num_ranks)
        expert_R = local.repeat_interleave(received.flatten())
        return GroupRoute(expert_R, sent.sum(1).tolist(), received.sum(1).tolist(), self._group)

    @contextlib.contextmanager
    def gathered(self) -> Generator[None]:
        """While entered, this rank holds all experts and asks no other. Collective at the beginning."""
        with torch.no_grad():
            self.whole = [p.full_tensor() for p in self._parameters if isinstance(p, DTensor)]
        try:
            yield
        finally:
            self.whole = None


@dataclass(frozen=True)
class GroupRoute:
    """One way to the experts and back."""

    expert_R: Tensor
    """Which of the experts held here each pair is for."""
    num_sent: list[int]
    """To each rank."""
    num_received: list[int]
    group: dist.ProcessGroup

    def there(self, x_M: Tensor) -> Tensor:
        """(M, ...) of the pairs here -> (R, ...) of those whose experts are held here. Collective."""
        return _AllToAll.apply(x_M, self.num_sent, self.num_received, self.group)

    def back(self, y_R: Tensor) -> Tensor:
        """(R, ...) -> (M, ...), each to where it came from. Collective."""
        return _AllToAll.apply(y_R, self.num_received, self.num_sent, self.group)


class _AllToAll(torch.autograd.Function):
    """Rows to the ranks, and their gradients the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, num_sent: list[int], num_received: list[int], group: dist.ProcessGroup) -> Tensor:
        ctx.sizes, ctx.group = (num_sent, num_received), group
        return _exchanged(x, num_sent, num_received, group)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        num_sent, num_received = ctx.sizes
        return _exchanged(gradient, num_received, num_sent, ctx.group), None, None, None


def _exchanged(x: Tensor, num_sent: list[int], num_received: list[int], group: dist.ProcessGroup) -> Tensor:
    found = x.new_empty(sum(num_received), *x.shape[1:])
    dist.all_to_all_single(found, x.contiguous(), num_received, num_sent, group=group)
    return found


class SharedExperts:
    """The experts of a model, shared between ranks. What `copies` of a rank hold the same ones add their gradients."""

    def __init__(self, model: nn.Module, sharding: Sharding, shape: MeshShape, process: Process) -> None:
        """Leave each rank its share, in place. Collective. ValueError where the model has none, or they do not divide.

        Ranks that share one set of experts are neighbours, so that tokens stay on a machine as far as they can.
        """
        modules = shared_modules(model, sharding, shape.ep)
        self._num_copies = process.world_size // shape.ep
        mesh = init_device_mesh(
            process.device.type, (self._num_copies, shape.ep), mesh_dim_names=("ep_replicate", "ep")
        )
        self._copies = mesh["ep_replicate"].get_group()
        rank = mesh["ep"].get_local_rank()
        self.exchanges: list[GroupExchange] = []
        self.parameters: list[nn.Parameter] = []
        for module in modules:
            for name, parameter in list(module.named_parameters(recurse=False)):
                share = parameter.detach().chunk(shape.ep)[rank].clone()
                shared = DTensor.from_local(share, mesh, (Replicate(), Shard(0)), run_check=False)
                module.register_parameter(name, nn.Parameter(shared, requires_grad=parameter.requires_grad))
            exchange = GroupExchange(module, mesh["ep"].get_group())
            module.exchange = exchange  # type: ignore[assignment]
            self.exchanges.append(exchange)
            self.parameters += module.parameters()

    def sum_gradients(self) -> None:
        """Over the ranks that hold the same experts. Collective."""
        gradients = [p.grad for p in self.parameters if p.requires_grad]
        for gradient in gradients if self._num_copies > 1 else []:
            assert isinstance(gradient, DTensor)  # an expert without a token has one, of zeros
            dist.all_reduce(gradient.to_local(), group=self._copies)


def shared_modules(model: nn.Module, sharding: Sharding, ep: int) -> list[nn.Module]:
    """Those whose experts `ep` ranks share. ValueError where the model has none, or they do not divide."""
    found = [
        module
        for name, module in model.named_modules()
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in sharding.experts)
    ]
    if not found:
        raise ValueError(f"parallel.ep is {ep}, and this model has no experts that ranks could share; leave it at 1")
    for module in found:
        check_share(module, ep)
    return found


def check_share(module: nn.Module, ep: int) -> None:
    """ValueError where so many ranks cannot share the experts of a module."""
    parameters = dict(module.named_parameters())
    if any("." in name for name in parameters):
        raise ValueError(f"parallel.ep is {ep}, and adapters of experts cannot be shared; leave parallel.ep at 1")
    num_experts = len(next(iter(parameters.values())))
    if num_experts % ep:
        fitting = ", ".join(str(n) for n in range(1, num_experts + 1) if num_experts % n == 0)
        raise ValueError(
            f"parallel.ep: {ep} ranks cannot share {num_experts} experts evenly; set it to one of {fitting}"
        )
