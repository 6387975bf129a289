"""From a plan and its records to a comparison: pure, paired by seed, needs no torch."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median

from harness import controlled, fairness, overall, response, statistics, summary, tuned
from harness.comparison import (
    ArmResult,
    Comparison,
    Contrast,
    ControlResult,
    Overall,
    Response,
    RunStatus,
    SeedRun,
    TaskResult,
    Tradeoff,
)
from harness.made_of import made_of
from harness.plan import Cell, Plan
from harness.record import Record
from harness.statistics import ALPHA, holm, paired
from harness.verdict import judge, sentence

LEAST_FLIPS = 6  # seeds from which flipped signs can reach 5%

Key = tuple[str, str]  # task, arm


@dataclass(frozen=True)
class _Study:
    """A sweep with its pairs and corrected p values, from which all results follow.

    `pairs` has arm minus baseline by seed; `family` is what Holm corrects for.
    """

    plan: Plan
    records: Mapping[str, Record]
    runs: dict[Key, list[SeedRun]]
    pairs: dict[Key, dict[int, float]]
    family: int
    pending: bool
    p: dict[Key, float]
    p_equivalence: dict[Key, float]

    @property
    def higher(self) -> bool:
        return self.plan.directions[self.plan.metric] == "higher"


def compare(plan: Plan, records: Mapping[str, Record], against: str | None = None) -> Comparison:
    """Compare every arm with the baseline, task by task, on the seeds where both are done.

    While a run is still without a record there is no interval, no p and no verdict.

    Args:
        plan: the sweep.
        records: records by run id; those of other sweeps may be among them.
        against: the metric to show against the headline's, instead of one chosen by rule.

    Raises:
        ValueError: the plan does not say which way its metric, or that one, is better.
    """
    if plan.metric not in plan.directions:
        known = ", ".join(plan.directions) or "none"
        raise ValueError(f"plan {plan.name} has no direction for {plan.metric}, only for: {known}")
    if against:
        response.check_metric(against, plan.metric, plan.directions)
    study = _study(plan, records)
    tasks = [_task(study, task, against) for task in plan.tasks]
    statuses = [run.status for runs in study.runs.values() for run in runs]
    draft = Comparison(
        name=plan.name,
        question=plan.question,
        sentence="",
        metric=plan.metric,
        direction=plan.directions[plan.metric],
        directions=plan.directions,
        baseline=plan.baseline,
        margin=plan.margin,
        seeds=plan.seeds,
        comparisons=study.family,
        planned=len(statuses),
        done=statuses.count("done"),
        failed=statuses.count("failed"),
        diverged=statuses.count("diverged"),
        pending=statuses.count("pending"),
        notes=fairness.notes(plan, records, tasks),
        tasks=tasks,
        differences=plan.differences,
        fingerprints=list(summary.shared_fingerprints(plan, records)),
        provenance=summary.provenance(plan, records),
        command=plan.command,
        overrides=plan.overrides,
        tuning=tuned.results(plan, records),
        overall=_overall(study),
    )
    return dataclasses.replace(draft, sentence=sentence(draft))


def _overall(study: _Study) -> Overall | None:
    """All tasks together, once every run has ended."""
    plan = study.plan
    if study.pending or plan.baseline not in plan.arms:
        return None
    values = {
        task: {arm: [run.value for run in study.runs[task, arm]] for arm in plan.arms}
        for task in plan.tasks
        if all((task, arm) in study.runs for arm in plan.arms)
    }
    return overall.overall(values, plan.baseline, higher=study.higher)


def _study(plan: Plan, records: Mapping[str, Record]) -> _Study:
    runs = {(c.task, c.arm): _runs(c, plan, records) for c in plan.cells}
    pairs = {
        (task, arm): _pairs(mine, runs[task, plan.baseline])
        for (task, arm), mine in runs.items()
        if arm != plan.baseline and (task, plan.baseline) in runs
    }
    pending = any(run.status == "pending" for some in runs.values() for run in some)
    family = sum(arm not in plan.controls for _, arm in pairs)
    testable = {
        (task, arm): list(d.values())
        for (task, arm), d in pairs.items()
        if len(d) > 1 and arm not in plan.controls
    }
    p = {key: paired(values).p for key, values in testable.items()}
    equal = {
        key: statistics.equivalence(values, plan.margin) if plan.margin else None
        for key, values in testable.items()
    }
    return _Study(
        plan, records, runs, pairs, family, pending, _holm(p, family), _holm(equal, family)
    )


def _holm(ps: Mapping[Key, float | None], family: int) -> dict[Key, float]:
    known = {key: p for key, p in ps.items() if p is not None}
    return dict(zip(known, holm(list(known.values()), family), strict=True))


def _runs(cell: Cell, plan: Plan, records: Mapping[str, Record]) -> list[SeedRun]:
    """The runs of a cell; without a finite headline metric none counts as done."""
    found, metric = [], plan.metric
    for seed in plan.seeds:
        run = cell.runs.get(seed, "")  # not known yet while the arm is being tuned
        record = records.get(run)
        status: RunStatus = "pending" if record is None else record.status
        value, error = None, None if record is None else record.error
        if record is not None and status == "done":
            value = record.metrics.get(metric)
            if value is None:
                status, error = "failed", f"the record has no {metric}"
            elif not summary.is_usable(value):
                status, error, value = "diverged", f"{metric} is {value}", None
        found.append(SeedRun(seed, run, status, value, error))
    return found


def _pairs(arm: list[SeedRun], other: list[SeedRun]) -> dict[int, float]:
    """Arm minus other per seed where both are done."""
    theirs = {run.seed: run.value for run in other}
    found = {}
    for run in arm:
        value = theirs.get(run.seed)
        if run.value is not None and value is not None:
            found[run.seed] = run.value - value
    return found


def _task(study: _Study, task: str, against: str | None) -> TaskResult:
    """All arms of one task, judged and ranked."""
    cells = summary.cells_of(study.plan, task)
    done = {cell.arm: summary.done_runs(cell, study.records) for cell in cells}
    metric = summary.curve_metric(study.plan.metric, done)
    best = _best(study, cells)
    drafts = {cell.arm: _result(study, cell, done, metric, best=cell.arm in best) for cell in cells}
    baseline = drafts.get(study.plan.baseline)
    results = []
    for draft in drafts.values():
        verdict, text = judge(draft, baseline, higher=study.higher, pending=study.pending)
        results.append(dataclasses.replace(draft, verdict=verdict, text=text))
    controls = _controls(study, task, done, metric, results)
    sign = -1 if study.higher else 1
    results.sort(key=lambda result: math.inf if result.mean is None else sign * result.mean)
    seen: dict[int, Record] = {}
    for arm in [*(arm for arm in done if arm != study.plan.baseline), study.plan.baseline]:
        seen.update(done.get(arm, {}))
    references = summary.references(seen)
    return TaskResult(
        task,
        results,
        metric,
        _responses(study, cells),
        references,
        controls,
        _tradeoff(study, results, against),
    )


def _responses(study: _Study, cells: list[Cell]) -> list[Response]:
    """Arms that differ in one number, judged once every run has ended."""
    found = summary.responses(cells)
    if study.pending:
        return found
    values = {cell.arm: _values(study, cell) for cell in cells}
    whole = len(study.plan.seeds)
    return [response.judged(given, values, whole, higher=study.higher) for given in found]


def _tradeoff(study: _Study, results: list[ArmResult], against: str | None) -> Tradeoff | None:
    means = {result.arm: result.mean for result in results if result.mean is not None}
    others = {result.arm: result.others for result in results}
    plan = study.plan
    planned = len(plan.seeds)
    return response.tradeoff(plan.metric, means, others, plan.directions, against, planned)


def _values(study: _Study, cell: Cell) -> dict[int, float]:
    """The headline metric of a cell's done runs by seed."""
    runs = study.runs[cell.task, cell.arm]
    return {run.seed: run.value for run in runs if run.value is not None}


def _controls(
    study: _Study,
    task: str,
    done: Mapping[str, summary.Runs],
    metric: str | None,
    arms: list[ArmResult],
) -> list[ControlResult]:
    """The controls of one task, against the baseline."""
    plan, records = study.plan, study.records
    cells = {c.arm: c for c in plan.cells if c.task == task}
    drafts = {}
    for word in (word for word in plan.controls if word in cells):
        runs = {**done, word: summary.done_runs(cells[word], records)}
        drafts[word] = _result(study, cells[word], runs, metric, best=False)
    return controlled.results(plan, cells, drafts, arms, records, pending=study.pending)


def _best(study: _Study, cells: Iterable[Cell]) -> set[str]:
    """Arms with every run done that are not significantly worse than the best mean among them."""
    values = {cell.arm: _values(study, cell) for cell in cells}
    whole = len(study.plan.seeds)
    full = {arm: some for arm, some in values.items() if len(some) == whole > 1}
    return set() if study.pending else set(response.among_best(full, higher=study.higher))


def _result(
    study: _Study, cell: Cell, done: Mapping[str, summary.Runs], metric: str | None, *, best: bool
) -> ArmResult:
    """One arm's numbers, not judged yet; `metric` is that of the learning curves."""
    runs = study.runs[cell.task, cell.arm]
    statuses = [run.status for run in runs]
    headline = summary.spread([run.value for run in runs if run.value is not None])
    mine = done[cell.arm]
    baseline = {} if cell.arm == study.plan.baseline else done.get(study.plan.baseline, {})
    curve = summary.curve(metric, mine, baseline, interval=not study.pending) if metric else []
    cost, base = summary.cost(mine), done.get(study.plan.baseline, {})
    there = summary.catching_up(metric, mine, base, higher=study.higher) if metric else {}
    if there:
        middle = median(there.values())
        cost = dataclasses.replace(cost, steps_to_baseline=middle, reached=len(there))
    return ArmResult(
        arm=cell.arm,
        planned=len(runs),
        done=statuses.count("done"),
        failed=statuses.count("failed"),
        diverged=statuses.count("diverged"),
        pending=statuses.count("pending"),
        mean=headline.mean,
        sd=headline.sd,
        best=best,
        verdict="pending",
        text="",
        contrast=_contrast(study, (cell.task, cell.arm)),
        runs=runs,
        others=summary.others(mine, study.plan.metric),
        cost=cost,
        curve=curve,
        made_of=made_of(mine, interval=not study.pending),
    )


def _contrast(study: _Study, key: Key) -> Contrast | None:
    """The arm against the baseline; while runs are pending the differences alone."""
    pairs = study.pairs.get(key)
    if not pairs:
        return None
    seeds, values = list(pairs), list(pairs.values())
    test = paired(values)
    if study.pending:
        return Contrast(seeds, values, test.mean, test.sd)
    flip = statistics.sign_flip(values) if test.n >= LEAST_FLIPS else None
    d = statistics.effect_size(values)
    gains = values if study.higher else [-value for value in values]
    return Contrast(
        seeds=seeds,
        differences=values,
        mean=test.mean,
        sd=test.sd,
        low=test.low,
        high=test.high,
        p=test.p,
        p_holm=study.p.get(key),
        p_sign_flip=flip,
        disagrees=flip is not None and test.p is not None and (flip <= ALPHA) != (test.p <= ALPHA),
        p_equivalence=study.p_equivalence.get(key),
        effect_size=d,
        improvement=statistics.probability_of_improvement(gains),
        seeds_needed=None if d is None else statistics.seeds_needed(d, study.family),
    )
