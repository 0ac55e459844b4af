"""The door with Chronos-2 behind it gives what chronos-forecasting gives."""

import json

import numpy as np
import pandas as pd
import pytest

import foreloom

GATE = 1e-4
"""|ours - theirs| <= GATE * (scale + |theirs|), as the oracles suggest; the scale of each target is its spread."""


@pytest.fixture(scope="module", params=["c2a", "c2noreg"])
def oracle(request, shared):
    folder = shared / "oracles" / "chronos"
    return folder, request.param, foreloom.from_pretrained(folder / "ckpt" / request.param, device="cpu")


def close(ours, theirs, scale):
    np.testing.assert_array_less(np.abs(ours - theirs), GATE * (scale + np.abs(theirs)))


def values(raw):
    return np.array(raw, dtype=object if any(isinstance(v, str) for v in raw) else float)


def test_predict_df(oracle):
    folder, name, model = oracle
    df, future, expected = (pd.read_csv(folder / f"{name}_df_{part}.csv") for part in ("in", "future", "out"))
    levels = [float(level) for level in expected.columns[4:]]
    length = len(future) // future["item_id"].nunique()
    result = model.predict_df(df, future, length, levels)
    assert result.columns.tolist() == expected.columns.tolist()
    for column in ("item_id", "target_name"):
        assert result[column].tolist() == expected[column].tolist()
    assert result["timestamp"].tolist() == pd.to_datetime(expected["timestamp"]).tolist()
    scale = df.groupby("item_id")["target"].std()[expected["item_id"]].to_numpy()[:, None]
    numbers = expected.columns[3:]
    close(result[numbers].to_numpy(), expected[numbers].to_numpy(), scale)


@pytest.mark.parametrize(
    ("tasks", "length", "out"),
    [("tasks", "long", "out_long"), ("tasks", "small", "out_small"), ("tasks2", "small", "out2")],
)
@pytest.mark.filterwarnings("ignore:prediction_length")
def test_dicts_with_covariates(oracle, tasks, length, out):
    folder, name, model = oracle
    raw = json.loads((folder / f"{name}_covariates.json").read_text())
    expected = np.load(folder / f"{name}_covariates.npz")
    length = raw[f"prediction_length_{length}"]
    inputs = [
        {
            "target": np.array(task["target"], dtype=float),
            "past_covariates": {key: values(past) for key, past in task["past_covariates"].items()},
            "future_covariates": {key: values(v)[:length] for key, v in task["future_covariates"].items()},
        }
        for task in raw[tasks]
    ]
    for i, forecast in enumerate(model.predict(inputs, length, model.forecaster.quantile_levels)):
        target = np.atleast_2d(inputs[i]["target"])
        close(forecast, expected[f"{out}_{i}"].transpose(0, 2, 1), np.nanstd(target, axis=1)[:, None, None])


def test_arrays_and_embeddings(oracle):
    folder, name, model = oracle
    pipeline = np.load(folder / f"{name}_pipeline.npz")
    array, expected = pipeline["in_B"], pipeline["out_B_quantiles"]
    scale = np.nanstd(array, axis=-1)[..., None, None]
    close(np.stack(model.predict(array, expected.shape[2], pipeline["in_B_quantile_levels"].tolist())), expected, scale)
    contexts = [pipeline[f"in_listA_{i}"] for i in range(5)]  # one is longer than the model looks back
    length = pipeline["out_listA_0"].shape[-1]
    for i, forecast in enumerate(model.predict(contexts, length, model.forecaster.quantile_levels, batch_size=3)):
        close(forecast, pipeline[f"out_listA_{i}"].transpose(0, 2, 1), np.nanstd(contexts[i]))
    embedded = np.stack(model.embed(array))
    close(embedded, pipeline["out_B_embed"], 1.0)


def test_saved_and_loaded_again(oracle, tmp_path):
    _, _, model = oracle
    model.save_pretrained(tmp_path / "saved")
    again = foreloom.from_pretrained(tmp_path / "saved", device="cpu")
    context = np.sin(np.arange(50.0))
    np.testing.assert_array_equal(again.predict(context, 8)[0], model.predict(context, 8)[0])
