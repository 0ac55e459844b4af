"""Our T5 stacks beside those of transformers, on random weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from foreloom.models.common.t5.attention import DecoderCache
from foreloom.models.common.t5.shape import T5Shape, initialize_t5
from foreloom.models.common.t5.stack import Decoder, Encoder, visible

transformers = pytest.importorskip("transformers")


class Stacks(nn.Module):
    """What a model holds of T5."""

    def __init__(self, shape: T5Shape) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(shape), Decoder(shape)


def both(feed_forward_proj: str) -> tuple[Stacks, nn.Module]:
    shape = T5Shape(
        d_model=24, d_kv=8, d_ff=40, num_layers=2, num_decoder_layers=3, num_heads=2,
        feed_forward_proj=feed_forward_proj, relative_attention_num_buckets=8, relative_attention_max_distance=20,
    )  # fmt: skip
    ours = Stacks(shape)
    for name, parameter in ours.named_parameters():
        initialize_t5(name, parameter, 3, factor=1.0, d_model=24, d_kv=8)
    config = transformers.T5Config(
        vocab_size=5, d_model=24, d_kv=8, d_ff=40, num_layers=2, num_decoder_layers=3, num_heads=2,
        feed_forward_proj=feed_forward_proj, relative_attention_num_buckets=8, relative_attention_max_distance=20,
    )  # fmt: skip
    theirs = transformers.T5Model(config)
    missing, unexpected = theirs.load_state_dict(ours.state_dict(), strict=False)
    assert not unexpected and all("embed_tokens" in name or name == "shared.weight" for name in missing)
    return ours.eval(), theirs.eval()


@pytest.mark.parametrize("feed_forward_proj", ["relu", "gelu", "gated-gelu"])
def test_states_and_gradients_equal_those_of_transformers(feed_forward_proj: str) -> None:
    ours, theirs = both(feed_forward_proj)
    generator = torch.Generator().manual_seed(0)
    x_BSD = torch.randn(3, 37, 24, generator=generator)
    y_BTD = torch.randn(3, 29, 24, generator=generator)
    mask_BS = torch.rand(3, 37, generator=generator) < 0.7
    mask_BS[0, :30] = False

    memory = ours.encoder(x_BSD, visible(mask_BS))
    states = ours.decoder(y_BTD, memory, visible(mask_BS))
    output = theirs(inputs_embeds=x_BSD, attention_mask=mask_BS, decoder_inputs_embeds=y_BTD)
    torch.testing.assert_close(memory, output.encoder_last_hidden_state, atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(states, output.last_hidden_state, atol=2e-6, rtol=1e-5)

    direction = torch.randn(states.shape, generator=generator)
    (states * direction).sum().backward()
    (output.last_hidden_state * direction).sum().backward()
    reference = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        expected = reference[name].grad
        torch.testing.assert_close(parameter.grad, expected, atol=1e-5 * float(expected.abs().max()), rtol=1e-4)


def test_a_cache_gives_what_the_whole_sequence_gives() -> None:
    ours, _ = both("relu")
    memory, y_RTD = torch.randn(2, 11, 24), torch.randn(6, 9, 24)
    mask_BS = torch.rand(2, 11) < 0.8
    whole = ours.decoder(y_RTD, memory.repeat_interleave(3, 0), mask_BS.repeat_interleave(3, 0))
    cache = DecoderCache(num_layers=3, max_length=9)
    parts = [ours.decoder(part, memory, mask_BS, cache) for part in y_RTD.split([4, 1, 1, 3], dim=1)]
    assert cache.length == 9
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-6, rtol=1e-5)


def test_a_hidden_token_changes_nothing() -> None:
    ours, _ = both("gelu")
    x_BSD, y_BTD = torch.randn(1, 8, 24), torch.randn(1, 3, 24)
    mask_BS = torch.tensor([[0, 0, 1, 1, 0, 1, 1, 1]])
    changed = torch.where(mask_BS[..., None] > 0, x_BSD, 100.0)
    shorter = x_BSD[:, 2:], visible(mask_BS[:, 2:])
    for x, mask in ((changed, visible(mask_BS)), shorter):
        expected = ours.decoder(y_BTD, ours.encoder(x_BSD, visible(mask_BS)), visible(mask_BS))
        torch.testing.assert_close(ours.decoder(y_BTD, ours.encoder(x, mask), mask), expected, atol=1e-6, rtol=1e-5)
    nothing = visible(torch.zeros(1, 8))
    assert ours.decoder(y_BTD, ours.encoder(x_BSD, nothing), nothing).isfinite().all()
