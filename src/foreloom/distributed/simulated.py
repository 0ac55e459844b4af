"""Many ranks in one process: this one is real, and what it would send the others is counted and goes nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import FakeWork
from torch.utils._python_dispatch import TorchDispatchMode

from foreloom.distributed.process import Process

CollectiveKind = Literal["all-reduce", "all-gather", "reduce-scatter"]


class Issued(NamedTuple):
    """A collective that this rank took part in."""

    kind: CollectiveKind
    num_bytes: int
    """Of the whole tensor."""
    num_ranks: int


@contextmanager
def simulated_group(num_ranks: int) -> Iterator[Process]:
    """This process as rank 0 of so many, of which there are no others; collectives give back what they were given."""
    from torch.testing._internal.distributed.fake_pg import FakeStore  # registers the backend of that name

    dist.init_process_group("fake", rank=0, world_size=num_ranks, store=FakeStore())
    try:
        yield Process(0, num_ranks, 0, torch.device("cpu"))
    finally:
        dist.destroy_process_group()


class CollectiveLog(TorchDispatchMode):
    """Notes the collectives that are issued inside, and lets none of them happen: tensors need have no values."""

    def __init__(self) -> None:
        super().__init__()
        self.issued: list[Issued] = []

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
        if func.namespace == "c10d" and isinstance(args[0], Tensor | list):
            return args[0], FakeWork().boxed()
        return func(*args, **(kwargs or {}))

    def _note(self, kind: CollectiveKind, num_bytes: int, num_ranks: int) -> None:
        self.issued.append(Issued(kind, num_bytes, num_ranks))
