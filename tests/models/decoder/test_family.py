"""The decoder: every choice of its architecture against the definition written out, its counts, folders, sentences."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from foreloom.config.loader import validate
from foreloom.config.located import Located
from foreloom.data.text.config import TextSource
from foreloom.data.text.dataset import Tokens
from foreloom.data.text.section import TextData
from foreloom.data.text.tokenizer import load_tokenizer
from foreloom.models.common.count import ParameterKind, parameter_totals
from foreloom.models.decoder.architecture import DecoderConfig
from foreloom.models.decoder.family import FAMILY, initial_stds
from foreloom.models.decoder.model import Decoder
from foreloom.models.registry import recognise

CPU = torch.device("cpu")
V, D, L, H, T = 257, 32, 2, 4, 32
TEXT = TextData(sources=(TextSource(path="a"),), tokenizer="bytes", max_seq_length=T, packing="documents")
CHOICES = {
    "gpt": {"positions": "learned", "bias": True},
    "2017": {"activation": "relu", "norm_placement": "post", "positions": "sinusoidal", "bias": True},
    "modern": {"activation": "swiglu", "norm": "rms", "gated_width": "matched"},
    "untied": {"activation": "glu", "norm": "rms", "norm_placement": "post", "tie_embeddings": False},
    "silu": {"activation": "silu", "d_ff": 48, "positions": "sinusoidal"},
    "scaled": {"attention_scale": 0.5, "embedding_scale": 3.0, "residual_scale": 0.7, "logit_scale": 0.25},
}
"""Each value of each setting at least once."""


def made(**settings) -> Decoder:
    model = FAMILY.build(DecoderConfig(size="test", **settings), TEXT)
    FAMILY.initialize(model, 0)
    with torch.no_grad():
        for parameter in model.parameters():  # large enough to tell mistakes
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.1)
    return model.eval()


def packed(*documents: str, length: int = 24) -> Tokens:
    """Documents in one row, as `gather` gives them."""
    token_T, target_T, position_T = [], [], []
    for document in documents:
        tokens = load_tokenizer("bytes").encode_texts([document])[0].token_T
        token_T += tokens[:-1]
        target_T += tokens[1:]
        position_T += range(len(tokens) - 1)
    row = lambda values, fill: np.array([values + [fill] * (length - len(token_T))])
    arrays = row(token_T, 0), row(target_T, -100), row(position_T, 0)
    return Tokens(*arrays, np.ones(1), np.zeros(1, np.int64), np.array([len(token_T)]))


def by_hand(model: Decoder, tokens: list[int]) -> torch.Tensor:
    """Logits (T, V) of one document, by the definitions of the papers."""
    arch, p = model.architecture, dict(model.named_parameters())
    linear = lambda x, name: F.linear(x, p[f"{name}.weight"], p.get(f"{name}.bias"))

    def norm(x, name):
        if arch.norm == "rms":
            return x / (x.square().mean(-1, keepdim=True) + arch.norm_eps).sqrt() * p[f"{name}.weight"]
        return F.layer_norm(x, (D,), p[f"{name}.weight"], p.get(f"{name}.bias"), arch.norm_eps)

    place = torch.arange(len(tokens), dtype=torch.float32)
    wave = lambda width: place[:, None] / 10000 ** (torch.arange(0, width, 2) / width)
    h = p["embedding.weight"][tokens] * arch.embedding_scale
    if arch.positions == "learned":
        h = h + p["positions.weight"][: len(tokens)]
    if arch.positions == "sinusoidal":
        h = h * D**0.5 + torch.cat([wave(D).sin(), wave(D).cos()], 1)

    def turned(x):  # (H, T, K)
        if arch.positions != "rotary":
            return x
        pairs = torch.view_as_complex(torch.stack(x.chunk(2, -1), -1).contiguous())
        return torch.cat(torch.view_as_real(pairs * torch.exp(1j * wave(D // H))).unbind(-1), -1)

    def attention(x, name):
        q, k, v = (y.view(len(x), H, D // H).transpose(0, 1) for y in linear(x, f"{name}.qkv").split(D, -1))
        scores = turned(q) @ turned(k).transpose(1, 2) / (D // H) ** 0.5 * arch.attention_scale
        ahead = torch.ones(len(x), len(x)).triu(1).bool()
        mixed = scores.masked_fill(ahead, -math.inf).softmax(-1) @ v
        return linear(mixed.transpose(0, 1).reshape(len(x), D), f"{name}.output")

    def feed_forward(x, name):
        hidden, kind = linear(x, f"{name}.input"), arch.activation
        if kind in ("glu", "swiglu"):
            gate, up = hidden.chunk(2, -1)
            hidden = up * {"glu": torch.sigmoid, "swiglu": F.silu}[kind](gate)
        else:
            hidden = getattr(F, kind)(hidden)
        return linear(hidden, f"{name}.output")

    for layer in range(L):
        for branch in (attention, feed_forward):
            name = f"layers.{layer}.{branch.__name__}"
            if arch.norm_placement == "pre":
                h = h + arch.residual_scale * branch(norm(h, f"{name}_norm"), name)
            else:
                h = norm(h + arch.residual_scale * branch(h, name), f"{name}_norm")
    h = norm(h, "norm") if arch.norm_placement == "pre" else h
    return arch.logit_scale * h @ p.get("head.weight", p["embedding.weight"]).t()


@pytest.mark.parametrize("choice", CHOICES)
def test_loss_and_next_token_are_those_of_the_definition_each_document_alone(choice):
    model, documents = made(**CHOICES[choice]), ("first one", "second", "3")
    tokens = packed(*documents)
    output = model(**FAMILY.batch(model, tokens, CPU))
    logits, total = {}, 0.0
    for document in documents:
        token_T = load_tokenizer("bytes").encode_texts([document])[0].token_T
        logits[document] = by_hand(model, token_T[:-1])
        total += F.cross_entropy(logits[document], torch.tensor(token_T[1:]), reduction="sum")
    torch.testing.assert_close(output.objective.sum, total, rtol=1e-5, atol=1e-4)
    assert output.objective.count == sum(len(one) for one in documents)
    assert output.tally["token_loss"].tolist() == [output.objective.sum, output.objective.count]

    # Read token by token, and at once: what is remembered is what was computed.
    token_T = list(b"first one")
    for cuts in ([9], [4, 1, 1, 3]):
        memory, begin = model.memory(9), 0
        for length in cuts:
            its = model.next_logits(torch.tensor([token_T[begin : begin + length]]), memory)
            begin += length
        expected = by_hand(model, token_T)[-1]
        torch.testing.assert_close(its, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("choice", CHOICES)
def test_counts_are_exact_and_so_are_flops(choice):
    settings = CHOICES[choice]
    model = made(**settings)
    ff, is_gated = model.architecture.ff_width, settings.get("activation") in ("glu", "swiglu")
    assert ff == {"modern": 84, "silu": 48}.get(choice, 4 * D)  # 84: two thirds of 128, to a multiple of 4
    block = 4 * D * D + (3 if is_gated else 2) * D * ff
    is_tied = settings.get("tie_embeddings", True)
    learned = T * D if settings.get("positions") == "learned" else 0
    num_norms = 2 * L + (settings.get("norm_placement") != "post")
    vectors = num_norms * D + (settings.get("bias", False) and L * (5 * D + ff) + num_norms * D)
    totals = parameter_totals(FAMILY.parts(model))
    assert totals.embedding == V * D + learned + (0 if is_tied else V * D)
    assert totals.non_embedding == L * block + vectors
    assert totals.total == sum(p.numel() for p in model.parameters())
    assert FAMILY.flops_per_row(model, TEXT) == T * (6 * (L * block + V * D) + 6 * L * T * D)


@pytest.mark.parametrize("init", ["xavier", "kaiming", "gpt", "depth_scaled"])
@pytest.mark.parametrize("activation", ["gelu", "swiglu"])
def test_the_measured_std_of_each_tensor_is_the_documented_one(init, activation):
    choices = {"d_model": 64, "init": init, "activation": activation, "tie_embeddings": False, "positions": "learned"}
    model = FAMILY.build(DecoderConfig(size="test", bias=True, **choices), TEXT)
    FAMILY.initialize(model, 3)
    stds, fans = initial_stds(model), {"qkv": (64, 64), "output": (64, 64), "input": (64, 256), "head": (64, V)}
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:
            assert (parameter == float(name.endswith("weight"))).all(), name
            continue
        part = name.split(".")[-2]
        fan_in, fan_out = (256, 64) if "feed_forward.output" in name else fans.get(part, (0, 0))
        expected = {"xavier": (2 / max(fan_in + fan_out, 1)) ** 0.5, "kaiming": (2 / max(fan_in, 1)) ** 0.5}.get(
            init, 0.02
        )
        if init == "depth_scaled" and part == "output":
            expected = 0.01  # 0.02 / sqrt(2 * 2)
        if part in ("embedding", "positions"):
            expected = 0.02
        assert stds[name] == pytest.approx(expected), name
        assert parameter.std().item() == pytest.approx(expected, rel=0.04), name
        is_uniform = init == "xavier" and fan_in
        assert (parameter.abs().max() <= 3**0.5 * expected * 1.0001) == bool(is_uniform), name


def test_dropout_and_smoothed_labels_are_of_training_only():
    model = made(dropout=0.3, label_smoothing=0.1)
    its = FAMILY.batch(model, packed("first one", "second"), CPU)
    plain = model(**its)
    assert torch.equal(plain.objective.sum, made()(**its).objective.sum)
    drawn = [model.train()(**its).objective.sum.item() for _ in range(2)]
    assert drawn[0] != drawn[1]
    smooth = made(label_smoothing=0.1).train()(**its)
    documents = [one.token_T[:-1] for one in load_tokenizer("bytes").encode_texts(["first one", "second"])]
    logits = torch.cat([by_hand(model.eval(), one) for one in documents])
    label = its["labels"][its["labels"] != -100]
    expected = F.cross_entropy(logits, label, reduction="sum", label_smoothing=0.1)
    torch.testing.assert_close(smooth.objective.sum, expected, rtol=1e-5, atol=1e-4)
    assert smooth.tally["token_loss"][0] == pytest.approx(plain.objective.sum.item(), rel=1e-6), "perplexity is plain"


@pytest.mark.parametrize("choice", CHOICES)
def test_a_folder_comes_back_bit_for_bit_and_is_gone_on_with(choice, tmp_path):
    model = made(**CHOICES[choice])
    FAMILY.save(model, model.state_dict(), tmp_path)
    assert recognise(tmp_path) is FAMILY
    again = FAMILY.load(tmp_path)
    assert again.architecture == model.architecture
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    FAMILY.save(again, again.state_dict(), tmp_path / "twice")
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "twice" / name).read_bytes()
    ask = {"max_new_tokens": 12, "seed": 3}
    texts = FAMILY.generator(again).generate(["ab", "c"], **ask)
    assert texts == FAMILY.generator(model).generate(["ab", "c"], **ask)
    assert texts[1:] == FAMILY.generator(model).generate(["c"], **ask), "neighbours have no say"
    with pytest.raises(ValueError, match="2 tokens and 31 new ones are more than the 32 that the model reads"):
        FAMILY.generator(model).generate(["ab"], max_new_tokens=31)

    text = TextData(sources=TEXT.sources, tokenizer=None, max_seq_length=64)
    config = DecoderConfig(pretrained=str(tmp_path), dropout=0.2)
    text = FAMILY.data_for(config, text)
    assert text.tokenizer == str(tmp_path)
    if CHOICES[choice].get("positions") == "learned":
        with pytest.raises(ValueError, match=r"data\.max_seq_length is 64 and the pretrained model has learned 32"):
            FAMILY.build(config, text)
        return
    longer = FAMILY.build(config, text)
    assert longer.architecture.max_position_embeddings == 64 and longer.layers[0].attention.dropout_rate == 0.2


def test_what_is_drawn_is_of_the_likeliest():
    model = made()
    greedy = FAMILY.generator(model).generate(["ab"], max_new_tokens=9, temperature=0)
    assert greedy == FAMILY.generator(model).generate(["ab"], max_new_tokens=9, top_k=1)
    assert greedy == FAMILY.generator(model).generate(["ab"], max_new_tokens=9, top_p=1e-9)
    drawn = {FAMILY.generator(model).generate(["ab"], max_new_tokens=9, seed=seed)[0] for seed in range(4)}
    assert len(drawn) == 4


def test_only_the_ends_are_no_hidden_matrices():
    kinds = FAMILY.kinds(made(tie_embeddings=False, positions="learned"))
    ends = {name: kind for name, kind in kinds.items() if kind in (ParameterKind.INPUT, ParameterKind.OUTPUT)}
    assert ends == {"embedding.weight": "input", "positions.weight": "input", "head.weight": "output"}
    assert sum(kind is ParameterKind.HIDDEN for kind in kinds.values()) == 4 * L


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"d_model": 100, "num_heads": 3},
            "num_heads 3 do not divide d_model 100; set num_heads to 2 or 4, or d_model ",
        ),
        ({"d_model": 36, "num_heads": 4}, "a head is 9 wide .* rotary positions turn pairs"),
        ({"gated_width": "matched"}, "gated_width has no effect with activation: gelu, which has no gate; remove it"),
        ({"gated_width": "matched", "activation": "glu", "d_ff": 9}, "gated_width has no effect beside d_ff"),
        ({"activation": "swigelu"}, "model.activation: .*got 'swigelu'. Did you mean swiglu"),
        ({"dropout": 1.0}, r"model.dropout: expected a number below 1\.0"),
        ({"attention_scale": 0}, r"model.attention_scale: expected a number above 0"),
    ],
)
def test_what_contradicts_itself_is_told_where_the_recipe_is_read(settings, sentence):
    _, problems = validate(DecoderConfig, {"size": "test", **settings}, Located({}), "model")
    assert len(problems) == 1
    with pytest.raises(ValueError, match=sentence):
        raise ValueError(problems[0])


def test_rows_and_words_that_a_model_does_not_take(tmp_path):
    with pytest.raises(ValueError, match=r"model\.max_position_embeddings is 16 and the data's rows need 32"):
        made(max_position_embeddings=16)
    model = made()
    FAMILY.save(model, model.state_dict(), tmp_path)
    tokenizer = load_tokenizer("bytes").hf
    more = type(tokenizer).from_pretrained(tmp_path)
    more.add_tokens(["foreloom"])
    more.save_pretrained(tmp_path / "more")
    text = TextData(sources=TEXT.sources, tokenizer=str(tmp_path / "more"))
    with pytest.raises(ValueError, match="has 258 tokens and the pretrained model knows 257"):
        FAMILY.build(DecoderConfig(pretrained=str(tmp_path)), text)


def test_every_pair_of_choices_can_be_trained():
    """One step down the gradient lowers the loss of the row it was taken on."""
    activations, norms = ("gelu", "relu", "silu", "glu", "swiglu"), ("layer", "rms")
    tokens = packed("first one", "second")
    for activation, norm, placement, positions in itertools.product(
        activations, norms, ("pre", "post"), ("rotary", "learned", "sinusoidal")
    ):
        model = made(activation=activation, norm=norm, norm_placement=placement, positions=positions)
        its = FAMILY.batch(model, tokens, CPU)
        before = model(**its).loss
        before.backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.02 * parameter.grad
        assert model(**its).loss < before, (activation, norm, placement, positions)
