"""The decoder beside a GPT in plain torch, and the LSTM beside plain nn.LSTM code: training steps of the same weights.

    OMP_NUM_THREADS=2 python benchmarks/language_models.py                       # trains both first: a few minutes
    OMP_NUM_THREADS=1 python benchmarks/language_models.py --cpu-time            # what a busy machine disturbs least
    OMP_NUM_THREADS=2 python benchmarks/language_models.py --quick               # does it still run?

Both sides see the same rows, with fused AdamW; the losses of four steps one after another are asserted equal before
anything is timed. They take turns; medians of the turns and of their ratios are printed.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foreloom.models.decoder.family import FAMILY as DECODER
from foreloom.models.lstm.family import FAMILY as LSTM
from trained import trained_folder
from turns import SEED, Call, Table, parser

NUM_LAYERS, NUM_HEADS, WIDTH, LENGTH = 4, 4, 256, 256
SHAPES: dict[str, list[str]] = {
    "decoder": [f"model.d_model={WIDTH}", "model.positions=learned", f"data.max_seq_length={LENGTH}"],
    "lstm": [f"model.d_model={WIDTH}", f"data.max_seq_length={LENGTH}", "training.batch_size=8"],
}


class PlainBlock(nn.Module):
    """`attention_scale`: beside 1 / sqrt(width of a head)."""

    def __init__(self, width: int, attention_scale: float = 1.0) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, bias=False), nn.LayerNorm(width, bias=False)
        self.qkv, self.proj = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)
        self.scale = attention_scale * (width // NUM_HEADS) ** -0.5

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).split(width, dim=2)
        q, k, v = (y.view(batch, length, NUM_HEADS, -1).transpose(1, 2) for y in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=self.scale)
        x = x + self.proj(y.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class PlainGpt(nn.Module):
    """The usual few dozen lines: tied, learned positions, pre-norm, all logits at once."""

    def __init__(self, num_words: int) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(num_words, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.ModuleList([PlainBlock(WIDTH) for _ in range(NUM_LAYERS)])
        self.norm = nn.LayerNorm(WIDTH, bias=False)

    def loss(self, tokens: Tensor, labels: Tensor, carry: Any) -> tuple[Tensor, None]:
        x = self.words(tokens) + self.places(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = block(x)
        logits = F.linear(self.norm(x), self.words.weight)
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), labels.view(-1)), None


class PlainLstm(nn.Module):
    """The usual word model: tied, the state kept from row to row."""

    def __init__(self, num_words: int, num_layers: int) -> None:
        super().__init__()
        self.words = nn.Embedding(num_words, WIDTH)
        self.lstm = nn.LSTM(WIDTH, WIDTH, num_layers, batch_first=True)

    def loss(self, tokens: Tensor, labels: Tensor, carry: Any) -> tuple[Tensor, Any]:
        x, state = self.lstm(self.words(tokens), carry)
        logits = F.linear(x, self.words.weight)
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), labels.view(-1)), tuple(y.detach() for y in state)


def plain_gpt(model: Any) -> PlainGpt:
    """With the weights of a decoder."""
    plain = PlainGpt(model.architecture.vocab_size)
    theirs = {"embedding": "words", "positions": "places", "layers": "blocks", "attention_norm": "norm1",
              "feed_forward_norm": "norm2", "attention.qkv": "qkv", "attention.output": "proj",
              "feed_forward.input": "up", "feed_forward.output": "down"}  # fmt: skip
    state = {}
    for name, value in model.state_dict().items():
        for ours, its in theirs.items():
            name = f".{name}".replace(f".{ours}.", f".{its}.").removeprefix(".")
        state[name] = value
    plain.load_state_dict(state)
    return plain


def plain_lstm(model: Any) -> PlainLstm:
    """With the weights of an LSTM. Of torch's two biases one stays 0."""
    plain = PlainLstm(model.architecture.vocab_size, len(model.layers))
    state = {"words.weight": model.embedding.weight}
    for n, layer in enumerate(model.layers):
        state |= {f"lstm.weight_ih_l{n}": layer.weight_ih, f"lstm.weight_hh_l{n}": layer.weight_hh}
        state |= {f"lstm.bias_ih_l{n}": layer.bias, f"lstm.bias_hh_l{n}": torch.zeros_like(layer.bias)}
        getattr(plain.lstm, f"bias_hh_l{n}").requires_grad_(False)
    plain.load_state_dict(state)
    return plain


def steps(model: nn.Module, loss_of: Call) -> Call:
    """A closure that trains on once and returns the loss."""
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=True)
    carry: list[Any] = [None]

    def step() -> Tensor:
        loss, carry[0] = loss_of(carry[0])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step


def pair_of(model: Any, plain: Any, num_rows: int) -> tuple[Call, Call]:
    """Both trained on the same rows again and again."""
    generator = torch.Generator().manual_seed(SEED)
    text = torch.randint(model.architecture.vocab_size, (num_rows, LENGTH + 1), generator=generator)
    tokens, labels = text[:, :-1].contiguous(), text[:, 1:].contiguous()
    is_recurrent = isinstance(plain, PlainLstm)
    never = torch.zeros(num_rows, dtype=torch.bool)

    def ours(carry: Any) -> tuple[Tensor, Any]:
        output = model(tokens, labels, **({"carry": carry, "resets": never} if is_recurrent else {}))
        return output.loss, output.carry

    return steps(model, ours), steps(plain, lambda carry: plain.loss(tokens, labels, carry))


def check(pair: tuple[Call, Call]) -> None:
    """Four steps of both have the same losses."""
    ours, theirs = (torch.stack([call() for _ in range(4)]) for call in pair)
    torch.testing.assert_close(ours, theirs, rtol=2e-4, atol=0)


def main() -> None:
    arguments = parser(__doc__, turns=7, only=["decoder", "lstm"]).parse_args()
    if arguments.trained:
        raise SystemExit("--trained: both families are trained here; leave it out")
    models = {}
    for family, plain_of in ((DECODER, plain_gpt), (LSTM, plain_lstm)):
        if arguments.only in (None, family.name):
            settings = [*SHAPES[family.name], "training.steps=60", "validation.steps=0", "validation.prompts=[]",
                        "data.holdout=0", "monitoring.trackers=[none]"]  # fmt: skip
            with trained_folder(None, f"{family.name}-tiny", quick=arguments.quick, overrides=settings) as folder:
                models[family.name] = family.load(folder), plain_of
    table = Table(arguments, "plain torch")
    for name, (model, plain_of) in models.items():
        for num_rows in [2] if arguments.quick else arguments.rows or [8, 32]:
            its = copy.deepcopy(model)
            pair = pair_of(its, plain_of(its), num_rows)
            check(pair)
            table.compare(f"{name}, training step, {num_rows} × {LENGTH}", pair, trains=True)


if __name__ == "__main__":
    main()
