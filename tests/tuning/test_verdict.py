"""How a history is parted, what counts as better, and how long candidates are."""

import json
from functools import partial

import numpy as np
import pytest

from foreloom.tuning import candidates
from foreloom.tuning.candidates import FIRST, Kind, Outcome, Pace, following, in_budget, was_hot
from foreloom.tuning.verdict import Ratio, best_of, first_that_holds, ratio
from foreloom.tuning.windows import Windows, part


def test_a_history_is_parted_by_its_length():
    assert part(np.array([1000, 900, 30]), 24) == Windows(24, 8, 4)
    assert part(np.array([200] * 9), 24) == Windows(24, 2, 1) and Windows(24, 2, 1).num_steps == 72
    assert part(np.array([96]), 24) == Windows(24, 1, 1)
    assert part(np.array([95]), 24) is None
    with pytest.raises(ValueError, match=r"horizon of 24 steps is not shorter than the history: the longest of 2"):
        part(np.array([24, 3]), 24)


def test_better_is_what_is_surely_better():
    rng = np.random.default_rng(0)
    base = rng.uniform(1, 2, 60)
    better, same = ratio(base * rng.uniform(0.7, 1.0, 60), base), ratio(base * rng.uniform(0.8, 1.2, 60), base)
    assert better.is_sure and better.lower < better.estimate < better.upper < 1 and not same.is_sure
    assert better.estimate == pytest.approx(0.85, abs=0.03)
    assert best_of({"a": same, "b": better, "c": Ratio(0.5, 0.4, 1.1, 9)}) == "b" and best_of({"a": same}) is None
    unsure, halfway = Ratio(0.98, 0.9, 1.1, 9), Ratio(0.97, 0.95, 0.99, 9)
    assert first_that_holds({"a": unsure, "a, 50%": halfway}) == "a, 50%" and first_that_holds({"a": unsure}) is None
    fading = Ratio(0.94, 0.93, 0.96, 87, share_better=2 / 3)
    assert first_that_holds({"a": fading}) is None and first_that_holds({"a": fading, "a, 50%": halfway}) == "a, 50%"
    of_four = ratio(base[:4] * 0.9, base[:4])
    assert first_that_holds({"a": of_four}) == "a", "too few rows for an interval: the mean must do"
    assert first_that_holds({"a": ratio(base[:4] * 1.1, base[:4])}) is None
    window_S = np.arange(60) % 6
    phases = base * np.where(window_S % 2, 1.02, 0.75)
    assert ratio(phases, base).is_sure and ratio(phases, base, window_S).share_better == 0.5
    assert not ratio(phases, base, window_S).is_sure, "the rows of a window share what happened then"
    assert ratio(base * 0.9, base, window_S).is_sure
    # Better in every window, and by less from one to the next.
    window_S = np.arange(60) // 20
    fading, steady = (
        ratio(base * np.repeat(of_window, 20), base, window_S) for of_window in ((0.88, 0.92, 0.99), (0.93, 0.95, 0.9))
    )
    assert (
        fading.is_sure and fading.estimate < steady.estimate + 0.01 and fading.to_come == pytest.approx(1.045, abs=0.01)
    )
    assert first_that_holds({"a": fading, "a, 50%": steady}) == "a, 50%" and steady.to_come < 0.92
    assert ratio(base[:40] * 0.9, base[:40], window_S[:40]).to_come == 0, "two windows make no line"
    few = ratio(base[:4] * 0.5, base[:4])
    assert few.estimate == 0.5 and not few.is_sure and "too few for an interval" in str(few)
    missing = ratio(np.full(6, np.nan), base[:6])
    assert missing.num_rows == 0 and np.isnan(missing.estimate) and not missing.is_sure
    assert ratio(np.array([0.5, np.nan]), np.array([1.0, 1.0])).num_rows == 1


def test_a_budget_is_spent_on_as_many_candidates_as_have_steps():
    pace = Pace(start=10, step=0.5, validation=1)
    assert pace.steps_in(72) == 100
    assert in_budget(pace, 600, 5, 10**6) == (4, 246)
    assert in_budget(pace, 120, 5, 10**6) == (2, 66)
    assert in_budget(pace, 40, 5, 10**6) == (1, 26)
    assert in_budget(pace, 30, 5, 10**6) == (0, 0), "not even one"
    assert in_budget(pace, 6000, 5, 32) == (4, 20), "few values are not gone through for ever"


def test_learning_rates_follow_the_better(monkeypatch, tmp_path):
    full, lora = (Kind(what, 10.0) for what in FIRST)
    calm, hot = (lambda error: Outcome(error, False)), (lambda error: Outcome(error, True))
    after = partial(following, first_times=10.0)
    assert after({}) == full and after({full: calm(0.9)}) == lora
    tried = {lora: calm(0.9), full: calm(0.8)}
    for times, error in ((100, 0.7), (1000, 0.75)):
        assert after(tried) == ("full", times), "better, and the higher the better"
        tried[after(tried)] = calm(error)
    assert after(tried) is None, "both neighbours of the best were tried"
    assert after({lora: calm(1.2), full: calm(1.1)}) == ("full", 1), "worse than the model as it was: lower"
    assert after({lora: calm(0.9), full: hot(0.8)}) == ("full", 1), "a higher rate would be too high"
    assert after({lora: calm(0.9), full: hot(0.8), Kind("full", 1.0): hot(0.9)}) is None
    for losses, is_hot in (([3.0, 2.0, 2.5], False), ([3.0, 3.1, 2.0], True), ([3.0, None], True)):
        records = [{"kind": "validation", "step": step, "loss": loss} for step, loss in enumerate(losses)]
        (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
        assert was_hot(tmp_path) == is_hot
    monkeypatch.setattr(candidates, "MOST_CANDIDATES", 2)
    assert after({lora: calm(0.9), full: calm(0.8)}) is None
