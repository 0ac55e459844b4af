from __future__ import annotations

import pytest

from foreloom.training.config import TrainingConfig


@pytest.mark.parametrize(("epochs", "num_rows", "steps"), [(1, 64, 8), (1, 65, 9), (2.5, 10, 4), (0.01, 10, 1)])
def test_epochs_in_steps(epochs: float, num_rows: int, steps: int) -> None:
    config = TrainingConfig(epochs=epochs, batch_size=8).in_steps(num_rows)
    assert (config.num_steps, config.epochs, config.batch_size) == (steps, None, 8)


def test_steps_stay_steps() -> None:
    assert TrainingConfig(steps=7).in_steps(None).num_steps == 7
    assert TrainingConfig(steps=7).in_steps(1000).num_steps == 7


@pytest.mark.parametrize(
    ("given", "sentence"),
    [({}, "required and not given"), ({"steps": 3, "epochs": 1}, "keep one and set the other to null")],
)
def test_one_of_steps_and_epochs(given: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        TrainingConfig(**given)
