"""How arms were tuned: with what effort, and whether the ranges were wide enough."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from harness import tune
from harness.comparison import Note
from harness.fairness.words import listed, where
from harness.plan import Cell, Plan, Trial, Tuning
from harness.space import Range, parse_range
from harness.summary import Records

FEWEST_VALUES = 3  # of one setting, below which the outermost is no news


def notes(plan: Plan, records: Records) -> Iterator[Note]:
    """All notes on tuning; none where nothing is tuned."""
    if plan.tuning is None:
        return
    yield effort(plan.tuning)
    yield variance(plan.tuning)
    for cell in plan.cells:
        if cell.arm not in plan.controls:
            yield from _of_arm(plan, plan.tuning, cell, records)


def effort(tuning: Tuning) -> Note:
    """What was equal for all arms."""
    shared = set.intersection(*(set(keys) for keys in tuning.ranges.values()))
    how = "evenly spread, the same for all arms" if tuning.sampler == "spread" else "by TPE"
    number = len(tuning.seeds)
    seeds = "a seed" if number == 1 else f"{number} seeds"
    each = "for every seed anew" if tuning.anew else f"on {seeds} of the tuner's own"
    text = (
        f"every arm was tuned with {tuning.number} trials ({how}) of {', '.join(sorted(shared))}, "
        f"{each}, by {tuning.metric}"
    )
    own = [arm for arm, keys in tuning.ranges.items() if set(keys) - shared]
    also = f"; settings of their own had {listed(own)}" if own else ""
    return Note("note", text + also)


def variance(tuning: Tuning) -> Note:
    """Which variance the intervals hold (R8)."""
    if tuning.anew:
        text = "the intervals are of the whole pipeline: every seed was tuned by itself"
    else:
        text = (
            "the intervals are of the chosen settings on new seeds, not of the whole pipeline; "
            "tune.anew=true tunes every seed by itself"
        )
    return Note("note", text)


def _of_arm(plan: Plan, tuning: Tuning, cell: Cell, records: Records) -> Iterator[Note]:
    trials = tune.of(tuning, cell)
    values = [tune.value(tuning, trial, records) for trial in trials]
    if len(trials) < tuning.number or any(value is None for value in values):
        return
    failed = sum(value is not None and math.isnan(value) for value in values)
    name = f"{where(plan, cell.task)}{cell.arm}"
    if failed:
        text = f"{failed} of {len(trials)} trials of {name} failed or diverged: it was tuned with "
        yield Note("warning", f"{text}{'less' if failed < len(trials) else 'no'} effort that told")
    own = tuning.seeds if tuning.anew else [None]
    chosen = [tune.best(plan, tuning, trials, records, seed) for seed in own]
    for key, written in tuning.ranges[cell.arm].items():
        told = at_edge(parse_range(key, written), key, trials, [c for c in chosen if c])
        if told is not None:
            text = f"{name} was given {key}={told:g}, {_side(told, key, trials)} that was tried"
            yield Note("warning", f"{text} of {written}: widen the range, or try more")


def _side(value: Any, key: str, trials: Sequence[Trial]) -> str:
    return "the highest" if value == max(t.settings[key] for t in trials) else "the lowest"


def at_edge(
    range_: Range, key: str, trials: Sequence[Trial], chosen: Sequence[Trial]
) -> float | None:
    """The outermost value tried, if at least half of the choices fell on it; else None.

    Beyond it nothing was tried, so that the best may lie outside the range.
    """
    tried = {trial.settings[key] for trial in trials}
    if range_.kind == "choice" or len(tried) < FEWEST_VALUES or not chosen:
        return None
    for end in (min(tried), max(tried)):
        if 2 * sum(trial.settings[key] == end for trial in chosen) >= len(chosen):
            return float(end)
    return None
