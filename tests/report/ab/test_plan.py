"""What is trained: which recipes can be compared, for how many steps, in which order."""

from __future__ import annotations

from pathlib import Path

import pytest

from foreloom import run
from foreloom.report.ab import plan
from foreloom.report.ab.plan import Size, Training
from foreloom.report.ab.size import size_of

EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "data"
RECIPE = f"""
model: {{family: time_moe, size: test}}
data:
  sources: [{{path: {EXAMPLES}/nyc_weather.parquet, holdout: 48}}]
  context_length: 48
  prediction_length: 24
  normalization: zero
training: {{steps: 100, batch_size: 8}}
"""


@pytest.fixture
def load(tmp_path):
    """load(*overrides) -> the recipe with them."""
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return lambda *overrides: run.load(path, overrides)


def test_recipes_that_differ_in_their_model_can_be_compared(load):
    plan.check_comparable(
        load(),
        load("model.use_dense=true", "training.batch_size=4", "optimizer.learning_rate=0.1", "data.num_prefetch=0"),
    )


def test_every_difference_in_the_data_is_named(load):
    other = load("data.context_length=96", "data.sources.0.holdout=24", "validation.steps=10", "validation.stride=3")
    with pytest.raises(ValueError) as told:
        plan.check_comparable(load(), other)
    assert str(told.value).splitlines()[1:-1] == [
        "  data.sources.0.holdout: 48 in A, 24 in B",
        "  data.context_length: 48 in A, 96 in B",
        "  validation.stride: None in A, 3 in B",
    ]
    second = f"{{path: {EXAMPLES}/us_births.parquet}}"
    more = load(f"data.sources=[{{path: {EXAMPLES}/nyc_weather.parquet, holdout: 48}}, {second}]")
    with pytest.raises(ValueError, match=r"data\.sources\.1\.path: not there in A, .*us_births\.parquet in B"):
        plan.check_comparable(load(), more)


def test_something_must_be_held_out(load):
    nothing = load("data.sources.0.holdout=0")
    with pytest.raises(ValueError, match=r"Set data\.sources\.0\.holdout.*data\.prediction_length \(24\)"):
        plan.check_comparable(nothing, nothing)
    own = load(
        "data.sources.0.holdout=0",
        "validation.steps=5",
        f"validation.sources=[{{path: {EXAMPLES}/us_births.parquet}}]",
    )
    plan.check_comparable(own, own)


def test_losses_of_other_families_and_scales_are_other_quantities(load):
    def are_comparable(*overrides, a=()):
        recipes = load(*a), load(*overrides)
        return plan.is_loss_comparable(recipes, (size_of(recipes[0]), size_of(recipes[1])))

    assert are_comparable("model.use_dense=true")
    assert not are_comparable("data.normalization=max")
    assert not are_comparable("model.horizon_lengths=[1,4]")
    t5 = ("model.family=chronos_t5", "model.size=tiny", "model.n_tokens=64", "data.normalization=none")
    assert not are_comparable(*t5)
    assert are_comparable(*t5, "model.use_moe=true", a=t5)
    assert not are_comparable(*t5, "model.low_limit=-9", a=t5)
    for family in ("chronos2", "chronos_bolt"):
        other = (f"model.family={family}", "model.quantiles=[0.1,0.5,0.9]")
        assert are_comparable(*other, a=other)
        assert not are_comparable(f"model.family={family}", a=other)


@pytest.mark.parametrize(
    ("flops_of_b", "num_steps"),
    [(2e9, 50), (0.5e9, 200), (3e9, 33), (1.5e9, 67), (1.001e9, 100), (1e15, 1)],
)
def test_b_gets_the_steps_that_the_compute_of_a_pays_for(flops_of_b, num_steps):
    assert plan.steps_at_equal_compute(Size(100, 1, 1e9), Size(100, 1, flops_of_b)) == num_steps


def compared(equal: plan.Equal, a: Size, b: Size) -> dict[str, int]:
    return {one.arm: steps for one, steps in plan.comparisons(a, b, equal).items()}


def test_what_is_compared():
    a, dear = Size(100, 1, 1e9), Size(30, 1, 2e9)
    assert compared("both", a, dear) == {"B": 100, "B-equal-compute": 50}
    assert compared("steps", a, dear) == {"B": 100}
    assert compared("compute", a, dear) == {"B-equal-compute": 50}
    for equal in ("both", "steps", "compute"):
        assert compared(equal, a, Size(30, 1, 1e9)) == {"B": 100}  # the two are one
    assert plan.own_steps_note(a, dear) == "B's recipe says 30 steps; A's 100 are the yardstick here."
    assert plan.own_steps_note(a, a) is None
    assert plan.parse_equal("compute") == "compute"
    with pytest.raises(ValueError, match="--equal 'flops': expected steps, compute, both"):
        plan.parse_equal("flops")


def test_recipes_take_turns_seed_by_seed():
    a, b = Size(100, 1, 1e9), Size(100, 1, 2e9)
    planned = plan.trainings(a, plan.comparisons(a, b, "both"), [7, 8])
    assert [(one.name, one.num_steps) for one in planned] == [
        ("A-seed-7", 100),
        ("B-seed-7", 100),
        ("B-equal-compute-seed-7", 50),
        ("A-seed-8", 100),
        ("B-seed-8", 100),
        ("B-equal-compute-seed-8", 50),
    ]


def test_settings_of_a_training(load):
    training = Training("B", 3, 60)
    mine = ["training.steps=5", "optimizer.learning_rate=0.1"]
    assert plan.overrides_of(training, load(), mine, 100) == [
        *mine,
        "training.steps=60",
        "training.seed=3",
        "validation.steps=5",
    ]
    validated = load("validation.steps=7", "data.stride=24", "training.steps=null", "training.epochs=2")
    own = plan.overrides_of(training, validated, [], 100)
    assert own == ["training.epochs=null", "training.steps=60", "training.seed=3"]
    assert plan.overrides_of(training, load(), [], 10)[-1] == "validation.steps=1"
