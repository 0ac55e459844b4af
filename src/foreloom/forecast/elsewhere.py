"""What options and methods are called in other forecasting libraries, for whoever types the word of another one:
chronos-forecasting, AutoGluon-TimeSeries, Nixtla's, and for text transformers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_OPTIONS: Mapping[str, str] = {
    "device='cuda' (cpu, mps, cuda:1)": "device_map",
    "nothing to set: a model computes in float32": "torch_dtype dtype",
    "inputs, the first argument": "context contexts",
    "quantile_levels=[0.1, 0.5, 0.9]; the samples of a Chronos-T5 are drawn by "
    "model.forecaster.predict(...) (docs/chronos_t5.md)": "num_samples temperature top_k top_p",
    "cross_learning=True": "predict_batches_jointly",
    "prediction_length=N": "h horizon fh",
    "quantile_levels: the central 80 % lie between 0.1 and 0.9, so level=[80] is quantile_levels=[0.1, 0.9]": "level "
    "levels quantiles",
    "future_df=TABLE": "X_df futr_df known_covariates future_covariates",
    "known_ahead=[NAME, ...]": "known_covariates_names futr_exog_list",
    "past=[NAME, ...]": "past_covariates_names hist_exog_list",
    "columns of the table itself, and static=[NAME, ...]; no shipped model looks at them": "static_features static_df "
    "static_features_df stat_exog_list",
    "id_column=NAME": "id_col item_id_column",
    "timestamp_column=NAME": "time_col time_column",
    "target=NAME": "target_col target_column",
    "windows=N": "n_windows num_val_windows num_windows",
    "step=N": "step_size val_step_size",
    "season_length=N": "seasonality eval_metric_seasonal_period",
    "data, the first argument": "train_data df inputs",
    "minutes=X": "time_limit",
    "minutes=X; how it learns is decided by trials (docs/fine_tuning.md), or by hand with foreloom train": "presets "
    "hyperparameters learning_rate num_steps finetune_mode finetune_steps fine_tune_steps max_steps",
    "out=FOLDER": "output_dir path",
    "nothing to set: windows to judge by are kept back by itself": "val_size tuning_data validation_inputs refit",
    "max_new_tokens=N": "max_length max_tokens",
    "temperature=0 for the likeliest, above 0 to draw": "do_sample",
    "the prompt as often as you like, with another seed each": "num_return_sequences",
}
"""What says it here -> what others call it, words apart."""

_ATTRIBUTES: Mapping[str, str] = {
    "model.predict(inputs, N, quantile_levels=[...]): (targets, steps, levels) an input": "predict_quantiles",
    "model.predict_df(df, prediction_length=N)": "forecast predict_long",
    "model.module, the torch.nn.Module": "model inner_model",
    "model.forecaster.quantile_levels": "quantiles",
    "model.forecaster.context_length": "model_context_length context_length",
    "model.forecaster.prediction_length": "model_prediction_length prediction_length",
    "model.module.tokenizer, where a model has one": "tokenizer",
    "model.fit(table, prediction_length, out)": "fine_tune finetune",
    "model.cross_validation(table, prediction_length=N), and foreloom evaluate for several models": "leaderboard "
    "evaluate backtest",
    "model.save_pretrained(FOLDER)": "save",
}
"""Of a model: what does it here -> what others call it."""


def _by_name(table: Mapping[str, str]) -> dict[str, str]:
    return {name: here for here, names in table.items() for name in names.split()}


_OPTION_HERE, _ATTRIBUTE_HERE = _by_name(_OPTIONS), _by_name(_ATTRIBUTES)


def option_here(name: str) -> str | None:
    """What says here what other libraries call the option `name`."""
    return _OPTION_HERE.get(name)


def attribute_here(name: str) -> str | None:
    """What does here what a model's `name` does in other libraries."""
    return _ATTRIBUTE_HERE.get(name)


def refuse_options_of_others(what: str, given: Iterable[str], known: Iterable[str]) -> None:
    """TypeError that says what an option is called here, for one of `given` that is not `known` and that others
    have."""
    known = set(known)
    for name in given:
        if name not in known and (here := option_here(name)):
            raise TypeError(f"{what} has no option {name!r}. Here: {here}.")


def meets_options_of_others(function: Callable[P, R]) -> Callable[P, R]:
    """Tell whoever gives an option as another library calls it what it is called here."""
    known = inspect.signature(function).parameters

    @wraps(function)
    def met(*args: P.args, **options: P.kwargs) -> R:
        refuse_options_of_others(function.__name__, options, known)
        return function(*args, **options)

    return met
