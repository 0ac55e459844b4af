"""Models of one size: the width found is the nearest, and both conventions of counting stand beside each other."""

from __future__ import annotations

import pytest

from foreloom.data.text.config import TextSource
from foreloom.data.text.section import TextData
from foreloom.models.match import match_parameters, totals_of
from foreloom.models.registry import get

TEXT = TextData(sources=(TextSource(path="a"),), tokenizer="bytes", max_seq_length=32)
DECODER, LSTM = get("decoder"), get("lstm")


@pytest.mark.parametrize(
    ("size", "num_layers", "tied"), [("test", 2, True), ("tiny", 1, True), ("tiny", 2, False), ("small", 4, True)]
)
def test_an_lstm_is_as_large_as_a_decoder(size, num_layers, tied):
    target = totals_of(DECODER, DECODER.config(size=size), TEXT)
    config = LSTM.config(size="test", num_layers=num_layers, tie_embeddings=tied)
    found = match_parameters(LSTM, config, TEXT, target)
    assert abs(found.error) <= 0.02 and found.target is target
    d, tables = found.config.d_model, 1 if tied else 2
    of = lambda d: num_layers * (8 * d * d + 4 * d) + tables * 257 * d
    assert found.totals.total == of(d) == found.totals.embedding + found.totals.non_embedding
    assert found.totals.embedding == tables * 257 * d
    assert abs(of(d) - target.total) == min(abs(of(near) - target.total) for near in (d - 1, d, d + 1))
    assert found.config.num_layers == num_layers, "all else stays"


def test_a_number_and_a_width_in_steps():
    found = match_parameters(LSTM, LSTM.config(size="test"), TEXT, 3_500_000, multiple_of=8)
    assert found.config.d_model % 8 == 0 and abs(found.totals.total / 3.5e6 - 1) < 0.02
    wide = match_parameters(DECODER, DECODER.config(size="tiny"), TEXT, found.totals, multiple_of=8)
    assert wide.config.d_model % 8 == 0 and abs(wide.error) < 0.02
    with pytest.raises(
        ValueError, match=r"no width of this lstm has 100 parameters within 2%: 281 at width 1\. Change"
    ):
        match_parameters(LSTM, LSTM.config(size="test"), TEXT, 100)
