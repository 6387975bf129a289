"""What came out of control arms, against what had to. Needs no torch."""

import dataclasses
from collections.abc import Mapping, Sequence

from harness.comparison import ArmResult, ControlResult
from harness.fairness.runs import outcome
from harness.plan import Cell, Plan
from harness.statistics import ALPHA
from harness.summary import Records, done_runs
from harness.verdict import FEWEST_SEEDS, judge

EXPECTED = {
    "null": "the baseline on other seeds, paired by position: must not differ",
    "identity": "the baseline times 1 through the composite: must be identical to the last bit",
    "scale": "the baseline times {factor:g}: tells whether the step size matters",
    "constant": "a model that ignores its inputs: must be beaten",
}


def results(
    plan: Plan,
    cells: Mapping[str, Cell],
    drafts: Mapping[str, ArmResult],
    arms: Sequence[ArmResult],
    records: Records,
    *,
    pending: bool,
) -> list[ControlResult]:
    """Every control of a task, judged by a paired t test of its own at 5%, outside Holm's family.

    Args:
        plan: the sweep.
        cells: those of the baseline and of the controls, by name.
        drafts: results of the controls, not judged yet.
        arms: results of the arms.
        records: records by run id.
        pending: whether the sweep still runs.
    """
    higher = plan.directions[plan.metric] == "higher"
    baseline = next((arm for arm in arms if arm.arm == plan.baseline), None)
    found = []
    for word, draft in drafts.items():
        contrast = draft.contrast
        alone = dataclasses.replace(contrast, p_holm=contrast.p) if contrast else None
        verdict, text = judge(
            dataclasses.replace(draft, contrast=alone), baseline, higher=higher, pending=pending
        )
        result = dataclasses.replace(draft, verdict=verdict, text=text)
        same = _same(cells.get(plan.baseline), cells[word], records)
        known = not pending and baseline is not None and baseline.done
        held = _held(word, result, same) if known else None
        found.append(
            ControlResult(
                word=word,
                expected=EXPECTED[word].format(factor=plan.controls[word]),
                held=held,
                text=_text(word, result, held, plan),
                result=result,
                unbeaten=_unbeaten(result, arms, higher=higher) if word == "constant" else [],
            )
        )
    return found


def _same(baseline: Cell | None, control: Cell, records: Records) -> bool:
    """Whether all that was measured is equal to the last bit on every seed the baseline has."""
    if baseline is None:
        return False
    mine, theirs = (done_runs(cell, records) for cell in (control, baseline))
    return all(s in mine and outcome(mine[s]) == outcome(r) for s, r in theirs.items())


def _held(word: str, result: ArmResult, same: bool) -> bool | None:
    """Whether the control came out as it must; None where that cannot be told."""
    if word == "identity":
        return same
    contrast = result.contrast
    if word == "scale" or contrast is None or contrast.p is None:
        return None
    if word == "null":
        return contrast.p > ALPHA
    if len(contrast.seeds) < FEWEST_SEEDS:
        return None
    return result.verdict == "worse"


def _text(word: str, result: ArmResult, held: bool | None, plan: Plan) -> str:
    if result.verdict in ("pending", "no result", "no baseline"):
        return result.text
    if word == "identity":
        return "identical, as it must be" if held else f"differs from {plan.baseline} somewhere"
    if word == "scale":
        told = {"better": "is better", "worse": "is worse", "identical": "changes nothing"}
        words = told.get(result.verdict, "is not shown to change anything")
        return f"{plan.baseline} times {plan.controls[word]:g} {words}"
    if held is None:
        return f"cannot be told: {result.text}"
    if word == "null":
        if held:
            return "no difference seen, as it must be"
        return (
            f"{plan.baseline} differs from itself on other seeds, which one sweep in 20 shows by "
            "chance"
        )
    if held:
        return f"{plan.baseline} beats it, as it must"
    return f"{plan.baseline} is not shown to beat a model that ignores its inputs"


def _unbeaten(result: ArmResult, arms: Sequence[ArmResult], *, higher: bool) -> list[str]:
    """Arms whose mean is no better than that of a model that ignores its inputs."""
    level = result.mean
    if level is None:
        return []
    known = [(arm.arm, arm.mean) for arm in arms if arm.mean is not None]
    return [name for name, mean in known if (mean <= level if higher else mean >= level)]
