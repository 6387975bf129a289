"""All tasks of a sweep together: scores, intervals, ranks, profiles."""

import numpy as np
import pytest
from scipy import stats

from harness.compare import compare
from harness.overall import THRESHOLDS, overall, rank_test
from harness.report import terminal
from harness.report.exports import to_markdown
from harness.report.html import to_html
from harness.statistics import holm, sign_flip
from tests.harness.builders import lose, make_plan, make_records

TASKS = tuple(f"task{i}" for i in range(7))
ARMS = ("ce", "focal", "mae")
Rows = dict[str, dict[str, list[float | None]]]


def drawn(seed: int, tasks: int = 7, seeds: int = 5) -> Rows:
    """Arms that differ by a little, on tasks of quite different scales."""
    rng = np.random.default_rng(seed)
    return {
        TASKS[i]: {
            arm: [float(v) for v in 10.0**i * (rng.normal(size=seeds) + shift)]
            for arm, shift in zip(ARMS, (0.0, 0.5, 1.5), strict=True)
        }
        for i in range(tasks)
    }


def scored(values: Rows) -> np.ndarray:
    """By the definition, run by run: [task, arm, seed]."""
    found = []
    for by in values.values():
        means = [np.mean(by[arm]) for arm in ARMS]
        low, high, middle = min(means), max(means), np.mean(means)
        luck = [np.mean(column) - middle for column in zip(*by.values(), strict=True)]
        found.append(
            [
                [(v - own - low) / (high - low) for v, own in zip(by[arm], luck, strict=True)]
                for arm in ARMS
            ]
        )
    return np.array(found)


@pytest.mark.parametrize("seed", range(3))
def test_numbers_are_those_of_their_definitions(seed: int) -> None:
    values = drawn(seed)
    given, scores = overall(values, "ce", higher=True), scored(values)
    assert given is not None
    means = scores.mean(2)
    ranks = np.mean([stats.rankdata(-row) for row in means], axis=0)
    gains = {arm: means[:, i] - means[:, 0] for i, arm in enumerate(ARMS)}
    ps = dict(zip(ARMS[1:], holm([sign_flip(gains[arm]) for arm in ARMS[1:]]), strict=True))
    assert [arm.iqm for arm in given.arms] == sorted((a.iqm for a in given.arms), reverse=True)
    for each in given.arms:
        i = ARMS.index(each.arm)
        assert each.iqm == pytest.approx(stats.trim_mean(scores[:, i], 0.25, axis=None))
        assert each.rank == pytest.approx(ranks[i])
        assert each.gain == pytest.approx(gains[each.arm].mean())
        assert each.p_holm == ps.get(each.arm)
        shares = [np.mean([s >= t for s in scores[:, i].flat]) for t in THRESHOLDS]
        assert each.profile == pytest.approx(shares)
        assert each.low is not None
        assert each.high is not None
        assert each.low < each.iqm < each.high


def test_intervals_are_those_of_a_bootstrap_within_tasks() -> None:
    """Against draws of another generator: 4,000 of them leave 3% of an interval's length."""
    values = drawn(3)
    given, scores = overall(values, "ce", higher=True), scored(values)
    assert given is not None
    rng, found = np.random.default_rng(9), []
    for _ in range(4000):
        again = np.array([task[:, rng.integers(0, 5, 5)] for task in scores])
        found.append([stats.trim_mean(again[:, i], 0.25, axis=None) for i in range(3)])
    low, high = np.percentile(found, [2.5, 97.5], axis=0)
    for each in given.arms:
        i = ARMS.index(each.arm)
        assert each.low == pytest.approx(low[i], abs=0.06 * (high[i] - low[i]))
        assert each.high == pytest.approx(high[i], abs=0.06 * (high[i] - low[i]))


def test_ranks_are_tested_as_elsewhere() -> None:
    posthocs = pytest.importorskip("scikit_posthocs")
    means = scored(drawn(1)).mean(2)
    p, apart = rank_test(means)
    assert p == pytest.approx(stats.friedmanchisquare(*means.T).pvalue)
    ranks = np.mean([stats.rankdata(-row) for row in means], axis=0)
    theirs = posthocs.posthoc_nemenyi_friedman(means).to_numpy()
    for i in range(3):
        for j in range(i):
            assert (abs(ranks[i] - ranks[j]) >= apart) == (theirs[i, j] <= 0.05)
    # Demšar's table 5: q is 2.343 for 3 arms and 2.728 for 5
    assert rank_test(np.random.default_rng(0).random((10, 3)))[1] == pytest.approx(
        2.343 * (12 / 60) ** 0.5, rel=1e-3
    )
    assert rank_test(np.random.default_rng(0).random((10, 5)))[1] == pytest.approx(
        2.728 * (30 / 60) ** 0.5, rel=1e-3
    )


def test_units_and_the_direction_do_not_matter() -> None:
    values = drawn(4)
    turned = {
        task: {arm: [7 - 3 * v for v in row if v is not None] for arm, row in by.items()}
        for task, by in values.items()
    }
    one, other = overall(values, "ce", higher=True), overall(turned, "ce", higher=False)
    assert one is not None
    assert other is not None
    for mine, theirs in zip(one.arms, other.arms, strict=True):
        assert mine.arm == theirs.arm
        assert mine.iqm == pytest.approx(theirs.iqm)
        assert mine.rank == theirs.rank


def test_a_lost_run_scores_as_the_worst_of_its_task() -> None:
    values: Rows = {task: {"ce": [1.0, 2.0], "focal": [5.0, 6.0]} for task in TASKS}
    values["task2"] = {"ce": [1.0, 2.0, 3.0], "focal": [5.0, None, 7.0]}
    given = overall({"a": values["task2"], "b": values["task2"]}, "ce", higher=True)
    assert given is not None
    scores = {arm.arm: arm.profile for arm in given.arms}
    assert scores["ce"][0] == 1.0  # each at 0, once the seeds' luck is out
    assert scores["focal"][0] == 1.0
    assert scores["focal"][-1] == pytest.approx(2 / 3)  # its lost runs are at 0, as the worst


def test_what_cannot_be_said_is_not() -> None:
    assert overall(drawn(0, tasks=1), "ce", higher=True) is None
    dead: Rows = drawn(0)
    dead["task1"]["mae"] = [None] * 5
    assert overall(dead, "ce", higher=True) is None
    four, five = (overall(drawn(0, tasks=n), "ce", higher=True) for n in (4, 5))
    assert four is not None
    assert five is not None
    assert four.friedman is None
    assert five.friedman is not None
    assert all(arm.p_holm is None for arm in five.arms)
    few = overall(drawn(0, seeds=2), "ce", higher=True)
    assert few is not None
    assert all(arm.low is None for arm in few.arms)
    same: Rows = {task: {arm: [1.0, 1.0, 1.0] for arm in ARMS} for task in TASKS}
    equal = overall(same, "ce", higher=True)
    assert equal is not None
    assert {(arm.iqm, arm.rank, arm.gain) for arm in equal.arms} == {(0.5, 2.0, 0.0)}
    assert equal.friedman == 1.0


def test_reports_show_it_when_every_run_has_ended() -> None:
    plan = make_plan(tasks=TASKS, seeds=4)
    records = make_records(plan, {"focal": 0.01})
    comparison = compare(plan, records)
    page, text, plain = to_html(comparison), to_markdown(comparison), terminal(comparison)
    assert page.count("share of runs that score at least so much") == len(plan.arms)
    for shown in (page, text, plain):
        assert "mean rank" in shown
        assert "Nemenyi" in shown
    waiting = compare(plan, lose(plan, records, "focal", [0], None))
    assert waiting.overall is None
    assert "mean rank" not in to_html(waiting)
