import dataclasses
import json
import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from scipy import stats

from harness.compare import compare
from harness.comparison import ArmResult, Comparison
from harness.plan import Plan, Tuning
from harness.record import Record
from tests.harness.builders import ARMS, lose, make_plan, make_record, make_records

Records = dict[str, Record]


def arm(comparison: Comparison, name: str, task: int = 0) -> ArmResult:
    found = comparison.tasks[task].arm(name)
    assert found is not None
    return found


def texts(comparison: Comparison, level: str) -> str:
    return "\n".join(note.text for note in comparison.notes if note.level == level)


def changed(plan: Plan, records: Records, name: str, seeds: list[int], **changes: Any) -> Records:
    """The records with some runs of one arm altered."""
    cells = [cell for cell in plan.cells if cell.arm == name]
    ids = [cell.runs[seed] for cell in cells for seed in seeds]
    return records | {run: dataclasses.replace(records[run], **changes) for run in ids}


def values(records: Records, plan: Plan, name: str) -> list[float]:
    cell = next(cell for cell in plan.cells if cell.arm == name)
    return [records[cell.runs[seed]].metrics[plan.metric] for seed in plan.seeds]


@pytest.fixture
def plan() -> Plan:
    return make_plan()


@pytest.fixture
def records(plan: Plan) -> Records:
    return make_records(plan, {"focal": 0.02, "mae": -0.06})


def test_numbers_agree_with_scipy(plan: Plan, records: Records) -> None:
    comparison = compare(plan, records)
    ps = {}
    for name in ("focal", "mae"):
        mine, base = values(records, plan, name), values(records, plan, "ce")
        expected = stats.ttest_rel(mine, base)
        contrast = arm(comparison, name).contrast
        assert contrast is not None
        interval = expected.confidence_interval(0.95)
        assert (contrast.low, contrast.high) == pytest.approx((interval.low, interval.high))
        assert contrast.p == pytest.approx(expected.pvalue)
        assert contrast.mean == pytest.approx(np.mean(mine) - np.mean(base))
        assert arm(comparison, name).sd == pytest.approx(np.std(mine, ddof=1))
        ps[name] = expected.pvalue
    first = min(ps, key=lambda name: ps[name])
    assert comparison.comparisons == 2
    assert arm(comparison, first).contrast.p_holm == pytest.approx(2 * ps[first])  # type: ignore[union-attr]


def test_verdicts_and_ranking(plan: Plan, records: Records) -> None:
    comparison = compare(plan, records)
    assert [result.arm for result in comparison.tasks[0].arms] == ["focal", "ce", "mae"]
    assert [result.text for result in comparison.tasks[0].arms] == ["better", "baseline", "worse"]
    assert [result.best for result in comparison.tasks[0].arms] == [True, False, False]
    assert comparison.sentence == "Against ce on test/accuracy: focal is better; mae is worse."


def test_better_means_better_when_lower_is_better() -> None:
    plan = make_plan(metric="test/nll")  # 1.2 - accuracy
    comparison = compare(plan, make_records(plan, {"focal": 0.02, "mae": -0.06}))
    assert [result.arm for result in comparison.tasks[0].arms] == ["focal", "ce", "mae"]
    assert arm(comparison, "focal").text == "better"
    assert arm(comparison, "focal").contrast.mean < 0  # type: ignore[union-attr]
    assert arm(comparison, "focal").contrast.improvement > 0.9  # type: ignore[union-attr]
    assert arm(comparison, "mae").text == "worse"
    assert arm(comparison, "mae").contrast.improvement == 0  # type: ignore[union-attr]


def test_without_a_difference_it_says_how_many_seeds() -> None:
    plan = make_plan()
    found = arm(compare(plan, make_records(plan, {"focal": 0.0015}, noise=0.002)), "focal")
    assert found.verdict == "not enough evidence"
    contrast = found.contrast
    assert contrast is not None
    assert contrast.seeds_needed is not None
    assert len(plan.seeds) < contrast.seeds_needed < 100  # from 100 on it is rounded
    assert found.text == f"not enough evidence (~{contrast.seeds_needed} seeds)"


def test_no_practical_difference_needs_a_margin() -> None:
    gains = {"focal": 0.002}
    without, wide = make_plan(), make_plan(margin=0.02)
    assert arm(compare(without, make_records(without, gains)), "focal").verdict != (
        "no practical difference"
    )
    comparison = compare(wide, make_records(wide, gains))
    assert arm(comparison, "focal").text == "no practical difference"
    narrow = make_plan(margin=1e-5)
    assert arm(compare(narrow, make_records(narrow, gains)), "focal").verdict != (
        "no practical difference"
    )


def test_one_seed_is_never_enough() -> None:
    plan = make_plan(seeds=1)
    comparison = compare(plan, make_records(plan, {"focal": 0.3}))
    assert arm(comparison, "focal").text == "not enough evidence (only 1 seed)"
    assert arm(comparison, "focal").contrast.p is None  # type: ignore[union-attr]
    assert not any(result.best for _, result in comparison.results())


@pytest.mark.parametrize("seeds", [2, 3])
def test_two_seeds_are_never_enough(seeds: int) -> None:
    """Differences so alike that the t test is sure: two may agree by chance, three are believed."""
    plan = make_plan(seeds=seeds)
    records = make_records(plan)
    for cell in plan.cells:
        for seed, run in cell.runs.items():
            better = 0.1 + 1e-5 * seed if cell.arm == "focal" else 0.0
            metrics = records[run].metrics | {plan.metric: 0.5 + better}
            records[run] = dataclasses.replace(records[run], metrics=metrics)
    judged = arm(compare(plan, records), "focal")
    assert judged.contrast is not None
    assert judged.contrast.p_holm is not None
    assert judged.contrast.p_holm < 0.01
    assert judged.verdict == ("better" if seeds == 3 else "not enough evidence")


def test_two_seeds_that_agree_by_rounding_prove_nothing() -> None:
    plan = make_plan(seeds=2)
    records = {
        cell.runs[seed]: make_record(plan, cell, seed, 0.75 + 0.125 * (cell.arm == "focal"))
        for cell in plan.cells
        for seed in plan.seeds
    }
    assert arm(compare(plan, records), "focal").text == "not enough evidence (only 2 seeds)"


@pytest.mark.parametrize("status", ["failed", "diverged"])
def test_an_arm_that_lost_a_run_is_never_better(plan: Plan, records: Records, status: str) -> None:
    comparison = compare(plan, lose(plan, records, "focal", [3], status))
    found = arm(comparison, "focal")
    assert found.verdict == "not enough evidence"
    assert found.text == f"not enough evidence (better where done, 1 of 10 {status})"
    assert not found.best
    assert (found.done, getattr(found, status), found.planned) == (9, 1, 10)
    assert len(found.contrast.seeds) == 9  # type: ignore[union-attr]
    assert "9 of 10 seeds are done by both ce and focal" in texts(comparison, "note")


def test_an_arm_that_lost_a_run_may_be_worse(plan: Plan, records: Records) -> None:
    lost = lose(plan, lose(plan, records, "mae", [3], "failed"), "mae", [4], "diverged")
    assert arm(compare(plan, lost), "mae").text == "worse (1 failed and 1 diverged of 10)"


def test_none_is_worse_than_a_baseline_that_lost_runs(plan: Plan, records: Records) -> None:
    comparison = compare(plan, lose(plan, records, "ce", [0, 1], "failed"))
    assert arm(comparison, "focal").text == "better (baseline: 2 of 10 failed)"
    assert arm(comparison, "mae").text == (
        "not enough evidence (worse where done, baseline: 2 of 10 failed)"
    )
    assert arm(comparison, "ce").text == "baseline (2 of 10 failed)"


def test_an_arm_without_any_result(plan: Plan, records: Records) -> None:
    comparison = compare(plan, lose(plan, records, "mae", plan.seeds, "diverged"))
    found = arm(comparison, "mae")
    assert (found.verdict, found.text) == ("no result", "no result (10 of 10 diverged)")
    assert found.mean is None
    assert comparison.tasks[0].arms[-1] is found
    assert comparison.comparisons == 2  # the family was fixed before the runs failed


def test_seeds_done_by_neither_side_together(plan: Plan, records: Records) -> None:
    lost = lose(plan, lose(plan, records, "ce", range(5), "failed"), "mae", range(5, 10), "failed")
    found = arm(compare(plan, lost), "mae")
    assert found.contrast is None
    assert found.text.startswith("not enough evidence (no seed done by both")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e200])
def test_an_unusable_metric_counts_as_diverged(plan: Plan, records: Records, value: float) -> None:
    metrics = {"test/accuracy": value, "test/nll": value}
    comparison = compare(plan, changed(plan, records, "mae", [2], metrics=metrics))
    found = arm(comparison, "mae")
    assert (found.done, found.diverged) == (9, 1)
    assert found.runs[2].error == f"test/accuracy is {value}"
    assert found.others["test/nll"].mean is None
    json.dumps(dataclasses.asdict(comparison), allow_nan=False)


def test_a_missing_metric_counts_as_failed(plan: Plan, records: Records) -> None:
    comparison = compare(plan, changed(plan, records, "mae", [2], metrics={"test/nll": 1.0}))
    found = arm(comparison, "mae")
    assert (found.done, found.failed) == (9, 1)
    assert found.runs[2].error == "the record has no test/accuracy"


def test_no_p_and_no_verdict_while_runs_are_pending(plan: Plan, records: Records) -> None:
    comparison = compare(plan, lose(plan, records, "mae", [9], None))
    assert comparison.sentence == "29 of 30 runs are there; no verdict before the last."
    assert [arm(comparison, name).text for name in ARMS] == [
        "10 of 10 runs",
        "10 of 10 runs",
        "9 of 10 runs",
    ]
    for _, result in comparison.results():
        assert result.verdict == "pending"
        assert not result.best
        assert all(point.low is None for point in result.curve)
        if result.contrast:
            told = dataclasses.asdict(result.contrast)
            shown = {key for key, value in told.items() if value not in (None, False)}
            assert shown == {"seeds", "differences", "mean", "sd"}


def test_nothing_done_yet(plan: Plan) -> None:
    comparison = compare(plan, {})
    assert (comparison.done, comparison.pending) == (0, 30)
    assert all(result.mean is None for _, result in comparison.results())


def test_holm_counts_every_comparison_of_the_sweep() -> None:
    one, three = make_plan(), make_plan(tasks=("a", "b", "c"))
    assert compare(one, make_records(one)).comparisons == 2
    comparison = compare(three, make_records(three, {"mae": -0.06}))
    assert comparison.comparisons == 6
    ps = [c for _, r in comparison.results() if (c := r.contrast)]
    least = min(ps, key=lambda c: c.p or 1)
    assert least.p_holm == pytest.approx(6 * least.p)  # type: ignore[operator]


def test_sign_flip_from_six_pairs_and_flagged_when_it_disagrees() -> None:
    few, enough = make_plan(seeds=5), make_plan(seeds=6)
    assert arm(compare(few, make_records(few)), "mae").contrast.p_sign_flip is None  # type: ignore[union-attr]
    assert arm(compare(enough, make_records(enough)), "mae").contrast.p_sign_flip is not None  # type: ignore[union-attr]
    # one seed far off in the same direction: the t test sees noise, the signs agree on all seeds
    gains = [0.01, 0.011, 0.012, 0.009, 0.01, 0.2]
    records = {
        cell.runs[seed]: make_record(
            enough, cell, seed, 0.5 + seed / 100 + (gains[seed] if cell.arm == "focal" else 0.0)
        )
        for cell in enough.cells
        for seed in enough.seeds
    }
    contrast = arm(compare(enough, records), "focal").contrast
    assert contrast is not None
    assert contrast.p > 0.05  # type: ignore[operator]
    assert contrast.p_sign_flip == pytest.approx(2 / 2**6)
    assert contrast.disagrees


def test_bit_identical_arms_raise_an_alarm(plan: Plan, records: Records) -> None:
    cells = {cell.arm: cell for cell in plan.cells}
    for seed in plan.seeds:
        twin = records[cells["ce"].runs[seed]]
        records[cells["mae"].runs[seed]] = dataclasses.replace(twin, id=cells["mae"].runs[seed])
    comparison = compare(plan, records)
    assert arm(comparison, "mae").text == "identical"
    assert "ce, mae are equal to the last bit" in texts(comparison, "alarm")
    lost = compare(plan, lose(plan, records, "ce", [0], "failed"))
    assert "ce, mae are equal to the last bit" in texts(lost, "alarm")


def test_one_config_under_two_names_is_no_alarm() -> None:
    plan = make_plan({"ce": ARMS["ce"], "again": ARMS["ce"]})
    cells = {cell.arm: cell for cell in plan.cells}
    records = make_records(plan)
    for seed in plan.seeds:
        twin = records[cells["ce"].runs[seed]]
        records[cells["again"].runs[seed]] = dataclasses.replace(twin, id=cells["again"].runs[seed])
    comparison = compare(plan, records)
    assert arm(comparison, "again").text == "identical"
    assert texts(comparison, "alarm") == ""
    assert "one config under several names" in texts(comparison, "note")


def test_a_seed_that_changes_nothing_raises_an_alarm(plan: Plan) -> None:
    level = {"ce": 0.8, "focal": 0.9, "mae": 0.7}
    records = {
        cell.runs[seed]: make_record(plan, cell, seed, level[cell.arm])
        for cell in plan.cells
        for seed in plan.seeds
    }
    assert "every seed of ce, focal, mae gave the same run" in texts(
        compare(plan, records), "alarm"
    )


@pytest.mark.parametrize("kind", ["data", "split", "init", "order"])
def test_unshared_fingerprints_raise_an_alarm(plan: Plan, records: Records, kind: str) -> None:
    assert texts(compare(plan, records), "alarm") == ""
    cell = next(cell for cell in plan.cells if cell.arm == "mae")
    marks = records[cell.runs[4]].fingerprints | {kind: "other"}
    alarm = texts(compare(plan, changed(plan, records, "mae", [4], fingerprints=marks)), "alarm")
    assert f"do not share their {kind} at 1 of 10 seeds (seed 4: ce, focal against mae)" in alarm


@pytest.mark.parametrize("what", ["steps", "parameters"])
def test_unequal_amounts_are_warned_of(plan: Plan, records: Records, what: str) -> None:
    assert texts(compare(plan, records), "warning") == ""
    warning = texts(compare(plan, changed(plan, records, "mae", [4], **{what: 7})), "warning")
    assert f"unequal {what}" in warning
    assert "mae 7 to " in warning


def test_loss_source_that_changed_between_runs_raises_an_alarm(
    plan: Plan, records: Records
) -> None:
    cell = next(cell for cell in plan.cells if cell.arm == "mae")
    marks = records[cell.runs[4]].fingerprints | {"loss": "edited"}
    comparison = compare(plan, changed(plan, records, "mae", [4], fingerprints=marks))
    assert "the runs of mae were made with 2 versions of its loss" in texts(comparison, "alarm")


def test_different_provenance_is_warned_of_and_listed(plan: Plan, records: Records) -> None:
    cell = next(cell for cell in plan.cells if cell.arm == "mae")
    other = records[cell.runs[4]].provenance | {"versions": {"torch": "2.11.0"}, "dirty": True}
    comparison = compare(plan, changed(plan, records, "mae", [4], provenance=other))
    assert "versions.torch (2.15.0, 2.11.0)" in texts(comparison, "warning")
    assert "uncommitted" in texts(comparison, "note")
    assert comparison.provenance["versions.torch"] == ["2.15.0", "2.11.0"]
    starts = [record.provenance["started"] for record in records.values()]
    assert comparison.provenance["started"] == [min(starts)]


def test_differences_beyond_the_loss_are_warned_of() -> None:
    plan = make_plan(differences={"ce": {}, "focal": {"objective": "focal", "optimizer.lr": 1.0}})
    warning = texts(compare(plan, make_records(plan)), "warning")
    assert "focal differs from ce beyond its loss: optimizer.lr=1.0" in warning


@pytest.mark.parametrize(
    ("optimizer", "clip", "warned"),
    [("sgd", None, True), ("adam", None, False), ("adam", 1.0, True)],
)
def test_first_gradients_far_apart_are_warned_of_where_they_matter(
    plan: Plan, records: Records, optimizer: str, clip: float | None, warned: bool
) -> None:
    size = {"ce": 1.0, "focal": 2.9, "mae": 0.1}
    config = {"optimizer": {"name": optimizer, "lr": 0.1}, "trainer": {"gradient_clip": clip}}
    cells = [dataclasses.replace(c, gradient=size[c.arm], config=config) for c in plan.cells]
    warning = texts(compare(dataclasses.replace(plan, cells=cells), records), "warning")
    assert ("more than 3x at one step size: mae (0.1x)" in warning) == warned
    assert "focal" not in warning


def test_the_learning_rate_is_called_untuned_only_if_it_is(plan: Plan, records: Records) -> None:
    assert "one untuned learning rate (0.01)" in texts(compare(plan, records), "note")
    ranges = {arm: {"optimizer.lr": "log(1e-3, 1)"} for arm in plan.arms}
    tuning = Tuning("val/accuracy", 8, [1000], "spread", False, ranges, [])
    said = texts(compare(dataclasses.replace(plan, tuning=tuning), records), "note")
    assert "every arm was tuned with 8 trials (evenly spread, the same for all arms)" in said
    assert "untuned" not in said
    first, *rest = plan.cells
    other = dataclasses.replace(first, config=first.config | {"optimizer": {"lr": 0.5}})
    comparison = compare(dataclasses.replace(plan, cells=[other, *rest]), records)
    assert "untuned" not in texts(comparison, "note")


def test_a_missing_baseline(plan: Plan, records: Records) -> None:
    elsewhere = make_plan(baseline="hinge")
    comparison = compare(elsewhere, make_records(elsewhere))
    assert "the baseline hinge is no arm here" in texts(comparison, "alarm")
    assert arm(comparison, "mae").text == "no baseline"
    assert comparison.comparisons == 0
    comparison = compare(plan, lose(plan, records, "ce", plan.seeds, "failed"))
    assert "no run of the baseline ce is done" in texts(comparison, "alarm")
    assert arm(comparison, "ce").text == "no result (10 of 10 failed)"
    assert arm(comparison, "mae").text == "no baseline"
    assert arm(comparison, "focal").best


def test_a_metric_without_direction_is_refused() -> None:
    plan = make_plan(metric="test/f1")
    with pytest.raises(ValueError, match="no direction for test/f1"):
        compare(plan, {})


def test_best_is_not_the_best_mean_alone() -> None:
    plan = make_plan()
    comparison = compare(plan, make_records(plan, {"focal": 0.0005, "mae": -0.06}))
    assert {result.arm for _, result in comparison.results() if result.best} == {"ce", "focal"}


def test_curves_are_means_and_paired_differences(plan: Plan, records: Records) -> None:
    comparison = compare(plan, records)
    assert comparison.tasks[0].curve_metric == "val/accuracy"
    curve = arm(comparison, "mae").curve
    assert len(curve) == 10
    cells = {cell.arm: cell for cell in plan.cells}
    last = {
        name: [records[cells[name].runs[s]].curve[-1]["val/accuracy"] for s in plan.seeds]
        for name in ("mae", "ce")
    }
    expected = stats.ttest_rel(last["mae"], last["ce"]).confidence_interval(0.95)
    assert curve[-1].mean == pytest.approx(np.mean(last["mae"]))
    assert (curve[-1].low, curve[-1].high) == pytest.approx((expected.low, expected.high))
    assert all(point.difference is None for point in arm(comparison, "ce").curve)


def test_a_curve_leaves_out_what_is_not_a_number(plan: Plan, records: Records) -> None:
    curve: list[dict[str, Any]] = [
        {"step": 1.0, "val/accuracy": None},
        {"step": 2.0, "val/accuracy": math.nan},
        {"step": 3.0, "val/accuracy": 0.5},
        {"step": 4.0},
    ]
    comparison = compare(plan, changed(plan, records, "mae", plan.seeds, curve=curve))
    assert [point.step for point in arm(comparison, "mae").curve] == [3.0]
    assert arm(comparison, "mae").curve[0].difference is None  # the baseline has no such step


def test_responses_are_arms_that_differ_in_one_number() -> None:
    ce = {"cross_entropy": {"weight": 1.0}}
    weights = (0.1, 0.001, 1.0)
    arms = {"ce": ce, "focal": {"focal": {"gamma": 2.0}}}
    arms |= {f"l1={w}": {**ce, "l1": {"weight": w, "biases": False}} for w in weights}
    arms["l1 with biases"] = {**ce, "l1": {"weight": 5.0, "biases": True}}
    plan = make_plan(arms)
    (response,) = compare(plan, make_records(plan)).tasks[0].responses
    assert response.key == "loss.l1.weight"
    assert response.values == sorted(weights)
    assert response.arms == ["l1=0.001", "l1=0.1", "l1=1.0"]


def test_cost_is_the_mean_of_done_runs(plan: Plan, records: Records) -> None:
    slow = changed(plan, records, "mae", [0], seconds={"total": 101.0}, peak_memory=0)
    cost = arm(compare(plan, slow), "mae").cost
    rest = records[next(c for c in plan.cells if c.arm == "mae").runs[1]].seconds["total"]
    assert cost.total_seconds == pytest.approx((101.0 + 9 * rest) / 10)
    assert cost.peak_memory == 310_000_000  # a record without it does not count as 0


def test_steps_to_the_score_of_the_baseline(plan: Plan, records: Records) -> None:
    """Curves rise by the same share per evaluation, so that a better arm gets there earlier."""
    comparison = compare(plan, records)
    cells = {cell.arm: cell for cell in plan.cells}
    expected = []
    for seed in plan.seeds:
        goal = records[cells["ce"].runs[seed]].curve[-1]["val/accuracy"]
        curve = records[cells["focal"].runs[seed]].curve
        expected += [next((p["step"] for p in curve if p["val/accuracy"] >= goal), math.inf)]
    focal, ce, mae = (arm(comparison, name).cost for name in ("focal", "ce", "mae"))
    reached = [step for step in expected if step < math.inf]
    assert focal.steps_to_baseline == np.median(reached)
    assert focal.reached == len(reached)
    assert (ce.steps_to_baseline, ce.reached) == (510, 10)
    assert (mae.steps_to_baseline, mae.reached) == (None, 0)
    assert focal.steps_to_baseline < 510
    run = records[cells["mae"].runs[0]]
    assert mae.step_seconds == pytest.approx(run.seconds["train"] / run.steps)


def test_records_of_other_sweeps_do_not_matter(plan: Plan, records: Records) -> None:
    stranger = dataclasses.replace(next(iter(records.values())), id="x", metrics={})
    assert compare(plan, records | {"x": stranger}) == compare(plan, records)


def test_equal_arms_are_called_different_in_at_most_one_study_of_twenty() -> None:
    """The family-wise rate of false verdicts over whole sweeps (R10)."""
    arms = {f"arm{i}": {"focal": {"gamma": float(i)}} for i in range(6)}
    plan = make_plan(arms, baseline="arm0", seeds=8)
    studies, wrong, uncorrected = 400, 0, 0
    for study in range(studies):  # the study's number is its seed
        results = compare(plan, make_records(plan, seed=study)).tasks[0].arms
        wrong += any(result.verdict in ("better", "worse") for result in results)
        ps = [result.contrast.p for result in results if result.contrast]
        uncorrected += min(p for p in ps if p is not None) <= 0.05
    limit = 0.05 + 2.5 * math.sqrt(0.05 * 0.95 / studies)  # 2.5 standard errors
    assert wrong / studies <= limit
    assert uncorrected / studies > 2 * limit  # what it would be without a correction


def test_neither_comparison_nor_report_imports_torch() -> None:
    code = "import sys, harness.report; print([m for m in ('torch', 'lightning', 'scipy.stats')"
    code += " if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
