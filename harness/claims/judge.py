"""The verdict on a claim: pure functions from its plan and records. Needs no torch."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

from harness.claims.claim import Claim, Contrast, ContrastResult, Outcome, Verdict
from harness.claims.evidence import Evidence, evidence, undecided
from harness.compare import compare
from harness.comparison import ArmResult, Note, SeedRun
from harness.fairness.runs import identical
from harness.plan import Direction, Plan
from harness.record import Record
from harness.statistics import ALPHA, holm, paired
from harness.summary import timed

KNOWN = ("done", "diverged")  # runs that say something
LESS: Direction = "lower"
SLOWING = {"devices", "accumulate", "strategy", "checkpoint", "keep", "deterministic"}
"""Settings that take time and are no part of a run's identity."""
COSTS: dict[str, Callable[[Record], float | None]] = {
    "cost/step_ms": lambda run: 1e3 * run.seconds["train"] / run.steps if _usual(run) else None,
}
"""What a claim may compare beside metrics: milliseconds a step, evaluations with it.

Not the peak of memory, which on a CPU is the process's, with all that earlier runs left in it.
"""


def trained(plan: Plan) -> dict[str, set[tuple[str, str]]]:
    """For every `train/TERM` the (task, arm) that record it, having several terms or a schedule."""
    found: dict[str, set[tuple[str, str]]] = {}
    for cell in plan.cells:
        terms = {k: v for k, v in cell.config["loss"].items() if k not in ("mix", "p")}
        scheduled = any(isinstance(term.get("weight"), Mapping) for term in terms.values())
        kept = {(cell.task, cell.arm)} if len(terms) > 1 or scheduled else set()
        for name in terms:
            found.setdefault(f"train/{name}", set()).update(kept)
    return found


def judge(claim: Claim, plan: Plan, records: Mapping[str, Record]) -> Outcome:
    """The verdict on a claim whose contrasts name arms, tasks and metrics of the plan."""
    beyond = [c.metric for c in claim.contrasts if c.metric not in plan.directions]
    if beyond:
        ways = {**plan.directions, **dict.fromkeys(beyond, LESS)}
        plan = dataclasses.replace(plan, directions=ways)
        records = {run: _with(record, beyond) for run, record in records.items()}
    pairs = [_arms(contrast, plan, records) for contrast in claim.contrasts]
    asked = zip(claim.contrasts, pairs, strict=True)
    found = [_evidence(c, plan, records, pair, len(pairs)) for c, pair in asked]
    known = [i for i, each in enumerate(found) if each.p is not None]
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
        notes=_notes(claim, plan, records),
    )


def _usual(record: Record) -> bool:
    """Whether it is known what a step took, with nothing that others of the same id do not do."""
    beside = record.provenance.get("beside", {})
    return timed(record) and not (isinstance(beside, Mapping) and SLOWING & beside.keys())


def _notes(claim: Claim, plan: Plan, records: Mapping[str, Record]) -> list[Note]:
    """Those on the sweep, but no alarm that arms are equal where the claim says that they are."""
    notes = compare(plan, records).notes
    if any(contrast.direction != "equal" for contrast in claim.contrasts):
        return notes
    arms = {(c.task, arm) for c in claim.contrasts for arm in (c.arm, c.against)}
    kept = [cell for cell in plan.cells if (cell.task, cell.arm) in arms]
    said = list(identical(dataclasses.replace(plan, cells=kept), records))
    return [note for note in notes if note.level != "alarm" or note not in said]


def _with(record: Record, names: Sequence[str]) -> Record:
    """The record with the last point of its curve, and what it cost, among its metrics."""
    last = record.curve[-1] if record.curve else {}
    known = {**last, **{name: cost(record) for name, cost in COSTS.items()}}
    found = {name: value for name in names if (value := known.get(name)) is not None}
    return dataclasses.replace(record, metrics=record.metrics | found)


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
    """Arm minus against by seed, infinite where one diverged; without seeds that say nothing.

    Those are the seeds on which both diverged, or one failed or has not ended.

    Args:
        arm: its runs.
        against: the other arm's.
        higher: whether a higher metric is better, so that a lost run is worth minus infinity.
    """
    worst = -math.inf if higher else math.inf
    mine, theirs = (
        {r.seed: worst if r.value is None else r.value for r in runs if r.status in KNOWN}
        for runs in (arm, against)
    )
    both = [seed for seed in mine if seed in theirs]
    return {s: mine[s] - theirs[s] for s in both if math.isfinite(mine[s]) or mine[s] != theirs[s]}


def _evidence(
    contrast: Contrast,
    plan: Plan,
    records: Mapping[str, Record],
    pair: tuple[ArmResult, ArmResult],
    comparisons: int,
) -> Evidence:
    if any(result.pending for result in pair):
        return Evidence("PENDING", None)
    runs = [run for result in pair for run in result.runs]
    without = [records[run.id].status for run in runs if run.status == "failed"]
    if failed := without.count("failed"):
        return undecided(f"{failed} of {len(runs)} runs failed, --retry-failed trains them again")
    if without:
        return undecided(f"{len(without)} of {len(runs)} runs recorded no {contrast.metric}")
    given = differences(pair[0].runs, pair[1].runs, higher=_higher(contrast, plan))
    return evidence(list(given.values()), contrast.direction, contrast.margin, comparisons)


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
        text=_text(verdict, found, pair),
        runs={result.arm: result.runs for result in pair},
    )


def _text(verdict: Verdict, found: Evidence, pair: tuple[ArmResult, ArmResult]) -> str:
    """The verdict in words, with lost runs and with how many seeds would probably tell."""
    inside = []
    if verdict == "PENDING":
        there = sum(result.planned - result.pending for result in pair)
        inside.append(f"{there} of {sum(result.planned for result in pair)} runs")
    elif verdict == "NOT ENOUGH EVIDENCE":
        if found.why:
            inside.append(found.why)
        elif found.seeds_needed:
            inside.append(f"leans to {found.leans.lower()}, ~{found.seeds_needed} seeds")
    for result in pair:
        if result.diverged:
            inside.append(f"{result.arm} lost {result.diverged} of {result.planned}")
    return f"{verdict} ({', '.join(inside)})" if inside else verdict
