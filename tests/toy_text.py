"""Two small families that read text: a causal one whose samples are blocks, and a recurrent one whose samples go on.

They stand for every family that is not of series: the laws hold for them as for the others.

Axes: R rows, T tokens, V vocabulary, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from foreloom.config.section import section
from foreloom.data.batch import Find, Problem, SourceStatistics
from foreloom.data.config import ValidationConfig
from foreloom.data.hashing import integers, permute
from foreloom.distributed.sharding import Sharding
from foreloom.models.family import Carry, ModelFamily, Tally
from foreloom.objectives.loss import Loss

VOCABULARY, WIDTH, LONGEST = 29, 16, 12
NUM_BLOCKS = 50
"""Of one epoch."""
NO_TARGET = -100


class DrawnBlocks(NamedTuple):
    first: int
    num_rows_N: np.ndarray
    length_N: np.ndarray
    block_N: np.ndarray
    """Which block of the text a sample is."""

    def __len__(self) -> int:
        return len(self.block_N)


@dataclass(frozen=True)
class Tokens:
    """The rows of one micro-batch, padded on the right."""

    token_RT: np.ndarray
    target_RT: np.ndarray
    sample_R: np.ndarray

    @property
    def num_rows(self) -> int:
        return len(self.token_RT)

    @property
    def size(self) -> str:
        return f"{self.num_rows} rows of {self.token_RT.shape[1]} tokens"

    def masked(self) -> Tokens:
        nothing_RT = np.full_like(self.target_RT, NO_TARGET)
        return replace(self, target_RT=nothing_RT, sample_R=np.full_like(self.sample_R, -1))


class ToyText:
    """A text in which each token hangs on the one before. `num_lanes` None: blocks of several lengths, each once an
    epoch in an order of its own. Else sample i is the next piece of lane i % num_lanes, without end."""

    def __init__(self, num_lanes: int | None = None) -> None:
        self.num_lanes = num_lanes
        self.num_epoch_samples = None if num_lanes else NUM_BLOCKS
        self.num_sample_rows = 1
        self.fingerprint = f"toy text {num_lanes}"
        self.made_of = {"text": self.fingerprint}

    def draw(self, first: int, count: int) -> DrawnBlocks:
        index_N = np.arange(first, first + count)
        if self.num_lanes:
            block_N, length_N = index_N, np.full(count, LONGEST)
        else:
            block_N = permute(7, "text", index_N // NUM_BLOCKS, index_N % NUM_BLOCKS, NUM_BLOCKS)
            length_N = LONGEST - block_N % 5
        return DrawnBlocks(first, np.ones(count, np.int64), length_N, block_N)

    def gather(self, drawn: DrawnBlocks, positions: np.ndarray) -> Tokens:
        length_R = drawn.length_N[positions]
        lanes = self.num_lanes or 1
        lane_R, piece_R = (
            (drawn.block_N[positions] % lanes, drawn.block_N[positions] // lanes)
            if self.num_lanes
            else (drawn.block_N[positions], 0 * positions)
        )
        place_RT = piece_R[:, None] * LONGEST + np.arange(length_R.max() + 1)
        drawn_RT = integers(3, "text", "token", lane_R[:, None] * 100_000 + place_RT // 2, VOCABULARY)
        text_RT = (drawn_RT + place_RT % 2) % VOCABULARY  # every second token follows from the one before
        is_there_RT = np.arange(length_R.max()) < length_R[:, None]
        return Tokens(
            token_RT=np.where(is_there_RT, text_RT[:, :-1], 0),
            target_RT=np.where(is_there_RT, text_RT[:, 1:], NO_TARGET),
            sample_R=drawn.first + positions,
        )

    def largest(self, num_rows: int) -> Tokens:
        token_RT = np.ones((num_rows, LONGEST), np.int64)
        return Tokens(token_RT, token_RT, np.full(num_rows, -1))

    def facts(self, drawn: DrawnBlocks) -> list[dict[str, Any]]:
        return [{"sample": drawn.first + n, "block": int(block)} for n, block in enumerate(drawn.block_N)]

    def statistics(self) -> list[SourceStatistics]:
        return [SourceStatistics("toy text", 1.0, NUM_BLOCKS, 0, unit="blocks")]


@section
class ToyTextData:
    """A `data` section: the toy's text in blocks, or as streams that go on."""

    is_stream: bool = False
    """A stream for each row of the global batch."""
    num_prefetch: int = 2
    """Global batches read ahead."""

    validation: ClassVar[type] = ValidationConfig

    def open(self, seed: int, *, batch_size: int) -> ToyText:
        return ToyText(batch_size if self.is_stream else None)

    def full_rows(self, num_rows: int) -> Any:
        return ToyText(None).largest(num_rows)

    def held_out(self, validation: ValidationConfig, dataset: ToyText, **ranks: int) -> None:
        return None

    def find_files(self, validation: ValidationConfig, find: Find) -> tuple[Any, ValidationConfig, list[Problem]]:
        return self, validation, []

    def contradictions(self, validation: ValidationConfig) -> list[Problem]:
        return [Problem("validation.steps", "a toy holds nothing out")] if validation.steps else []

    def why_endless(self) -> str:
        return "a stream has no end; give training.steps" if self.is_stream else ""

    def is_there(self) -> bool:
        return True

    def in_words(self) -> Mapping[str, str]:
        return {"text": "streams" if self.is_stream else "blocks"}


@section
class ToyReaderConfig:
    """A `model` section."""

    family: str = "toy_tokens"
    """As registered."""
    size: str = "toy"
    """There is one."""
    pretrained: str | None = None
    """Not for toys."""
    dropout: float = 0.0
    """Rate."""


class TextOutput(NamedTuple):
    loss: Tensor
    objective: Loss
    tally: Tally
    carry: Carry


class ToyReader(nn.Module):
    """`is_recurrent`: a layer of GRU cells whose state goes on from sample to sample; else a sum over what came
    before."""

    def __init__(self, is_recurrent: bool, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.blocks = nn.ModuleList([ReaderBlock(is_recurrent, dropout)])
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, tokens: Tensor, targets: Tensor, carry: Carry | None = None) -> TextOutput:
        state_RD = carry["state"] if carry else torch.zeros(len(tokens), WIDTH, device=tokens.device)
        h_RTD, state_RD = self.blocks[0](self.embedding(tokens), state_RD)
        losses = nn.functional.cross_entropy(
            self.head(h_RTD).flatten(0, 1), targets.flatten(), ignore_index=NO_TARGET, reduction="sum"
        )
        loss = Loss(losses, (targets != NO_TARGET).sum())
        return TextOutput(loss.mean, loss, {"tokens": loss.count.detach()[None]}, {"state": state_RD})


class ReaderBlock(nn.Module):
    def __init__(self, is_recurrent: bool, dropout: float) -> None:
        super().__init__()
        self.cell = nn.GRUCell(WIDTH, WIDTH) if is_recurrent else nn.Linear(WIDTH, WIDTH)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_RTD: Tensor, state_RD: Tensor) -> tuple[Tensor, Tensor]:
        if isinstance(self.cell, nn.GRUCell):
            states = []
            for step in range(x_RTD.shape[1]):
                state_RD = self.cell(x_RTD[:, step], state_RD)
                states.append(state_RD)
            return self.dropout(torch.stack(states, 1)), state_RD
        return x_RTD + self.dropout(torch.tanh(self.cell(x_RTD.cumsum(1)))), state_RD


def batch(module: nn.Module, tokens: Tokens, device: torch.device) -> Mapping[str, Any]:
    return {
        "tokens": torch.from_numpy(tokens.token_RT).to(device),
        "targets": torch.from_numpy(tokens.target_RT).to(device),
    }


def initialize(model: nn.Module, seed: int) -> None:
    for index, parameter in enumerate(model.parameters()):
        generator = torch.Generator().manual_seed(seed + index)
        with torch.no_grad():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)


def _family(name: str, is_recurrent: bool, **more: Any) -> ModelFamily:
    return ModelFamily(
        name=name,
        config=ToyReaderConfig,
        data=lambda: ToyTextData,
        build=lambda section, data: ToyReader(is_recurrent, section.dropout),
        initialize=initialize,
        batch=batch,
        sharding=Sharding(blocks=("blocks.*",)),
        recognises=lambda config: False,
        load=lambda folder: ToyReader(is_recurrent, 0.0),
        save=lambda model, state, folder: save_file(dict(state), folder / "model.safetensors"),
        flops_per_row=lambda model, data: 1e6,
        **more,
    )


TOY_TOKENS = _family("toy_tokens", is_recurrent=False)
TOY_RECURRENT = _family(
    "toy_recurrent",
    is_recurrent=True,
    carry=lambda module, lanes, device: {"state": torch.zeros(lanes, WIDTH, device=device)},
)
