"""Generation beyond parity: what it refuses, and that nothing of the caller's is touched."""

from __future__ import annotations

import pytest
import torch

import foreloom
from foreloom.models.time_moe.family import FAMILY


@pytest.fixture
def context():
    return torch.randn(3, 20, generator=torch.Generator().manual_seed(0))


def test_the_example_of_the_documents(tiny_time_moe, context, tmp_path):
    FAMILY.save(tiny_time_moe, tiny_time_moe.state_dict(), tmp_path)
    before = context.clone()
    module = foreloom.from_pretrained(tmp_path, device="cpu").module
    first, second = (module.generate(context, max_new_tokens=6) for _ in range(2))
    assert first.shape == (3, 26) and torch.equal(first, second)
    assert torch.equal(context, before) and context.shape == (3, 20)
    assert torch.equal(module.generate(context, max_length=26), first)


def test_cache_and_batch_change_nothing(tiny_time_moe, context):
    with_cache = tiny_time_moe.generate(context, 23)
    torch.testing.assert_close(tiny_time_moe.generate(context, 23, use_cache=False), with_cache, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(tiny_time_moe.generate(context[1:2], 23), with_cache[1:2], rtol=1e-4, atol=1e-5)


def test_left_padding_changes_nothing(tiny_time_moe, context):
    padded = torch.cat([torch.full((3, 5), 7.0), context], 1)
    mask = torch.cat([torch.zeros(3, 5), torch.ones(3, 20)], 1)
    masked = tiny_time_moe.generate(padded, 13, attention_mask=mask)
    torch.testing.assert_close(masked[:, 25:], tiny_time_moe.generate(context, 13)[:, 20:], rtol=1e-4, atol=1e-5)


def test_integers_are_values(tiny_time_moe):
    whole = torch.tensor([[1, 2, 3, 4]])
    assert torch.equal(tiny_time_moe.generate(whole, 4), tiny_time_moe.generate(whole.float(), 4))


def test_beyond_the_maximum_the_newest_steps_are_used_or_by_the_reference_protocol_all(tiny_time_moe, context):
    assert tiny_time_moe.generate(context, 108).shape == (3, 128)
    mask = torch.ones(3, 20)
    mask[0, :5] = 0
    with pytest.warns(UserWarning, match="context of 20 steps is cut to its newest 18: with 110 to forecast .* 128"):
        cut = tiny_time_moe.generate(context, 110, attention_mask=mask)
    assert torch.equal(cut[:, :20], context)
    assert torch.equal(cut[:, 20:], tiny_time_moe.generate(context[:, 2:], 110, attention_mask=mask[:, 2:])[:, 18:])
    with pytest.raises(ValueError, match="128 steps to forecast leave no context: the model takes 128"):
        tiny_time_moe.generate(context, 128)
    tiny_time_moe.protocol = "reference"
    whole = tiny_time_moe.generate(context, 110, attention_mask=mask)
    assert whole.shape == (3, 130) and not torch.allclose(whole[:, 20:], cut[:, 20:])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"max_new_tokens": 4, "do_sample": True}, "do_sample=True"),
        ({"max_new_tokens": 4, "num_beams": 3, "temperature": 0.7}, "num_beams=3, temperature=0.7"),
        ({"max_new_tokens": 4, "num_return_sequences": 5}, "num_return_sequences=5"),
        ({}, "max_new_tokens or by max_length"),
        ({"max_new_tokens": 4, "max_length": 24}, "max_new_tokens or by max_length"),
        ({"max_new_tokens": 0}, "max_new_tokens=0 leaves nothing"),
        ({"max_length": 20}, "max_length=20 leaves nothing"),
        ({"max_new_tokens": 4, "attention_mask": torch.ones(3, 19)}, "must agree"),
        ({"max_new_tokens": 4, "attention_mask": torch.tensor([[1] * 19 + [0]] * 3)}, "pad at the left"),
    ],
)
def test_what_cannot_be_asked(tiny_time_moe, context, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny_time_moe.generate(context, **options)


def test_inputs_that_are_none(tiny_time_moe, context):
    for wrong in (context[..., None], context[0], context[:, :0]):
        with pytest.raises(ValueError, match=r"inputs must be \(rows, steps\)"):
            tiny_time_moe.generate(wrong, 4)
    with pytest.raises(ValueError, match="torch tensor, got ndarray; wrap it in torch.as_tensor"):
        tiny_time_moe.generate(context.numpy(), 4)
    context[1, 3] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        tiny_time_moe.generate(context, 4)
    assert tiny_time_moe.generate(context[:1], 4, do_sample=False, num_beams=1).shape == (1, 24)
