"""Many ranks in one process: this one is real, and what it would send the others is counted and goes nowhere."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import FakeWork
from torch.autograd.function import once_differentiable
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from foreloom.distributed.experts import shared_modules
from foreloom.distributed.process import Process
from foreloom.distributed.sharding import Sharding

CollectiveKind = Literal["all-reduce", "all-gather", "reduce-scatter", "all-to-all"]


class Issued(NamedTuple):
    """A collective that this rank took part in."""

    kind: CollectiveKind
    num_bytes: int
    """Of the whole tensor; of all-to-all this rank's, its own share included."""
    num_ranks: int


@contextmanager
def simulated_group(num_ranks: int) -> Generator[Process]:
    """This process as rank 0 of so many, of which there are no others; collectives give back what they were given."""
    from torch.testing._internal.distributed.fake_pg import FakeStore  # registers the backend of that name

    dist.init_process_group("fake", rank=0, world_size=num_ranks, store=FakeStore())
    try:
        yield Process(0, num_ranks, 0, torch.device("cpu"))
    finally:
        dist.destroy_process_group()


class CollectiveLog(TorchDispatchMode):
    """Notes the collectives that are issued inside. Unless they `happen`, tensors need have no values."""

    def __init__(self, *, happen: bool = False) -> None:
        super().__init__()
        self.issued: list[Issued] = []
        self._happen = happen

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        c10d, functional = torch.ops.c10d, torch.ops._c10d_functional
        if func is functional.all_gather_into_tensor.default:
            self._note("all-gather", args[0].nbytes * args[1], args[1])
        elif func is c10d._allgather_base_.default:
            self._note("all-gather", args[0].nbytes, args[0].numel() // args[1].numel())
        elif func is c10d._reduce_scatter_base_.default:
            self._note("reduce-scatter", args[1].nbytes, args[1].numel() // args[0].numel())
        elif func is c10d.allreduce_.default:
            ranks = dist.ProcessGroup.unbox(args[1]).size()
            self._note("all-reduce", sum(tensor.nbytes for tensor in args[0]), ranks)
        elif func is c10d.alltoall_base_.default:
            self._note("all-to-all", args[1].nbytes, dist.ProcessGroup.unbox(args[2]).size())
        if not self._happen and func.namespace == "c10d" and isinstance(args[0], Tensor | list):
            return args[0], FakeWork().boxed()
        return func(*args, **(kwargs or {}))

    def _note(self, kind: CollectiveKind, num_bytes: int, num_ranks: int) -> None:
        self.issued.append(Issued(kind, num_bytes, num_ranks))


class EvenExchange:
    """The exchange of one module's experts (see `sharding.Exchange`) with ranks that are not there. Every expert gets
    as many pairs, so what comes is as much as what goes; it is noted in `issued` and has no values."""

    whole = None

    def __init__(self, num_experts: int, num_ranks: int, issued: list[Issued]) -> None:
        self._num_experts, self._num_ranks, self._issued = num_experts, num_ranks, issued

    def own(self, parameter: Tensor) -> Tensor:
        """The experts held here."""
        return parameter.to_local() if isinstance(parameter, DTensor) else parameter

    def route(self, expert_M: Tensor) -> EvenRoute:
        """Where as many pairs go as come."""
        counts = Issued("all-to-all", self._num_experts * expert_M.element_size(), self._num_ranks)
        self._issued.append(counts)
        return EvenRoute(expert_M // self._num_ranks, self._num_ranks, self._issued)


class EvenRoute(NamedTuple):
    """One way to the experts and back."""

    expert_R: Tensor
    num_ranks: int
    issued: list[Issued]

    def there(self, x_M: Tensor) -> Tensor:
        """(M, ...) -> (M, ...), of others."""
        return _Swapped.apply(x_M, self)

    back = there


class _Swapped(torch.autograd.Function):
    """As many rows of others for one's own, and their gradients the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, route: EvenRoute) -> Tensor:
        ctx.route = route
        route.issued.append(Issued("all-to-all", x.nbytes, route.num_ranks))
        return torch.empty_like(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        ctx.route.issued.append(Issued("all-to-all", gradient.nbytes, ctx.route.num_ranks))
        return torch.empty_like(gradient), None


def leave_share(model: nn.Module, sharding: Sharding, ep: int, issued: list[Issued]) -> None:
    """Leave of a model's experts the share of a rank of `ep` that are not there, in place. ValueError as
    `experts.shared_modules` has it. Those that ranks of a group share already stay as they are."""
    for module in shared_modules(model, sharding, ep):
        for name, parameter in list(module.named_parameters(recurse=False)):
            num_experts = len(parameter)
            if not isinstance(parameter, DTensor):
                share = nn.Parameter(parameter.detach()[: num_experts // ep].clone(), parameter.requires_grad)
                module.register_parameter(name, share)
        module.exchange = EvenExchange(num_experts, ep, issued)  # type: ignore[assignment]
