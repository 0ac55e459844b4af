"""Tables from and to files; where a model's folder is found."""

import json
from contextlib import contextmanager
from types import SimpleNamespace

import pandas as pd
import pytest
from naive_model import naive_model

from foreloom.checkpoint.locate import find_model_folder
from foreloom.checkpoint.manifest import Manifest, file_record
from foreloom.forecast import Model, forecast_file, read_table, write_table
from foreloom.models.chronos2.family import FAMILY as CHRONOS2
from foreloom.models.time_moe.family import FAMILY as TIME_MOE


def frame():
    return pd.DataFrame(
        {"item_id": "a", "timestamp": pd.date_range("2024-01-01", periods=4), "target": [1.0, 2.0, None, 4.0]}
    )


@pytest.mark.parametrize("ending", [".csv", ".csv.gz", ".tsv", ".tsv.csv", ".parquet"])
def test_forecast_from_file_to_file(tmp_path, ending):
    write_table(frame(), tmp_path / f"data{ending}")
    later = pd.DataFrame({"item_id": "a", "timestamp": pd.date_range("2024-01-05", periods=2)})
    write_table(later, tmp_path / f"future{ending}")
    out = tmp_path / "new" / f"out{ending}"
    result = forecast_file(
        naive_model(), tmp_path / f"data{ending}", out, future=tmp_path / f"future{ending}", prediction_length=2
    )
    back = read_table(out)
    assert back["predictions"].tolist() == result["predictions"].tolist() == [4.5, 4.5]
    assert ending != ".tsv.csv" or out.read_text().startswith("item_id,timestamp")
    assert pd.to_datetime(back["timestamp"]).tolist() == result["timestamp"].tolist()
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_a_series_may_be_called_na(tmp_path):
    rows = [f"{name},2024-01-0{day},{day}" for name in ("NA", "nan", "DE") for day in (1, 2, 3)]
    data = tmp_path / "countries.csv"
    data.write_text("\n".join(["country,timestamp,target", *rows, "DE,2024-01-04,NA"]))
    result = forecast_file(naive_model(), data, tmp_path / "out.csv", prediction_length=1, id_column="country")
    assert result["country"].tolist() == ["NA", "nan", "DE"]
    assert result["predictions"].tolist()[:2] == [3.5, 3.5], "and in other columns NA is missing still"
    numbers = tmp_path / "numbers.csv"
    numbers.write_text("item_id,timestamp,target\n1,2024-01-01,NA\n")
    assert read_table(numbers)["item_id"].tolist() == ["1"]


def test_a_forecast_is_not_written_over_the_data(tmp_path):
    data, later = tmp_path / "data.csv", tmp_path / "later.csv"
    write_table(frame(), data)
    write_table(pd.DataFrame({"item_id": "a", "timestamp": pd.date_range("2024-01-05", periods=2)}), later)
    before = [path.read_bytes() for path in (data, later)]
    for out in (tmp_path / "." / "data.csv", later):
        with pytest.raises(ValueError, match="csv is read, and nothing is written over it"):
            forecast_file(naive_model(), data, out, future=later, prediction_length=2)
    assert [path.read_bytes() for path in (data, later)] == before


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    out = tmp_path / "out.csv"
    out.write_text("old")

    def full(self, path, **options):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    with pytest.raises(OSError, match="No space"):
        write_table(frame(), out)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("out.csv", "old")]


def test_unreadable_tables_get_a_sentence(tmp_path):
    with pytest.raises(ValueError, match="not a data set, it holds nothing"):
        read_table(tmp_path)
    (tmp_path / "broken.parquet").write_text("not parquet")
    (tmp_path / "empty.csv").write_text("")
    for name, sentence in {
        "broken.parquet": "broken.parquet: not a readable Parquet file",
        "empty.csv": "empty.csv cannot be read as a table",
        "absent.csv": "no file .*absent.csv",
    }.items():
        with pytest.raises(ValueError, match=sentence):
            read_table(tmp_path / name)
    with pytest.raises(ValueError, match=r"out.xlsx: foreloom reads and writes tables as .csv, .tsv and .parquet"):
        forecast_file(naive_model(), tmp_path / "absent.csv", tmp_path / "out.xlsx")


def test_sentences_name_the_file_and_the_row_in_it(tmp_path):
    (tmp_path / "text.csv").write_text("item_id,timestamp,target\na,2024-01-01,1\na,2024-01-02,two\na,2024-01-03,3\n")
    with pytest.raises(ValueError, match=r"text.csv: column 'target' holds 'two' in row 3 \(series 'a'\)"):
        forecast_file(naive_model(), tmp_path / "text.csv", tmp_path / "out.csv", prediction_length=1)
    table = read_table(tmp_path / "text.csv")
    write_table(table, tmp_path / "again.parquet")
    with pytest.raises(ValueError, match=r"again.parquet: column 'target' holds 'two' in row 1 "):
        forecast_file(naive_model(), tmp_path / "again.parquet", tmp_path / "out.csv", prediction_length=1)


@pytest.mark.filterwarnings("ignore:.*step-00000300 is passed over")
def test_a_model_is_found_in_a_folder_a_checkpoint_or_a_run(tmp_path):
    def model(folder):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({}))
        return folder

    assert find_model_folder(model(tmp_path / "plain")) == tmp_path / "plain"
    run = tmp_path / "run"
    for step in (100, 200, 300):
        hf = model(run / "checkpoints" / f"step-{step:08d}" / "hf")
        files = {"hf/config.json": file_record(hf / "config.json")}
        if step < 300:  # the newest has no manifest
            Manifest(step, 0, 0.0, False, {}, "", "", 1, {}, files=files).write(hf.parent)
    newest = run / "checkpoints" / "step-00000200"
    assert find_model_folder(newest) == newest / "hf"
    with pytest.warns(UserWarning, match="step-00000300 is passed over"):
        assert find_model_folder(run) == newest / "hf"
    (newest / "hf" / "config.json").write_text("{")  # damaged: the one before it
    with pytest.warns(UserWarning, match="step-00000200 is passed over: hf/config.json has 1 bytes instead of 2"):
        assert find_model_folder(run) == run / "checkpoints" / "step-00000100" / "hf"


def test_no_model_gets_a_sentence(tmp_path):
    (tmp_path / "my-run").mkdir()
    with pytest.raises(ValueError, match="my-run holds no model: neither config.json"):
        find_model_folder(tmp_path / "my-run")
    with pytest.raises(ValueError, match=r"no folder .*my-rum. Did you mean .*my-run\?"):
        find_model_folder(tmp_path / "my-rum")
    (tmp_path / "model.safetensors").write_text("")
    with pytest.raises(ValueError, match="is a file. Give the folder"):
        find_model_folder(tmp_path / "model.safetensors")


def test_the_future_is_read_as_the_past_was(tmp_path, recwarn):
    """Days first, which the past leaves no doubt about; of the future's cells alone, each fits month first too."""
    days = pd.date_range("2024-01-01", "2024-02-29", freq="D")
    past = pd.DataFrame({"item_id": "007", "timestamp": days.strftime("%d/%m/%Y"), "target": range(60), "promo": 0})
    past.to_csv(tmp_path / "past.csv", index=False)
    (tmp_path / "next.csv").write_text("item_id,timestamp,promo\n007,01/03/2024,1\n")
    made = forecast_file(
        naive_model(), tmp_path / "past.csv", tmp_path / "out.csv", future=tmp_path / "next.csv", prediction_length=1
    )
    assert made["timestamp"].tolist() == [pd.Timestamp("2024-03-01")]
    assert {str(one.message).partition(":")[0] for one in recwarn} == {"covariates are passed over"}


def test_a_long_forecast_says_how_far_it_is(tmp_path, tiny_chronos2, tiny_time_moe):
    days = pd.date_range("2024-01-01", periods=20).tolist()
    rows = pd.DataFrame({"item_id": [f"s{i // 20}" for i in range(140)], "timestamp": days * 7, "target": range(140)})
    rows.to_csv(tmp_path / "sales.csv", index=False)
    for family, module in ((CHRONOS2, tiny_chronos2), (TIME_MOE, tiny_time_moe)):
        said = []

        @contextmanager
        def progress(title, said=said):
            yield SimpleNamespace(update=lambda share, what: said.append((title, share, what)))

        options = {"prediction_length": 4, "quantile_levels": [0.5], "batch_size": 3, "progress": progress}
        forecast_file(Model(family, module), tmp_path / "sales.csv", tmp_path / "out.csv", **options)
        assert said == [("Forecast", done / 7, f"{done} of 7 forecasts") for done in (0, 3, 6)]


@pytest.mark.parametrize(
    ("series", "ahead"),
    [
        ({"start": "2024-01-01", "freq": "B", "target": [1, 2, 3, 4]}, ["2024-01-05", "2024-01-08"]),
        ({"start": "2024-01-01", "freq": "MS", "target": [1]}, ["2024-02-01", "2024-03-01"]),
        ({"start": "2024-01-01", "freq": "h", "target": [1, 2]}, ["2024-01-01 02:00", "2024-01-01 03:00"]),
        ({"start": "2024-01-01", "freq": "30T", "target": [1, 2]}, ["2024-01-01 01:00", "2024-01-01 01:30"]),
        ({"start": "2024-01-01", "freq": "SMS", "target": [1, 2, 3]}, ["2024-02-15", "2024-03-01"]),
        ({"timestamp": ["2024-01-02", "2024-01-03", "2024-01-04"], "target": [1, 2, 3]}, ["2024-01-05", "2024-01-06"]),
    ],
)
def test_the_frequency_that_series_state_is_theirs(tmp_path, series, ahead):
    days = {"item_id": "days", "start": "2024-01-01", "freq": "D", "target": [1.0] * 20}
    for beside in ([], [days]):
        data = tmp_path / f"{len(beside)}.jsonl"
        data.write_text("\n".join(json.dumps(one) for one in [*beside, {"item_id": "own", **series}]))
        found = forecast_file(naive_model(), data, tmp_path / "out.csv", prediction_length=2)
        assert found[found["item_id"] == "own"]["timestamp"].tolist() == [pd.Timestamp(one) for one in ahead]


def test_series_of_no_step_are_named(tmp_path):
    data = tmp_path / "data.jsonl"
    days = {"start": "2024-01-01", "freq": "D"}
    data.write_text("\n".join(json.dumps({"item_id": n, **days, "target": [1.0] * n}) for n in (0, 3)))
    with pytest.warns(UserWarning, match=r"data.jsonl: series '0' has no step, and no forecast is made of it"):
        found = forecast_file(naive_model(), data, tmp_path / "out.csv", prediction_length=1)
    assert found["item_id"].tolist() == ["3"]
    data.write_text('{"item_id": "a", "start": "2024-01-01", "freq": "D", "target": []}\n')
    with pytest.raises(ValueError, match="no series has a step"):
        forecast_file(naive_model(), data, tmp_path / "out.csv", prediction_length=1)


def test_series_of_one_name_are_parts_of_one_and_that_is_said(tmp_path):
    data, days = tmp_path / "data.jsonl", {"item_id": "a", "freq": "D", "target": [1.0, 2.0, 3.0]}
    data.write_text("\n".join(json.dumps({**days, "start": start}) for start in ("2024-01-04", "2024-01-01")))
    with pytest.warns(UserWarning, match="data.jsonl: 2 series are called 'a' and taken as parts of one"):
        found = forecast_file(naive_model(), data, tmp_path / "out.csv", prediction_length=1)
    assert found["timestamp"].tolist() == [pd.Timestamp("2024-01-07")]
    data.write_text("\n".join(json.dumps({**days, "start": "2024-01-01", "freq": freq}) for freq in ("D", "h")))
    with pytest.raises(ValueError, match="several series are called 'a', of the frequencies D and h. Give each a name"):
        forecast_file(naive_model(), data, tmp_path / "out.csv", prediction_length=1)
