"""Calibrated quantiles: what a shift is, what stays, where it lies, and bands that hold what they say later."""

from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest
from naive_model import naive_model

from foreloom.evaluation.by_name import forecasters_by_name
from foreloom.evaluation.calibrate import _doubts, num_apart
from foreloom.forecast import Model, from_pretrained
from foreloom.models.calibration import LEVELS, Calibration, conformal_quantile, is_flat, local_scale, mean_move
from foreloom.models.chronos2.family import FAMILY as CHRONOS2
from foreloom.models.time_moe.family import FAMILY as TIME_MOE

Z = np.array([NormalDist().inv_cdf(level) for level in LEVELS])


def test_bands_that_are_too_narrow_are_widened_by_step_and_the_median_stays():
    """Noise whose deviation grows with the step, and a forecast that knows half of it."""
    rng = np.random.default_rng(0)
    deviation_H = 1.0 + np.arange(8)
    label_SH = rng.normal(0, deviation_H, (2000, 8))
    forecast_SHQ = np.broadcast_to(Z / 2, (2000, 8, 19)).copy()
    unit_SH = local_scale(forecast_SHQ, LEVELS, np.empty((0, 0)))
    made = Calibration.fit(forecast_SHQ[:1000], LEVELS, unit_SH[:1000], label_SH[:1000], {"data": "noise"})
    assert made.first_steps == tuple(range(8)) and made.facts == {"data": "noise", "labels": 8000}
    after = made.apply(forecast_SHQ, LEVELS, unit_SH)
    np.testing.assert_array_equal(after[..., 9], forecast_SHQ[..., 9])
    assert (np.diff(after, axis=-1) >= 0).all()
    for lower, percent in ((1, 80), (0, 90), (4, 50)):
        inside_H = ((after[..., lower] <= label_SH) & (label_SH <= after[..., 18 - lower]))[1000:].mean(0)
        assert inside_H == pytest.approx(percent / 100, abs=0.06)
    # Few values: one group of steps; the last step stands for what lies beyond.
    pooled = Calibration.fit(forecast_SHQ[:20], LEVELS, unit_SH[:20], label_SH[:20], {})
    assert pooled.first_steps == (0,)
    longer = made.apply(np.zeros((1, 12, 3)), (0.1, 0.5, 0.9), np.ones((1, 12)))
    assert (longer[0, 8:] == longer[0, 7]).all()
    draws = Calibration.fit(forecast_SHQ[:20], LEVELS, unit_SH[:20], label_SH[:20], {}, num_windows=4)
    np.testing.assert_allclose(draws.shift_GQ, pooled.shift_GQ * 4 / 5)
    with pytest.raises(ValueError, match=r"made of 100 values at least, and these windows have 96"):
        Calibration.fit(forecast_SHQ[:12], LEVELS, unit_SH[:12], label_SH[:12], {})


def test_quantiles_never_cross_and_ranks_are_conformal():
    values = np.arange(1.0, 100.0)
    assert [conformal_quantile(values, level) for level in (0.05, 0.1, 0.9, 0.95)] == [5, 10, 90, 95]
    assert [conformal_quantile(values[:3], level) for level in (0.05, 0.95)] == [1, 3]
    shifts = np.array([[5.0, 0.0, -5.0]])
    crossed = Calibration((0.1, 0.5, 0.9), (0,), shifts, {})
    assert crossed.apply(np.array([[[1.0, 2.0, 3.0]]]), (0.1, 0.5, 0.9), np.ones((1, 1))).tolist() == [[[-2, 2, 6]]]
    below = Calibration((0.1, 0.5, 0.9), (0,), np.array([[5.0, 0.0, 5.0]]), {})
    assert below.apply(np.array([[[1.0, 2.0, 3.0]]]), (0.1, 0.5, 0.9), np.ones((1, 1))).tolist() == [[[6, 6, 8]]]
    assert mean_move(np.array([[1.0, 2, np.nan, 5, 8], [np.nan] * 5])).tolist() == [2.0, 0.0]


@pytest.fixture
def walks():
    rng = np.random.default_rng(0)
    days = pd.date_range("2024-01-01", periods=70)
    parts = [pd.DataFrame({"item_id": f"s{n}", "timestamp": days, "target": rng.normal(0, 9, 70)}) for n in range(40)]
    return pd.concat(parts)


def test_a_model_is_calibrated_once_saved_and_loaded(walks, tmp_path, tiny_chronos2, tiny_time_moe):
    for family, module in ((CHRONOS2, tiny_chronos2), (TIME_MOE, tiny_time_moe)):
        model = Model(family, module)
        trial = model.calibrate(walks, 8, windows=4)
        assert repr(trial).startswith(f"tried on {trial.num_windows:,} windows\n50 %: coverage ")
        assert [row["band"] for row in trial.rows] == [50, 80, 90] and trial.num_windows == 40
        for row in trial.rows:
            assert row["width_calibrated"] > 0
            if family is TIME_MOE:  # the quantiles of random weights are in no order, and a band is none
                assert row["coverage"] == row["width"] == 0
                assert row["coverage_calibrated"] == pytest.approx(row["band"] / 100, abs=0.1)
        folder = tmp_path / family.name
        model.save_pretrained(folder)
        (tmp_path / "run" / "checkpoints" / "step-00000003").mkdir(parents=True, exist_ok=True)
        with pytest.raises(ValueError, match="run holds a run or a fit"):
            model.save_pretrained(tmp_path / "run")
        again = from_pretrained(folder, device="cpu")
        asked = [0.05, 0.5, 0.77, 0.9]
        (forecast,) = again.predict(np.arange(40.0) % 7, 8, asked)
        np.testing.assert_allclose(forecast, model.predict(np.arange(40.0) % 7, 8, asked)[0], rtol=1e-5)
        assert (np.diff(forecast, axis=-1) >= 0).all() and (forecast[..., -1] > forecast[..., 0]).all()
        (scored, *_) = forecasters_by_name([str(folder)], module.parameters().__next__().device).values()
        assert 0.95 in scored.quantile_levels, "evaluate scores it as it forecasts"
        assert (scored.on_scaled_data() is scored) == (family is CHRONOS2), "raw values are its own affair"
        with pytest.raises(ValueError, match="is calibrated already, on df"):
            again.calibrate(walks, 8)
        path, kept = folder / "calibration.json", (folder / "calibration.json").read_text()
        Model(family, module).save_pretrained(folder)
        assert not path.exists(), "a calibration of other weights does not stay beside these"
        path.write_text(kept)
        path.write_text(path.read_text().replace('"first_steps"', '"steps"'))
        with pytest.raises(ValueError, match=r"calibration.json is no calibration. Delete it"):
            from_pretrained(folder, device="cpu")


def test_a_quarter_of_the_rows_is_held_out_and_what_dates_share_makes_a_coverage_less_sure():
    """Four series of 20 windows and 36 of 4: of the newest window alone a quarter of the rows is nearly made."""
    rng = np.random.default_rng(0)
    days = pd.date_range("2024-01-01", periods=164)
    shock = np.repeat(rng.choice([0.0, 4.0], 41), 4)
    errors = {}
    for name, shared in (("own", 0.0), ("shared", 1.0)):
        values = rng.normal(size=(40, 164)) * (1 + shared * shock)
        begins = [0 if n < 4 else 128 for n in range(40)]
        parts = [
            pd.DataFrame({"item_id": f"s{n}", "timestamp": days[begin:], "target": values[n, begin:]})
            for n, begin in enumerate(begins)
        ]
        trial = naive_model().calibrate(pd.concat(parts), 8)
        assert trial.num_windows == 40 and trial.calibration.facts["windows"] == 19
        errors[name] = trial.rows[1]["standard_error"]
    assert 0 < errors["own"] < errors["shared"] / 2


def test_windows_that_overlap_make_nothing_of_what_they_are_tried_on(walks):
    """Of 20 windows 2 steps apart the newest 5 begin with step 54 of 70."""
    trial = naive_model().calibrate(walks, 8, 20, step=2)
    assert trial.calibration.facts["windows"] == 12 and trial.num_windows == 200
    assert "120 windows make nothing: they share steps with those that it is tried on." in trial.notes
    later = walks.assign(target=walks["target"] * np.where(walks["timestamp"] >= "2024-02-24", 9.0, 1.0))
    other = naive_model().calibrate(later, 8, 20, step=2)
    np.testing.assert_array_equal(other.calibration.shift_GQ, trial.calibration.shift_GQ)
    assert other.rows[1]["coverage"] < trial.rows[1]["coverage"]
    assert [num_apart(12, stride, 8) for stride in (1, 2, 8, 20)] == [2, 3, 12, 12]
    with pytest.raises(ValueError, match="of windows that lie 1 steps apart none is 8 steps, the horizon, older than"):
        naive_model().calibrate(walks, 8, 8, step=1)


def test_what_was_flat_before_does_not_say_how_wide_bands_are(tiny_chronos2):
    """Products that sell nothing until a day: their bands were of rounding alone there, so that those of all series
    became ten million times as wide."""
    rng = np.random.default_rng(0)
    days = pd.date_range("2024-01-01", periods=120)
    sold = lambda: np.where(np.arange(120) < 70, 0.0, rng.normal(50, 10, 120))
    df = pd.concat([pd.DataFrame({"item_id": n, "timestamp": days, "target": sold()}) for n in range(6)])
    model = Model(CHRONOS2, tiny_chronos2)
    trial = model.calibrate(df, 5, 12)
    assert all(row["width_calibrated"] < 1000 for row in trial.rows), trial
    assert np.abs(model.calibration.shift_GQ).max() < 1000
    assert "18 older windows do not count: what they were forecast from is flat." in trial.notes
    rows = [{"band": 90, "coverage": 0.9, "coverage_calibrated": 0.9, "width": 2.0, "width_calibrated": 24.0}]
    (doubt,) = _doubts(rows)
    assert doubt.startswith("the 90 % band is 12 times as wide as it was") and not _doubts([rows[0] | {"width": 3.0}])
    flat, steps = np.full((1, 9), 0.1) + 1e-17, np.array([[0.1, 0.1, 0.1 + 1e-9]])
    assert is_flat(flat) and is_flat(np.array([[np.nan, 3.0]])) and is_flat(np.zeros((1, 0))) and not is_flat(steps)
    with pytest.raises(ValueError, match="these windows have 0 whose past moves"):
        Model(CHRONOS2, tiny_chronos2).calibrate(df.assign(target=3.3), 5, 12)


def test_windows_that_are_too_few_are_said(walks):
    model = naive_model()
    with pytest.raises(ValueError, match="no series holds more than one window of 40 steps"):
        model.calibrate(walks, 40)
    with pytest.raises(ValueError, match="windows must be at least 2"):
        model.calibrate(walks, 8, windows=1)
    with pytest.raises(ValueError, match="100 values at least, and these windows have 3"):
        model.calibrate(walks[walks["item_id"] == "s0"], 1, windows=4)
    unknown = walks.assign(target=walks["target"].where(walks["timestamp"] < "2024-02-20"))
    with pytest.raises(ValueError, match="df: the newest windows hold no value, and a calibration is tried on them"):
        model.calibrate(unknown, 8, windows=4)


def test_counts_are_whole_and_not_negative(walks):
    model = naive_model()
    plain, counts = (model.predict(np.array([3.0, -2.3]), 2, [0.1, 0.5, 0.9], **options)[0]
                     for options in ({}, {"non_negative": True, "integer": True}))  # fmt: skip
    assert (plain < 0).any() and counts.tolist() == [[[0, 0, 0]] * 2] and not np.signbit(counts).any()
    assert model.predict(np.array([3.0, 7.5]), 1, [0.1, 0.5, 0.9], integer=True)[0].tolist() == [[[8, 8, 8]]]
    table = model.predict_df(walks, prediction_length=2, non_negative=True)
    assert (table[["predictions", "0.1"]].to_numpy() >= 0).all() and (table["0.9"] % 1 != 0).any()
