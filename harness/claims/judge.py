r"""The verdict on a claim: pure functions from its plan and records. Needs no torch.

The claim says that the mean paired difference d (arm minus against) lies on one side of a boundary:
d > m for `higher`, d < -m for `lower`, -m < d < m for `equal`, with the margin m. A contrast is

- SUPPORTED if the 95% t interval of d lies on the claim's side entirely,
- CONTRADICTED if it lies on the other side entirely,
- NOT ENOUGH EVIDENCE if it holds the boundary.

That is the two-sided t test of d against the nearest boundary at 5%; where a claim has several
contrasts, its p values are corrected by Holm over them, so that an interval that just misses the
boundary may not be enough. The claim is supported if all of its contrasts are, contradicted if one
is. Fewer than three pairs decide nothing, and neither does anything before the last run.

A run that failed or diverged is infinitely worse than one that did not. Where that makes a
difference infinite there is no mean, and the sign test of the seeds takes the place of the t test:
on how many of them the difference lies on the claim's side. `equal` cannot be supported then. Seeds
on which both are lost say nothing.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness import statistics
from harness.claims.claim import Claim, Contrast, ContrastResult, Direction, Outcome, Verdict
from harness.compare import compare
from harness.comparison import ArmResult, SeedRun
from harness.plan import Plan
from harness.record import Record
from harness.statistics import ALPHA, holm, paired
from harness.verdict import FEWEST_SEEDS


@dataclass(frozen=True)
class Evidence:
    """What differences say about one contrast, before they are corrected for others.

    Attributes:
        leans: the verdict the data lean to, whatever p is.
        p: two-sided, against the nearest boundary; None where nothing can be tested.
        seeds_needed: for power .8, were the effect seen the true one; None where unknown.
    """

    leans: Verdict
    p: float | None
    seeds_needed: int | None = None


def trained(plan: Plan) -> list[str]:
    """Names of what was recorded while training: `train/TERM` for every term of an arm."""
    terms = (name for cell in plan.cells for name in cell.config["loss"])
    return [f"train/{name}" for name in dict.fromkeys(terms) if name not in ("mix", "p")]


def judge(claim: Claim, plan: Plan, records: Mapping[str, Record]) -> Outcome:
    """The verdict on a claim whose contrasts name arms, tasks and metrics of the plan."""
    ends = [c.metric for c in claim.contrasts if c.metric in trained(plan)]
    if ends:
        plan = dataclasses.replace(plan, directions=plan.directions | dict.fromkeys(ends, "lower"))
        records = {run: _with_ends(record, ends) for run, record in records.items()}
    pairs = [_arms(contrast, plan, records) for contrast in claim.contrasts]
    found = [_evidence(c, plan, pair) for c, pair in zip(claim.contrasts, pairs, strict=True)]
    known = [i for i, evidence in enumerate(found) if evidence.p is not None]
    corrected = holm([found[i].p or 0.0 for i in known], len(found))
    p_of = dict(zip(known, corrected, strict=True))
    results = [
        _result(contrast, plan, pairs[i], found[i], p_of.get(i))
        for i, contrast in enumerate(claim.contrasts)
    ]
    runs = {run.id for run in plan.runs()}
    later = 0 if plan.settled else len(plan.cells) * len(plan.seeds)
    return Outcome(
        claim=claim,
        verdict=_together([each.verdict for each in results]),
        results=results,
        seeds=len(plan.seeds),
        seconds_by_run={
            run: records[run].seconds.get("total", 0.0) for run in sorted(runs & records.keys())
        },
        done=len(runs & records.keys()),
        planned=len(runs) + later,
        command=plan.command,
        notes=compare(plan, records).notes,
    )


def _with_ends(record: Record, names: Sequence[str]) -> Record:
    """The record with the last point of its curve among its metrics."""
    last = record.curve[-1] if record.curve else {}
    ends = {name: last[name] for name in names if last.get(name) is not None}
    return dataclasses.replace(record, metrics=record.metrics | ends)


def _together(verdicts: Sequence[Verdict]) -> Verdict:
    for word in ("PENDING", "CONTRADICTED", "NOT ENOUGH EVIDENCE"):
        if word in verdicts:
            return word
    return "SUPPORTED"


def _arms(
    contrast: Contrast, plan: Plan, records: Mapping[str, Record]
) -> tuple[ArmResult, ArmResult]:
    """Both arms of a contrast as a comparison of these two alone gives them."""
    both = [contrast.against, contrast.arm]
    kept = [c for c in plan.cells if c.task == contrast.task and c.arm in both]
    alone = dataclasses.replace(
        plan,
        metric=contrast.metric,
        baseline=contrast.against,
        margin=None,
        tasks=[str(contrast.task)],
        arms=both,
        cells=kept,
        tuning=None,
        controls={},
    )
    (task,) = compare(alone, records).tasks
    arms = {result.arm: result for result in task.arms}
    return arms[contrast.arm], arms[contrast.against]


def differences(
    arm: Sequence[SeedRun], against: Sequence[SeedRun], *, higher: bool
) -> dict[int, float]:
    """Arm minus against by seed; infinite where one of them was lost, left out where both were.

    Args:
        arm: its runs.
        against: the other arm's.
        higher: whether a higher metric is better, so that a lost run is worth minus infinity.
    """
    worst = -math.inf if higher else math.inf
    theirs = {run.seed: run.value for run in against}
    found = {}
    for run in arm:
        other = theirs.get(run.seed)
        if run.value is None and other is None:
            continue
        mine = worst if run.value is None else run.value
        found[run.seed] = mine - (worst if other is None else other)
    return found


def evidence(
    given: Sequence[float], direction: Direction, margin: float, comparisons: int = 1
) -> Evidence:
    """What paired differences say for or against a contrast, see the module's docstring."""
    if len(given) < FEWEST_SEEDS:
        return Evidence("NOT ENOUGH EVIDENCE", None)
    if not all(math.isfinite(value) for value in given):
        return _signs([_beyond(value, direction, margin) for value in given], direction)
    if direction == "equal" and not any(given):
        return Evidence("SUPPORTED", 0.0)  # identical: there is nothing to test
    mean, _ = statistics.mean_and_sd(given)
    side = math.copysign(1.0, mean) if direction == "equal" else 1.0
    beyond = [_beyond(value * side, direction, margin, nearest=True) for value in given]
    test = paired(beyond)
    d = statistics.effect_size(beyond)
    return Evidence(
        _side(test.mean), test.p, None if d is None else statistics.seeds_needed(d, comparisons)
    )


def _beyond(value: float, direction: Direction, margin: float, *, nearest: bool = False) -> float:
    """How far a difference lies on the claim's side of the boundary."""
    if direction == "equal":
        return margin - (value if nearest else abs(value))
    return (value if direction == "higher" else -value) - margin


def _side(value: float) -> Verdict:
    if value == 0:
        return "NOT ENOUGH EVIDENCE"
    return "SUPPORTED" if value > 0 else "CONTRADICTED"


def _signs(beyond: Sequence[float], direction: Direction) -> Evidence:
    """The exact sign test; lost runs never show that two arms are equal."""
    signs = [math.copysign(1.0, value) for value in beyond if value]
    if not signs:
        return Evidence("NOT ENOUGH EVIDENCE", None)
    leans = _side(sum(signs))
    if leans == "SUPPORTED" and direction == "equal":
        return Evidence("NOT ENOUGH EVIDENCE", None)
    return Evidence(leans, statistics.sign_flip(signs))


def _evidence(contrast: Contrast, plan: Plan, pair: tuple[ArmResult, ArmResult]) -> Evidence:
    if any(result.pending for result in pair):
        return Evidence("PENDING", None)
    given = differences(pair[0].runs, pair[1].runs, higher=_higher(contrast, plan))
    return evidence(list(given.values()), contrast.direction, contrast.margin)


def _higher(contrast: Contrast, plan: Plan) -> bool:
    return plan.directions[contrast.metric] == "higher"


def _result(
    contrast: Contrast,
    plan: Plan,
    pair: tuple[ArmResult, ArmResult],
    found: Evidence,
    p_holm: float | None,
) -> ContrastResult:
    mine, theirs = pair
    pairs = differences(mine.runs, theirs.runs, higher=_higher(contrast, plan))
    values = list(pairs.values())
    pending = found.leans == "PENDING"
    if pending:
        waiting = {run.seed for run in [*mine.runs, *theirs.runs] if run.status == "pending"}
        pairs = {seed: value for seed, value in pairs.items() if seed not in waiting}
        values = list(pairs.values())
    test = paired(values) if values and all(map(math.isfinite, values)) else None
    decided = p_holm is not None and p_holm <= ALPHA
    verdict = found.leans if decided or pending else "NOT ENOUGH EVIDENCE"
    return ContrastResult(
        contrast=contrast,
        seeds=list(pairs),
        differences=values,
        mean=test.mean if test else None,
        low=test.low if test and not pending else None,
        high=test.high if test and not pending else None,
        p_holm=p_holm,
        verdict=verdict,
        text=_text(verdict, found, pair, len(values)),
        runs={result.arm: result.runs for result in pair},
    )


def _text(verdict: Verdict, found: Evidence, pair: tuple[ArmResult, ArmResult], seeds: int) -> str:
    """The verdict in words, with lost runs and with how many seeds would probably tell."""
    inside = []
    if verdict == "PENDING":
        there = sum(result.planned - result.pending for result in pair)
        inside.append(f"{there} of {sum(result.planned for result in pair)} runs")
    elif verdict == "NOT ENOUGH EVIDENCE":
        if seeds < FEWEST_SEEDS:
            inside.append(f"{seeds} pair{'' if seeds == 1 else 's'} of runs")
        elif found.seeds_needed:
            inside.append(f"leans to {found.leans.lower()}, ~{found.seeds_needed} seeds")
    for result in pair:
        lost = result.failed + result.diverged
        if lost:
            inside.append(f"{result.arm} lost {lost} of {result.planned}")
    return f"{verdict} ({', '.join(inside)})" if inside else verdict
