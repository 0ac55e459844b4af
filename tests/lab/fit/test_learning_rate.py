"""Sweeps of learning rates: vertices, gates, what to run next, and the file that studies read."""

from __future__ import annotations

import json

import pytest

from foreloom.lab.fit.learning_rate import RateFit, fit_basin, fit_rates, value_from, write_rates
from foreloom.lab.fit.runs import read_study


def test_the_old_repository(shared):
    folder = shared / "oracles" / "scaling" / "experimental_progress" / "lr_sweep"
    expected = json.loads((folder / "modern_transformer_iter3_expected.json").read_text())
    fit = fit_rates(read_study(folder / "modern_transformer_iter3"))
    for basin, wanted in zip(fit.basins, expected["per_dim"], strict=True):
        assert (basin.width, basin.estimator) == (wanted["hidden_dim"], wanted["estimator"])
        assert bool(basin.reason) == bool(wanted["reason"]) and len(basin.value_P) == wanted["window_used"]
        assert basin.num_dropped == wanted["n_dropped_plateau"]
        measured = [basin.best, basin.vertex, basin.argmin, basin.r2, basin.curvature]
        names = ("eta_used", "eta_star_parabolic", "best_grid_lr", "r_squared", "a")
        assert measured == pytest.approx([wanted[name] for name in names], rel=1e-5)
    for trend, law in ((fit.trends, "committed_law"), (fit.argmin_trends, "committed_argmin_law")):
        own = trend["width"]
        assert [own.coefficient, own.exponent, own.r2] == pytest.approx(list(expected[law].values()), rel=1e-3)
    assert fit.doubts == ("width 128: R2 of 0.878 is below 0.9, so the best value tried stands for the vertex",)


def test_gates():
    rates = [1e-4, 1e-3, 1e-2, 1e-1]
    low = fit_basin(rates, [3.0, 3.1, 3.3, 3.6])
    assert (low.edge, low.estimator, low.reason) == ("low", "argmin", "the vertex is at the edge of what was swept")
    assert low.proposed == pytest.approx([1e-7, 1e-6, 1e-5])
    high = fit_basin(rates, [3.6, 3.3, 3.1, 3.0])
    assert high.edge == "high" and high.proposed == pytest.approx([1, 10, 100])
    bounded = fit_basin(rates, [3.6, 3.3, 3.1, float("nan")])
    assert bounded.edge == "" and bounded.num_dropped == 1, "a rate that diverged bounds the sweep"
    hill = fit_basin(rates, [3.0, 3.2, 3.2, 3.1])
    assert hill.reason == "the loss does not bend upwards" and hill.best == 1e-4
    few = fit_basin([1e-3, 1e-2], [3.0, 3.1])
    assert few.reason == "fewer than three values" and few.vertex is None
    with pytest.raises(ValueError, match="width 64: every run of 1 diverged; sweep lower learning rates"):
        fit_basin([0.1], [float("nan")], width=64)


def sweep(folder, widths=(32, 64)):
    folder.mkdir()
    for width in widths:
        for rate in (0.001, 0.003, 0.01, 0.03, 0.1):
            loss = 3 + 0.2 * abs(rate * width - 0.64) ** 0.5
            text = f"step,validation_loss,tokens,theoretical_flops\n9,{loss},1000,{6 * width**2 * 1000}\n"
            (folder / f"{width}d_lr_{rate}.csv").write_text(text)
    return folder


def test_the_file_that_studies_read(tmp_path):
    fit = fit_rates(read_study(sweep(tmp_path / "sweep")))
    path = tmp_path / "fit.json"
    write_rates(fit, path)
    law = json.loads(path.read_text())["law"]
    assert law["over"] == "width"
    assert value_from(path, width=128) == pytest.approx(law["coefficient"] * 128 ** law["exponent"])
    assert value_from(path, num_parameters=64**2) == pytest.approx(fit.trends["num_parameters"].at(64**2))
    one = fit_rates(read_study(sweep(tmp_path / "one", widths=(32,))))
    assert one.doubts[-1] == "one size only: a best value, and no law over sizes" and not one.trends
    write_rates(one, path)
    assert value_from(path, width=32) == one.basins[0].best
    with pytest.raises(ValueError, match="has no law over sizes, and its one size is 32: sweep a second one"):
        value_from(path, width=64)
    write_rates(RateFit("batch_size", one.basins, {}, {}, ()), path)
    with pytest.raises(ValueError, match="is a fit of batch_size, not of learning rates"):
        value_from(path, width=32)
    path.write_text("{}")
    with pytest.raises(ValueError, match="is no fit of learning rates"):
        value_from(path, width=64)
    with pytest.raises(ValueError, match="no run says its batch size"):
        fit_rates(read_study(tmp_path / "one"), "batch_size")


def write_end(folder, label, loss, width=32):
    folder.mkdir(exist_ok=True)
    text = f"step,validation_loss,tokens,theoretical_flops\n9,{loss},1000,{6 * width**2 * 1000}\n"
    (folder / f"{label}.csv").write_text(text)


def test_a_batch_size_is_judged_by_one_rate_for_all_seeds(tmp_path):
    losses = {4: {0.01: (3.0, 3.2, 3.4), 0.1: (3.4, 3.2, 3.0), 1.0: (2.0, float("nan"), 2.0)}, 8: {0.01: (3.1,) * 3}}
    for batch_size, of_rate in losses.items():
        for rate, of_seed in of_rate.items():
            for seed, loss in enumerate(of_seed, start=1):
                label = f"32d_lr_{rate}_batch_{batch_size}_seed_{seed}"
                write_end(tmp_path / "sweep", label, loss)
                config = {"batch_size": batch_size, "learning_rate": rate, "seed": seed, "num_parameters": 1024}
                (tmp_path / "sweep" / f"config_{label}.json").write_text(json.dumps(config))
    (basin,) = fit_rates(read_study(tmp_path / "sweep"), "batch_size").basins
    assert basin.loss_P == pytest.approx((3.2, 3.1)) and basin.argmin == 8, "no seed picks a rate of its own"


def test_a_size_whose_runs_all_diverged_is_a_doubt(tmp_path):
    folder = sweep(tmp_path / "sweep")
    for rate in (0.3, 1.0):
        write_end(folder, f"128d_lr_{rate}", float("nan"), 128)
    fit = fit_rates(read_study(folder))
    assert [basin.width for basin in fit.basins] == [32, 64]
    assert "width 128: every run of 2 diverged; sweep lower learning rates" in fit.doubts
    write_end(tmp_path / "none", "32d", 3.0)
    for rate in (0.3, 1.0):
        write_end(tmp_path / "none", f"128d_lr_{rate}", float("nan"), 128)
    with pytest.raises(ValueError, match="none: no size with two values of .*: width 128: every run of 2"):
        fit_rates(read_study(tmp_path / "none"))


def test_runs_that_differ_in_more_than_the_rate_are_not_taken_for_seeds(tmp_path):
    """Two batch sizes, each with the rates about its own best, and a short run: their mean has another best."""
    losses = {
        (16, 1e-3): 3.0, (16, 3e-3): 2.9, (16, 1e-2): 3.1, (64, 3e-3): 3.5, (64, 1e-2): 3.4, (64, 3e-2): 3.45
    }  # fmt: skip
    runs = [(batch, rate, loss, 1000) for (batch, rate), loss in losses.items()] + [(16, 2e-3, 5.0, 100)]
    for number, (batch, rate, loss, tokens) in enumerate(runs):
        text = f"step,validation_loss,tokens,theoretical_flops\n9,{loss},{tokens},{6 * 32**2 * tokens}\n"
        (tmp_path / f"{number}_32d_lr_{rate}.csv").write_text(text)
        (tmp_path / f"config_{number}_32d_lr_{rate}.json").write_text(
            json.dumps({"batch_size": batch, "planned_tokens": tokens})
        )
    fit = fit_rates(read_study(tmp_path))
    (basin,) = fit.basins
    assert basin.argmin == 3e-3 and basin.value_P == (1e-3, 3e-3, 1e-2) and not basin.edge
    assert fit.doubts[:2] == (
        "width 32: 1 run has fewer than its longest runs' 1,000 tokens: left out",
        "width 32: of its 2 batch sizes the one with the lowest loss, 16, was taken",
    )
    by_batch = fit_rates(read_study(tmp_path), "batch_size")
    assert by_batch.basins[0].loss_P == (2.9, 3.4)
