"""Tuning: ranges and points, what is chosen, equal effort, and going on where it was stopped."""

import dataclasses
import itertools
import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import sweep as sweeps
from harness import tune
from harness.cli import main
from harness.commands import read_all
from harness.plan import Plan
from harness.space import Range, parse_range, spread
from harness.store import Store
from harness.tuned import best_of, results
from tests.harness.builders import tried, tuned_plan

SWEEP = """
question: Does focal help when both are tuned?
task: classification/iris
metric: test/accuracy
baseline: ce
seeds: 3
overrides: [trainer.epochs=1]
tune:
  trials: 3
  space: {optimizer.lr: 'log(1e-3, 1e-1)', trainer.batch_size: [16, 32]}
  arms: {focal: {loss.focal.gamma: 'uniform(0.5, 4)'}}
arms:
  ce: [loss=cross_entropy]
  focal: [loss=focal]
"""


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("log(1e-3, 1e-1)", Range("log", 1e-3, 1e-1)),
        (" uniform( 0 , 2 ) ", Range("uniform", 0, 2)),
        ("integer(1,8)", Range("integer", 1, 8)),
        (["a", "b"], Range("choice", choices=("a", "b"))),
    ],
)
def test_ranges_are_written_as_in_hydra(written: Any, expected: Range) -> None:
    assert parse_range("x", written) == expected


@pytest.mark.parametrize(
    "written",
    [
        *("log(0, 1)", "log(-1, 1)", "uniform(2, 1)", "uniform(1, 1)", "integer(0.5, 2)"),
        *("uniform(1)", "log(a, b)", "uniform(0, .inf)", "uniform(0, inf)", "eval(1, 2)"),
        *([], None, 3, [[1]], ""),
    ],
)
def test_what_is_no_range_is_refused(written: Any) -> None:
    with pytest.raises(ValueError, match=r"^sweep x\.lr must [^\n]*$"):
        parse_range("sweep x.lr", written)


def test_values_lie_in_the_range_and_fill_it() -> None:
    shares = np.linspace(0, 1, 1001)
    logs = [Range("log", 1e-4, 1.0).at(share) for share in shares]
    assert (min(logs), max(logs)) == (1e-4, 1.0)
    assert np.median(np.log10(logs)) == pytest.approx(-2, abs=1e-3)
    whole = [Range("integer", 1, 4).at(share) for share in shares[:-1]]
    assert [whole.count(n) for n in (1, 2, 3, 4)] == [250] * 4
    assert {Range("choice", choices=(1, "b", 2.5)).at(share) for share in shares} == {1, "b", 2.5}


def test_points_are_spread_and_shared_ones_come_first() -> None:
    lr, own = Range("uniform", 0, 1), Range("uniform", 0, 1)
    alone, both = spread({"lr": lr}, 16), spread({"lr": lr, "own": own}, 16)
    assert [point["lr"] for point in alone] == [point["lr"] for point in both]
    assert spread({"lr": lr}, 4) == alone[:4]
    for key in ("lr", "own"):  # every eighth of the range has a point
        assert len({int(point[key] * 8) for point in both}) == 8


@pytest.mark.parametrize("direction", ["higher", "lower"])
def test_best_of_n_is_the_mean_over_all_choices_of_n(direction: Any) -> None:
    draw = random.Random(0)
    values = [draw.random() for _ in range(6)]
    pick = max if direction == "higher" else min
    for n, found in enumerate(best_of(values, direction), 1):
        chosen = [pick(some) for some in itertools.combinations(values, n)]
        assert found == pytest.approx(sum(chosen) / len(chosen), rel=1e-12)


def test_best_of_n_is_not_defined_where_all_n_may_have_failed() -> None:
    assert best_of([None, 1.0, None, 2.0], "higher")[:2] == [None, None]
    third, fourth = best_of([None, 1.0, None, 2.0], "higher")[2:]
    assert (third, fourth) == (pytest.approx((1 + 2 + 2 + 2) / 4), 2.0)


# Choosing, on made-up records.


def test_the_best_mean_on_validation_is_chosen_and_trained_on_other_seeds() -> None:
    plan = tuned_plan()
    # trial 1 has the best single value, trial 2 the best mean
    values = {("ce", 1, 1000): 0.9, ("ce", 1, 1001): 0.1, ("ce", 2, 1000): 0.7}
    records = tried(plan, {**values, ("ce", 2, 1001): 0.7})
    cell = tune.advance(plan, records).cells[0]
    assert cell.config["optimizer"]["lr"] == pytest.approx(0.01)
    assert cell.runs == {seed: f"ce.2.final.{seed}" for seed in plan.seeds}
    found = results(plan, records)
    assert found
    assert found.arms[0].chosen == [2]
    assert [trial.value for trial in found.arms[0].trials] == pytest.approx([0.5, 0.5, 0.7])
    assert found.arms[0].seconds == 3 * 2 * 2.0


def test_lower_is_chosen_where_lower_is_better() -> None:
    plan = tuned_plan()
    assert plan.tuning
    plan = dataclasses.replace(plan, tuning=dataclasses.replace(plan.tuning, metric="val/nll"))
    records = tried(plan, {("ce", 1, 1000): 0.9, ("ce", 1, 1001): 0.9})  # nll is 1.2 - accuracy
    assert tune.advance(plan, records).cells[0].config["optimizer"]["lr"] == pytest.approx(0.1)


def test_a_trial_that_failed_is_never_chosen_over_one_that_did_not() -> None:
    plan = tuned_plan()
    values: dict[tuple[str, int, int], float | None] = {
        ("ce", 0, 1000): None,
        ("ce", 0, 1001): 0.99,
        ("ce", 1, 1000): 0.1,
        ("ce", 1, 1001): 0.1,
        ("ce", 2, 1000): 0.2,
        ("ce", 2, 1001): None,
    }
    assert tune.advance(plan, tried(plan, values)).cells[0].runs[0] == "ce.1.final.0"


def test_an_arm_of_which_every_trial_failed_is_trained_with_the_first() -> None:
    plan = tuned_plan()
    gone = {("ce", i, seed): None for i in range(3) for seed in (1000, 1001)}
    settled = tune.advance(plan, tried(plan, dict(gone)))
    assert settled.cells[0].runs[0] == "ce.0.final.0"
    assert settled.settled


def test_nothing_is_chosen_while_a_trial_has_to_run() -> None:
    plan = tuned_plan()
    records = tried(plan, {})
    del records["ce.1.1001"]
    advanced = tune.advance(plan, records)
    assert advanced.cells[0].runs == {}
    assert advanced.cells[1].runs != {}
    assert not advanced.settled
    assert [run.arm for run in advanced.runs() if run.trial is None] == ["focal", "mae"] * 2


def test_each_seed_is_tuned_by_itself_if_that_is_asked_for() -> None:
    plan = tuned_plan(anew=True)
    records = tried(plan, {("ce", 1, 1000): 0.9, ("ce", 2, 1001): 0.8})
    cell = tune.advance(plan, records).cells[0]
    assert cell.runs == {0: "ce.1.final.0", 1: "ce.2.final.1"}
    assert [cell.config_of(s)["optimizer"]["lr"] for s in (0, 1)] == pytest.approx([0.1, 0.01])


# Whole sweeps.


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.yaml").write_text(SWEEP)
    return tmp_path


def planned(*overrides: str) -> Plan:
    return sweeps.plan(sweeps.request("s.yaml", overrides))


def test_every_arm_is_tried_at_the_same_values_of_what_they_share(here: Path) -> None:
    plan = planned()
    assert plan.tuning
    shared = {
        arm: [
            (t.settings["optimizer.lr"], t.settings["trainer.batch_size"])
            for t in plan.tuning.trials
            if t.arm == arm
        ]
        for arm in plan.arms
    }
    assert shared["ce"] == shared["focal"]
    assert len(set(shared["ce"])) == 3
    gammas = {t.settings.get("loss.focal.gamma") for t in plan.tuning.trials if t.arm == "focal"}
    assert len(gammas) == 3
    for trial in plan.tuning.trials:
        assert trial.trained()["trainer"]["test"] is False
        assert trial.config["trainer"]["test"] is True
        assert not set(trial.tried.values()) & set(trial.runs.values())
        assert not set(trial.tried) & set(plan.seeds)


def test_a_tuned_sweep_resumes_and_touches_the_test_part_once(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", "s.yaml", "--jobs=1"]) == 0
    said = capsys.readouterr().out
    assert "2 arms x 3 seeds = 6 runs + 6 of the tuner; 0 done, 12 to run" in said
    assert "[12/12]" in said
    store = Store("results")
    plan = tune.advance(planned(), read_all(planned(), store))
    records = read_all(plan, store)
    assert len(records) == 12
    for run in plan.runs():
        names = records[run.id].metrics
        assert any(name.startswith("test/") for name in names) == (run.trial is None)
    chosen = {cell.arm: cell.config for cell in plan.cells}
    for cell in plan.cells:
        assert plan.tuning
        values = {t.number: tune.value(plan.tuning, t, records) for t in tune.of(plan.tuning, cell)}
        best = max(values, key=lambda n: (values[n], -n))
        picked = next(t for t in tune.of(plan.tuning, cell) if t.number == best)
        assert picked.config == chosen[cell.arm]
    report = json.loads((here / "results/sweeps/s/report.json").read_text())
    assert len(report["tuning"]["arms"][0]["trials"]) == 3

    for run in [next(plan.trial_runs()).id, *list(plan.cells[0].runs.values())[:1]]:
        (store.run_folder(run) / "record.json").unlink()
    assert main(["sweep", "s.yaml", "--jobs=1"]) == 0
    again = capsys.readouterr().out
    assert "4 to run" in again or "2 to run" in again
    after = read_all(plan, store)
    assert {i: r.metrics for i, r in after.items()} == {i: r.metrics for i, r in records.items()}
    assert main(["sweep", "s.yaml"]) == 0
    assert "12 done, 0 to run" in capsys.readouterr().out


def test_tpe_proposes_from_the_records_alone(here: Path) -> None:
    pytest.importorskip("optuna")
    wanted = ["tune.sampler=tpe", "tune.trials=6"]
    assert main(["sweep", "s.yaml", "--jobs=2", *wanted]) == 0
    fresh = planned(*wanted)
    assert fresh.tuning
    while True:
        records = read_all(fresh, Store("results"))
        further = tune.advance(fresh, records)
        if further == fresh:
            break
        fresh = further
    assert fresh.tuning
    assert len(fresh.tuning.trials) == 2 * 6
    assert all(run.id in records for run in fresh.runs())
    assert fresh.settled
    assert all(1e-3 <= t.settings["optimizer.lr"] <= 1e-1 for t in fresh.tuning.trials)
    assert math.isfinite(sum(t.settings["optimizer.lr"] for t in fresh.tuning.trials))


@pytest.mark.parametrize(
    ("was", "becomes", "message"),
    [
        ("optimizer.lr:", "optimizer.lrr:", "arm ce has no 'optimizer.lrr'; did you mean"),
        ("loss.focal.gamma", "loss.focal.gama", "arm focal has no 'loss.focal.gama'; did you"),
        ("{focal: {loss", "{focl: {loss", "there is no arm 'focl'; did you mean 'focal'?"),
        ("uniform(0.5, 4)", "uniform(-2, 4)", "cannot be tried with"),
        ("log(1e-3, 1e-1)", "log(1e-1, 1e-3)", "must go from a smaller to a larger"),
        ("optimizer.lr:", "loss.focal.gamma:", "space.loss.focal.gamma is not for a tuner"),
        ("optimizer.lr:", "data.label_noise:", "space.data.label_noise is not for a tuner"),
        ("optimizer.lr:", "trainer.test:", "space.trainer.test is not for a tuner"),
        ("loss.focal.gamma", "trainer.epochs", "arms.focal.trainer.epochs is not for one arm"),
        ("loss.focal.gamma", "data.label_noise", "arms.focal.data.label_noise is not for one"),
        ("loss.focal.gamma", "task.neighbours", "arms.focal.task.neighbours is not for one arm"),
        ("trials: 3", "trials: 0", "tune.trials must be >= 1 and <= 10000, got 0"),
        ("trials: 3", "trial: 3", "has no parameter 'trial'; did you mean 'trials'?"),
        ("trials: 3", "metric: test/accuracy", "tune.metric must be of the validation part"),
        ("trials: 3", "metric: val/acuracy", "no metric 'val/acuracy'"),
        ("trials: 3", "{anew: true, sampler: tpe}", "is no YAML"),
        ("trials: 3", "anew: true\n  sampler: tpe", "anew needs sampler=spread"),
        ("trials: 3", "sampler: grid", "tune.sampler must be one of spread, tpe"),
    ],
)
def test_a_search_that_cannot_be_done_is_refused(
    here: Path, was: str, becomes: str, message: str
) -> None:
    (here / "s.yaml").write_text(SWEEP.replace(was, becomes, 1))
    with pytest.raises(ValueError, match=r"^[^\n]*$") as raised:
        planned()
    assert message in str(raised.value)


def test_tuning_can_be_left_out_or_changed_on_the_command_line(here: Path) -> None:
    assert planned("tune=null").tuning is None
    two = planned("tune.trials=2").tuning
    assert two
    assert two.number == 2
    (here / "s.yaml").write_text(SWEEP.replace("tune:", "other:"))
    with pytest.raises(ValueError, match="has no"):
        planned("tune.trials=2")
