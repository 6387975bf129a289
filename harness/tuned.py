"""What came out of tuning: every trial, what was chosen, and what n trials are worth. No torch."""

import math
from collections.abc import Mapping, Sequence

from harness import tune
from harness.comparison import TrialResult, TunedArm, TuningResult
from harness.plan import Cell, Direction, Plan, Trial, Tuning
from harness.record import Record

Records = Mapping[str, Record]


def results(plan: Plan, records: Records) -> TuningResult | None:
    """Trials and choices of every arm, or None where nothing is tuned."""
    tuning = plan.tuning
    if tuning is None:
        return None
    return TuningResult(
        metric=tuning.metric,
        direction=plan.directions[tuning.metric],
        number=tuning.number,
        sampler=tuning.sampler,
        anew=tuning.anew,
        seeds=tuning.seeds,
        arms=[
            _arm(plan, tuning, cell, records)
            for cell in plan.cells
            if cell.arm not in plan.controls
        ],
    )


def _arm(plan: Plan, tuning: Tuning, cell: Cell, records: Records) -> TunedArm:
    trials = tune.of(tuning, cell)
    seeds = tuning.seeds if tuning.anew else [None]
    chosen = [tune.best(plan, tuning, trials, records, seed) for seed in seeds]
    shown = [_trial(tuning, trial, records) for trial in trials]
    return TunedArm(
        task=cell.task,
        arm=cell.arm,
        trials=shown,
        chosen=[trial.number for trial in chosen if trial is not None],
        best_of=best_of([trial.value for trial in shown], plan.directions[tuning.metric]),
        seconds=sum(trial.seconds or 0.0 for trial in shown),
    )


def _trial(tuning: Tuning, trial: Trial, records: Records) -> TrialResult:
    value = tune.value(tuning, trial, records)
    there = [records[run] for run in trial.tried.values() if run in records]
    seconds = [record.seconds["total"] for record in there if "total" in record.seconds]
    return TrialResult(
        number=trial.number,
        settings=trial.settings,
        value=None if value is None or math.isnan(value) else value,
        ids=list(trial.tried.values()),
        seconds=sum(seconds) if seconds else None,
        failed=value is not None and math.isnan(value),
    )


def best_of(values: Sequence[float | None], direction: Direction) -> list[float | None]:
    """Expected best of n values drawn without replacement, for n = 1 to all of them.

    The best of n is the value of rank k (from the best, 0) with probability
    C(N - 1 - k, n - 1) / C(N, n). None stands for a failure, worse than any value; where n of them
    may be drawn together the expectation is not defined.

    >>> best_of([3.0, 1.0, 2.0], "higher")
    [2.0, 2.6666666666666665, 3.0]
    """
    known = sorted((v for v in values if v is not None), reverse=direction == "higher")
    total, failed = len(values), len(values) - len(known)
    found: list[float | None] = []
    for n in range(1, total + 1):
        ways = [math.comb(total - 1 - rank, n - 1) for rank in range(len(known))]
        expected = sum(w * v for w, v in zip(ways, known, strict=True)) / math.comb(total, n)
        found.append(expected if n > failed else None)
    return found
