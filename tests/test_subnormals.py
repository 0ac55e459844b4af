"""Where models compute subnormal floats are 0, in every thread that takes part; data and callers notice nothing."""

from __future__ import annotations

import json
import threading
import warnings

import numpy as np
import pytest
import torch

from foreloom import subnormals
from foreloom.data.config import DataConfig, SourceConfig
from foreloom.data.source import MemorySource, Series
from foreloom.forecast.model import Model
from foreloom.models.chronos2.family import FAMILY
from loaders import series_loader
from toy_run import ToyModel, train_here

NUM_VALUES = 400_000
"""So many that torch gives every thread a part."""


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with subnormals.flushed():
        if not subnormals.are_flushed():
            pytest.skip("this processor cannot flush subnormal floats")
    yield
    torch.set_num_threads(before)


def num_subnormal(values: torch.Tensor | np.ndarray) -> list[int]:
    """In each quarter. Counted by their bits: a thread that flushes takes them for 0."""
    bits = (values.numpy() if isinstance(values, torch.Tensor) else values).view(np.int32) & 0x7FFFFFFF
    return [int(((part > 0) & (part < 0x00800000)).sum()) for part in np.array_split(bits, 4)]


def by_torch() -> list[int]:
    return num_subnormal(torch.from_numpy(np.full(NUM_VALUES, 2e-38, np.float32)) * 1e-3)


def by_numpy() -> list[int]:
    return num_subnormal(np.full(400, 2e-38, np.float32) * np.float32(1e-3))


NONE, ALL, ALL_OF_NUMPY = [0] * 4, [NUM_VALUES // 4] * 4, [100] * 4


def test_every_thread_flushes_and_none_does_afterwards() -> None:
    assert by_torch() == ALL  # OpenMP's workers are there now, and keep subnormals
    with subnormals.flushed():
        assert subnormals.are_flushed()
        assert by_torch() == NONE
        with subnormals.flushed():
            assert by_torch() == NONE
        assert by_torch() == NONE
        assert torch.get_num_threads() == 2
    assert not subnormals.are_flushed()
    assert by_torch() == ALL


def test_so_do_matrix_products_and_gradients() -> None:
    small = torch.from_numpy(np.full((512, 512), 1e-20, np.float32))
    product = lambda: num_subnormal(small @ (small * 1e-3))

    def gradient() -> list[int]:
        x = torch.ones(NUM_VALUES, requires_grad=True)
        (x * torch.from_numpy(np.full(NUM_VALUES, 2e-38, np.float32))).backward(torch.full((NUM_VALUES,), 1e-3))
        assert x.grad is not None
        return num_subnormal(x.grad)

    assert product() == [2**16] * 4 and gradient() == ALL
    with subnormals.flushed():
        assert product() == gradient() == NONE


def test_a_thread_started_while_flushing_flushes() -> None:
    found = {}

    def work() -> None:
        found.update(torch=by_torch(), numpy=by_numpy())
        with subnormals.kept():
            found["kept"] = by_numpy()

    with subnormals.flushed():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert found == {"torch": NONE, "numpy": NONE, "kept": ALL_OF_NUMPY}


def test_an_error_restores_the_callers_mode() -> None:
    with pytest.raises(ValueError), subnormals.flushed():
        raise ValueError
    assert not subnormals.are_flushed()
    assert by_torch() == ALL


def test_a_caller_who_flushes_goes_on_flushing() -> None:
    torch.set_flush_denormal(True)
    try:
        with subnormals.flushed():
            assert subnormals.are_flushed()
        with subnormals.kept():
            assert by_numpy() == ALL_OF_NUMPY
        assert subnormals.are_flushed()
    finally:
        torch.set_flush_denormal(False)


def test_forecasts_flush_and_leave_the_caller_alone(tiny_chronos2) -> None:
    model = Model(FAMILY, tiny_chronos2)
    seen = []
    model.module.register_forward_hook(lambda *_: seen.append((subnormals.are_flushed(), by_torch())))
    assert by_torch() == ALL
    model.predict(np.arange(50.0), 8)
    model.embed(np.arange(50.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.predict(np.arange(50.0), 40)  # in two forwards
    assert seen == [(True, NONE)] * 4
    assert not subnormals.are_flushed() and by_torch() == ALL


def test_training_flushes_and_says_so(tmp_path, monkeypatch) -> None:
    seen = []
    forward = ToyModel.forward
    monkeypatch.setattr(ToyModel, "forward", lambda self, **batch: seen.append(by_torch()) or forward(self, **batch))
    train_here(tmp_path, steps=2)
    assert seen == [NONE] * 3  # the rehearsal and two steps
    assert json.loads((tmp_path / "environment.json").read_text())["flushes_subnormals"] is True
    assert not subnormals.are_flushed() and by_torch() == ALL


@pytest.mark.parametrize("num_prefetch", [0, 2])
def test_data_are_the_same_whoever_flushes(num_prefetch) -> None:
    values = np.random.default_rng(0).normal(size=(4, 100)).astype(np.float32)
    values[1:] *= np.float32([[1e-38], [1e-40], [1e-44]])
    sources = [MemorySource([Series(str(n), row[None]) for n, row in enumerate(values)], "tiny")]

    def windows(normalization: str) -> np.ndarray:
        config = DataConfig(
            sources=(SourceConfig(path="tiny"),), context_length=32, prediction_length=8, num_prefetch=num_prefetch,
            normalization=normalization,
        )  # fmt: skip
        loader = series_loader(config, seed=0, batch_size=64, sources=sources)
        batch = next(iter(loader))
        loader.close()
        return np.concatenate([np.concatenate([w.context_RC, w.future_RH], 1) for w in batch.micro_batches])

    for normalization in ("none", "zero"):
        exact = windows(normalization)
        with subnormals.flushed():
            flushed = windows(normalization)
        assert np.array_equal(exact.view(np.int32), flushed.view(np.int32))
