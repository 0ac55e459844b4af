"""Fixtures every test may use."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# One thread a worker of pytest-xdist, and in the processes that it starts: a core each.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# Many processes are started here: what one of them has compiled, the others read.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
    sys.dont_write_bytecode = False

import pytest

from foreloom.models.family import WindowLengths

SHARED = Path(__file__).resolve().parents[1].parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The data and oracle pack beside a developer's checkout; tests that read it skip visibly where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the shared data pack at {SHARED}")
    return SHARED


@pytest.fixture
def tiny_chronos2():
    """A Chronos-2 of 2 layers, 32 wide, with random weights large enough to tell mistakes; context 96, horizon 32."""
    from foreloom.models.chronos2.architecture import Chronos2Config
    from foreloom.models.chronos2.family import FAMILY

    config = Chronos2Config(size="test", d_model=32, d_kv=8, d_ff=64, initializer_factor=1.0)
    model = FAMILY.build(config, WindowLengths(96, 32))
    FAMILY.initialize(model, 0)
    return model.eval()


@pytest.fixture
def tiny_chronos_t5():
    """A Chronos-T5 of 2 + 2 layers, 32 wide, 64 tokens, 4 experts of which 2 are active, with random weights large
    enough to tell mistakes; context 96, horizon 16."""
    from foreloom.models.chronos_t5.architecture import ChronosT5Config
    from foreloom.models.chronos_t5.family import FAMILY

    config = ChronosT5Config(
        size="tiny", d_model=32, d_kv=8, d_ff=64, num_layers=2, n_tokens=64, initializer_factor=1.0, num_samples=6,
        use_moe=True, num_experts=4, router_hidden_dim=16,
    )  # fmt: skip
    model = FAMILY.build(config, WindowLengths(96, 16))
    FAMILY.initialize(model, 0)
    return model.eval()


@pytest.fixture
def tiny_time_moe():
    """A Time-MoE of 2 layers, 32 wide, 4 experts, horizons 1, 4 and 8, with random weights large enough to tell
    mistakes; at most 128 steps."""
    from foreloom.models.time_moe.architecture import TimeMoeConfig
    from foreloom.models.time_moe.family import FAMILY

    config = TimeMoeConfig(
        size="test", hidden_size=32, intermediate_size=64, horizon_lengths=(1, 4, 8), max_position_embeddings=128,
        initializer_range=0.3,
    )  # fmt: skip
    model = FAMILY.build(config, WindowLengths(96, 8))
    FAMILY.initialize(model, 0)
    return model.eval()


@pytest.fixture
def tiny_chronos_bolt():
    """A Chronos-Bolt of 2 + 2 layers, 32 wide, with random weights large enough to tell mistakes; context 96, horizon
    32."""
    from foreloom.models.chronos_bolt.architecture import ChronosBoltConfig
    from foreloom.models.chronos_bolt.family import FAMILY

    config = ChronosBoltConfig(size="test", d_model=32, d_kv=8, d_ff=64, initializer_factor=1.0)
    model = FAMILY.build(config, WindowLengths(96, 32))
    FAMILY.initialize(model, 0)
    return model.eval()


@pytest.fixture
def tiny_decoder():
    """A decoder of bytes of 2 layers, 32 wide, with random weights large enough to tell mistakes; at most 96 tokens."""
    from foreloom.data.text.config import TextSource
    from foreloom.data.text.section import TextData
    from foreloom.models.decoder.architecture import DecoderConfig
    from foreloom.models.decoder.family import FAMILY

    text = TextData(sources=(TextSource(path="a"),), tokenizer="bytes", max_seq_length=96)
    model = FAMILY.build(DecoderConfig(size="test", init="kaiming"), text)
    FAMILY.initialize(model, 0)
    return model.eval()


@pytest.fixture
def tiny_lstm():
    """An LSTM of bytes of 2 layers, 32 wide, with random weights."""
    from foreloom.data.text.config import TextSource
    from foreloom.data.text.section import TextData
    from foreloom.models.lstm.architecture import LstmConfig
    from foreloom.models.lstm.family import FAMILY

    text = TextData(sources=(TextSource(path="a"),), tokenizer="bytes", max_seq_length=96)
    model = FAMILY.build(LstmConfig(size="test"), text)
    FAMILY.initialize(model, 0)
    return model.eval()
