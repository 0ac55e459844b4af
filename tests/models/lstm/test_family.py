"""The LSTM: torch's own as the definition, states that go on, dropouts, counts, folders, sentences."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from foreloom.data.text.config import TextSource
from foreloom.data.text.dataset import Tokens
from foreloom.data.text.section import TextData
from foreloom.data.text.tokenizer import load_tokenizer
from foreloom.models.causal_lm.config import CausalLmConfig
from foreloom.models.common.count import ParameterKind, parameter_totals
from foreloom.models.lstm import model as lstm_model
from foreloom.models.lstm.architecture import LstmConfig
from foreloom.models.lstm.family import FAMILY, initial_stds
from foreloom.models.lstm.model import Lstm
from foreloom.models.registry import get, recognise

CPU = torch.device("cpu")
V, D, L = 257, 32, 2
TEXT = TextData(sources=(TextSource(path="a"),), tokenizer="bytes", max_seq_length=8, packing="streams")
CHOICES = {
    "plain": {},
    "untied": {"tie_embeddings": False, "num_layers": 1, "logit_scale": 0.5},
    "norms": {"layer_norm": "both", "forget_bias": 0.5},
    "input norm": {"layer_norm": "input", "num_layers": 3},
    "output norm": {"layer_norm": "output", "logit_scale": 2.0},
}


def made(**settings) -> Lstm:
    model = FAMILY.build(LstmConfig(size="test", **settings), TEXT)
    FAMILY.initialize(model, 0)
    return model.eval()


def by_hand(model: Lstm, token_RT: torch.Tensor, state=None):
    """Logits (R, T, V) and the state, by torch's layers."""
    arch, p = model.architecture, dict(model.named_parameters())
    plain = nn.LSTM(arch.d_model, arch.d_model, arch.num_layers, batch_first=True)
    with torch.no_grad():
        for layer in range(arch.num_layers):
            for name in ("weight_ih", "weight_hh"):
                getattr(plain, f"{name}_l{layer}").copy_(p[f"layers.{layer}.{name}"])
            getattr(plain, f"bias_ih_l{layer}").copy_(p[f"layers.{layer}.bias"])
            getattr(plain, f"bias_hh_l{layer}").zero_()
    norm = lambda x, name: F.layer_norm(x, (D,), p[f"{name}.weight"], p[f"{name}.bias"]) if f"{name}.weight" in p else x
    h, state = plain(norm(p["embedding.weight"][token_RT], "input_norm"), state)
    return arch.logit_scale * norm(h, "output_norm") @ p.get("head.weight", p["embedding.weight"]).t(), state


def streams(seed: int, num_rows: int = 3, length: int = 8, resets=False) -> Tokens:
    drawn_RT = np.random.default_rng(seed).integers(0, V, (num_rows, length + 1))
    sample_R = np.arange(num_rows)
    resets_R = np.broadcast_to(resets, num_rows).copy()
    return Tokens(
        drawn_RT[:, :-1], drawn_RT[:, 1:], None, np.ones(num_rows), sample_R, np.full(num_rows, length), resets_R
    )


@pytest.mark.parametrize("choice", CHOICES)
def test_streams_are_those_of_torchs_lstm_and_their_state_goes_on(choice):
    model = made(**CHOICES[choice])
    carry, state = FAMILY.carry(model, 3, CPU), None
    for number in range(3):
        tokens = streams(number)
        its = FAMILY.batch(model, tokens, CPU)
        output = model(**its, carry=carry)
        logits, state = by_hand(model, its["input_ids"], state)
        expected = F.cross_entropy(logits.flatten(0, 1), its["labels"].flatten(), reduction="sum")
        torch.testing.assert_close(output.objective.sum, expected, rtol=1e-5, atol=1e-4)
        carry = output.carry
        for name, value in zip(("h", "c"), state, strict=True):
            torch.testing.assert_close(carry[name], value.transpose(0, 1), rtol=1e-5, atol=1e-6)
            assert not carry[name].requires_grad
    its = FAMILY.batch(model, streams(4, resets=[False, True, False]), CPU)
    one, other = model(**its, carry=carry), model(**its, carry=FAMILY.carry(model, 3, CPU))
    assert one.tally["carried_rows"].tolist() == [2, 3]
    same = [torch.equal(one.carry["h"][row], other.carry["h"][row]) for row in range(3)]
    assert same == [False, True, False], "a reset row begins anew, and the others go on"


@pytest.mark.parametrize("choice", CHOICES)
def test_documents_and_blocks_begin_anew_and_tokens_one_by_one_are_the_same(choice):
    model, documents = made(**CHOICES[choice]), ("first one", "second", "3")
    encoded = [one.token_T for one in load_tokenizer("bytes").encode_texts(documents)]
    expected = sum(
        F.cross_entropy(by_hand(model, torch.tensor([its[:-1]]))[0][0], torch.tensor(its[1:]), reduction="sum")
        for its in encoded
    )
    row = lambda parts, fill: np.array([[*(x for part in parts for x in part), *[fill] * 8]] * 2)
    tokens = Tokens(
        row([its[:-1] for its in encoded], 0),
        row([its[1:] for its in encoded], -100),
        row([range(len(its) - 1) for its in encoded], 0),
        np.ones(2),
        np.arange(2),
        np.full(2, sum(len(its) - 1 for its in encoded)),
    )
    carry = {name: value + 1 for name, value in FAMILY.carry(model, 2, CPU).items()}
    output = model(**FAMILY.batch(model, tokens, CPU), carry=carry)
    torch.testing.assert_close(output.objective.sum, 2 * expected, rtol=1e-5, atol=1e-4)
    assert output.objective.count == 2 * (9 + 6 + 1) and output.tally["carried_rows"].tolist() == [0, 6]
    assert all(torch.equal(value, carry[name]) for name, value in output.carry.items())
    empty = model(**FAMILY.batch(model, tokens.masked(), CPU), carry=carry)
    assert empty.objective.sum == 0 == empty.objective.count

    memory, token_T = model.memory(9), encoded[0][:-1]
    for cut in (token_T[:4], token_T[4:5], token_T[5:]):
        logits_V = model.next_logits(torch.tensor([cut]), memory)
    torch.testing.assert_close(logits_V, by_hand(model, torch.tensor([token_T]))[0][0, -1], rtol=1e-4, atol=1e-5)


def test_token_by_token_is_the_kernel_but_for_what_is_dropped(monkeypatch):
    model = made(recurrent_dropout=0.4).train()
    layer, x_RTD = model.layers[0], torch.randn(3, 8, D)
    state = torch.randn(3, D) * 0.3, torch.randn(3, D)
    with monkeypatch.context() as patch:
        patch.setattr(lstm_model, "_mask", lambda like, rate: torch.ones_like(like))
        by_token = layer(x_RTD, state)
    for one, other in zip(by_token, layer.eval()(x_RTD, state), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    drawn = [layer.train()(x_RTD, state)[0] for _ in range(2)]
    assert not torch.equal(*drawn)


def test_a_mask_stays_the_same_along_a_row():
    for name, place in {"input_dropout": "input_norm", "output_dropout": "output_norm"}.items():
        model = made(**{name: 0.5}).train()
        seen = []
        getattr(model, place).register_forward_hook(
            lambda module, inputs, y, seen=seen: seen.append(torch.ones_like(y))
        )
        getattr(model, place).register_forward_hook(lambda module, inputs, y: torch.ones_like(y))
        state = model.beginning(3)
        if place == "output_norm":
            h_RTD, _ = model.hidden(torch.zeros(3, 8, dtype=torch.int64), state)
        else:
            caught = []
            model.layers[0].register_forward_pre_hook(lambda module, inputs, caught=caught: caught.append(inputs[0]))
            model.hidden(torch.zeros(3, 8, dtype=torch.int64), state)
            h_RTD = caught[0]
        assert (h_RTD == h_RTD[:, :1]).all() and set(h_RTD.unique().tolist()) == {0.0, 2.0}
        assert not torch.equal(h_RTD[0], h_RTD[1]), "each row has its own"
    both = made(hidden_dropout=0.3, between_dropout=0.3)
    its = FAMILY.batch(both, streams(0), CPU)
    assert torch.equal(both(**its).objective.sum, made()(**its).objective.sum), "of training only"
    assert both.train()(**its).objective.sum != both(**its).objective.sum


def test_gradients_stop_where_they_are_told_to_and_values_do_not():
    whole, cut = (made(tie_embeddings=False, bptt_length=length).train() for length in (0, 3))
    its = FAMILY.batch(whole, streams(0), CPU)
    of_last = its | {"labels": torch.where(torch.arange(8) == 7, its["labels"], -100)}
    for model in (whole, cut):
        model(**of_last).objective.sum.backward()
    assert torch.equal(whole(**its).objective.sum, cut(**its).objective.sum)
    first, near = its["input_ids"][:, 0], its["input_ids"][:, 6:].flatten()  # the last part is 6, 7
    assert not set(first.tolist()) & set(near.tolist())
    assert whole.embedding.weight.grad[first].any(1).all() and not cut.embedding.weight.grad[first].any()
    assert cut.embedding.weight.grad[near].any(1).all()


@pytest.mark.parametrize("choice", CHOICES)
def test_counts_are_exact_and_so_are_flops(choice):
    settings = CHOICES[choice]
    model, layers = made(**settings), settings.get("num_layers", L)
    totals = parameter_totals(FAMILY.parts(model))
    num_norms = {"both": 2, "input": 1, "output": 1}.get(settings.get("layer_norm"), 0)
    assert totals.embedding == V * D * (1 if settings.get("tie_embeddings", True) else 2)
    assert totals.non_embedding == layers * (8 * D * D + 4 * D) + num_norms * 2 * D
    assert totals.total == sum(p.numel() for p in model.parameters())
    assert FAMILY.flops_per_row(model, TEXT) == 8 * 6 * (layers * 8 * D * D + V * D)
    kinds = FAMILY.kinds(model)
    assert sum(kind is ParameterKind.HIDDEN for kind in kinds.values()) == 2 * layers


def test_values_begin_as_documented():
    model = FAMILY.build(LstmConfig(size="test", d_model=64, tie_embeddings=False, forget_bias=1.5), TEXT)
    FAMILY.initialize(model, 3)
    stds = initial_stds(model)
    assert stds["layers.0.weight_ih"] == 64**-0.5 and stds["head.weight"] == pytest.approx((2 / (64 + V)) ** 0.5)
    for name, parameter in model.named_parameters():
        if name in stds:
            assert parameter.std().item() == pytest.approx(stds[name], rel=0.03), name
    for block in model.layers[1].weight_hh.chunk(4):
        torch.testing.assert_close(block @ block.t(), torch.eye(64), rtol=1e-4, atol=1e-5)
    come, stay, new, out = model.layers[1].bias.chunk(4)
    assert (stay == 1.5).all() and not come.any() and not new.any() and not out.any()


@pytest.mark.parametrize("choice", CHOICES)
def test_a_folder_comes_back_bit_for_bit_and_is_gone_on_with(choice, tmp_path):
    model = made(**CHOICES[choice])
    FAMILY.save(model, model.state_dict(), tmp_path)
    assert recognise(tmp_path) is FAMILY
    again = FAMILY.load(tmp_path)
    assert again.architecture == model.architecture
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    ask = {"max_new_tokens": 12, "seed": 3}
    assert FAMILY.generator(again).generate(["ab", "c"], **ask) == FAMILY.generator(model).generate(["ab", "c"], **ask)
    config = LstmConfig(pretrained=str(tmp_path), recurrent_dropout=0.2)
    text = FAMILY.data_for(config, TextData(sources=TEXT.sources, max_seq_length=64, packing="streams"))
    tuned = FAMILY.build(config, text)
    assert text.tokenizer == str(tmp_path) and tuned.layers[0].recurrent_dropout == 0.2
    assert torch.equal(tuned.embedding.weight, model.embedding.weight)


def test_a_held_out_stream_is_the_text_read_whole(tmp_path, monkeypatch):
    """On any number of ranks; and with no state carried the loss is another one, that says so."""
    monkeypatch.setenv("FORELOOM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "t.txt").write_text("\n".join(f"line {n} goes on" for n in range(60)))
    source = TextSource(path=str(tmp_path / "t.txt"), separator="\n")
    text = TextData(sources=(source,), tokenizer="bytes", max_seq_length=8, packing="streams", holdout=0.5)
    model, dataset = made(), text.open(0, batch_size=2)
    validation = text.validation(steps=1, as_stream=True)

    def measured(rank: int = 0, world_size: int = 1, **more):
        held = text.held_out(
            dataclasses.replace(validation, **more), dataset, micro_batch_size=0, rank=rank, world_size=world_size
        )
        tallies, carry = [], None
        for tokens in held:
            output = model(**FAMILY.batch(model, tokens, CPU), carry=carry)
            carry = output.carry if tokens.resets_R is not None else None
            tallies.append(output.tally)
        return {name: sum(tally[name] for tally in tallies).numpy() for name in tallies[0]}

    whole = measured()
    held = text.held_out(validation, dataset, micro_batch_size=0, rank=0, world_size=1)
    token_RT = np.concatenate([tokens.token_RT for tokens in held], 1)
    assert len(token_RT) == 8 and token_RT.size == held.num_windows * 8
    target_RT = np.concatenate([tokens.target_RT for tokens in held], 1)
    logits, _ = by_hand(model, torch.from_numpy(token_RT))
    expected = F.cross_entropy(logits.flatten(0, 1), torch.from_numpy(target_RT).flatten(), reduction="sum")
    assert whole["token_loss"] == pytest.approx([expected.item(), token_RT.size], rel=1e-5)
    rounds = token_RT.shape[1] // 8
    assert FAMILY.experts.figures(model, whole)["state_carried"] == pytest.approx((rounds - 1) / rounds)
    of_ranks = [measured(rank, 3) for rank in range(3)]
    for name, value in whole.items():
        assert sum(one[name] for one in of_ranks) == pytest.approx(value, rel=1e-5)
    alone = FAMILY.experts.figures(model, measured(as_stream=False))
    assert alone["state_carried"] == 0 and alone["perplexity"] != FAMILY.experts.figures(model, whole)["perplexity"]
    assert measured(max_windows=16)["token_loss"][1] == 16 * 8
    blocks = dataclasses.replace(text, packing="blocks")
    assert [problem.key for problem in blocks.contradictions(validation)] == ["validation.as_stream"]


def test_half_precision():
    model = made().train()
    its = FAMILY.batch(model, streams(0), CPU)
    carry = FAMILY.carry(model, 3, CPU)
    plain = model(**its, carry=carry)
    with torch.autocast("cpu", torch.bfloat16):
        half = model(**its, carry=carry)
    half.objective.sum.backward()
    assert half.carry["h"].dtype == torch.float32
    assert math.isclose(plain.loss.item(), half.loss.item(), rel_tol=1e-2) and plain.loss != half.loss


def test_what_there_is_no_room_for():
    with pytest.raises(ValueError, match="hidden_dropout: between layers, and there is one; remove it"):
        LstmConfig(size="test", num_layers=1, hidden_dropout=0.2)
    for config in (get("decoder").config(size="test"), CausalLmConfig(size="tiny")):
        with pytest.raises(ValueError, match=f"carry a state from row to row, and {config.family} has none"):
            get(config.family).data_for(config, TEXT)
