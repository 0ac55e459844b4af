"""A causal language model of transformers in foreloom: the same losses, documents apart, folders that go both ways."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

from foreloom.checkpoint.locate import find_model_folder
from foreloom.data.text.config import TextSource
from foreloom.data.text.dataset import Tokens
from foreloom.data.text.documents import find_documents
from foreloom.data.text.section import TextData
from foreloom.data.text.tokenizer import load_tokenizer
from foreloom.models.causal_lm import folder
from foreloom.models.causal_lm.config import CausalLmConfig
from foreloom.models.causal_lm.family import FAMILY
from foreloom.models.causal_lm.generate import TextGenerator
from foreloom.models.causal_lm.model import CausalLm
from foreloom.models.common.count import ParameterKind
from foreloom.models.common.lora import AdapterConfig, attach_adapter, write_adapter
from foreloom.models.registry import recognise

GEMMA3 = {"model_type": "gemma3_text", "sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]}
SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
SHAPES = {
    "llama": SMALL,
    "gemma3": SMALL | GEMMA3,
    "qwen3, untied": SMALL | {"model_type": "qwen3", "tie_word_embeddings": False},
    "gemma2, capped": SMALL | {"model_type": "gemma2", "final_logit_softcapping": 5.0},
    "granite, scaled": SMALL | {"model_type": "granite", "logits_scaling": 3.0},
}
TEXT = TextData(sources=(TextSource(path="a"),), tokenizer="bytes", max_seq_length=32, packing="documents")


def made(shape: dict, seed: int = 0, **more) -> CausalLm:
    model = FAMILY.build(CausalLmConfig(size="tiny", config=shape, **more), TEXT)
    FAMILY.initialize(model, seed)
    with torch.no_grad():
        for parameter in model.parameters():  # large enough to tell mistakes
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.1)
    return model.eval()


@pytest.fixture(params=SHAPES)
def model(request) -> CausalLm:
    return made(SHAPES[request.param])


def packed(*documents: str, length: int = 24) -> Tokens:
    """Documents in one row, as `gather` gives them."""
    token_T, target_T, position_T = [], [], []
    for document in documents:
        tokens = load_tokenizer("bytes").encode_texts([document])[0].token_T
        token_T += tokens[:-1]
        target_T += tokens[1:]
        position_T += range(len(tokens) - 1)
    room = length - len(token_T)
    row = lambda values, fill: np.array([values + [fill] * room])
    return Tokens(row(token_T, 0), row(target_T, -100), row(position_T, 0), np.ones(1), np.zeros(1, np.int64))


def losses(model: CausalLm, tokens: Tokens) -> torch.Tensor:
    """Of each place, through transformers' logits."""
    its = FAMILY.batch(model, tokens, torch.device("cpu"))
    logits = model.lm(input_ids=its["input_ids"], position_ids=its["position_ids"], use_cache=False).logits[0]
    return F.cross_entropy(logits, its["labels"][0], reduction="none")


def test_the_loss_is_that_of_transformers_by_hand(model):
    tokens = packed("first one", "second", "3")
    output = model(**FAMILY.batch(model, tokens, torch.device("cpu")))
    by_hand = losses(model, tokens)
    assert output.objective.count == (tokens.target_RT != -100).sum()
    torch.testing.assert_close(output.objective.sum, by_hand.sum(), rtol=1e-5, atol=1e-5)
    assert (tokens.target_RT[0] == load_tokenizer("bytes").eos_id).sum() == 3, "the end is learned"
    empty = model(**FAMILY.batch(model, tokens.masked(), torch.device("cpu")))
    assert empty.objective.count == 0 and empty.objective.sum == 0


def test_documents_of_a_row_do_not_see_one_another(model):
    before, after = packed("abcdefgh", "wxyz wxyz"), packed("hgfedcba", "wxyz wxyz")
    one, other = losses(model, before), losses(model, after)
    torch.testing.assert_close(one[8:17], other[8:17], rtol=1e-5, atol=1e-5)
    assert (one[:8] - other[:8]).abs().max() > 0.1
    alone = losses(model, packed("wxyz wxyz"))
    torch.testing.assert_close(one[8:17], alone[:9], rtol=1e-4, atol=1e-5)
    # The test can fail: without borders they do see one another.
    tokens = [torch.from_numpy(one.token_RT) for one in (before, after)]
    seen = [model.lm(input_ids=one, use_cache=False).logits[0, 8:17] for one in tokens]
    assert (seen[0] - seen[1]).abs().max() > 1e-3


def test_an_architecture_without_borders_is_refused(monkeypatch):
    lm = made(SHAPES["llama"]).lm
    whole = lm.forward
    monkeypatch.setattr(lm, "forward", lambda position_ids=None, **rest: whole(**rest))
    with pytest.raises(ValueError, match="in LlamaForCausalLM documents that share a row see one another; use blocks"):
        CausalLm(lm, None).probe(has_borders=True)


def test_folders_go_both_ways(model, tmp_path):
    FAMILY.save(model, model.state_dict(), tmp_path)
    family = recognise(tmp_path)
    assert family.name == "causal_lm"
    ids = torch.arange(20)[None]
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    again = family.load(tmp_path)
    expected = model.lm(input_ids=ids).logits
    assert torch.equal(theirs(input_ids=ids).logits, expected) and torch.equal(again.lm(input_ids=ids).logits, expected)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer("Käse")["input_ids"] == load_tokenizer("bytes").hf("Käse")["input_ids"]
    assert (tmp_path / "generation_config.json").is_file() and tokenizer.eos_token_id == 256
    again.state_dict()
    FAMILY.save(again, again.state_dict(), tmp_path / "twice")
    assert (tmp_path / "twice" / "model.safetensors").read_bytes() == (tmp_path / "model.safetensors").read_bytes()


def test_values_hang_on_seed_and_name_alone():
    three = FAMILY.build(CausalLmConfig(size="tiny", config=SMALL | {"num_hidden_layers": 3}), TEXT)
    two = FAMILY.build(CausalLmConfig(size="tiny", config=SMALL), TEXT)
    for number, one in enumerate((three, two)):
        torch.manual_seed(number)
        FAMILY.initialize(one, 7)
    values = dict(three.named_parameters())
    assert all(torch.equal(parameter, values[name]) for name, parameter in two.named_parameters())
    FAMILY.initialize(two, 8)
    assert not torch.equal(two.lm.model.embed_tokens.weight, three.lm.model.embed_tokens.weight)


def test_a_larger_tokenizer_gets_rows_and_the_logits_of_others_stay(tmp_path):
    small = made(SMALL)
    small.lm.resize_token_embeddings(200)
    small.lm.config.pad_token_id = None
    FAMILY.save(small, small.state_dict(), tmp_path)
    grown = [folder.build(CausalLmConfig(pretrained=str(tmp_path)), load_tokenizer("bytes"), has_borders=False)
             for _ in range(2)]  # fmt: skip
    ids = torch.arange(20)[None]
    assert grown[0].lm(input_ids=ids).logits.shape[-1] == 257
    torch.testing.assert_close(grown[0].lm(input_ids=ids).logits[..., :200], small.lm(input_ids=ids).logits)
    assert torch.equal(grown[0].lm.model.embed_tokens.weight, grown[1].lm.model.embed_tokens.weight)


@pytest.mark.parametrize("name", ["llama", "qwen3, untied"])
def test_embedding_and_head_are_no_hidden_matrices(name):
    """Muon moves those, and AdamW what stands at the ends."""
    kinds = FAMILY.kinds(made(SHAPES[name]))
    hidden = {key.rpartition(".layers.")[2] for key, kind in kinds.items() if kind is ParameterKind.HIDDEN}
    assert hidden and all(key.startswith(("0.self_attn.", "0.mlp.", "1.self_attn.", "1.mlp.")) for key in hidden)


def test_z_loss_is_of_training_only():
    with_z = made(SMALL, z_loss=0.1)
    its = FAMILY.batch(with_z, packed("abcdefgh"), torch.device("cpu"))
    plain = with_z(**its).objective.sum
    assert with_z.train()(**its).objective.sum > plain + 1
    with pytest.raises(ValueError, match="changes its logits in a way of its own"):
        made(SHAPES["granite, scaled"], z_loss=0.1)


def test_flops_are_six_a_weight_and_token():
    model = made(SMALL)
    weights = sum(p.numel() for p in model.parameters() if p.ndim > 1)
    counted = FAMILY.flops_per_row(model, TEXT)
    assert 6 * 32 * weights < counted < 7 * 32 * weights


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"pretrained": "google/gemma-270m"}, "its id is google/gemma-3-270m"),
        ({"pretrained": "a", "size": "tiny"}, "have no effect beside pretrained"),
        ({}, "give pretrained, a folder or hub id, or the size of a new model"),
    ],
)
def test_sections_that_say_too_much_or_too_little(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        CausalLmConfig(**settings)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"model_type": "lama"}, "transformers has no model_type 'lama'"),
        ({"hiden_size": 3}, "hiden_size mean nothing to llama"),
    ],
)
def test_new_models_that_cannot_be(config, sentence):
    with pytest.raises(ValueError, match=sentence):
        FAMILY.build(CausalLmConfig(size="tiny", config=config), TEXT)


def test_rows_longer_than_the_model_reads(tmp_path):
    model = made(SMALL | {"max_position_embeddings": 16})
    FAMILY.save(model, model.state_dict(), tmp_path)
    with pytest.raises(ValueError, match="data.max_seq_length is 32 and the model reads at most 16 tokens"):
        FAMILY.data_for(CausalLmConfig(pretrained=str(tmp_path)), TEXT)
    with pytest.raises(ValueError, match="reads at most 16"):
        FAMILY.data_for(CausalLmConfig(size="tiny", config={"max_position_embeddings": 16}), TEXT)
    with pytest.raises(ValueError, match=r"data\.tokenizer is not given: a new model needs one"):
        TextData(sources=(TextSource(path="a"),)).its_tokenizer  # noqa: B018
    fits = FAMILY.data_for(CausalLmConfig(pretrained="hub/id"), TextData(sources=(TextSource(path="a"),)))
    assert fits.tokenizer == "hub/id"


def test_an_attention_that_is_not_there(tmp_path):
    FAMILY.save(made(SMALL), made(SMALL).state_dict(), tmp_path)
    config = CausalLmConfig(pretrained=str(tmp_path), attn_implementation="flash_attention_2")
    with pytest.raises(ValueError, match=r"transformers cannot load it: .*[Ff]lash"):
        folder.build(config, load_tokenizer("bytes"), has_borders=False)


def test_a_gated_model_without_a_token_and_one_that_is_not_in_the_cache(monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError

    def refuse(*_, **__):
        response = type("Response", (), {"headers": {}, "status_code": 403, "request": None})()
        raise GatedRepoError("403", response=response)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(
        ValueError, match=r"is gated: accept its terms at https://huggingface\.co/google/gemma-3-270m and"
    ):
        find_model_folder("google/gemma-3-270m")

    def offline(*_, **__):
        raise LocalEntryNotFoundError("not cached, and the network is off")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(ValueError, match=r"hub or its cache can give: not cached, and the network is off"):
        find_model_folder("google/gemma-3-270m")
    with pytest.raises(ValueError, match=r"Salesforce/wikitext is no data set that .* the network is off"):
        find_documents(TextSource(dataset="Salesforce/wikitext", config="wikitext-2-raw-v1"))


@pytest.mark.parametrize("shape", ["llama", "gemma3"])
def test_prompts_gone_on_with_together_give_what_each_gives_alone(shape, monkeypatch):
    generator = TextGenerator(made(SHAPES[shape]))
    prompts = ["A long beginning, longer than the window. ", "b", "Twelve words", "b", "A tale of "]
    for settings in ({"temperature": 0}, {"temperature": 0.8, "top_k": 40, "top_p": 0.9, "seed": 3}, {"seed": 4}):
        alone = [generator.generate([one], max_new_tokens=12, **settings)[0] for one in prompts]
        assert generator.generate(prompts, max_new_tokens=12, **settings) == alone
        assert generator.generate(prompts, max_new_tokens=12, batch_size=2, **settings) == alone
        assert alone[1] == alone[3] and len(set(alone)) > 2
    sizes = []
    run = TextGenerator._run
    monkeypatch.setattr(TextGenerator, "_run", lambda *its, **more: sizes.append(len(its[1])) or run(*its, **more))
    generator.generate(prompts, max_new_tokens=2)
    assert sizes == [5]
    # Where the architecture looks at the padding, only prompts of one length share a batch.
    blind = TextGenerator(CausalLm(generator._lm, generator._tokenizer))
    whole = generator._lm.generate
    monkeypatch.setattr(
        generator._lm, "generate", lambda ids, attention_mask, **its: whole(ids, attention_mask=ids * 0 + 1, **its)
    )
    alone = [blind.generate([one], max_new_tokens=6, temperature=0)[0] for one in prompts]
    sizes.clear()
    assert blind.generate(prompts, max_new_tokens=6, temperature=0) == alone and sizes == [2, 1, 2, 1, 1, 1]


@pytest.mark.parametrize("shape", ["llama", "gemma3"])
def test_an_adapter_is_trained_written_for_peft_and_read_back(tmp_path, shape):
    peft = pytest.importorskip("peft", reason="needs peft")
    base = made(SHAPES[shape])
    FAMILY.save(base, base.state_dict(), tmp_path / "base")
    adapted = FAMILY.load(tmp_path / "base")
    config = AdapterConfig(kind="lora", rank=2)
    attach_adapter(adapted, config, FAMILY.lora, seed=0)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if name.endswith("lora_B"):
                parameter.normal_(std=0.3, generator=torch.Generator().manual_seed(3))
    tokens = packed("first one", "second", "3")
    its = FAMILY.batch(adapted, tokens, torch.device("cpu"))
    output = adapted(**its)
    output.objective.sum.backward()
    assert {name for name, p in adapted.named_parameters() if p.grad is not None} == {
        name for name, _ in adapted.named_parameters() if name.endswith(("lora_A", "lora_B"))
    }
    write_adapter(tmp_path / "adapter", config, FAMILY.lora, str(tmp_path / "base"), adapted.state_dict())
    again = recognise(tmp_path / "adapter").load(tmp_path / "adapter")
    torch.testing.assert_close(again(**its).objective.sum, output.objective.sum, rtol=1e-5, atol=1e-5)
    theirs = peft.PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tmp_path / "base"), tmp_path / "adapter"
    ).eval()
    place = {"input_ids": its["input_ids"], "position_ids": its["position_ids"], "use_cache": False}
    torch.testing.assert_close(theirs(**place).logits, again.lm(**place).logits, rtol=1e-4, atol=1e-4)
