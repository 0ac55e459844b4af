"""A model fitted to a data set: contenders are scored on windows that none was trained on, and the best is written, or
the model as it was.

Everything lies in one folder, and `fit.json` there knows how far it is: the same call goes on.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from foreloom.checkpoint.export import model_card, write_folder
from foreloom.checkpoint.locate import find_model_folder
from foreloom.config.shipped import shipped_recipes
from foreloom.data.formats.fingerprint import combine, digests
from foreloom.data.formats.reader import ChosenRows
from foreloom.data.formats.writer import write_series
from foreloom.data.source import Shortened, Source, read_in_turn
from foreloom.data.stream.selection import fixed_choice
from foreloom.evaluation.adapters.statistical import StatisticalForecaster
from foreloom.evaluation.backtest import Backtest, backtest, rolling_task
from foreloom.evaluation.baselines import SeasonalNaive
from foreloom.evaluation.skill import BASELINE
from foreloom.evaluation.tasks import OpenedTask
from foreloom.files import read_json, strict_json, whole_or_absent, write_text
from foreloom.models.family import Forecaster, ModelFamily
from foreloom.models.lookbacks import LookbacksForecaster, forecaster_of
from foreloom.monitoring.metrics_file import FILE_NAME as METRICS_NAME
from foreloom.run import train
from foreloom.tuning import candidates, verdict
from foreloom.tuning.candidates import SHARES, Candidate, Kind, Outcome, Pace, between
from foreloom.tuning.verdict import SHARE_BETTER, Ratio, row_errors
from foreloom.tuning.windows import LEAST_HORIZONS, MOST_SCORED, Windows, part

STATE_NAME = "fit.json"
ZERO_SHOT = "zero-shot"
LOOKBACKS = "lookbacks"
"""The weights as they were, asked `NUM_LOOKBACKS` times, see `models.lookbacks`."""
NUM_LOOKBACKS = 6
ONCE = "once"
"""The weights of a model that looks back several times, asked for the whole past alone."""
AUTO_ETS = "auto-ets"
MOST_ETS = 200
"""Windows that AutoETS, which is fitted to each anew, is scored on."""
KEPT_SHARE = 0.85
"""Of the budget that is planned for; the rest is for what takes longer than it was measured."""
SCORING_SHARE = 0.04
"""Of the budget that scoring one contender may take: of more series so many are chosen that it does not take more."""
FIRST_TIMED = 4
"""Series whose scoring is timed first; four times as many until the time says something."""


@dataclass(frozen=True)
class Contender:
    """What was scored."""

    name: str
    selection: Ratio
    """Over zero-shot, on the windows that candidates are chosen by."""
    verdict: Ratio
    """On the last windows."""
    scores: Mapping[str, float]
    """Of the last windows."""


@dataclass(frozen=True)
class Fit:
    """How a fit ended."""

    folder: Path
    """`from_pretrained` reads the model there: the chosen one, or the model as it was."""
    chosen: str | None
    """The contender that was kept; None: zero-shot."""
    sentence: str
    """The verdict, for people."""
    contenders: Sequence[Contender]
    windows: Windows | None
    """None where the histories are too short to part."""
    notes: Sequence[str]
    recipe: Path | None
    """Of the chosen candidate, where one was trained: training it again gives the tuned weights."""
    kept: Backtest
    """The last windows, forecast by zero-shot, by what was chosen, and by Seasonal Naive."""

    def __repr__(self) -> str:
        lines = [f"{one.name}: selection {one.selection}, verdict {one.verdict}" for one in self.contenders]
        return "\n".join([self.sentence, *lines, *(f"note: {note}" for note in self.notes)])


def fit(
    family: ModelFamily,
    model: str | Path,
    source: Source,
    prediction_length: int,
    out: Path,
    *,
    minutes: float = 10.0,
    device: str = "cpu",
    season_length: int = 0,
    say: Callable[[str], object] = lambda sentence: None,
) -> Fit:
    """See `Model.fit`. `source` holds no steps of the future alone."""
    base = find_model_folder(model).resolve()
    return _Work(family, base, str(model), source, prediction_length, out, minutes, device, season_length, say).run()


class _Work:
    """One fit under way."""

    def __init__(
        self,
        family: ModelFamily,
        base: Path,
        called: str,
        source: Source,
        prediction_length: int,
        out: Path,
        minutes: float,
        device: str,
        season_length: int,
        say: Callable[[str], object],
    ) -> None:
        self.family, self.base, self.called, self.out = family, base, called, out
        self.source, self.horizon, self.minutes = source, prediction_length, minutes
        self.device, self.season_length, self.say = device, season_length, say
        self.began = time.monotonic()
        self.notes: list[str] = []
        self.windows = part(source.lengths, prediction_length)
        settings = {
            "model": str(self.base),
            "content of the model": combine("model", digests([one for one in self.base.iterdir() if one.is_file()])),
            "data": source.fingerprint,
            "prediction_length": prediction_length,
            "season_length": season_length,
        }
        self.state = self._read(settings)
        self.earlier = float(self.state["seconds"])

    def run(self) -> Fit:
        zero_shot = self._forecaster(self.family.load(self.base))
        num = self.windows.num if self.windows else min(max((int(self.source.lengths.max()) - 1) // self.horizon, 1), 3)
        looks_back = isinstance(zero_shot, LookbacksForecaster)
        looking_back = (
            zero_shot if looks_back or self.windows is None else LookbacksForecaster(zero_shot, NUM_LOOKBACKS)
        )
        self.asked_otherwise, self.num_otherwise = (ONCE, 1) if looks_back else (LOOKBACKS, NUM_LOOKBACKS)
        scored = self._scored(num, zero_shot, looking_back)
        self.task = self._rolling(scored, num)
        self._score(ZERO_SHOT, lambda: zero_shot)
        if self.windows is not None and isinstance(zero_shot, LookbacksForecaster):
            whole_past = zero_shot.base
            self._score(ONCE, lambda: whole_past)
        elif self.windows is not None:
            self._score_lookbacks(looking_back, len(scored))
        self._score(BASELINE, SeasonalNaive)
        if importlib.util.find_spec("statsforecast") and num * len(scored) <= MOST_ETS:
            self._score(AUTO_ETS, lambda: StatisticalForecaster("AutoETS"))
        trained: dict[str, tuple[Candidate, float]] = {}
        if self.windows is None:
            self.notes.append(
                f"a history of {LEAST_HORIZONS} horizons at least is needed to train and to judge, and most series "
                "have less: nothing was tuned, and the scores are of the windows that there are."
            )
        elif not np.isfinite(np.array(self.state["contenders"][ZERO_SHOT]["errors"], dtype=float)).any():
            self.notes.append(
                "no window has a value to compare with and a past that moves: nothing can be scaled by, or learned."
            )
        else:
            trained = self._train_all(self.windows, zero_shot)
        return self._conclude(trained)

    def _rolling(self, source: Source, num_windows: int) -> OpenedTask:
        return rolling_task(source, self.horizon, num_windows, season_length=self.season_length)

    def _asked_otherwise(self) -> Any:
        """The model as it was, but that it looks back several times where it did once, or once where it did several."""
        module: Any = self.family.load(self.base)
        module.architecture = module.architecture.replace(lookbacks=self.num_otherwise)
        return module

    @property
    def is_asked_otherwise(self) -> bool:
        """Is that surely better where contenders are chosen? Then candidates look back as often."""
        name = self.asked_otherwise
        return name in self.state["contenders"] and self._ratio(name, is_last=False).is_sure

    def _score_lookbacks(self, forecaster: Forecaster, num_scored: int) -> None:
        """Unless that takes more than its share of the budget of even the fewest series."""
        seconds = self.state["contenders"][ZERO_SHOT]["seconds"] * min(FIRST_TIMED / num_scored, 1)
        if LOOKBACKS in self.state["contenders"] or self._has_room_for_lookbacks(seconds):
            self._score(LOOKBACKS, lambda: forecaster)
        else:
            self.notes.append(
                f"{LOOKBACKS} was not tried: to score it takes too much of {self.minutes:g} minutes. Give "
                f"{NUM_LOOKBACKS * seconds / SCORING_SHARE / 60:.1f} at least (--minutes)."
            )

    def _has_room_for_lookbacks(self, seconds: float) -> bool:
        """`seconds`: what zero-shot takes for `FIRST_TIMED` series."""
        return NUM_LOOKBACKS * seconds <= self._share_of_scoring

    @property
    def _share_of_scoring(self) -> float:
        """Seconds."""
        return SCORING_SHARE * 60 * self.minutes

    def _scored(self, num_windows: int, zero_shot: Forecaster, looking_back: Forecaster) -> Source:
        """The series that contenders are scored on: of those that hold a window as many as the budget allows."""
        rows = np.flatnonzero(self.source.lengths > self.horizon)
        most = min(max(MOST_SCORED // num_windows, 1), len(rows))
        if "num_scored" not in self.state:
            self.state["num_scored"] = self._affordable(rows, most, num_windows, zero_shot, looking_back)
            self._write()
        rows = fixed_choice(rows, self.state["num_scored"])
        if len(rows) < len(self.source):
            self.notes.append(f"contenders are scored on {len(rows):,} of the {len(self.source):,} series.")
        return self._chosen(rows)

    def _chosen(self, rows: np.ndarray) -> Source:
        if len(rows) == len(self.source):
            return self.source
        return ChosenRows(self.source, rows, name=self.source.name, fingerprint=self.source.fingerprint, files={})

    def _affordable(
        self, rows: np.ndarray, most: int, num_windows: int, zero_shot: Forecaster, looking_back: Forecaster
    ) -> int:
        """How many of the series can be scored in a contender's share of the budget, by scoring a few."""

        def seconds_of(forecaster: Forecaster, num: int) -> float:
            task = self._rolling(self._chosen(fixed_choice(rows, num)), num_windows)
            began = time.monotonic()
            backtest({ZERO_SHOT: forecaster}, task)
            return time.monotonic() - began

        costliest, num = zero_shot, FIRST_TIMED
        while num < most:
            taken = seconds_of(costliest, num)
            if costliest is not looking_back and self._has_room_for_lookbacks(taken):
                costliest = looking_back
                continue
            if taken > self._share_of_scoring / 4:
                return min(max(int(num * self._share_of_scoring / taken), FIRST_TIMED), most)
            num *= 4
        return most

    def _score(self, name: str, forecaster: Callable[[], Forecaster]) -> None:
        """Once; what is known of it goes into the state."""
        if name in self.state["contenders"]:
            return
        began = time.monotonic()
        kept = backtest({name: forecaster()}, self.task)
        self.state["window"] = kept.window_S.tolist()
        last_S = np.flatnonzero(kept.window_S >= self.first_of_verdict)
        own = kept.sums(name, last_S).scores() if len(last_S) else {}
        self.state["contenders"][name] = {
            "errors": row_errors(kept, name).tolist(),
            "scores": {key: own.get(key) for key in ("SQL", "WQL", "MASE", "coverage_80")},
            "seconds": time.monotonic() - began,
        }
        self._write()

    @property
    def first_of_verdict(self) -> int:
        return self.windows.num_selection if self.windows else 0

    def _train_all(self, windows: Windows, zero_shot: Forecaster) -> dict[str, tuple[Candidate, float]]:
        """Train the candidates and score them; contender -> its candidate and the share of the tuned weights."""
        data, longest, num_values = self._training_data(windows)
        horizon = min(self.horizon, zero_shot.prediction_length)
        if data is None:
            self.notes.append("no series is long enough for training before the windows: nothing was tuned.")
            return {}
        context = min(zero_shot.context_length, max(longest - 2 * horizon, horizon), candidates.LONGEST_CONTEXT)
        recipe = candidates.recipe_of(self.family)
        shared = candidates.shared_overrides(
            self.base, data.resolve(), horizon=horizon, context_length=context,
            min_past=min(horizon, context), device=self.device,
        )  # fmt: skip
        if self.is_asked_otherwise:
            shared.append(f"model.lookbacks={self.num_otherwise}")
        if "plan" not in self.state:
            self._plan(recipe, shared, num_values, windows)
        found: dict[str, tuple[Candidate, float]] = {}
        outcomes: dict[Kind, Outcome] = {}
        known = [Candidate.of(one) for one in self.state.get("candidates", [])]
        while candidate := known.pop(0) if known else self._another(outcomes, recipe, shared, windows):
            outcomes[candidate.kind] = Outcome(np.inf, is_hot=True)
            if not self._train(candidate):
                continue
            tuned, errors = self._tuned(candidate), []
            for share in SHARES:
                name = _name(candidate, share)
                self._score(name, partial(self._between, tuned, share))
                found[name] = (candidate, share)
                errors.append(self._ratio(name, is_last=False).estimate)
            error = float(np.nan_to_num(np.fmin.reduce(errors), nan=np.inf))
            outcomes[candidate.kind] = Outcome(error, candidates.was_hot(self._folder(candidate)))
        return found

    def _another(
        self, outcomes: Mapping[Kind, Outcome], recipe: str, shared: Sequence[str], windows: Windows
    ) -> Candidate | None:
        """What is to be trained after those; None where there is nothing left to try, or no time."""
        plan = self.state.get("plan")
        kind = None if plan is None else candidates.following(outcomes, plan["first_times"])
        if plan is None or kind is None:
            return None
        left = KEPT_SHARE * 60 * self.minutes - self._spent() - sum(self._costs(windows))
        steps = min(Pace(*plan["pace"]).steps_in(left), plan["steps"])
        if outcomes and steps < max(plan["steps"] / 2, candidates.LEAST_STEPS):
            return None
        candidate = candidates.candidate(kind, recipe, shared, steps if outcomes else plan["steps"])
        self.state.setdefault("candidates", []).append(candidates.settings_of(candidate))
        self._write()
        return candidate

    def _training_data(self, windows: Windows) -> tuple[Path | None, int, int]:
        """What lies before the windows as a file, its longest series, and its values; None where nothing is left."""
        horizon = self.horizon
        lengths = self.source.lengths - windows.num_steps
        kept = np.flatnonzero(lengths >= 2 * horizon + 1)
        path = self.out / "data" / "train.arrow"
        if not len(kept):
            return None, 0, 0
        if not path.is_file():
            before = Shortened(self.source, np.maximum(lengths, 0))
            with whole_or_absent(path) as beside:
                write_series(read_in_turn(before, kept), beside)
        return path, int(lengths[kept].max()), int((lengths * self.source.num_targets)[kept].sum())

    def _plan(self, recipe: str, shared: Sequence[str], num_values: int, windows: Windows) -> None:
        """How many candidates of how many steps the budget has room for, and at what learning rate to begin, by a probe
        of a few steps."""
        scoring, after = self._costs(windows)
        folder = self.out / "probe"
        # Of one that an earlier call began, or finished with too short a budget, this call would time the rest alone.
        shutil.rmtree(folder, ignore_errors=True)
        began = time.monotonic()
        probe = candidates.candidate(Kind("full", candidates.PROBED), recipe, shared, candidates.PROBE_STEPS)
        length = [f"validation.steps={candidates.PROBE_STEPS}", f"monitoring.log_steps={candidates.PROBE_STEPS}"]
        self._run(replace(probe, name="probe", overrides=(*probe.overrides, *length)), folder)
        pace = candidates.pace_of(folder, time.monotonic() - began)
        left = KEPT_SHARE * 60 * self.minutes - self._spent() - after
        num, steps = candidates.in_budget(pace, left, scoring, num_values)
        if not num:
            least = self._spent() + pace.seconds_of(candidates.LEAST_STEPS) + scoring + after
            self.notes.append(
                f"{self.minutes:g} minutes are too short for one candidate here: give {least / KEPT_SHARE / 60:.1f} at "
                "least (--minutes)."
            )
            return  # nothing is planned, so that a longer budget goes on
        self.say(f"{num} candidates of at most {steps:,} steps fit into {self.minutes:g} minutes")
        first_times = candidates.PROBED / (candidates.APART if candidates.was_hot(folder) else 1)
        self.state["plan"] = {"steps": steps, "first_times": first_times, "pace": pace}
        self._write()

    def _costs(self, windows: Windows) -> tuple[float, float]:
        """Seconds of scoring a candidate, and of what `_conclude` forecasts. Not part of the plan: a fit that began
        before lookbacks were a contender may find here that its next candidates look back."""
        seconds = {name: one["seconds"] for name, one in self.state["contenders"].items()}
        of_candidate = seconds[self.asked_otherwise if self.is_asked_otherwise else ZERO_SHOT]
        return len(SHARES) * of_candidate, (seconds[ZERO_SHOT] + of_candidate) * windows.num_verdict / windows.num

    def _train(self, candidate: Candidate) -> bool:
        """Its run folder is finished, or it failed with a note."""
        folder = self._folder(candidate)
        if (folder / "checkpoints" / "final").exists():
            return True
        self.say(f"training {candidate.name}")
        try:
            self._run(candidate, folder)
        except ValueError as error:
            self.notes.append(f"{candidate.name} was not trained: {error}")
            return False
        self._write()
        return True

    def _run(self, candidate: Candidate, folder: Path) -> None:
        begun = (folder / METRICS_NAME).is_file()
        result = train(shipped_recipes()[candidate.recipe], candidate.overrides, out=folder, resume=begun)
        if result.exit_code:
            self._write()
            raise KeyboardInterrupt(f"{candidate.name} was stopped; the same call goes on from here")

    def _folder(self, candidate: Candidate) -> Path:
        return self.out / "candidates" / candidate.name

    def _tuned(self, candidate: Candidate) -> Path:
        return find_model_folder(self._folder(candidate))

    def _between(self, tuned: Path, share: float) -> Forecaster:
        return self._forecaster(between(self.family, self.base, tuned, share))

    def _forecaster(self, module: Any) -> Forecaster:
        return forecaster_of(self.family, module.to(self.device).eval())

    def _ratio(self, name: str, *, is_last: bool) -> Ratio:
        """The errors of a contender over those of zero-shot, on the last windows or on those before."""
        window_S = np.array(self.state["window"])
        rows_S = (window_S >= self.first_of_verdict) == is_last
        ours_S, base_S = (
            np.array(self.state["contenders"][one]["errors"], dtype=float) for one in (name, ZERO_SHOT)
        )  # null is NaN
        return verdict.ratio(ours_S[rows_S], base_S[rows_S], window_S[rows_S])

    def _conclude(self, trained: Mapping[str, tuple[Candidate, float]]) -> Fit:
        contenders = [
            Contender(name, self._ratio(name, is_last=False), self._ratio(name, is_last=True), _with_nan(one["scores"]))
            for name, one in self.state["contenders"].items()
        ]
        eligible = {*trained, self.asked_otherwise}
        best = verdict.best_of({one.name: one.selection for one in contenders if one.name in eligible})
        lasts = {name: self._ratio(name, is_last=True) for name in self._and_nearer(best, trained)}
        chosen = verdict.first_that_holds(lasts)
        folder = self.out / "hf"
        module = self._asked_otherwise() if chosen == self.asked_otherwise else self.family.load(self.base)
        if chosen in trained:
            candidate, share = trained[chosen]
            module = between(self.family, self.base, self._tuned(candidate), share)
        sentence = self._sentence(best, chosen, lasts, trained)
        facts = {"Fit": {"verdict": sentence, "data": self.source.name, "horizon": self.horizon}}
        card = model_card(self.out.name, self.family, facts, base=None, step=0)
        write_folder(self.family, module.cpu(), module.state_dict(), folder, card)
        recipe = self._folder(trained[chosen][0]) / "recipe.yaml" if chosen in trained else None
        num = self.windows.num_verdict if self.windows else 1
        task = self._rolling(self.task.data, num)
        shown: dict[str, Forecaster] = {ZERO_SHOT: self._forecaster(self.family.load(self.base))}
        if chosen is not None:
            shown[chosen] = self._forecaster(module)
        kept = backtest({**shown, BASELINE: SeasonalNaive()}, task)
        self.state["chosen"], self.state["sentence"] = chosen, sentence
        self._write()
        self._doubt_of_both(contenders, chosen)
        return Fit(self.out, chosen, sentence, contenders, self.windows, [*self.notes, *kept.notes], recipe, kept)

    def _and_nearer(self, best: str | None, trained: Mapping[str, tuple[Candidate, float]]) -> list[str]:
        """The best, and after it what is nearer to the model as it was: less of the same training, and none."""
        if best not in trained:
            return [] if best is None else [best]
        candidate, share = trained[best]
        less = [_name(candidate, one) for one in SHARES if one <= share]
        return [*less, self.asked_otherwise] if self.is_asked_otherwise else less

    def _doubt_of_both(self, contenders: Sequence[Contender], chosen: str | None) -> None:
        naive = next(one for one in contenders if one.name == BASELINE)
        ours = next((one.verdict.estimate for one in contenders if one.name == chosen), 1.0)
        if naive.verdict.estimate < ours:
            self.notes.append(
                f"{BASELINE} has {naive.verdict.estimate:.3f} of the error of zero-shot on the last windows, less than "
                "what is kept: is the season right (--season), is the frequency?"
            )

    def _sentence(
        self,
        best: str | None,
        chosen: str | None,
        lasts: Mapping[str, Ratio],
        trained: Mapping[str, tuple[Candidate, float]],
    ) -> str:
        if chosen is not None:
            how = (
                "which nothing was chosen by"
                if chosen == best
                else f"where {best}, which was chosen before, has {lasts[best or '']}"
            )
            return (
                f"keep {chosen}: {lasts[chosen]} of the error of zero-shot on the last windows, {how}. "
                f"{self.out} holds it."
            )
        why = "nothing was tuned" if not trained else "no candidate is surely better on the windows it is chosen by"
        if best is not None:
            why = f"{best}, the best on the windows it is chosen by, has {lasts[best]} of its error on the last ones"
            if lasts[best].estimate < 1 and lasts[best].share_better < SHARE_BETTER:
                why += f", but is better in {lasts[best].share_better:.0%} of them only"
        return f"keep zero-shot: {why}. {self.out} holds the weights of {self.called} as they were."

    def _spent(self) -> float:
        """Seconds, those of earlier calls among them."""
        return self.earlier + time.monotonic() - self.began

    def _read(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        path = self.out / STATE_NAME
        if not path.is_file():
            if self.out.is_dir() and any(self.out.iterdir()):
                raise ValueError(f"{self.out} holds something else. Name a new folder (--out).")
            return {"settings": dict(settings), "seconds": 0.0, "contenders": {}}
        state = read_json(path, "Delete the folder to begin anew.")
        if changed := [name for name, value in settings.items() if state["settings"].get(name) != value]:
            raise ValueError(
                f"{self.out} holds a fit with another {' and '.join(changed)}. Name another folder (--out), or delete "
                "it to begin anew."
            )
        return state

    def _write(self) -> None:
        self.state["seconds"] = self._spent()
        write_text(self.out / STATE_NAME, json.dumps(strict_json(self.state), indent=1) + "\n")


def _name(candidate: Candidate, share: float) -> str:
    return candidate.name if share == 1 else f"{candidate.name}, {share:.0%}"


def _with_nan(scores: Mapping[str, float | None]) -> dict[str, float]:
    return {name: float("nan") if value is None else value for name, value in scores.items()}
