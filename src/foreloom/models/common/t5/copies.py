"""One embedding under several names: older T5 files hold it again for each stack."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

EMBEDDING = "shared.weight"
COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")


def without_copies(
    tensors: Mapping[str, Tensor], file: Path, names: tuple[str, ...] = COPIES, embedding: str = EMBEDDING
) -> dict[str, Tensor]:
    """The tensors less those copies of the embedding; ValueError where one is no copy."""
    for name in names:
        if name in tensors and embedding in tensors and not tensors[name].equal(tensors[embedding]):
            raise ValueError(
                f"{file}: {name} differs from {embedding}; foreloom and transformers 5 have models with one embedding "
                "for all that read it only."
            )
    return {name: tensor for name, tensor in tensors.items() if name not in names}
