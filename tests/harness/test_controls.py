"""Control arms, seeds added after looking, and what --strict does not let pass."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import controls, models, tune
from harness import sweep as sweeps
from harness.cli import main
from harness.commands import read_all
from harness.compare import compare
from harness.comparison import Comparison, ControlResult
from harness.config import check
from harness.fairness import notes, of_plan, serious
from harness.plan import Plan
from harness.record import Record
from harness.store import Store
from tests.harness.builders import ARMS, lose, make_plan, make_records, tried, tuned_plan
from tests.harness.builders import with_controls as controlled
from tests.harness.spine import iris, write_sweep

WORDS = ["null", "identity", "scale", "constant"]


def result(comparison: Comparison, word: str) -> ControlResult:
    (found,) = (c for c in comparison.tasks[0].controls if c.word == word)
    return found


def texts(comparison: Comparison, level: str) -> str:
    return "\n".join(note.text for note in comparison.notes if note.level == level)


@pytest.fixture
def done() -> tuple[Plan, dict[str, Record]]:
    plan = make_plan()
    return plan, make_records(plan, {"focal": 0.02, "mae": -0.06})


# What a sweep file may say.


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nul"], "there is no control 'nul'; did you mean 'null'?"),
        (["null", None], "null stands there twice"),
        (["scale=1"], "scale needs a number > 0 other than 1, got '1'"),
        (["scale=x"], "scale needs a number > 0 other than 1, got 'x'"),
        (["null=3"], "there is no control 'null=3'"),
        ("null", "controls must be a list"),
    ],
)
def test_what_is_no_control_is_refused(tmp_path: Path, words: Any, message: str) -> None:
    path = write_sweep(tmp_path, controls=words)
    with pytest.raises(ValueError, match=r"^[^\n]*$") as raised:
        sweeps.plan(sweeps.request(str(path), []))
    assert message in str(raised.value)


def test_an_arm_cannot_have_the_name_of_a_control(tmp_path: Path) -> None:
    arms = {"ce": ["loss=cross_entropy"], "null": ["loss=focal"]}
    path = write_sweep(tmp_path, arms=arms, controls=["null"])
    with pytest.raises(ValueError, match="an arm has the name of the control null"):
        sweeps.plan(sweeps.request(str(path), []))


def test_yaml_null_is_a_word_and_the_command_line_may_say_it_too(tmp_path: Path) -> None:
    path = write_sweep(tmp_path, controls=[None, "scale=10"])
    assert sweeps.plan(sweeps.request(str(path), [])).controls == {"null": 1.0, "scale": 10.0}
    given = sweeps.request(str(path), ["controls=[identity,null]"])
    assert list(sweeps.plan(given).controls) == ["identity", "null"]


def test_every_weight_is_multiplied_wherever_it_stands() -> None:
    moving = "loss.l2.weight={schedule:linear,start:0.1,end:0.3}"
    base = iris("loss=[cross_entropy,l2]", moving)
    twice = controls.config_of("scale", 2.0, base).objective
    assert twice.terms["cross_entropy"].weight == 2.0
    weight = twice.terms["l2"].weight
    assert (weight.start, weight.end) == (0.2, 0.6)  # type: ignore[union-attr]
    same = controls.config_of("identity", 1.0, base).objective
    assert same.terms["l2"] == base.objective.terms["l2"]
    assert same.terms["cross_entropy"].weight.at(0.3) == 1.0  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="every weight of the baseline is scheduled already"):
        controls.config_of("identity", 1.0, controls.config_of("identity", 1.0, iris()))


@pytest.mark.parametrize(
    ("seeds", "shift"), [([0, 1], 10_000), ([0, 10_000], 20_000), ([5, 10_005, 20_005], 30_000)]
)
def test_null_trains_on_seeds_that_are_none_of_the_sweep(seeds: list[int], shift: int) -> None:
    assert controls.shift("null", seeds) == shift
    assert not {seed + shift for seed in seeds} & set(seeds)
    assert controls.shift("scale", seeds) == 0


def test_a_constant_ignores_its_inputs_and_learns_the_mean() -> None:
    model = models.build("constant", (3,), 1, seed=0)
    draws = torch.Generator().manual_seed(0)
    inputs, target = torch.randn(64, 3, generator=draws), torch.randn(64, generator=draws) + 2
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(50):
        optimizer.zero_grad()
        (model(inputs) - target).square().mean().backward()
        optimizer.step()
    assert torch.allclose(model(inputs), target.mean().expand(64), atol=1e-5)


# A sweep really trained.


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Plan, dict[str, Record]]:
    folder = tmp_path_factory.mktemp("controls")
    path = write_sweep(
        folder, controls=[None, *WORDS[1:]], seeds=3, overrides=["trainer.epochs=10"]
    )
    assert main(["sweep", str(path), f"store={folder / 'r'}", "--jobs=1"]) == 0
    plan = sweeps.plan(sweeps.request(str(path), [f"store={folder / 'r'}"]))
    return path, plan, read_all(plan, Store(folder / "r"))


def test_controls_are_ordinary_runs_and_come_out_as_they_must(
    trained: tuple[Path, Plan, dict[str, Record]],
) -> None:
    _, plan, records = trained
    assert len(records) == len({run.id for run in plan.runs()}) == (2 + 4) * 3
    by_arm = {cell.arm: [records[run] for run in cell.runs.values()] for cell in plan.cells}
    assert [record.seed for record in by_arm["null"]] == [10_000, 10_001, 10_002]
    assert by_arm["null"][0].config == by_arm["ce"][0].config
    for base, same in zip(by_arm["ce"], by_arm["identity"], strict=True):
        assert base.config != same.config
        assert base.metrics == same.metrics
    comparison = compare(plan, records)
    assert comparison.comparisons == 1
    assert result(comparison, "identity").held
    assert result(comparison, "constant").held
    assert result(comparison, "constant").result.verdict == "worse"
    assert "control" not in texts(comparison, "alarm")


# Judged on made-up records.


def test_controls_change_nothing_for_the_arms(done: tuple[Plan, dict[str, Record]]) -> None:
    plan, records = done
    before, after = compare(plan, records), compare(*controlled(plan, records))
    assert after.tasks[0].arms == before.tasks[0].arms
    assert after.comparisons == before.comparisons == 2
    assert after.notes == before.notes
    assert [control.word for control in after.tasks[0].controls] == WORDS
    assert [control.held for control in after.tasks[0].controls] == [True, True, None, True]


@pytest.mark.parametrize(
    ("gains", "level", "said"),
    [
        ({"identity": 1e-12}, "alarm", "control identity: differs from ce somewhere"),
        ({"null": 0.1}, "warning", "control null: ce differs from itself on other seeds"),
        ({"scale": 0.1}, "warning", "control scale: ce times 2 is better; untuned arms may"),
        ({"constant": 0.1}, "alarm", "control constant: ce is not shown to beat a model that"),
        ({"constant": -0.04}, "warning", "mae did no better than a model that ignores its"),
    ],
)
def test_a_control_that_comes_out_wrong_is_told_above_the_table(
    done: tuple[Plan, dict[str, Record]], gains: dict[str, float], level: str, said: str
) -> None:
    fine = {"identity": 0.0, "scale": 0.0, "constant": -0.5}
    comparison = compare(*controlled(*done, fine | gains))
    assert said in texts(comparison, level)
    assert len(serious(comparison.notes)) == 1 + (gains.get("constant") == 0.1)


def test_a_control_that_lost_runs_tells_nothing(done: tuple[Plan, dict[str, Record]]) -> None:
    plan, records = controlled(*done)
    lost = compare(plan, lose(plan, records, "constant", plan.seeds, "failed"))
    assert result(lost, "constant").held is None
    assert "control constant: no result (10 of 10 failed), so it tells" in texts(lost, "warning")
    partly = compare(plan, lose(plan, records, "identity", [3], "failed"))
    assert result(partly, "identity").held is False
    pending = compare(plan, lose(plan, records, "null", [3], None))
    assert pending.pending == 1
    assert all(control.held is None for control in pending.tasks[0].controls)


def test_controls_of_a_tuned_sweep_take_the_choice_of_the_baseline() -> None:
    plan = tuned_plan()
    assert plan.tuning
    full = [{**trial.config, **iris().shared()} for trial in plan.tuning.trials]
    trials = [
        dataclasses.replace(
            trial,
            config={**config, "optimizer": {**config["optimizer"], **trial.config["optimizer"]}},
        )
        for trial, config in zip(plan.tuning.trials, full, strict=True)
    ]
    beside = [dataclasses.replace(plan.cells[0], arm=word, runs={}) for word in WORDS]
    plan = dataclasses.replace(
        plan, controls=dict.fromkeys(WORDS, 2.0), cells=[*plan.cells, *beside]
    )
    records = tried(plan, {("ce", 1, 1000): 0.9, ("focal", 2, 1000): 0.9})
    more = [*trials, *controls.mirrored(plan, trials)]
    assert len(more) == len(trials) + 4 * 3
    plan = dataclasses.replace(plan, tuning=dataclasses.replace(plan.tuning, trials=more))
    assert len([run for run in plan.trial_runs() if run.arm in WORDS]) == 0
    settled = tune.advance(plan, records)
    chosen = {cell.arm: cell.config["optimizer"]["lr"] for cell in settled.cells}
    assert chosen["focal"] == pytest.approx(0.01)
    assert {chosen[word] for word in WORDS} == {chosen["ce"]} == {0.1}
    ids = {cell.arm: set(cell.runs.values()) for cell in settled.cells}
    assert all(len(ids[word]) == 2 for word in WORDS)
    assert not ids["scale"] & ids["null"]
    assert check(settled.cells[-1].config).model["name"] == "constant"


# The linter.


def test_an_arm_that_trains_on_its_own_yardstick_is_warned_of() -> None:
    def said(metric: str) -> str:
        plan = make_plan(metric=metric)
        return "\n".join(note.text for note in of_plan(plan) if note.level == "warning")

    assert said("test/nll") == "test/nll is what ce trains on, and not what others do"
    assert said("test/accuracy") == ""
    alike = make_plan({"a": ARMS["ce"], "b": ARMS["ce"]}, baseline="a", metric="test/nll")
    assert serious(of_plan(alike)) == []


def test_steps_that_differ_are_told_before_anything_runs() -> None:
    plan = make_plan()
    cells = [dataclasses.replace(c, steps=100 + 50 * (c.arm == "mae")) for c in plan.cells]
    unequal = dataclasses.replace(plan, cells=cells)
    (note,) = serious(of_plan(unequal))
    assert note.text == "unequal steps: ce 100, focal 100, mae 150"
    records = make_records(plan)
    told = [n.text for n in notes(unequal, records) if "unequal steps" in n.text]
    assert told == [note.text]


@pytest.mark.parametrize(
    ("key", "kind", "level"),
    [
        ("trainer.batch_size", "order", "note"),
        ("optimizer.lr", "order", "alarm"),
        ("model.hidden", "init", "note"),
        ("trainer.batch_size", "init", "alarm"),
    ],
)
def test_what_was_tuned_may_differ_between_arms(key: str, kind: str, level: str) -> None:
    plan = make_plan()
    records = make_records(plan)
    tuning = tuned_plan().tuning
    assert tuning
    tuning = dataclasses.replace(tuning, ranges={arm: {key: [1, 2]} for arm in plan.arms})
    run = plan.cells[1].runs[0]
    marks = records[run].fingerprints | {kind: "other"}
    records[run] = dataclasses.replace(records[run], fingerprints=marks)
    comparison = compare(dataclasses.replace(plan, tuning=tuning), records)
    assert f"do not share their {kind}" in texts(comparison, level)


def test_a_choice_at_the_edge_of_its_range_is_warned_of() -> None:
    plan = tuned_plan()
    edge = compare(plan, tried(plan, {("ce", 2, 1000): 0.9, ("focal", 1, 1000): 0.9}))
    said = texts(edge, "warning")
    assert "ce was given optimizer.lr=0.01, the lowest that was tried of log(1e-3, 1)" in said
    assert "focal was given" not in said  # the one in the middle
    assert "mae was given optimizer.lr=1, the highest" in said
    few = tuned_plan(number=2)
    assert "was given" not in texts(compare(few, tried(few, {})), "warning")


def test_trials_that_failed_are_counted() -> None:
    plan = tuned_plan()
    lost = compare(plan, tried(plan, {("ce", 0, 1000): None, ("ce", 2, 1001): None}))
    assert "2 of 3 trials of ce failed or diverged" in texts(lost, "warning")
    assert "trials of focal" not in texts(lost, "warning")


# Seeds and strictness, through the command line.


def planned(path: Path, *words: str) -> Plan:
    wanted = sweeps.request(str(path), words)
    stored = json.loads((wanted.folder / "plan.json").read_text())["plan"]
    return dataclasses.replace(make_plan(), late=stored["late"], planned=stored["planned"])


def test_seeds_added_after_looking_are_marked_and_stay_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_sweep(tmp_path)
    assert main(["report", str(path)]) == 0  # planned before anything ran
    assert main(["sweep", str(path), "--jobs=1", "--strict"]) in (0, 3)
    assert planned(path).late == []
    assert set(planned(path).planned) == {"0", "1"}
    assert "were added on" not in capsys.readouterr().out
    assert main(["sweep", str(path), "seeds=4", "--jobs=1"]) == 0  # of the same runs, two more
    assert planned(path, "seeds=4").late == [2, 3]
    assert "seeds 2 to 3 of 4 were added on" in " ".join(capsys.readouterr().out.split())
    write_sweep(tmp_path, seeds=5)
    assert main(["plan", str(path), "--strict"]) == 3
    assert "seeds 2 to 4 of 5 were added on" in capsys.readouterr().out
    assert main(["sweep", str(path), "--jobs=1"]) == 0
    assert main(["report", str(path)]) == 0
    assert planned(path).late == [2, 3, 4]


def test_strict_turns_warnings_into_an_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arms = {"ce": ["loss=cross_entropy"], "focal": ["loss=focal", "optimizer.lr=0.5"]}
    path = write_sweep(tmp_path, arms=arms)
    for command in ("plan", "sweep", "report"):
        jobs = ["--jobs=1"] if command == "sweep" else []
        assert main([command, str(path), "--strict", *jobs]) == 3
        said = capsys.readouterr()
        assert "focal differs from ce beyond its loss: optimizer.lr=0.5" in said.out
        assert "alarms and warnings above: " in said.err
        assert main([command, str(path), *jobs]) == 0
    fair = write_sweep(tmp_path, name="fair")
    assert main(["plan", str(fair), "--strict"]) == 0
