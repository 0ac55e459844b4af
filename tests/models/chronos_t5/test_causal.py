"""The causal variant: transformers' GPT-2 on the same weights, the reference's training examples, its forecasts."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from chronos_t5_parity import arrays
from made_windows import windows_of

from foreloom.data.forecast_input import ForecastInput
from foreloom.models.chronos_t5.architecture import Architecture, ChronosT5Config
from foreloom.models.chronos_t5.causal import CausalChronosModel
from foreloom.models.chronos_t5.family import FAMILY
from foreloom.models.chronos_t5.forecast import ChronosT5Forecaster
from foreloom.models.chronos_t5.generate import Sampling
from foreloom.models.family import WindowLengths

CPU = torch.device("cpu")


def causal(**fields) -> CausalChronosModel:
    config = ChronosT5Config(size="tiny", model_type="causal", d_model=32, d_ff=64, num_heads=4, num_layers=3,
                             n_tokens=64, initializer_factor=0.3, **fields)  # fmt: skip
    model = FAMILY.build(config, WindowLengths(40, 12))
    FAMILY.initialize(model, 0)
    return model.eval()


def test_logits_loss_gradients_and_folder_are_those_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    ours = causal()
    FAMILY.save(ours, ours.state_dict(), tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert type(theirs).__name__ == "GPT2LMHeadModel"
    generator = torch.Generator().manual_seed(0)
    id_BS = torch.randint(3, 64, (4, 30), generator=generator)
    labels = torch.where(torch.rand(4, 30, generator=generator) < 0.8, id_BS, -100)
    output, reference = ours(id_BS, labels=labels), theirs(input_ids=id_BS, labels=labels)
    torch.testing.assert_close(output.logits, reference.logits, atol=2e-6, rtol=1e-5)
    assert output.loss.item() == pytest.approx(reference.loss.item(), rel=1e-6)
    output.loss.backward()
    reference.loss.backward()
    expected = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name].grad, atol=1e-6, rtol=1e-4)
    again = FAMILY.load(tmp_path)
    torch.testing.assert_close(again(id_BS, labels=labels).logits, output.logits, atol=0, rtol=0)


def test_an_update_leaves_a_model_without_experts_alone():
    FAMILY.experts.after_update(causal(), {}, torch.tensor(1.0))


@pytest.mark.parametrize("mode", ["training", "validation"])
def test_training_examples_are_the_reference_script_s(shared, mode):
    settings = json.loads((shared / "oracles" / "chronos" / "t5_train_examples.json").read_text())
    case = arrays(shared, "t5_train_examples")
    arch = Architecture(
        d_model=8, num_heads=1, d_kv=8, d_ff=8, num_layers=1, model_type="causal", n_tokens=settings["n_tokens"],
        context_length=settings["context_length"], prediction_length=settings["prediction_length"],
    )  # fmt: skip
    module = CausalChronosModel(arch)
    context, future = (case[f"in_causal_{mode}_{name}_target"] for name in ("past", "future"))
    batch = FAMILY.batch(module, windows_of(np.concatenate([context, future], 1), 12), CPU)
    width = batch["input_ids"].shape[1]
    expected = {name: case[f"out_causal_{mode}_{name}"] for name in ("input_ids", "labels")}
    np.testing.assert_array_equal(batch["input_ids"], expected["input_ids"][:, :width])
    np.testing.assert_array_equal(batch["labels"], expected["labels"][:, :width])
    assert (expected["labels"][:, width:] == -100).all()


def test_missing_steps_are_read_as_the_last_one_and_do_not_count():
    model = causal()
    rng = np.random.default_rng(0)
    context, future = rng.normal(size=(2, 20)).astype(np.float32), rng.normal(size=(2, 12)).astype(np.float32)
    filled = context.copy()
    filled[0, 8:11] = filled[0, 7]
    context[0, 8:11] = np.nan
    holes, whole = (FAMILY.batch(model, windows_of(np.concatenate([x, future], 1), 12), CPU) for x in (context, filled))
    assert holes["labels"][0, 8:11].eq(-100).all() and not holes["labels"][1].eq(-100).any()
    assert holes["input_ids"][1].equal(whole["input_ids"][1])
    only = FAMILY.batch(model, windows_of(np.concatenate([filled, future], 1), 12, horizon_only=True), CPU)
    assert only["labels"][:, :20].eq(-100).all() and only["labels"][:, 20:].equal(whole["labels"][:, 20:])
    output = model.train()(**whole)
    FAMILY.experts.after_update(model, output.tally, torch.ones(()))
    assert FAMILY.experts.figures(model, {}) == {} and not FAMILY.experts.needs_survey(model)
    nothing = FAMILY.batch(model, windows_of(np.concatenate([filled, np.full_like(future, np.nan)], 1), 12), CPU)
    assert model(**nothing).objective.count == 0


def test_the_trainer_s_calls_after_a_step_find_nothing_to_do():
    model = causal().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    batch = FAMILY.batch(model, windows_of(np.random.default_rng(0).normal(size=(3, 52)).astype(np.float32), 12), CPU)
    tally = model(**batch).tally
    FAMILY.experts.after_update(model, tally, torch.ones(()))
    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())
    assert not FAMILY.experts.needs_survey(model) and FAMILY.experts.figures(model, {}) == {}


def test_forecasts_equal_a_forward_of_the_whole_sequence():
    """The likeliest token, step by step, from contexts of different lengths in one batch: cache, mask and positions."""
    model = causal(top_k=1, num_samples=2)
    rng = np.random.default_rng(1)
    contexts = [rng.normal(size=length).astype(np.float32) for length in (7, 40, 23, 1)]
    inputs = [ForecastInput(x[None], np.empty((1, 12), np.float32), num_targets=1) for x in contexts]
    paths = ChronosT5Forecaster(model).predict(inputs, 12)
    for context, samples in zip(contexts, paths, strict=True):
        tokens = model.tokenizer.encode_context(torch.from_numpy(context[None]))
        ids = tokens.id_RS
        for _ in range(12):
            logits = model(ids, labels=ids).logits[:, -1]
            logits[:, model.architecture.eos_token_id] = -torch.inf
            ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], 1)
        expected = model.tokenizer.decode(ids[:, -12:], tokens.scale_R)
        np.testing.assert_allclose(samples[0], np.repeat(expected, 2, 0), rtol=1e-6)


def test_it_forecasts_beyond_its_horizon_with_gaps_and_without_anything_observed():
    model = causal(num_samples=5)
    gaps = np.array([1, np.nan, 3, np.nan, np.nan, 2], np.float32)
    inputs = [
        ForecastInput(x[None], np.empty((1, 30), np.float32), num_targets=1)
        for x in (gaps, np.full(9, np.nan, np.float32), np.zeros(4, np.float32))
    ]
    forecaster = ChronosT5Forecaster(model, Sampling.of(model.architecture))
    answers = forecaster.predict_quantiles(inputs, 30, [0.1, 0.5, 0.9])
    assert all(answer.shape == (1, 30, 3) and np.isfinite(answer).all() for answer in answers)
    assert forecaster.embed(inputs)[0].shape == (1, 6, 32)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"activation_function": "relu"}, "activation_function is 'relu'"),
        ({"n_embd": None}, "config.json lacks n_embd"),
        ({"vocab_size": 12}, "the tokenizer does not match the checkpoint"),
    ],
)
def test_other_models_are_refused(tmp_path, change, sentence):
    model = causal()
    FAMILY.save(model, model.state_dict(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config = {key: value for key, value in (config | change).items() if value is not None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=sentence):
        FAMILY.load(tmp_path)


def test_settings_without_effect_are_refused():
    with pytest.raises(ValueError, match="num_decoder_layers, use_moe have no effect with model_type: causal"):
        ChronosT5Config(size="tiny", model_type="causal", num_decoder_layers=2, use_moe=True)
    with pytest.raises(ValueError, match="d_model 30 is not a multiple of num_heads 4"):
        FAMILY.build(ChronosT5Config(size="tiny", model_type="causal", d_model=30), WindowLengths(8, 4))
