"""Tuning every arm with the same effort before arms are compared.

An arm's trials train on seeds of their own and are judged on the validation part alone; the
settings of the best one are then trained on the sweep's seeds. What is tried follows from the sweep
file and, for `tpe`, from the records there are, so that tuning goes on wherever it was stopped.
"""

import dataclasses
import importlib
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness import controls
from harness.nested import flat
from harness.plan import Cell, Plan, Trial, Tuning
from harness.record import Record
from harness.space import Range, parse_range, spread

if TYPE_CHECKING:
    from harness.config import RunConfig
    from harness.sweepfile import SweepFile, TuneFile

FIRST_SEED = 1000
"""Where the seeds of trials begin; a sweep's own are left out."""
SHARED = ("optimizer", "trainer", "model", "projection")
"""What may be tuned for all arms alike."""
FIXED = {"trainer.test", "trainer.evaluations", "trainer.threads", "trainer.workers"}
FIXED |= {"trainer.accelerator", "trainer.devices", "trainer.strategy", "model.name"}
OWN = ("loss", "optimizer", "projection")
"""What one arm may tune by itself: neither its data and yardsticks nor how long it trains."""
STARTUP = 4
"""Trials that `tpe` spreads evenly before it proposes any."""
Records = Mapping[str, Record]


def first_trials(
    owner: str,
    file: "SweepFile",
    resolved: Mapping[str, Mapping[str, "RunConfig"]],
    arms: Mapping[str, Sequence[str]],
) -> Tuning:
    """The tuning a sweep file asks for, with the trials that are known before any has run.

    Raises:
        ValueError: a range cannot be read, or names a key an arm does not have.
    """
    from harness.sweepfile import seeds_of

    wanted = file.tune
    assert wanted is not None
    ranges = _ranges(f"{owner}.tune", wanted, arms, next(iter(resolved.values())))
    known = seeds_of(file)
    number = len(known) if wanted.anew else wanted.seeds
    free = (seed for seed in range(FIRST_SEED, FIRST_SEED + 2 * len(known) + number + 1))
    seeds = [seed for seed in free if seed not in known][:number]
    metric = wanted.metric or f"val/{file.metric.partition('/')[2]}"
    if not metric.startswith("val/"):
        raise ValueError(f"{owner}.tune.metric must be of the validation part, got {metric!r}")
    if wanted.sampler == "tpe":
        import_optuna()
        if wanted.anew:
            raise ValueError(
                f"{owner}.tune: anew needs sampler=spread, whose trials are independent"
            )
    first = min(STARTUP, wanted.trials) if wanted.sampler == "tpe" else wanted.trials
    trials = [
        _trial(config, task, arm, i, settings, seeds, known)
        for task, by_arm in resolved.items()
        for arm, config in by_arm.items()
        for i, settings in enumerate(spread(ranges[arm], first))
    ]
    written = {
        arm: {**wanted.space, **wanted.arms.get(_stem(arm), {}), **wanted.arms.get(arm, {})}
        for arm in arms
    }
    return Tuning(metric, wanted.trials, seeds, wanted.sampler, wanted.anew, written, trials)


def _may(groups: Sequence[str]) -> str:
    return " and ".join(f"{group}.*" for group in groups)


def _stem(arm: str) -> str:
    """The name in the file of an arm that a list of values was made of."""
    return arm.partition(":")[0]


def _ranges(
    owner: str,
    wanted: "TuneFile",
    arms: Mapping[str, Sequence[str]],
    configs: Mapping[str, "RunConfig"],
) -> dict[str, dict[str, Range]]:
    from losses.arguments import nearest

    for arm in wanted.arms:
        if arm not in arms and arm not in map(_stem, arms):
            raise ValueError(f"{owner}.arms: there is no arm '{arm}'{nearest(arm, arms)}")
    for key in wanted.space:
        if key.split(".")[0] not in SHARED or key in FIXED:
            raise ValueError(f"{owner}.space.{key} is not for a tuner; it may set {_may(SHARED)}")
    for arm, own in wanted.arms.items():
        for key in own:
            if key.split(".")[0] not in OWN:
                raise ValueError(
                    f"{owner}.arms.{arm}.{key} is not for one arm alone; it may set {_may(OWN)}"
                )
    if not wanted.space and not wanted.arms:
        raise ValueError(f"{owner} needs a space, such as {{optimizer.lr: 'log(1e-3, 1e-1)'}}")
    shared = {k: parse_range(f"{owner}.space.{k}", given) for k, given in wanted.space.items()}
    found = {}
    for arm, config in configs.items():
        own = {**wanted.arms.get(_stem(arm), {}), **wanted.arms.get(arm, {})}
        ranges = {k: parse_range(f"{owner}.arms.{arm}.{k}", g) for k, g in own.items()}
        known = flat(config.shared())
        for key in {**shared, **ranges}:
            if key not in known:
                raise ValueError(f"{owner}: arm {arm} has no '{key}'{nearest(key, known)}")
        found[arm] = {**shared, **ranges}
    return found


def _trial(
    config: "RunConfig",
    task: str,
    arm: str,
    number: int,
    settings: Mapping[str, Any],
    seeds: Sequence[int],
    final: Sequence[int],
) -> Trial:
    from harness.config import check, run_id

    plain = config.plain()
    for key, value in settings.items():
        _put(plain, key.split("."), value)
    try:
        made = check(plain)
    except ValueError as error:
        shown = ", ".join(f"{key}={value}" for key, value in settings.items())
        raise ValueError(f"tune: arm {arm} cannot be tried with {shown}: {error}") from error
    tried = dataclasses.replace(made, trainer=dataclasses.replace(made.trainer, test=False))
    return Trial(
        task,
        arm,
        number,
        dict(settings),
        made.shared(),
        {seed: run_id(tried, seed) for seed in seeds},
        {seed: run_id(made, seed) for seed in final},
    )


def _put(config: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for key in path[:-1]:
        config = config[key]
    config[path[-1]] = value


def advance(plan: Plan, records: Records) -> Plan:
    """The plan with the trials and the chosen settings that follow from the records so far."""
    if plan.tuning is None:
        return plan
    if plan.tuning.sampler == "tpe":
        plan = dataclasses.replace(plan, tuning=_extended(plan, plan.tuning, records))
    return dataclasses.replace(plan, cells=[_settled(plan, cell, records) for cell in plan.cells])


def of(tuning: Tuning, cell: Cell) -> list[Trial]:
    """An arm's trials on a task, in order."""
    mine = [t for t in tuning.trials if (t.task, t.arm) == (cell.task, cell.arm)]
    return sorted(mine, key=lambda trial: trial.number)


def value(tuning: Tuning, trial: Trial, records: Records, seed: int | None = None) -> float | None:
    """A trial's mean over its seeds, or its value for one; NaN if it failed; None if it has to run.

    A trial of which any run failed or diverged has failed.
    """
    runs = trial.tried.values() if seed is None else [trial.tried[seed]]
    there = [records.get(run) for run in runs]
    values = []
    for record in there:
        if record is None:
            return None
        good = record.status == "done"
        values.append(record.metrics.get(tuning.metric, math.nan) if good else math.nan)
    return sum(values) / len(values)


def best(
    plan: Plan, tuning: Tuning, trials: Sequence[Trial], records: Records, seed: int | None = None
) -> Trial | None:
    """The trial with the best value, the first of equals; None while any has to run.

    Where all failed it is the first, whose runs on the sweep's seeds will say so.
    """
    values = [value(tuning, trial, records, seed) for trial in trials]
    if len(trials) < tuning.number or any(each is None for each in values):
        return None
    sign = -1 if plan.directions[tuning.metric] == "higher" else 1
    known = [math.inf if each is None or math.isnan(each) else sign * each for each in values]
    return trials[known.index(min(known))]


def _settled(plan: Plan, cell: Cell, records: Records) -> Cell:
    """The cell with its chosen settings, once all its trials have run."""
    tuning = plan.tuning
    assert tuning is not None
    trials = of(tuning, cell)
    if not tuning.anew:
        chosen = best(plan, tuning, trials, records)
        return dataclasses.replace(cell, config=chosen.config, runs=chosen.runs) if chosen else cell
    picked = {
        seed: best(plan, tuning, trials, records, own)
        for seed, own in zip(plan.seeds, tuning.seeds, strict=True)
    }
    there = {seed: trial for seed, trial in picked.items() if trial is not None}
    return dataclasses.replace(
        cell,
        runs={seed: trial.runs[seed] for seed, trial in there.items()},
        variants={seed: trial.config for seed, trial in there.items()},
    )


def _extended(plan: Plan, tuning: Tuning, records: Records) -> Tuning:
    """One more trial for every arm whose trials have all run, as Optuna's TPE proposes it."""
    from harness.config import check

    added = []
    for cell in (cell for cell in plan.cells if cell.arm not in plan.controls):
        trials = of(tuning, cell)
        values = [value(tuning, trial, records) for trial in trials]
        if len(trials) < tuning.number and all(each is not None for each in values):
            settings = _proposed(
                plan, tuning, cell.arm, trials, [v for v in values if v is not None]
            )
            config = check(trials[0].config)
            number = len(trials)
            added.append(
                _trial(config, cell.task, cell.arm, number, settings, tuning.seeds, plan.seeds)
            )
    added += controls.mirrored(plan, added)
    return dataclasses.replace(tuning, trials=[*tuning.trials, *added])


def _proposed(
    plan: Plan, tuning: Tuning, arm: str, trials: Sequence[Trial], values: Sequence[float]
) -> dict[str, Any]:
    """What TPE proposes after these trials; a function of them alone."""
    optuna = import_optuna()
    written = tuning.ranges[arm]
    ranges = {key: parse_range(key, given) for key, given in written.items()}
    spaces = {key: _distribution(optuna, each) for key, each in ranges.items()}
    direction = "maximize" if plan.directions[tuning.metric] == "higher" else "minimize"
    sampler = optuna.samplers.TPESampler(seed=len(trials), n_startup_trials=STARTUP)
    study = optuna.create_study(direction=direction, sampler=sampler)
    for trial, each in zip(trials, values, strict=True):
        failed, states = math.isnan(each), optuna.trial.TrialState
        study.add_trial(
            optuna.trial.create_trial(
                params=trial.settings,
                distributions=spaces,
                value=None if failed else each,
                state=states.FAIL if failed else states.COMPLETE,
            )
        )
    asked = study.ask(spaces)
    rounded = {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in asked.params.items()}
    return {key: rounded[key] for key in ranges}


def import_optuna() -> Any:
    """Optuna, quiet.

    Raises:
        ValueError: it is not installed.
    """
    try:
        optuna = importlib.import_module("optuna")
    except ImportError as error:
        raise ValueError(
            "tune.sampler=tpe needs Optuna: pip install 'lossbench[tune]'; spread needs nothing"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _distribution(optuna: Any, each: Range) -> Any:
    made = optuna.distributions
    if each.kind == "choice":
        return made.CategoricalDistribution(each.choices)
    if each.kind == "integer":
        return made.IntDistribution(int(each.low), int(each.high))
    return made.FloatDistribution(each.low, each.high, log=each.kind == "log")
