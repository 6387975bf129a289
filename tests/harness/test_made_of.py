"""What objectives are made of, from records to the page."""

import csv
import dataclasses
import io
import json
import random
import re
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from scipy import stats

from harness import report
from harness.compare import compare
from harness.comparison import ArmResult, Comparison, MadeOf
from harness.made_of import MOST_POINTS
from harness.plan import Plan
from harness.record import Record
from harness.report.made_of import section
from tests.harness.builders import lose, make_plan, make_records
from tests.harness.test_report import HOSTILE, Page, _collisions

ARMS: dict[str, dict[str, Any]] = {
    "ce": {"cross_entropy": {"weight": 1.0}},
    "two": {"cross_entropy": {"weight": 1.0}, "l2": {"weight": 0.1}},
    "three": {"cross_entropy": {"weight": 1.0}, "focal": {"weight": 1.0}, HOSTILE: {"weight": 1.0}},
}
STEPS = list(range(0, 100, 10))


def measured(terms: list[str], steps: list[int], seed: int) -> dict[str, Any]:
    """What a run could have recorded: any numbers will do."""
    draw = random.Random(f"{terms} {seed}")
    shares = [[draw.uniform(-0.2, 1) for _ in terms[1:]] for _ in steps]
    return {
        "every": 10,
        "terms": terms,
        "steps": steps,
        "weights": [[1.0] * len(terms) for _ in steps],
        "norms": [[draw.uniform(0, 2) for _ in terms] for _ in steps],
        "shares": [[1 - sum(row), *row] for row in shares],
        "cosines": [[draw.uniform(-1, 1) for _ in combinations(terms, 2)] for _ in steps],
        "whole": [draw.uniform(0, 2) for _ in steps],
    }


def sweep(steps: list[int] = STEPS, **changes: Any) -> tuple[Plan, dict[str, Record]]:
    plan = make_plan(ARMS, seeds=5, **changes)
    records = make_records(plan)
    for run, record in records.items():
        terms = list(record.config["loss"])
        start = {"loss": len(terms) + record.seed / 10, "gradient": 0.5 * len(terms)}
        seen = measured(terms, steps, record.seed)
        records[run] = dataclasses.replace(record, start=start, gradients=seen)
    return plan, records


def made(comparison: Comparison, arm: str) -> MadeOf:
    result = comparison.tasks[0].arm(arm)
    assert isinstance(result, ArmResult)
    assert result.made_of is not None
    return result.made_of


def runs_of(plan: Plan, records: dict[str, Record], arm: str) -> list[Record]:
    cell = next(cell for cell in plan.cells if cell.arm == arm)
    return [records[run] for run in cell.runs.values()]


def test_curves_are_means_over_seeds_with_students_interval() -> None:
    plan, records = sweep()
    found = made(compare(plan, records), "three")
    terms = list(ARMS["three"])
    assert [term.term for term in found.terms] == terms
    assert [(p.first, p.second) for p in found.pairs] == list(combinations(terms, 2))
    runs = runs_of(plan, records, "three")
    columns = [(t.norm, "norms", i) for i, t in enumerate(found.terms)]
    columns += [(t.share, "shares", i) for i, t in enumerate(found.terms)]
    columns += [(p.cosine, "cosines", i) for i, p in enumerate(found.pairs)]
    for curve, column, i in columns:
        assert [point.step for point in curve] == STEPS
        for at, point in enumerate(curve):
            values = [run.gradients[column][at][i] for run in runs]
            ends = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
            assert (point.n, point.mean) == (5, pytest.approx(np.mean(values)))
            assert (point.low, point.high) == pytest.approx(ends)
    assert found.loss.mean == pytest.approx(np.mean([run.start["loss"] for run in runs]))
    assert (found.gradient.mean, found.gradient.n) == (1.5, 5)


def test_many_steps_are_joined_in_rows() -> None:
    steps = list(range(3 * MOST_POINTS + 1))
    plan, records = sweep(steps)
    (term, *_) = made(compare(plan, records), "two").terms
    assert len(term.share) <= MOST_POINTS
    rows = [run.gradients["shares"] for run in runs_of(plan, records, "two")]
    first = [np.mean([row[0] for row in run[:4]]) for run in rows]
    assert term.share[0].step == pytest.approx(1.5)
    assert term.share[0].mean == pytest.approx(np.mean(first))


def test_numbers_that_are_not_there_are_left_out() -> None:
    plan, records = sweep()
    for record in runs_of(plan, records, "two"):
        seen = json.loads(json.dumps(record.gradients))
        seen["shares"][3] = [None, None]
        if record.seed == 0:
            seen["cosines"][4] = [None]
        records[record.id] = dataclasses.replace(record, gradients=seen, start={"loss": 1.0})
    found = made(compare(plan, records), "two")
    assert [p.step for p in found.terms[0].share] == [s for s in STEPS if s != 30]
    assert [p.n for p in found.pairs[0].cosine] == [4 if s == 40 else 5 for s in STEPS]
    assert (found.gradient.n, found.gradient.mean) == (0, None)


def test_nothing_measured_is_nothing_shown() -> None:
    plan, records = sweep()
    bare = {run: dataclasses.replace(r, start={}, gradients={}) for run, r in records.items()}
    comparison = compare(plan, bare)
    assert all(result.made_of is None for _, result in comparison.results())
    assert "What the loss is made of" not in report.to_html(comparison)
    assert "start_loss" not in report.to_csv(comparison)
    odd = {run: dataclasses.replace(r, gradients={"terms": 3}) for run, r in records.items()}
    assert made(compare(plan, odd), "two").terms == []  # made by another version


def test_starts_alone_say_how_to_get_the_rest() -> None:
    plan, records = sweep()
    starts = {run: dataclasses.replace(r, gradients={}) for run, r in records.items()}
    page = report.to_html(compare(plan, starts))
    assert "trainer.gradients=K" in page
    assert "Share of each weighted term" not in page
    assert "trainer.gradients=K" not in report.to_html(compare(plan, records))


def test_no_interval_while_the_sweep_runs() -> None:
    plan, records = sweep()
    found = made(compare(plan, lose(plan, records, "ce", [1], None)), "three")
    curves = [*(t.share for t in found.terms), *(p.cosine for p in found.pairs)]
    assert all(point.low is point.high is None for curve in curves for point in curve)


def test_the_page_draws_every_arm_of_several_terms() -> None:
    comparison = compare(*sweep(tasks=("digits", "iris")))
    parts = section(comparison)
    drawn = "".join(parts)
    page = Page(drawn)
    assert len([f for f in page.all("figure") if f.get("class") == "panel"]) == 2 * 2 * 2
    assert page.words.count("Share of each weighted term") == 2
    keys = drawn.count("how ")
    assert keys == 2 * (4 + 4)  # terms, and pairs of terms, of both tasks
    assert len(re.findall(r'class="curve l\d"', drawn)) == 2 * (2 + 3) + 2 * (1 + 3) + keys
    for figure in re.findall("<svg .*?</svg>", drawn, re.DOTALL):
        assert _collisions(figure) == []
        assert "nan" not in figure
    assert "<script>" not in drawn


def test_the_numbers_are_in_every_export() -> None:
    comparison = compare(*sweep())
    rows = {row["arm"]: row for row in csv.DictReader(io.StringIO(report.to_csv(comparison)))}
    found = made(comparison, "two")
    assert float(rows["two"]["start_loss"]) == found.loss.mean
    assert float(rows["two"]["start_gradient"]) == found.gradient.mean == 1
    assert float(rows["two"]["l2.share"]) == found.terms[1].share[-1].mean
    assert rows["ce"]["l2.share"] == ""
    content = json.loads(report.to_json(comparison))
    arms = {arm["arm"]: arm["made_of"] for arm in content["tasks"][0]["arms"]}
    assert arms["two"]["terms"][1]["share"][-1]["mean"] == found.terms[1].share[-1].mean
    text = report.to_markdown(comparison)
    assert "| 2.2 ± 0.16 | 1 ± 0 | 2 |" in text
    assert "<script>" not in text
