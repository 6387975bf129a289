"""What records say without a judgement: spreads, cost, curves, provenance. Needs no torch."""

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from harness.comparison import Cost, CurvePoint, Fingerprint, Response, Spread
from harness.nested import flat
from harness.plan import Cell, Plan
from harness.record import Record
from harness.statistics import mean_and_sd, paired

# fingerprints all arms of a seed must have in common, where they have them
SHARED = ("data", "split", "composed", "init", "order")
OWN = ("started", "finished")  # provenance that differs between any two runs
LEAST_RESPONSE = 3  # arms that make a curve against a config number
LARGEST = 1e100
Records = Mapping[str, Record]
Runs = Mapping[int, Record]  # done runs of one arm by seed


def done_runs(cell: Cell, records: Records) -> dict[int, Record]:
    """Records of a cell's done runs by seed."""
    found = {seed: records.get(run) for seed, run in cell.runs.items()}
    return {seed: r for seed, r in found.items() if r is not None and r.status == "done"}


def cells_of(plan: Plan, task: str) -> list[Cell]:
    """The cells of one task in the order of the plan, without controls."""
    return [cell for cell in plan.cells if cell.task == task and cell.arm not in plan.controls]


def is_usable(value: float) -> bool:
    """Whether a metric can be averaged: finite, and its square too."""
    return abs(value) < LARGEST


def spread(values: Sequence[float]) -> Spread:
    """Mean and standard deviation; None if there is no value or one is unusable."""
    if not values or not all(is_usable(value) for value in values):
        return Spread(len(values), None, None)
    return Spread(len(values), *mean_and_sd(values))


def others(runs: Runs, headline: str) -> dict[str, Spread]:
    """Every metric but the headline, over the runs that have it."""
    names = dict.fromkeys(name for record in runs.values() for name in record.metrics)
    values = {n: [r.metrics[n] for r in runs.values() if n in r.metrics] for n in names}
    return {name: spread(values[name]) for name in names if name != headline}


def references(runs: Runs) -> dict[str, dict[str, Spread]]:
    """Every metric of what has learnt nothing, by its name, over the runs that have it."""
    values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for record in runs.values():
        for name, metrics in record.references.items():
            for metric, value in metrics.items():
                values[name][metric].append(value)
    return {name: {m: spread(v) for m, v in found.items()} for name, found in values.items()}


def cost(runs: Runs) -> Cost:
    """What a done run took in the mean, measuring gradients left out; None if nothing is known."""

    def mean(values: Iterable[float | None]) -> float | None:
        known = [value for value in values if value]
        return sum(known) / len(known) if known else None

    records = list(runs.values())
    return Cost(
        total_seconds=mean(_total(r) for r in records),
        train_seconds=mean(r.seconds.get("train") for r in records),
        steps=mean(r.steps for r in records),
        parameters=mean(r.parameters for r in records),
        peak_memory=mean(r.peak_memory for r in records),
        step_seconds=mean(r.seconds["train"] / r.steps for r in records if timed(r)),
    )


def _total(record: Record) -> float:
    return record.seconds.get("total", 0.0) - record.seconds.get("gradients", 0.0)


def timed(record: Record) -> bool:
    """Whether it is known what a step took."""
    return bool(record.steps and record.seconds.get("train"))


def catching_up(metric: str, arm: Runs, baseline: Runs, *, higher: bool) -> dict[int, float]:
    """Per seed the step at which an arm is first as good as the baseline is at its end."""
    found = {}
    for seed, record in arm.items():
        theirs = _points(baseline[seed], metric) if seed in baseline else {}
        if not theirs:
            continue
        goal = theirs[max(theirs)]
        good = [
            step
            for step, value in _points(record, metric).items()
            if (value >= goal if higher else value <= goal)
        ]
        if good:
            found[seed] = min(good)
    return found


def curve_metric(metric: str, arms: Mapping[str, Runs]) -> str | None:
    """The headline metric on validation data, if any run recorded it while training."""
    wanted = f"val/{metric.split('/', 1)[-1]}"
    records = (record for runs in arms.values() for record in runs.values())
    return wanted if any(wanted in point for r in records for point in r.curve) else None


def _points(record: Record, metric: str) -> dict[float, float]:
    """Finite values of one run's curve by optimiser step."""
    values = ((point.get("step"), point.get(metric)) for point in record.curve)
    return {s: v for s, v in values if s is not None and v is not None and is_usable(v)}


def curve(metric: str, arm: Runs, baseline: Runs, *, interval: bool) -> list[CurvePoint]:
    """Mean per step, and where the baseline has the same step and seed the paired difference.

    The interval is pointwise and needs two pairs; `interval=False` leaves it out.
    """
    mine: dict[float, dict[int, float]] = defaultdict(dict)
    for seed, record in arm.items():
        for step, value in _points(record, metric).items():
            mine[step][seed] = value
    theirs = {seed: _points(record, metric) for seed, record in baseline.items()}
    found = []
    for step, values in sorted(mine.items()):
        pairs = [v - theirs[s][step] for s, v in values.items() if step in theirs.get(s, {})]
        test = paired(pairs) if pairs else None
        low, high = (test.low, test.high) if test and interval else (None, None)
        mean = sum(values.values()) / len(values)
        found.append(CurvePoint(step, len(values), mean, test.mean if test else None, low, high))
    return found


def responses(cells: list[Cell]) -> list[Response]:
    """Groups of arms whose configs differ in one number alone.

    An arm that is tuned for every seed anew, or not tuned yet, has no one config and is left out.
    """
    settings = {c.arm: flat(c.config) for c in cells if c.runs and not c.variants}
    keys = dict.fromkeys(key for config in settings.values() for key in config)
    varying = [k for k in keys if len({repr(config.get(k)) for config in settings.values()}) > 1]
    found = []
    for key in varying:
        groups: dict[Hashable, dict[float, str]] = defaultdict(dict)
        for arm, config in settings.items():
            if _is_number(config.get(key)):
                rest = tuple((k, repr(config.get(k)), k in config) for k in varying if k != key)
                groups[rest].setdefault(float(config[key]), arm)
        for group in groups.values():
            if len(group) >= LEAST_RESPONSE:
                values = sorted(group)
                found.append(Response(key, [group[value] for value in values], values))
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def shared_fingerprints(plan: Plan, records: Records) -> Iterator[Fingerprint]:
    """Per task, kind and seed, the distinct fingerprints of the arms."""
    for task in plan.tasks:
        runs = {cell.arm: done_runs(cell, records) for cell in cells_of(plan, task)}
        for kind in SHARED:
            for seed in plan.seeds:
                marks = (r[seed].fingerprints.get(kind) for r in runs.values() if seed in r)
                values = list(dict.fromkeys(mark for mark in marks if mark is not None))
                if values:
                    yield Fingerprint(task, kind, seed, values)


def provenance(plan: Plan, records: Records) -> dict[str, list[str]]:
    """Every distinct value of every provenance key; of times the first start and last finish."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for run in plan.runs():
        if run.id in records:
            for key, value in flat(records[run.id].provenance).items():
                found[key][str(value)] = None
    merged = {key: list(values) for key, values in found.items()}
    for key, pick in zip(OWN, (min, max), strict=True):
        if key in merged:
            merged[key] = [pick(merged[key])]
    return merged
