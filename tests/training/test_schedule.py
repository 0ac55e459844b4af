import pytest

from foreloom.training.optimizer import OptimizerConfig


def rates(num_updates: int, **settings) -> list[float]:
    config = OptimizerConfig(learning_rate=1.0, **settings)
    return [config.learning_rate_of(k, num_updates) for k in range(1, num_updates + 1)]


def test_linear_without_warmup_is_that_of_chronos_forecasting() -> None:
    assert rates(10, schedule="linear") == pytest.approx([1 - (k - 1) / 10 for k in range(1, 11)])


def test_shapes() -> None:
    assert rates(6, schedule="linear", warmup_steps=2) == pytest.approx([1 / 3, 2 / 3, 1, 0.75, 0.5, 0.25])
    assert rates(4, schedule="cosine") == pytest.approx([1, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5])
    assert rates(8, schedule="wsd", warmup_ratio=0.25, decay_steps=2) == pytest.approx(
        [1 / 3, 2 / 3, 1, 1, 1, 1, 1, 0.5]
    )
    assert rates(5, schedule="constant", warmup_steps=1) == pytest.approx([0.5, 1, 1, 1, 1])
    assert rates(4, schedule="linear", final_ratio=0.2) == pytest.approx([1, 0.8, 0.6, 0.4])


@pytest.mark.parametrize(
    "settings",
    [
        {"schedule": "cosine", "decay_steps": 10},
        {"schedule": "wsd"},
        {"warmup_steps": 1, "warmup_ratio": 0.1},
        {"schedule": "wsd", "decay_steps": 1, "decay_ratio": 0.1},
        {"schedule": "constant", "final_ratio": 0.1},
        {"learning_rate": 0},
        {"betas": (0.9, 1.0)},
    ],
)
def test_settings_without_effect_are_refused(settings: dict) -> None:
    with pytest.raises(ValueError):
        OptimizerConfig(**settings)


def test_a_schedule_longer_than_the_run_is_told() -> None:
    with pytest.raises(ValueError, match="8 steps of warm-up and 4 of decay"):
        rates(10, schedule="wsd", warmup_steps=8, decay_steps=4)
