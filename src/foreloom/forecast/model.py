"""A pretrained model as people use it: arrays or tables in, quantile forecasts out."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from foreloom.checkpoint.locate import check_hides_no_run, load_newest
from foreloom.data.source import has_covariates
from foreloom.distributed.launcher import DeviceSetting
from foreloom.forecast.asked import (
    find_device,
    horizon_of,
    levels_of,
    setting_of,
    warn_of_covariates,
    where_counts_lie,
    whole,
)
from foreloom.forecast.elsewhere import attribute_here, meets_options_of_others, refuse_options_of_others
from foreloom.forecast.inputs import as_forecast_inputs
from foreloom.forecast.telling import warn_user
from foreloom.models.calibration import CALIBRATION_FILE, CalibratedForecaster, Calibration
from foreloom.models.common.forecasting import telling
from foreloom.models.family import Forecaster, ModelFamily, generator_of
from foreloom.models.lookbacks import LookbacksForecaster, forecaster_of
from foreloom.models.registry import recognise
from foreloom.monitoring.progress import Progress

if TYPE_CHECKING:
    import pandas as pd

    from foreloom.data.tables.options import TableOptions
    from foreloom.evaluation.calibrate import Trial
    from foreloom.forecast.cross_validation import CrossValidation
    from foreloom.tuning.fit import Fit


@meets_options_of_others
def from_pretrained(
    path_or_hub_id: str | Path,
    device: DeviceSetting | str = "auto",
    *,
    lookbacks: int | None = None,
    protocol: str | None = None,
) -> Model:
    """Load a model of any family: one that forecasts series or one that writes text.

    `path_or_hub_id`: a folder with config.json and weights, a run folder or one of its checkpoints, "small" (a model
    that comes with foreloom), or a Hugging Face id such as amazon/chronos-2 (downloaded once). `device`: auto (MPS,
    then CUDA, then CPU), cpu, cuda, mps or cuda:1. `lookbacks`: a forecast is the mean over so many pasts, each 0.7
    times the one before as long as it holds two seasons (default: what its config.json says, mostly 1).
    `protocol`, of Time-MoE: where context and forecast together go beyond the steps it was made for, "standard" (the
    default) uses the newest that fit, with a warning, "reference" all, as the official code does. Raises ValueError
    with a sentence for a folder that is missing, damaged or of no known family.
    """

    def load(folder: Path) -> Model:
        family = recognise(folder)
        said = {} if protocol is None else {"protocol": protocol}
        if said and "protocol" not in inspect.signature(family.load).parameters:
            raise ValueError(f"protocol: {family.name} has one only; leave it out.")
        module: Any = family.load(folder, **said).to(find_device(device)).eval()
        calibration = Calibration.read(folder)
        model = Model(family, module, str(folder), calibration)
        if lookbacks is not None:
            model.lookbacks_of_folder = _look_back(family, module, whole("lookbacks", lookbacks, "pasts"), calibration)
        return model

    return load_newest(path_or_hub_id, load)


def _look_back(family: ModelFamily, module: Any, lookbacks: int, calibration: Calibration | None) -> int | None:
    """What its config.json says, where that is another number."""
    if family.forecaster is None:
        raise ValueError(f"lookbacks: a model of the family {family.name} does not forecast series; leave it out.")
    before = module.architecture.lookbacks
    if calibration is not None and lookbacks != before:
        raise ValueError(
            f"lookbacks: the model was calibrated looking back {before} times. Leave it out, "
            "or calibrate the model without its calibration.json anew."
        )
    module.architecture = module.architecture.replace(lookbacks=lookbacks)
    return None if lookbacks == before else before


class Model:
    """A module with what it does: forecasts of series, or text."""

    def __init__(
        self, family: ModelFamily, module: nn.Module, folder: str = "", calibration: Calibration | None = None
    ) -> None:
        self.family = family
        self.calibration = calibration
        """What its quantiles are moved by, see `calibrate`."""
        self.folder = folder
        """Where it was loaded from."""
        self.module = module
        """The network itself, a `torch.nn.Module`."""
        self.lookbacks_of_folder: int | None = None
        """What config.json there says, where another number was asked for."""

    @property
    def forecaster(self) -> Forecaster:
        """Calibrated, where the model is. ValueError for a family that does not forecast."""
        return self._plain if self.calibration is None else CalibratedForecaster(self._plain, self.calibration)

    @cached_property
    def _plain(self) -> Forecaster:
        return forecaster_of(self.family, self.module)

    def generate(self, prompts: str | Sequence[Any], **options: Any) -> list[str]:
        """The continuation of each prompt, or of the one; `options` are those of `models.family.Generator.generate`
        (max_new_tokens, temperature, top_k, top_p, seed, chat, batch_size). ValueError for a family that does not write
        text."""
        generator = generator_of(self.family, self.module)
        refuse_options_of_others("generate", options, inspect.signature(generator.generate).parameters)
        return generator.generate([prompts] if isinstance(prompts, str) else prompts, **options)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """AttributeError, with what does here what other libraries call `name`."""
            if hasattr(type(self), name):
                return object.__getattribute__(self, name)  # a property failed: its own error, not this one
            here = attribute_here(name)
            raise AttributeError(f"a foreloom.Model has no {name!r}.{f' Here: {here}.' if here else ''}")

    def __repr__(self) -> str:
        millions = sum(parameter.numel() for parameter in self.module.parameters()) / 1e6
        reach = ""
        if self.family.forecaster is not None:
            one = self.forecaster
            reach = f", context up to {one.context_length:,}, {one.prediction_length:,} steps at once"
        origin = self.folder or "memory"
        return f"<foreloom.Model {self.family.name}, {millions:.1f}M parameters{reach}, from {origin}>"

    @meets_options_of_others
    def predict(
        self,
        inputs: Any,
        prediction_length: int | None = None,
        quantile_levels: Sequence[float] | None = None,
        *,
        batch_size: int = 256,
        context_length: int | None = None,
        cross_learning: bool = False,
        limit_prediction_length: bool = False,
        unrolled_quantiles: Sequence[float] | None = None,
        non_negative: bool = False,
        integer: bool = False,
    ) -> list[np.ndarray]:
        """One array (targets, prediction_length, levels) an input, in the data's units: float32, or float64 where
        float32 would lose the moves of a series in its level.

        `inputs` is one of: an array (L,), one series; (N, L), N series; (N, V, L), N series of V targets; a list of
        arrays (L,) or (V, L); a list of dicts (or one) with `target` (L,) or (V, L), `past_covariates` {name: (L,)}
        and `future_covariates` {name: (prediction_length,)}, whose names are among the past ones. NaN is missing; text
        and booleans are categories.

        `prediction_length` defaults to the longest horizon the model gives in one forward; a longer one is unrolled
        (with a warning, but for models that are made for it), or refused with `limit_prediction_length`. `batch_size`
        counts rows, covariates included. `quantile_levels` default to 0.1, 0.5 and 0.9; a model of single values gives
        0.5 only. `context_length` keeps only the newest steps (default: as many as the model uses). `cross_learning`
        lets the series of a batch inform each other. `unrolled_quantiles`: the levels whose paths an unrolled horizon
        of Chronos-2 follows (default: the deciles). `non_negative` and `integer` bring what is forecast to where counts
        lie: nothing below 0, whole numbers. ValueError says which input is wrong and how.
        """
        length = horizon_of(self.forecaster, prediction_length, limited=limit_prediction_length)
        levels = levels_of(self.forecaster, quantile_levels)
        known = as_forecast_inputs(inputs, length)
        warn_of_covariates(self.forecaster, any(one.num_past or one.num_future for one in known))
        forecasts = self._quantiles(
            known,
            length,
            levels,
            batch_size,
            context_length,
            cross_learning,
            unrolled_quantiles,
        )
        return where_counts_lie(forecasts, non_negative, integer)

    @meets_options_of_others
    def predict_df(
        self,
        df: Any,
        future_df: Any = None,
        prediction_length: int | None = None,
        quantile_levels: Sequence[float] | None = None,
        *,
        id_column: str | Sequence[str] = "item_id",
        timestamp_column: str = "timestamp",
        target: str | Sequence[str] = "target",
        known_ahead: str | Sequence[str] = (),
        past: str | Sequence[str] | None = None,
        static: str | Sequence[str] = (),
        category: str | Sequence[str] = (),
        date_format: str | None = None,
        freq: str | None = None,
        fill_gaps: bool | None = None,
        batch_size: int = 256,
        context_length: int | None = None,
        cross_learning: bool = False,
        limit_prediction_length: bool = False,
        unrolled_quantiles: Sequence[float] | None = None,
        non_negative: bool = False,
        integer: bool = False,
    ) -> pd.DataFrame:
        """Forecast every series of a long table (pandas, polars, Arrow); other columns are covariates.

        `df` has a row a series and time step, in any order. Columns also in `future_df`, which holds the
        `prediction_length` steps after each series, are known ahead; the rest are known over the past only. A column
        may also say its role by its name (`future__promo`, `past__rain`, `static__region`), or `known_ahead`, `past`
        (then the rest are left out), `static` and `category` (its numbers are labels) say it; the future of those known
        ahead is in `future_df`, or in the last `prediction_length` rows of each series, without a target. Without the
        default column names, other usual ones (Nixtla's unique_id, ds and y) are taken; a table without any ids is one
        series; several columns may name the series together. `date_format` (%d/%m/%Y) says how times are written where
        more than one reading fits. `quantile_levels`, `non_negative` and `integer` are as in `predict`; `freq` (a
        pandas alias) is inferred when not given. Steps that are absent at a plain frequency are missing values, with a
        warning that counts them; `fill_gaps` True has them so at any, False takes rows as consecutive. Returns the
        columns id, timestamp, target_name, predictions (the median) and one a level ("0.1"), rows ordered by series (as
        first met), target, time. ValueError names the column, series or row that is wrong.
        """
        from foreloom.forecast.table import options_of_table

        said = {
            "id_column": id_column,
            "timestamp_column": timestamp_column,
            "target": target,
            "known_ahead": known_ahead,
            "past": past,
            "static": static,
            "category": category,
            "date_format": date_format,
            "freq": freq,
            "fill_gaps": fill_gaps,
        }
        return self.predict_table(
            df,
            future_df,
            options_of_table(said),
            prediction_length,
            quantile_levels,
            batch_size=batch_size,
            context_length=context_length,
            cross_learning=cross_learning,
            limit_prediction_length=limit_prediction_length,
            unrolled_quantiles=unrolled_quantiles,
            non_negative=non_negative,
            integer=integer,
        )

    def predict_table(
        self,
        df: Any,
        future_df: Any,
        options: TableOptions,
        prediction_length: int | None = None,
        quantile_levels: Sequence[float] | None = None,
        *,
        batch_size: int = 256,
        context_length: int | None = None,
        cross_learning: bool = False,
        limit_prediction_length: bool = False,
        unrolled_quantiles: Sequence[float] | None = None,
        non_negative: bool = False,
        integer: bool = False,
        say: Callable[[str], object] | None = None,
        progress: Callable[[str], Progress] | None = None,
    ) -> pd.DataFrame:
        """`predict_df`, with what is to be said of the table in one record; `say` is told what was understood, and
        `progress(title)` is opened while it is forecast."""
        from foreloom.forecast.table import Table

        length = horizon_of(self.forecaster, prediction_length, limited=limit_prediction_length)
        asked = levels_of(self.forecaster, quantile_levels)
        table = Table.read(df, future_df, length, options)
        table.refuse_names(asked)
        if say is None:
            warn_of_covariates(self.forecaster, bool(table.past_covariates))
        else:
            alone = self._plain.is_univariate and table.past_covariates
            passed_over = " (covariates passed over: the model sees one series at a time)" if alone else ""
            say(f"understood: {table.understood()}{passed_over}; {self.family.name} of {self.folder}")
        levels = [*asked, *([] if 0.5 in asked else [0.5])]
        with progress("Forecast") if progress else nullcontext() as bar:
            tell = lambda done, total: bar and bar.update(done / total, f"{done:,} of {total:,} forecasts")
            with telling(tell):
                forecasts = self._quantiles(
                    table.inputs(), length, levels, batch_size, context_length, cross_learning, unrolled_quantiles
                )
        return table.result(where_counts_lie(forecasts, non_negative, integer), levels, len(asked))

    @meets_options_of_others
    def cross_validation(
        self,
        data: Any,
        prediction_length: int | None = None,
        windows: int = 3,
        quantile_levels: Sequence[float] | None = None,
        *,
        step: int | None = None,
        season_length: int | None = None,
        batch_size: int = 256,
        context_length: int | None = None,
        progress: Callable[[str], Progress] | None = None,
        **table: Any,
    ) -> CrossValidation:
        """Forecast the last `windows` windows of every series from what came before each, and score them beside
        Seasonal Naive: by series, target, window and step of the horizon.

        `data` is a long table (pandas, polars, Arrow) as `predict_df` takes it, or the path of any data set; `table`
        are those options of `predict_df` that say what a table does not (id_column, target, known_ahead, freq ...).
        Covariates known ahead are known over each window. Windows lie `step` apart (default: `prediction_length`), the
        newest ends the series. `quantile_levels` get columns, as in `predict`; scores are of the deciles and of central
        bands whatever they are. `season_length` is the season of Seasonal Naive and MASE (default: by frequency; 1 for
        days). ValueError where no series holds a window.
        """
        from foreloom.forecast.cross_validation import cross_validate
        from foreloom.forecast.table import options_of_table, refuse_unknown

        refuse_unknown(table)
        return cross_validate(
            self.forecaster,
            data,
            options_of_table(table),
            horizon_of(self.forecaster, prediction_length),
            levels_of(self.forecaster, quantile_levels),
            windows=whole("windows", windows, "windows"),
            step=None if step is None else whole("step", step),
            season_length=None if season_length is None else whole("season_length", season_length),
            batch_size=whole("batch_size", batch_size, "rows"),
            context_length=None if context_length is None else whole("context_length", context_length),
            progress=progress,
        )

    @meets_options_of_others
    def calibrate(
        self,
        data: Any,
        prediction_length: int | None = None,
        windows: int = 24,
        *,
        step: int | None = None,
        batch_size: int = 256,
        context_length: int | None = None,
        progress: Callable[[str], Progress] | None = None,
        **table: Any,
    ) -> Trial:
        """Move the quantiles so that they hold what they say on `data`; from then on every forecast is calibrated, and
        `save_pretrained` writes calibration.json beside the weights, which `from_pretrained` reads.

        Arguments are those of `cross_validation`. The calibration is made of the older of the last `windows` windows of
        every series and tried on the newest quarter, whose coverage and width, before and after, the answer holds. The
        median stays where it can; a model of single values has quantiles by it. ValueError for a model that is
        calibrated already, and where the windows hold too few values.
        """
        from foreloom.evaluation.calibrate import calibrate
        from foreloom.forecast.cross_validation import opened
        from foreloom.forecast.table import options_of_table, refuse_unknown

        if self.calibration is not None:
            raise ValueError(
                f"{self.folder or 'this model'} is calibrated already, on {self.calibration.facts.get('data')}: a "
                "calibration is of the model's own quantiles. Calibrate the model without its calibration.json."
            )
        refuse_unknown(table)
        with opened(data, options_of_table(table)) as source:
            warn_of_covariates(self.forecaster, has_covariates(source))
            trial = calibrate(
                self.forecaster,
                source,
                horizon_of(self.forecaster, prediction_length),
                whole("windows", windows, "windows", least=2),
                step=None if step is None else whole("step", step),
                batch_size=whole("batch_size", batch_size, "rows"),
                context_length=0 if context_length is None else whole("context_length", context_length),
                progress=progress,
            )
        self.calibration = trial.calibration
        return trial

    @meets_options_of_others
    def fit(
        self,
        data: Any,
        prediction_length: int,
        out: str | Path,
        *,
        minutes: float = 10.0,
        season_length: int | None = None,
        say: Callable[[str], object] | None = None,
        **table: Any,
    ) -> Fit:
        """Fine-tune on `data`, and keep the result only where it is shown to be better; the answer says which, with the
        scores of all that was tried. This model stays as it is: `from_pretrained(out)` reads what was kept.

        The last windows of every series are kept from training: of them the older ones choose, the newest have the last
        word. Whole weights and LoRA are trained by the family's recipe, at learning rates that follow from how those
        before did, each ends early, and weights halfway to the model as it was are tried too. What is surely better
        than zero-shot where it is chosen (by a bootstrap interval) and on the last windows too is written to `out`, or
        else what lies halfway to it, or the weights as they were, looking back six times (`models.lookbacks`; once
        where they looked back several times), if that is; else the weights as they were.
        `minutes` bound it all. The same call goes on with what was stopped. `data`, `season_length` and `table` are as
        in `cross_validation`; `say` is told how it goes. ValueError where no series holds a window, and where `out`
        holds something else; KeyboardInterrupt where it was stopped.
        """
        from foreloom.forecast.cross_validation import opened
        from foreloom.forecast.table import options_of_table, refuse_unknown
        from foreloom.tuning.fit import fit

        refuse_unknown(table)
        if not self.folder:
            raise ValueError("the model lies in no folder yet: save_pretrained it, and fit what from_pretrained loads.")
        if self.calibration is not None:
            raise ValueError(
                f"{self.folder} is calibrated, which fine-tuning undoes: fit it without its calibration.json, and "
                "calibrate then."
            )
        if self.lookbacks_of_folder is not None:
            raise ValueError(
                f"lookbacks: fit begins with {self.folder}, whose config.json says {self.lookbacks_of_folder}, and the "
                "model was loaded with another number. Leave it out: fit tries six itself. Or save_pretrained the "
                "model, and fit what from_pretrained loads."
            )
        if not 0 < minutes < math.inf:
            raise ValueError(f"minutes must be a number above 0, got {minutes}.")
        device = setting_of(next(self.module.parameters()).device)
        with opened(data, options_of_table(table)) as source:
            warn_of_covariates(self.forecaster, has_covariates(source))
            return fit(
                self.family,
                self.folder,
                source,
                whole("prediction_length", prediction_length),
                Path(out),
                minutes=minutes,
                device=device,
                season_length=0 if season_length is None else whole("season_length", season_length),
                say=say or (lambda sentence: None),
            )

    def embed(self, inputs: Any, *, batch_size: int = 256, context_length: int | None = None) -> list[np.ndarray]:
        """Hidden states (rows, tokens, d_model) an input, in the forms `predict` takes, of the newest steps."""
        newest = self.forecaster.context_length if context_length is None else whole("context_length", context_length)
        cut = [replace(one, context_RC=one.context_RC[:, -newest:]) for one in as_forecast_inputs(inputs, 1)]
        return self.forecaster.embed(cut, batch_size=batch_size)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors, loadable here and by the library the family comes from.

        ValueError where `folder` is a file, or lies below one, and where it holds a run or a fit. What is written
        replaces a model that lies there, with its calibration.
        """
        for place in (Path(folder), *Path(folder).parents):
            if place.is_file():
                raise ValueError(f"{place} is a file; save_pretrained writes a folder. Name another.")
        check_hides_no_run(folder)
        self.family.save(self.module, self.module.state_dict(), Path(folder))
        if self.calibration is None:
            (Path(folder) / CALIBRATION_FILE).unlink(missing_ok=True)  # of the weights that lay there
        else:
            self.calibration.write(Path(folder))

    def _quantiles(
        self,
        inputs: list,
        length: int,
        quantile_levels: Sequence[float],
        batch_size: int,
        context_length: int | None,
        cross_learning: bool,
        unrolled_quantiles: Sequence[float] | None,
    ) -> list[np.ndarray]:
        unrolling = {} if unrolled_quantiles is None else {"unrolled_quantiles": list(unrolled_quantiles)}
        plain = self._plain.base if isinstance(self._plain, LookbacksForecaster) else self._plain
        if unrolling and "unrolled_quantiles" not in inspect.signature(plain.predict_quantiles).parameters:
            raise ValueError(f"unrolled_quantiles: {self.family.name} follows no paths of chosen levels; leave it out.")
        newest = self.forecaster.context_length if context_length is None else whole("context_length", context_length)
        forecasts = self.forecaster.predict_quantiles(
            inputs,
            length,
            quantile_levels,
            batch_size=whole("batch_size", batch_size, "rows"),
            context_length=newest,
            cross_learning=cross_learning,
            **unrolling,
        )
        if not np.isfinite(np.concatenate(forecasts)).all():
            wrong = [i for i, one in enumerate(forecasts) if not np.isfinite(one).all()]
            warn_user(
                f"{len(wrong):,} of {len(forecasts):,} forecasts are not finite, the first that of input {wrong[0]}: "
                "values near 3e38, the largest that float32 holds, or weights that are not finite.",
            )
        return forecasts
