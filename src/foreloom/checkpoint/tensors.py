"""The tensors of a checkpoint, written by torch.distributed.checkpoint (DCP), and read without running what they bring.

DCP pickles what it knows of its files into `.metadata`, and unpickles it, and every entry that is no tensor, as it
comes: a run folder of someone else's could run any code. Here only DCP's own records are read, and only tensors.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.distributed.checkpoint import metadata as dcp_metadata
from torch.distributed.checkpoint._nested_dict import flatten_state_dict
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader, _StorageInfo
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex, StorageMeta
from torch.distributed.tensor import DTensor

from foreloom.checkpoint.manifest import CheckpointError
from foreloom.data.formats.restricted_pickle import DAMAGED, refuse_numbers
from foreloom.distributed.parallelize import local_part
from foreloom.distributed.waiting import waiting

_NAME = ".metadata"
_TRUST = "Nothing of it was run; take the folder from where it was trained"
_RECORDS = (
    *(Metadata, MetadataIndex, StorageMeta, _StorageInfo, dcp_metadata.TensorStorageMetadata),
    *(dcp_metadata.BytesStorageMetadata, dcp_metadata.ChunkStorageMetadata, dcp_metadata.TensorProperties),
)


def save(state: Mapping[str, Any], folder: Path, *, is_alone: bool, group: ProcessGroup | None = None) -> None:
    """Write the tensors of `state`, nested dictionaries of them. Collective (in `group`), but where the process
    `is_alone`."""
    with waiting("the tensors of a checkpoint"):
        dcp.save(dict(state), checkpoint_id=folder, no_dist=is_alone, process_group=group)


def load(state: dict[str, Any], folder: Path, *, is_alone: bool) -> None:
    """Fill the tensors of `state` in place, whatever the world size was. Collective, but where the process `is_alone`.

    Raises CheckpointError where `.metadata` names anything but tensors in files beside it, ValueError where it has
    tensors that `state` lacks, which DCP would leave out in silence, and what DCP raises where they are others.
    """
    reader = _Reader(folder)
    saved = reader.read_metadata().state_dict_metadata  # also because DCP would show the traceback of what is refused
    if left_out := sorted(saved.keys() - flatten_state_dict(state)[0].keys()):
        raise ValueError(f"it holds {left_out[0]}, which this run does not train")
    with waiting("the tensors of a checkpoint"):
        dcp.load(state, storage_reader=reader, planner=_TensorsOnly(), no_dist=is_alone)


class Staging:
    """Copies in host memory of what training goes on to change, made once and written over at each save."""

    def __init__(self) -> None:
        self._copies: dict[tuple[Any, ...], Tensor] = {}

    def copy(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Nested dictionaries of tensors as they are now. What an earlier call gave is overwritten."""
        earlier, self._copies = self._copies, {}
        copied = self._copy(state, earlier)
        if torch.cuda.is_initialized():
            torch.cuda.current_stream().synchronize()
        return copied

    def copied(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`tensors`, but for those that `copy` was given their copies: nothing changes the others."""
        return {name: local_part(self._copies.get(_memory(tensor), tensor)) for name, tensor in tensors.items()}

    def _copy(self, state: Mapping[str, Any], earlier: Mapping[tuple[Any, ...], Tensor]) -> dict[str, Any]:
        copied: dict[str, Any] = {}
        for name, value in state.items():
            if isinstance(value, Mapping):
                copied[name] = self._copy(value, earlier)
                continue
            memory = _memory(value)
            if memory not in self._copies:
                copy = self._copies[memory] = earlier[memory] if memory in earlier else _on_host(value)
                local_part(copy).copy_(local_part(value), non_blocking=True)
            copied[name] = self._copies[memory]
        return copied


def _memory(tensor: Tensor) -> tuple[Any, ...]:
    """Where a tensor, or this rank's share of it, is, and how it is read there."""
    local = local_part(tensor)
    return local.device, local.data_ptr(), local.dtype, local.shape, local.stride(), tensor.shape


def _on_host(tensor: Tensor) -> Tensor:
    """Room for one like it, pinned for a CUDA device to write to."""
    local = local_part(tensor)
    room = torch.empty_like(local, device="cpu", requires_grad=False, pin_memory=local.device.type == "cuda")
    return DTensor(room, tensor._spec, requires_grad=False) if isinstance(tensor, DTensor) else room


class _Reader(FileSystemReader):
    def read_metadata(self) -> Metadata:  # type: ignore[override]
        """What `.metadata` says."""
        path = Path(self.path) / _NAME
        try:
            with path.open("rb") as file:
                refuse_numbers(file)
                metadata = _Unpickler(file).load()
            places = {MetadataIndex(at.fqn, at.offset, at.index): info for at, info in metadata.storage_data.items()}
            outside = [
                info.relative_path for info in places.values() if Path(info.relative_path).name != info.relative_path
            ]
        except (_Refused, OSError, *DAMAGED) as error:
            raise CheckpointError(f"{path} is not what a checkpoint's is: {error}. {_TRUST}") from None
        if outside:
            raise CheckpointError(f"{path} names a file outside its folder, {outside[0]}. {_TRUST}")
        metadata.storage_data, metadata.storage_meta = places, StorageMeta(load_id=self.load_id)
        return metadata


class _TensorsOnly(DefaultLoadPlanner):
    def load_bytes(self, read_item: Any, value: Any) -> None:
        raise ValueError(f"{read_item.dest_index.fqn} is no tensor in the checkpoint")


class _Refused(Exception):
    """Something that a checkpoint has no need of."""


class _Unpickler(pickle.Unpickler):
    """Knows DCP's records, and of torch dtypes, layouts and sizes.

    A pickle may give a class attributes: each is read into classes of its own, which inherit from DCP's.
    """

    def __init__(self, file: Any) -> None:
        super().__init__(file)
        self._known: dict[tuple[str, str], Any] = {
            (record.__module__, record.__name__): type(record.__name__, (record,), {}) for record in _RECORDS
        }
        encoding = dcp_metadata._MEM_FORMAT_ENCODING
        self._known |= {
            (encoding.__module__, encoding.__name__): lambda value: encoding(value),
            ("torch", "Size"): lambda sizes: torch.Size(sizes),
            ("torch.serialization", "_get_layout"): lambda name: {"torch.strided": torch.strided}[name],
            **{
                (module, name): lambda *parts: "/".join(parts)
                for module in ("pathlib", "pathlib._local")
                for name in ("PosixPath", "WindowsPath")
            },
        }

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and isinstance(found := vars(torch).get(name), torch.dtype):
            return found
        if (module, name) not in self._known:
            raise _Refused(f"it names {module}.{name}")
        return self._known[module, name]
