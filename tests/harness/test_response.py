"""How a metric answers to a number of the config, and to another metric, against references."""

import dataclasses
import itertools
import math
import random
import re
from typing import Any

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from harness.compare import compare
from harness.comparison import Comparison, Response, TaskResult
from harness.measured import Slope, Spread
from harness.plan import Plan
from harness.record import Record
from harness.report import response as told
from harness.report import to_html, to_markdown, tradeoff
from harness.report.figures import NARROW, WIDE, response
from harness.response import agreement, among_best, front, interval, judged
from harness.response import tradeoff as chosen
from harness.summary import responses
from tests.harness.builders import lose, make_plan, make_records, tuned_plan
from tests.harness.test_report import _collisions

WEIGHTS = (0.0, 0.01, 0.1, 1.0, 10.0)
RISE = dict(zip(WEIGHTS, (-0.2, -0.05, 0.0, 0.001, -0.1), strict=True))


def name(weight: float) -> str:
    return f"l1={weight:g}"


def sweep(seeds: int = 8, **changes: Any) -> tuple[Plan, dict[str, Record]]:
    """Arms that differ in one weight; the best two of them by no more than noise."""
    ce = {"cross_entropy": {"weight": 1.0}}
    arms = {"ce": ce} | {name(w): {**ce, "l1": {"weight": w}} for w in WEIGHTS}
    plan = make_plan(arms, seeds=seeds, **changes)
    return plan, make_records(plan, {name(w): gain for w, gain in RISE.items()})


def task_of(plan: Plan, records: dict[str, Record], against: str | None = None) -> TaskResult:
    return compare(plan, records, against).tasks[0]


def values_of(task: TaskResult, arm: str) -> list[float]:
    result = task.arm(arm)
    assert result is not None
    return [run.value for run in result.runs if run.value is not None]


# Which arms are a row


def test_arms_tuned_anew_or_chosen_apart_are_no_row() -> None:
    """Only what was trained counts: one config per arm, and one number between two of them."""
    plan, _ = sweep()
    (given,) = responses(plan.cells)
    assert given.values == list(WEIGHTS)
    variants = {seed: {**plan.cells[0].config, "optimizer": {"lr": 0.1}} for seed in plan.seeds}
    anew = [dataclasses.replace(cell, variants=variants) for cell in plan.cells]
    assert responses(anew) == []
    assert responses(tuned_plan({c.arm: c.config["loss"] for c in plan.cells}).cells) == []
    apart = [
        dataclasses.replace(cell, config={**cell.config, "optimizer": {"lr": 0.1}})
        if cell.arm == name(0.1)
        else cell
        for cell in plan.cells
    ]
    (left,) = responses(apart)
    assert left.values == [w for w in WEIGHTS if w != 0.1]


# The plateau


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("higher", [True, False])
def test_the_best_are_those_of_scipy_and_statsmodels(seed: int, higher: bool) -> None:
    draw = np.random.default_rng(seed)
    table = draw.normal(size=(5, 6)) + draw.normal(size=6) + draw.uniform(0, 2, size=(5, 1))
    values = {f"arm{i}": dict(enumerate(map(float, row))) for i, row in enumerate(table)}
    found = among_best(values, higher=higher)
    leader = int((np.argmax if higher else np.argmin)(table.mean(axis=1)))
    others = [i for i in range(5) if i != leader]
    ps = [stats.ttest_rel(table[i], table[leader]).pvalue for i in others]
    kept = ~multipletests(ps, alpha=0.05, method="holm")[0]
    expected = [f"arm{i}" for i, keep in zip(others, kept, strict=True) if keep]
    assert found == [f"arm{leader}", *expected]


def test_a_plateau_is_an_unbroken_row_around_the_best() -> None:
    plan, records = sweep()
    task = task_of(plan, records)
    (given,) = task.responses
    assert (given.key, given.values) == ("loss.l1.weight", list(WEIGHTS))
    means = {w: np.mean(values_of(task, name(w))) for w in WEIGHTS}
    assert given.best == max(means, key=lambda w: means[w])
    assert given.plateau == [0.1, 1.0]
    assert given.apart == []
    for arm, ends in zip(given.arms, given.intervals, strict=True):
        mine = values_of(task, arm)
        expected = stats.t.interval(0.95, len(mine) - 1, np.mean(mine), stats.sem(mine))
        assert ends == pytest.approx(expected)


def test_what_lies_beyond_a_worse_value_is_no_part_of_it() -> None:
    """Arm c is clearly worse; d is too noisy to be told from the best."""
    noise = [0.0, 0.01, -0.01, 0.02]
    values = {
        "a": dict(enumerate([0.80, 0.81, 0.80, 0.83])),
        "b": dict(enumerate([0.82, 0.79, 0.81, 0.80])),
        "c": dict(enumerate([0.50 + x for x in noise])),
        "d": dict(enumerate([0.10, 0.95, 0.90, 0.20])),
    }
    given = Response("k", list("abcd"), [1.0, 2.0, 3.0, 4.0])
    found = judged(given, values, 4, higher=True)
    assert (found.best, found.plateau, found.apart) == (1.0, [1.0, 2.0], [4.0])
    turned = {arm: {s: -v for s, v in some.items()} for arm, some in values.items()}
    lower = judged(given, turned, 4, higher=False)
    assert (lower.best, lower.plateau, lower.apart, lower.slope) == (
        found.best, found.plateau, found.apart, found.slope,
    )  # fmt: skip


def test_no_plateau_before_the_end_or_of_one_seed_or_of_lost_runs() -> None:
    plan, records = sweep()
    (pending,) = task_of(plan, lose(plan, records, name(1.0), [1], None)).responses
    assert (pending.best, pending.plateau, pending.intervals, pending.slope) == (None, [], [], None)
    (one,) = task_of(*sweep(seeds=1)).responses
    assert (one.best, one.plateau) == (None, [])
    assert one.intervals == [None] * len(WEIGHTS)
    (lost,) = task_of(plan, lose(plan, records, name(1.0), [1], "failed")).responses
    assert (lost.best, lost.plateau) == (0.1, [0.1])  # an arm with a lost run is not the best
    assert lost.slope is None  # nor is known how fast the metric falls towards it
    assert all(lost.intervals)
    nothing = lose(plan, records, name(1.0), plan.seeds, "failed")
    (gone,) = task_of(plan, nothing).responses
    assert gone.intervals[WEIGHTS.index(1.0)] is None
    assert gone.best == 0.1


# How fast it falls


def expected_fall(task: TaskResult, best: str, other: str, gap: float) -> tuple[Any, Any, Any]:
    a, b = np.array(values_of(task, best)), np.array(values_of(task, other))
    ends = stats.ttest_rel(a, b).confidence_interval(0.95)
    return float((a - b).mean() / gap), float(ends.low / gap), float(ends.high / gap)


def test_the_fall_is_per_decade_towards_the_steeper_side() -> None:
    task = task_of(*sweep())
    (given,) = task.responses
    assert given.best == 1.0
    sides = {w: expected_fall(task, name(1.0), name(w), 1.0) for w in (0.1, 10.0)}
    steeper = max(sides, key=lambda w: sides[w][0])
    slope = given.slope
    assert slope is not None
    assert (slope.towards, slope.per) == (steeper, "decade")
    assert (slope.fall, slope.low, slope.high) == pytest.approx(sides[steeper])


def test_a_zero_lies_no_decades_away_and_near_values_count_in_units() -> None:
    rows = {"a": [0.5, 0.6, 0.7], "b": [0.9, 0.8, 1.0], "c": [0.1, 0.2, 0.2]}
    values = {arm: dict(enumerate(row)) for arm, row in rows.items()}

    def slope(*numbers: float, order: str = "abc") -> Slope | None:
        return judged(Response("k", list(order), list(numbers)), values, 3, higher=True).slope

    def mean(a: str, b: str) -> float:
        return float(np.mean(rows[a]) - np.mean(rows[b]))

    decades = slope(0.0, 0.01, 1.0)
    assert decades is not None
    assert (decades.towards, decades.per) == (1.0, "decade")
    assert decades.fall == pytest.approx(mean("b", "c") / 2)
    units = slope(0.2, 0.5, 0.7)
    assert units is not None
    assert (units.towards, units.per) == (0.7, "unit")
    assert units.fall == pytest.approx(mean("b", "c") / 0.2)
    assert slope(0.0, 0.01, 1.0, order="bac") is None  # the best is at 0
    end = slope(1.0, 2.0, 3.0, order="cab")
    assert end is not None
    assert end.towards == 2.0


@pytest.mark.parametrize("beside", [0.1, 10.0])
def test_over_a_value_that_lost_runs_there_is_no_fall(beside: float) -> None:
    """The mean of the seeds that are left may even be better."""
    plan, records = sweep()
    task = task_of(plan, records := lose(plan, records, name(beside), plan.seeds[1:], "diverged"))
    (given,) = task.responses
    assert (given.best, given.slope) == (1.0, None)
    said = told.sentence(compare(plan, records), task, given)
    assert f"{beside:g} beside it lost runs" in said
    assert "falls" not in said


# Two metrics


@pytest.mark.parametrize("higher", [*itertools.product([True, False], repeat=2)])
@pytest.mark.parametrize("seed", range(25))
def test_the_front_is_that_of_brute_force(seed: int, higher: tuple[bool, bool]) -> None:
    """Small whole numbers, so that there are ties."""
    draw = random.Random(seed)
    points = {f"p{i}": (draw.randint(0, 5), draw.randint(0, 5)) for i in range(draw.randint(1, 12))}

    def beats(one: tuple[int, int], other: tuple[int, int]) -> bool:
        gains = [
            (a - b) * (1 if more else -1) for a, b, more in zip(one, other, higher, strict=True)
        ]
        return min(gains) >= 0 and max(gains) > 0

    expected = [name for name, p in points.items() if not any(beats(q, p) for q in points.values())]
    assert front(points, higher) == expected
    assert expected  # there is always one


@pytest.mark.parametrize("seed", range(10))
def test_agreement_is_kendalls_tau(seed: int) -> None:
    draw = np.random.default_rng(seed)
    x, y = draw.normal(size=(2, 9))
    tau = stats.kendalltau(x, y).statistic
    points = [*zip(x.tolist(), y.tolist(), strict=True)]
    assert agreement(points, (True, True)) == pytest.approx(tau)
    assert agreement(points, (False, True)) == pytest.approx(-tau)


MEANS = {"a": 0.9, "b": 0.8, "c": 0.7}
WAYS: Any = {f"{part}/{m}": "higher" for part in ("test", "val") for m in ("x", "y", "z", "same")}
WAYS["test/low"] = "lower"


def spreads(**given: tuple[float, float, float]) -> dict[str, dict[str, Spread]]:
    return {
        arm: {f"test/{m}": Spread(5, row[i], 0.1) for m, row in given.items()}
        for i, arm in enumerate(MEANS)
    }


def test_the_metric_that_disagrees_most_is_shown_and_another_on_demand() -> None:
    others = spreads(y=(3, 2, 1), z=(2, 1, 3), unknown=(1, 2, 3), same=(1, 1, 1))
    found = chosen("test/x", MEANS, others, WAYS, None, 5)
    assert found is not None
    assert (found.metric, found.asked, found.front) == ("test/z", False, ["a", "c"])
    assert found.agreement == pytest.approx(-1 / 3)
    asked = chosen("test/x", MEANS, others, WAYS, "test/y", 5)
    assert asked is not None
    assert (asked.metric, asked.asked, asked.agreement, asked.front) == ("test/y", True, 1, ["a"])
    assert chosen("test/x", MEANS, spreads(y=(3, 2, 1)), WAYS, None, 5) is None  # all agree
    turned = chosen("test/x", MEANS, spreads(low=(3, 2, 1)), WAYS, None, 5)
    assert turned is not None
    assert (turned.agreement, turned.front) == (-1, ["a", "b", "c"])
    assert chosen("test/x", {"a": 1.0, "b": 2.0}, others, WAYS, None, 5) is None  # too few
    gap = {arm: known for arm, known in others.items() if arm != "c"} | {"c": {}}
    assert chosen("test/x", MEANS, gap, WAYS, None, 5) is None
    some = chosen("test/x", MEANS, gap, WAYS, "test/z", 5)
    assert some is not None
    assert some.front == ["a"]
    others["a"] = {metric: dataclasses.replace(s, n=4) for metric, s in others["a"].items()}
    lost = chosen("test/x", MEANS, others, WAYS, "test/z", 5)
    assert lost is not None
    assert lost.front == ["b", "c"]  # a lost a run


@pytest.mark.parametrize(
    ("metric", "hint"),
    [("test/acuracy", "test/nll|test/ece|val/accuracy"), ("test/accuracy", "no metric"), ("?", "")],
)
def test_an_unknown_metric_is_refused_with_the_nearest(metric: str, hint: str) -> None:
    with pytest.raises(ValueError, match=f"--against .*{hint}") as caught:
        compare(*sweep(), against=metric)
    assert "\n" not in str(caught.value)


def test_an_interval_is_students() -> None:
    values = [0.3, 0.5, 0.1, 0.9]
    spread = Spread(4, float(np.mean(values)), float(np.std(values, ddof=1)))
    expected = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert interval(spread) == pytest.approx(expected)
    assert interval(Spread(1, 0.3, None)) is None


# Steps to the baseline's score


def test_steps_to_the_score_by_hand() -> None:
    """Seed 0 gets there at step 20, dips, and counts; seed 1 at 30; seed 2 never."""
    plan, _ = sweep(seeds=3)
    curves = {
        "ce": [[0.5, 0.6, 0.7], [0.9, 0.1, 0.6], [0.1, 0.2, 0.95]],
        name(0.1): [[0.6, 0.7, 0.2], [0.5, 0.55, 0.6], [0.3, 0.4, 0.94]],
    }
    records = make_records(plan)
    for arm, rows in curves.items():
        cell = next(cell for cell in plan.cells if cell.arm == arm)
        for seed, row in enumerate(rows):
            points = [{"step": 10.0 * i, "val/accuracy": v} for i, v in enumerate(row, 1)]
            run = cell.runs[seed]
            records[run] = dataclasses.replace(records[run], curve=points)
    task = task_of(plan, records)
    arm, base = task.arm(name(0.1)), task.arm("ce")
    assert arm is not None
    assert base is not None
    assert (arm.cost.steps_to_baseline, arm.cost.reached) == (25, 2)
    assert (base.cost.steps_to_baseline, base.cost.reached) == (30, 3)  # median of 30, 10, 30
    page = to_html(compare(plan, records))
    assert "25 (2 of 3)" in page


def test_seconds_are_without_those_of_looking_at_gradients() -> None:
    plan, records = sweep()
    plain = task_of(plan, records).arm("ce")
    looked = {
        run: dataclasses.replace(
            r, seconds={**r.seconds, "total": r.seconds["total"] + 5, "gradients": 5.0}
        )
        for run, r in records.items()
    }
    measured = task_of(plan, looked).arm("ce")
    assert plain is not None
    assert measured is not None
    assert measured.cost.total_seconds == pytest.approx(plain.cost.total_seconds)


# On the page


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return compare(*sweep())


def test_the_sentence_names_best_plateau_and_fall(comparison: Comparison) -> None:
    (task,) = comparison.tasks
    (given,) = task.responses
    assert given.slope is not None
    words = told.sentence(comparison, task, given)
    best = task.arm(name(1.0))
    assert best is not None
    assert words.startswith(f"best at 1 ({best.mean:.4f})")
    assert "plateau 0.1 to 1" in words
    assert "per decade towards 10" in words
    assert "value tried" not in words
    for text in (to_html(comparison), to_markdown(comparison).replace("\\", "")):
        assert words in text
    edge = dataclasses.replace(given, best=10.0, plateau=[10.0], apart=[0.1])
    said = told.sentence(comparison, task, edge)
    assert "10 alone" in said
    assert "beyond a value that is worse or lost runs: 0.1" in said
    assert "the largest value tried" in said


def test_a_running_sweep_says_so() -> None:
    plan, records = sweep()
    running = compare(plan, lose(plan, records, name(1.0), [1], None))
    page = to_html(running)
    assert "no plateau, since the sweep still runs" in page
    assert 'class="plateau"' not in page
    assert 'class="ring"' not in page
    assert 'class="reach"' not in page


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_the_response_is_drawn_with_band_ring_and_plateau(
    comparison: Comparison, width: int
) -> None:
    (task,) = comparison.tasks
    drawing = response(comparison, task, task.responses[0], width)
    assert drawing.count('class="ring"') == drawing.count('class="plateau"') == 1
    assert drawing.count('class="band"') == 1
    start, end = (
        float(re.search(rf'{key}="([\d.]+)"[^>]*class="plateau"', drawing)[1])  # type: ignore[index]
        for key in ("x1", "x2")
    )
    assert 0 < start < end < width
    assert _collisions(drawing) == []


CROWD = {f"arm {i}": (0.9 - 0.0001 * (i % 4), 0.5 + 0.0001 * (i % 3)) for i in range(11)}
SPREAD = {f"arm {i}": (math.cos(i), math.sin(i)) for i in range(11)}
FAR = {"a": (0.9, 0.5), "b": (0.91, 0.4), "c": (0.92, 0.3), "d": (0.1, 9e9), "e": (0.9, -1e9)}
ALL = [CROWD, SPREAD, FAR, {f"same {i}": (0.5, float(i > 0)) for i in range(6)}]


@pytest.mark.parametrize("points", ALL)
@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_numbers_beside_points_do_not_collide(
    comparison: Comparison, points: dict[str, tuple[float, float]], width: int
) -> None:
    whole = comparison.tasks[0].arms[0]
    arms = [
        dataclasses.replace(whole, arm=arm, mean=x, sd=0.001, done=5, planned=5,
                            others={"test/nll": Spread(5, y, 0.001)})
        for arm, (x, y) in points.items()
    ]  # fmt: skip
    means, others = {a.arm: a.mean or 0.0 for a in arms}, {a.arm: a.others for a in arms}
    given = chosen("test/accuracy", means, others, comparison.directions, "test/nll", 5)
    assert given is not None
    task = TaskResult("digits", arms, None, [], tradeoff=given)
    drawing = tradeoff.scatter(comparison, task, given, width)
    numbers = re.findall(r'class="t small"[^>]*>(\d+)<', drawing)
    assert sorted(map(int, numbers)) == list(range(1, len(points) + 1))
    assert _collisions(drawing) == []
    found = front(points, (True, False))
    assert drawing.count('class="mark better"') + drawing.count('class="mark none"') >= len(found)
    assert [row[-1] for row in tradeoff.rows(task, given)].count("✓ front") == len(found)
    pixels = [float(x) for x in re.findall(r'(?:c?x[12]?)="([-\d.]+)"', drawing)]
    assert min(pixels) >= 0
    assert max(pixels) <= width


def test_an_arm_that_lost_runs_is_on_no_front() -> None:
    """It is drawn and named; here it has the best seed alone, and the best means."""
    plan, records = sweep()
    clear = make_records(plan, {name(1.0): 0.05})
    records = lose(plan, clear, name(1.0), plan.seeds[1:], "diverged")
    for found, whole in ((clear, True), (records, False)):
        comparison = compare(plan, found, "test/nll")
        given = comparison.tasks[0].tradeoff
        assert given is not None
        assert (name(1.0) in given.front) is whole
        assert given.front
        said = tradeoff.sentence(comparison, given)
        assert (f"incomplete and left out: {name(1.0)}." in said) is not whole
        marks = {row[0]: row[-1] for row in tradeoff.rows(comparison.tasks[0], given)}
        assert marks[name(1.0)] == ("✓ front" if whole else "incomplete")
        drawing = tradeoff.scatter(comparison, comparison.tasks[0], given, WIDE)
        assert drawing.count('class="mark"') == (not whole)
    none = compare(plan, {run: r for run, r in clear.items() if r.seed}, "test/nll")
    assert none.tasks[0].tradeoff is not None
    assert "the means: no arm; incomplete" in tradeoff.sentence(none, none.tasks[0].tradeoff)


def test_the_page_says_why_this_metric() -> None:
    plan, records = sweep()
    for run, record in records.items():  # the better, the more costly
        metrics = {**record.metrics, "test/nll": record.metrics["test/accuracy"]}
        records[run] = dataclasses.replace(record, metrics=metrics)
    page = to_html(compare(plan, records))
    assert "Two metrics against each other" in page
    assert "orders the arms least like the headline" in page
    asked = compare(plan, records, "val/nll")
    assert "val/nll (lower is better) was asked for" in to_html(asked)
    assert "val/nll against test/accuracy, Pareto front" in to_markdown(asked).replace("\\", "")
