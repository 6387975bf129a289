"""Claims: the rule of the verdict, bad files, the shipped ones, one from file to page."""

import dataclasses
import itertools
import json
import math
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import scipy.stats
import yaml
from statsmodels.stats.multitest import multipletests

from harness import build, commands, plugins
from harness.claims import file, run
from harness.claims.claim import Claim, Contrast, Direction, Outcome
from harness.claims.evidence import evidence
from harness.claims.judge import differences, judge
from harness.cli import main
from harness.comparison import Note, RunStatus, SeedRun
from harness.paths import config_dir
from harness.plan import Plan
from harness.prepare import Probe
from harness.record import Record
from harness.report import claims as page
from harness.report import claimtext
from harness.statistics import effect_size, seeds_needed
from losses.core import REGISTRY
from losses.penalty import PENALTIES
from tests.harness.builders import lose, make_plan, make_records
from tests.harness.spine import ROOT, records, started
from tests.harness.test_report import HOSTILE, Page

SUPPORTED, CONTRADICTED, OPEN = "SUPPORTED", "CONTRADICTED", "NOT ENOUGH EVIDENCE"
DIRECTIONS: tuple[Direction, ...] = ("higher", "lower", "equal")
SWEEP: dict[str, Any] = {
    "task": "classification/iris",
    "seeds": 3,
    "overrides": ["trainer.epochs=1"],
    "arms": {"ce": ["loss=cross_entropy"], "focal": ["loss=focal"]},
}
CONTRAST = {"arm": "focal", "against": "ce", "metric": "test/nll", "direction": "higher"}


def write(folder: Path, name: str = "small", **changes: Any) -> Path:
    """A claim file about iris; None removes a key."""
    content = {"claim": "Focal is worse.", "contrast": CONTRAST, "sweep": SWEEP} | changes
    kept = {key: value for key, value in content.items() if value is not None}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(kept, sort_keys=False), encoding="utf-8")
    return path


@pytest.fixture
def forgetting() -> Iterator[None]:
    """What a plug-in registers is forgotten at the end."""
    tables: list[dict[str, Any]] = [REGISTRY, PENALTIES]
    before = [set(table) for table in tables]
    yield
    for table, known in zip(tables, before, strict=True):
        for name in set(table) - known:
            del table[name]
    plugins._load_file.cache_clear()


# The rule


def by_interval(values: list[float], direction: Direction, margin: float) -> str:
    """The verdict as its definition says, with scipy's interval."""
    n, mean = len(values), sum(values) / len(values)
    low, high = scipy.stats.t.interval(0.95, n - 1, mean, scipy.stats.sem(values))
    if direction == "equal":
        inside = -margin < low and high < margin
        outside = low > margin or high < -margin
        return SUPPORTED if inside else CONTRADICTED if outside else OPEN
    if direction == "lower":
        low, high = -high, -low
    return SUPPORTED if low > margin else CONTRADICTED if high < margin else OPEN


def decided(values: list[float], direction: Direction, margin: float) -> str:
    found = evidence(values, direction, margin)
    return found.leans if found.p is not None and found.p <= 0.05 else OPEN


def test_the_verdict_is_where_the_interval_lies() -> None:
    draw = random.Random(0)
    met = set()
    for _ in range(3000):
        n, centre = draw.choice([3, 5, 10]), draw.uniform(-2, 2)
        values = [centre + draw.gauss(0, draw.choice([0.1, 1.0])) for _ in range(n)]
        direction, margin = draw.choice(DIRECTIONS), draw.choice([0.25, 1.0])
        said = decided(values, direction, margin)
        assert said == by_interval(values, direction, margin)
        met.add((direction, said))
    assert met == set(itertools.product(DIRECTIONS, (SUPPORTED, CONTRADICTED, OPEN)))


# mean 2, sd 1, n 4: the 95% interval reaches 3.182 * 1 / 2 = 1.591, from 0.409 to 3.591
FOUR = [1.0, 2.0 - math.sqrt(0.5), 2.0 + math.sqrt(0.5), 3.0]


@pytest.mark.parametrize(
    ("direction", "margin", "said"),
    [
        ("higher", 0.0, SUPPORTED),
        ("higher", 0.4, SUPPORTED),
        ("higher", 0.42, OPEN),
        ("higher", 3.5, OPEN),
        ("higher", 3.6, CONTRADICTED),
        ("lower", 0.0, CONTRADICTED),
        ("lower", 5.0, CONTRADICTED),
        ("equal", 0.4, CONTRADICTED),
        ("equal", 0.42, OPEN),
        ("equal", 3.5, OPEN),
        ("equal", 3.6, SUPPORTED),
    ],
)
def test_the_verdict_by_hand(direction: Direction, margin: float, said: str) -> None:
    assert scipy.stats.sem(FOUR) * scipy.stats.t.ppf(0.975, 3) == pytest.approx(1.591, abs=5e-4)
    assert decided(FOUR, direction, margin) == said
    mirrored = {"higher": "lower", "lower": "higher", "equal": "equal"}[direction]
    assert decided([-value for value in FOUR], mirrored, margin) == said  # type: ignore[arg-type]


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("values", [[], [5.0], [5.0, 5.1]])
def test_fewer_than_three_pairs_decide_nothing(values: list[float], direction: Direction) -> None:
    assert evidence(values, direction, 1.0).p is None
    assert decided(values, direction, 1.0) == OPEN


def test_equal_runs_support_equality_and_nothing_else() -> None:
    zeros = [0.0] * 3
    assert decided(zeros, "equal", 1e-9) == SUPPORTED
    assert decided(zeros, "higher", 0.0) == OPEN
    assert decided(zeros, "lower", 0.0) == OPEN
    assert decided([0.0] * 6, "higher", 1.0) == CONTRADICTED  # 2 / 2^6 by flipped signs


def test_a_difference_without_spread_needs_six_seeds() -> None:
    assert decided([0.5] * 5, "higher", 0.0) == OPEN  # 2 / 2^5 is above 5%
    assert decided([0.5] * 6, "higher", 0.0) == SUPPORTED


# Lost runs

INF = math.inf


@pytest.mark.parametrize(
    ("values", "direction", "said"),
    [
        ([INF] * 6, "higher", SUPPORTED),  # the other arm lost every run, 2 / 2^6
        ([INF] * 5, "higher", OPEN),  # 2 / 2^5
        ([INF] * 6, "lower", CONTRADICTED),
        ([-INF] * 6, "higher", CONTRADICTED),
        ([INF] + [9.0] * 5, "higher", SUPPORTED),
        ([INF] + [-9.0] * 5, "higher", OPEN),  # 5 of 6 the other way: 14 / 64
        ([INF] + [-9.0] * 8, "higher", CONTRADICTED),  # 8 of 9: 20 / 512
        ([INF] * 6, "equal", OPEN),  # lost runs decide nothing about equality
        ([INF] + [0.0] * 9, "equal", OPEN),
        ([INF, -INF, INF], "higher", OPEN),
    ],
)
def test_infinite_differences_are_counted(
    values: list[float], direction: Direction, said: str
) -> None:
    assert decided(values, direction, 1.0) == said


def test_noise_and_one_lost_run_do_not_contradict_equality() -> None:
    noise = [0.1, -0.1] * 4
    assert decided(noise, "equal", 0.05) == OPEN
    assert decided([*noise[:-1], INF], "equal", 0.05) == OPEN


def runs(*values: float | RunStatus) -> list[SeedRun]:
    return [
        SeedRun(seed, f"run{seed}", value, None, None)
        if isinstance(value, str)
        else SeedRun(seed, f"run{seed}", "done", value, None)
        for seed, value in enumerate(values)
    ]


def test_a_lost_run_is_infinitely_worse() -> None:
    lost: RunStatus = "diverged"
    arm, against = runs(1.0, lost, 3.0, lost), runs(0.5, 2.0, lost, lost)
    assert differences(arm, against, higher=True) == {0: 0.5, 1: -INF, 2: INF}
    assert differences(arm, against, higher=False) == {0: 0.5, 1: INF, 2: -INF}


@pytest.mark.parametrize("other", [1.0, "diverged", "failed", "pending"])
@pytest.mark.parametrize("unknown", ["failed", "pending"])
def test_a_run_that_failed_or_has_not_ended_makes_no_difference(
    unknown: RunStatus, other: float | RunStatus
) -> None:
    assert differences(runs(unknown), runs(other), higher=True) == {}
    assert differences(runs(other), runs(unknown), higher=True) == {}


# Claims


def claimed(*contrasts: Contrast) -> Claim:
    return Claim("own", Path("own.yaml"), "It is so.", list(contrasts), {}, "A", "for", "no", "")


def contrast(**changes: Any) -> Contrast:
    facts = {"arm": "focal", "against": "ce", "metric": "test/accuracy", "direction": "higher"}
    return Contrast(**{**facts, "task": "digits", **changes})


def judged(*contrasts: Contrast, **changes: Any) -> Outcome:
    plan = make_plan(**changes)
    return judge(claimed(*contrasts), plan, make_records(plan, {"focal": 0.02, "mae": -0.02}))


def test_a_claim_is_supported_by_all_and_contradicted_by_one_of_its_contrasts() -> None:
    yes, no = contrast(), contrast(arm="mae")
    unsure = contrast(margin=0.02)
    assert judged(yes).verdict == SUPPORTED
    assert judged(yes, contrast(arm="mae", direction="lower")).verdict == SUPPORTED
    assert judged(yes, unsure).verdict == OPEN
    assert judged(yes, unsure, no).verdict == CONTRADICTED
    assert judged(contrast(arm="ce", against="focal", direction="lower")).verdict == SUPPORTED
    assert judged(contrast(metric="test/nll", direction="lower")).verdict == SUPPORTED
    assert judged(contrast(direction="equal", margin=0.05)).verdict == SUPPORTED


def test_equality_that_is_claimed_is_no_alarm() -> None:
    """Of other arms, or beside another contrast, it is one."""
    plan = make_plan()
    records = make_records(plan)
    cells = {cell.arm: cell for cell in plan.cells}
    equal = contrast(direction="equal", margin=0.05)

    def alarms(claim: Claim, *twins: str) -> list[str]:
        there = dict(records)
        for arm in twins:
            for seed, own in cells[arm].runs.items():
                there[own] = dataclasses.replace(records[cells["ce"].runs[seed]], id=own)
        outcome = judge(claim, plan, there)
        assert outcome.results[0].verdict == SUPPORTED
        return [note.text for note in outcome.notes if note.level == "alarm"]

    before = alarms(claimed(equal))
    assert alarms(claimed(equal), "focal") == before
    other = alarms(claimed(equal, contrast(arm="mae")), "focal")
    for found, names in ((other, "ce, focal"), (alarms(claimed(equal), "focal", "mae"), "ce, fo")):
        (new,) = set(found) - set(before)
        assert names in new
        assert "equal to the last bit" in new


def test_p_values_are_corrected_over_the_contrasts_of_a_claim() -> None:
    contrasts = [contrast(margin=margin) for margin in (0.01, 0.0185, 0.019)]
    outcome = judged(*contrasts)
    given = [tested.differences for tested in outcome.results]
    alone = [
        scipy.stats.ttest_1samp(values, each.margin).pvalue
        for values, each in zip(given, contrasts, strict=True)
    ]
    expected = multipletests(alone, method="holm")[1]
    assert [tested.p_holm for tested in outcome.results] == pytest.approx(list(expected), rel=1e-9)


def test_any_two_arms_of_a_sweep_can_be_held_against_each_other() -> None:
    (tested,) = judged(contrast(against="mae")).results
    (one,), (other,) = (judged(contrast(arm=arm)).results for arm in ("focal", "mae"))
    expected = [a - b for a, b in zip(one.differences, other.differences, strict=True)]
    assert tested.differences == pytest.approx(expected, abs=1e-12)
    assert set(tested.runs) == {"focal", "mae"}


@pytest.mark.parametrize(
    ("arm", "direction", "said"),
    [("focal", "higher", OPEN), ("ce", "higher", SUPPORTED), ("ce", "lower", CONTRADICTED)],
)
def test_an_arm_that_lost_runs_is_not_the_better_one(
    arm: str, direction: Direction, said: str
) -> None:
    plan = make_plan()
    there = lose(plan, make_records(plan, {"focal": 0.02}), arm, range(4), "diverged")
    outcome = judge(claimed(contrast(direction=direction)), plan, there)
    (tested,) = outcome.results
    assert outcome.verdict == said
    assert (tested.mean, tested.low) == (None, None)
    assert f"{arm} lost 4 of 10" in tested.text
    assert "4 lost" in claimtext.terminal([outcome])


@pytest.mark.parametrize("arm", ["focal", "ce"])
@pytest.mark.parametrize("count", [1, 10])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_run_that_failed_is_no_evidence(arm: str, count: int, direction: Direction) -> None:
    plan = make_plan()
    there = lose(plan, make_records(plan, {"focal": 0.02}), arm, range(count), "failed")
    (tested,) = judge(claimed(contrast(direction=direction, margin=1e-3)), plan, there).results
    assert (tested.verdict, tested.p_holm) == (OPEN, None)
    assert f"{count} of 20 runs failed, --retry-failed trains them again" in tested.text
    assert len(tested.differences) == 10 - count


def test_a_done_run_without_the_value_is_no_evidence() -> None:
    plan = make_plan()
    there = make_records(plan, {"focal": 0.02})
    for seed in range(7):
        key = plan.cells[0].runs[seed]
        there[key] = dataclasses.replace(there[key], metrics={})
    (tested,) = judge(claimed(contrast()), plan, there).results
    assert tested.text == f"{OPEN} (7 of 20 runs recorded no test/accuracy)"


def test_nothing_is_decided_before_the_last_run() -> None:
    plan = make_plan()
    there = lose(plan, make_records(plan, {"focal": 0.02}), "focal", [3], None)
    outcome = judge(claimed(contrast()), plan, there)
    (tested,) = outcome.results
    assert outcome.verdict == "PENDING"
    assert tested.text == "PENDING (19 of 20 runs)"
    assert (tested.low, tested.p_holm) == (None, None)
    assert (outcome.done, outcome.planned) == (29, 30)


def test_what_is_not_decided_says_how_many_seeds_would_tell() -> None:
    (tested,) = judged(contrast(margin=0.019)).results
    assert tested.verdict == OPEN
    assert "leans to supported, ~" in tested.text


@pytest.mark.parametrize("number", [1, 4])
def test_how_many_seeds_would_tell_is_corrected_for_the_contrasts(number: int) -> None:
    tested = judged(*[contrast(margin=0.019)] * number).results[0]
    d = effect_size([value - 0.019 for value in tested.differences])
    assert d is not None
    assert seeds_needed(d, 1) != seeds_needed(d, 4)
    assert f"~{seeds_needed(d, number)} seeds" in tested.text


def test_a_term_can_be_compared_as_it_was_at_the_end_of_training() -> None:
    plan = make_plan()
    there = {
        key: dataclasses.replace(
            record, curve=[{"step": 1.0, "train/focal": 9.0}, {"step": 2.0, "train/focal": value}]
        )
        for (key, record), value in zip(
            make_records(plan).items(), itertools.cycle([1.0, 2.0, 3.0]), strict=False
        )
    }
    (tested,) = judge(claimed(contrast(metric="train/focal")), plan, there).results
    ends = {record.id: record.curve[-1]["train/focal"] for record in there.values()}
    cells = {cell.arm: cell for cell in plan.cells}
    expected = [ends[cells["focal"].runs[s]] - ends[cells["ce"].runs[s]] for s in plan.seeds]
    assert tested.differences == expected


# Files


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"clam": "x"}, "claim small has no parameter 'clam'; did you mean 'claim'?"),
        ({"claim": None}, "claim small needs claim: text"),
        ({"contrast": None}, "claim small needs contrast"),
        ({"contrast": []}, "claim small.contrast must have at least one entry"),
        ({"claim": " "}, "claim small.claim must be printable text"),
        ({"notes": "a\x1b[31mb"}, "claim small.notes must be printable text"),
        ({"contrast": CONTRAST | {"arms": "x"}}, "no parameter 'arms'; did you mean 'arm'?"),
        ({"contrast": CONTRAST | {"direction": "more"}}, "direction must be one of higher, lower"),
        ({"contrast": CONTRAST | {"arm": "ce"}}, "must compare two arms, got 'ce' twice"),
        ({"contrast": CONTRAST | {"margin": -1}}, "margin must be >= 0, got -1"),
        (
            {"contrast": CONTRAST | {"direction": "equal"}},
            "margin must be > 0 where direction is equal, got 0",
        ),
        ({"contrast": CONTRAST | {"arm": "focl"}}, "no 'focl'; did you mean 'focal'?"),
        ({"contrast": CONTRAST | {"against": "c"}}, "baseline 'c' is no arm; did you mean 'ce'?"),
        ({"contrast": CONTRAST | {"task": "iris"}}, "small.contrast.task: the sweep has no 'iris'"),
        (
            {"contrast": [CONTRAST, CONTRAST | {"metric": "test/nl"}]},
            "no 'test/nl'; did you mean 'test/nll'?",
        ),
        ({"sweep": "imbalence"}, "there is no sweep 'imbalence'; did you mean 'imbalance'?"),
        ({"sweep": SWEEP | {"sedes": 3}}, "no parameter 'sedes'; did you mean 'seeds'?"),
        ({"plugin": "evil.py"}, "claim small.plugin: only shipped claims name one"),
    ],
)
def test_bad_files_are_refused_in_one_line(
    changes: dict[str, Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, **changes)
    assert main(["claim", str(path), f"store={tmp_path / 'store'}"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1
    assert not records(tmp_path / "store")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["mae_withstand_outliers"], "did you mean 'mae_withstands_outliers'?"),
        (["no.yaml"], "there is no file no.yaml"),
        (["seeds=3"], "claim needs a name, or all, before seeds=3"),
    ],
)
def test_what_is_not_there_is_named(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["claim", *words]) == 2
    assert said in capsys.readouterr().err


def test_two_claims_of_one_name_are_refused(tmp_path: Path) -> None:
    twin = tmp_path / "twin"
    twin.mkdir()
    with pytest.raises(ValueError, match="two claims are named small"):
        run.chosen([str(write(tmp_path)), str(write(twin))])


def test_a_task_must_be_said_where_there_are_several(tmp_path: Path) -> None:
    claim = file.read(write(tmp_path))
    with pytest.raises(ValueError, match="task must say which of the tasks a, b"):
        file.check_contrasts(claim, ["a", "b"], ["ce", "focal"], ["test/nll"], {})


def test_a_term_must_be_recorded_by_both_arms(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    term = {"arm": "both", "against": "ce", "metric": "train/cross_entropy", "direction": "lower"}
    store = f"store={tmp_path / 'store'}"

    def prepared(*alone: str) -> Path:
        sweep = SWEEP | {"metric": "test/nll", "arms": {"ce": [*alone], "both": ["loss=ce_l2"]}}
        return write(tmp_path, contrast=term, sweep=sweep)

    assert main(["claim", str(prepared("loss=cross_entropy")), store]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert "small.contrast.metric must be a term that both arms have among several" in error
    assert "got train/cross_entropy, which 'ce' does not record" in error
    assert not records(tmp_path / "store")
    weight = "loss.cross_entropy.weight={schedule: linear, start: 1, end: 2}"
    for words in (["loss=ce_l2", "loss.l2.weight=0.1"], ["loss=cross_entropy", weight]):
        path = prepared(*words)
        assert run.prepare(file.read(path), [store]).outcome().verdict == "PENDING"


# The shipped ones

SHIPPED = file.names()


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_claims_say_what_the_reader_needs(name: str) -> None:
    claim = file.read(file.find(name))
    assert claim.notes[0] in "ABCD"
    assert claim.supports.endswith(".")
    assert claim.contradicts.endswith(".")
    assert claim.outcome, "what came out"
    assert not (config_dir() / "sweep" / f"{name}.yaml").exists(), "both would keep one plan"


@pytest.mark.usefixtures("forgetting")
@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_claims_plan(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scenes take seconds to compose and to push through, so theirs are only put together."""
    monkeypatch.setattr(build, "rehearse", lambda _config: (1.0, 0.1))
    claim = file.read(file.find(name))
    if any(task in str(claim.sweep) for task in ("segmentation/", "detection/")):
        monkeypatch.setattr(build, "probe", lambda _config: Probe(1, 0.1, 1.0))
    case = run.prepare(claim, [f"store={tmp_path}"])
    assert case.outcome().verdict == "PENDING"
    assert all(contrast.task in case.plan.tasks for contrast in case.claim.contrasts)
    used = {arm for c in claim.contrasts for arm in (c.arm, c.against)}
    assert used == set(case.plan.arms), "an arm is trained for nothing"
    assert len(case.plan.seeds) >= 6


def test_without_a_name_the_claims_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["claim"]) == 0
    listed, hint = capsys.readouterr().out.split("\n\n")
    assert [line.split()[0] for line in listed.splitlines()] == SHIPPED
    assert "claim NAME" in hint


# From file to page


def test_claims_are_trained_once_judged_and_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = write(tmp_path)
    equal = CONTRAST | {"arm": "again", "direction": "equal", "margin": 0.1}
    arms = {**SWEEP["arms"], "again": ["loss=kl"]}
    second = write(tmp_path, "second", contrast=equal, sweep=SWEEP | {"arms": arms})
    words = ["claim", str(first), str(second), "store=here", "--jobs", "1", "--report"]
    assert main([*words, "--judge-only", "--json"]) == 0
    before = json.loads(capsys.readouterr().out)["claims"]
    assert [claim["verdict"] for claim in before] == ["PENDING", "PENDING"]
    assert main([*words, "--json"]) == 0
    out, err = capsys.readouterr()
    after = json.loads(out)["claims"]
    assert "9 runs to train in 1 process" in err  # 6 + 9, of which 6 are the same
    assert "second" in err
    times = started(Path("here"))
    assert len(times) == 9
    (shown,) = after[0]["results"]
    kept = records(Path("here"))
    values = {
        arm: [kept[each["id"]]["metrics"]["test/nll"] for each in ids]
        for arm, ids in shown["runs"].items()
    }
    expected = [a - b for a, b in zip(values["focal"], values["ce"], strict=True)]
    assert shown["differences"] == pytest.approx(expected, abs=1e-12)
    low, high = scipy.stats.t.interval(0.95, 2, sum(expected) / 3, scipy.stats.sem(expected))
    assert (shown["low"], shown["high"]) == pytest.approx((low, high), rel=1e-9)
    assert after[1]["verdict"] == SUPPORTED
    assert after[0]["command"] == f"lossbench claim {first} store=here"
    shutil.copytree("here", "copy")
    assert main(["claim", str(first), "--judge-only", "store=copy"]) == 0  # options first
    assert "PENDING" not in capsys.readouterr().out
    assert main(words) == 0
    assert "to train" not in capsys.readouterr().err
    assert started(Path("here")) == times
    (text,) = Path("here/claims").glob("*.md")
    assert text.read_text().startswith("# The textbook, tested")
    Page(text.with_suffix(".html").read_text())


def test_a_shipped_sweep_can_be_named(tmp_path: Path) -> None:
    tested = {"arm": "focal", "against": "ce", "metric": "test/nll", "direction": "higher"}
    path = write(tmp_path, contrast=tested, sweep="quick")
    case = run.prepare(file.read(path), [f"store={tmp_path}", "seeds=3"])
    assert case.plan.arms == ["ce", "smoothed", "focal", "hinge"]
    assert case.plan.seeds == [0, 1, 2]
    assert case.plan.command == f"lossbench claim {path} store={tmp_path} seeds=3"


def test_a_tuned_claim_asks_for_what_its_trials_choose(tmp_path: Path) -> None:
    tuned = {"trials": 2, "space": {"optimizer.lr": [0.001, 0.1]}}
    case = run.prepare(
        file.read(write(tmp_path, sweep=SWEEP | {"tune": tuned})), [f"store={tmp_path}"]
    )
    queue = run.Queue([case], commands.Choice())
    trials = queue.more()
    assert [trial.trial for trial in trials] == [0, 0, 1, 1]
    assert queue.unknown == 6
    assert queue.more() == []
    for trial in trials:
        value = 0.1 if trial.config["optimizer"]["lr"] == 0.1 else 0.9
        case.records[trial.id] = Record(
            trial.id, "done", trial.config, trial.seed, metrics={"val/nll": value}
        )
    case.advance()
    later = queue.more()
    assert len(later) == 6
    assert {each.config["optimizer"]["lr"] for each in later} == {0.1}
    assert case.outcome().planned == 10


def test_what_a_step_costs_is_compared_among_runs_that_did_nothing_else() -> None:
    plan = make_plan()
    there = {
        run: dataclasses.replace(
            record,
            steps=100,
            seconds={"train": 2.0 + (record.config["loss"].get("focal") is not None)},
        )
        for run, record in make_records(plan, {}).items()
    }
    claim = claimed(contrast(metric="cost/step_ms", margin=5.0))
    (tested,) = judge(claim, plan, there).results
    assert tested.differences == pytest.approx([10.0] * 10)
    assert tested.verdict == SUPPORTED
    for key in ("checkpoint", "devices"):
        slowed = {
            run: dataclasses.replace(record, provenance={"beside": {key: 2}})
            for run, record in there.items()
        }
        (tested,) = judge(claim, plan, slowed).results
        assert tested.verdict == OPEN, key
        assert "recorded no cost/step_ms" in tested.text


# Pages


def outcomes() -> list[Outcome]:
    """One of every verdict, lost and missing runs, hostile names."""
    arms = {"ce": {"cross_entropy": {}}, HOSTILE: {"focal": {}}, "mae": {"mae": {}}}
    plan = make_plan(arms, tasks=(HOSTILE,), command=HOSTILE)
    whole = make_records(plan, {HOSTILE: 0.02})
    own = {"arm": HOSTILE, "task": HOSTILE}
    contrasts = [
        contrast(**own),
        contrast(**own, direction="lower"),
        contrast(**own, direction="equal", margin=0.02),
    ]
    claim = dataclasses.replace(
        claimed(*contrasts), claim=HOSTILE, name=HOSTILE, notes=HOSTILE, outcome=HOSTILE
    )
    cases = [
        whole,
        lose(plan, whole, HOSTILE, range(7), "failed"),
        lose(plan, whole, "ce", [0], None),
    ]
    made = [judge(claim, plan, there) for there in cases]
    simple = [judge(claimed(contrast(**own)), plan, whole), _alone(plan, whole)]
    return [*made, *simple]


def _alone(plan: Plan, there: dict[str, Record]) -> Outcome:
    one = dataclasses.replace(
        plan, seeds=[0], cells=[dataclasses.replace(c, runs={0: c.runs[0]}) for c in plan.cells]
    )
    return judge(claimed(contrast(arm="mae", task=HOSTILE)), one, there)


def test_the_page_lets_nothing_hostile_through() -> None:
    made = outcomes()
    text = page.to_html(made)
    parsed = Page(text)
    shown = " ".join(parsed.words)
    assert parsed.all("script") == []
    assert "alert(" in shown
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert not [a for _, given in parsed.elements for a in given if a.startswith("on")]
    links = [given["href"] for given in parsed.all("a")]
    ids = {given.get("id") for given in parsed.all("section")}
    assert {link.removeprefix("#") for link in links if link} <= ids
    assert not [given for given in parsed.elements if "src" in given[1]]
    for word in ("supported", "contradicted", "not enough evidence", "pending"):
        assert word in shown


def test_markdown_and_terminal_let_nothing_hostile_through() -> None:
    made = outcomes()
    for text in (claimtext.to_markdown(made), claimtext.table(made), claimtext.terminal(made)):
        assert "\x1b" not in text
        assert "\u202e" not in text
    assert "<script>" not in claimtext.to_markdown(made) + claimtext.table(made)
    assert "\x1b[32m" in claimtext.terminal(made, color=True)
    table = claimtext.terminal(made).partition("\n\n")[0]
    assert all(len(line) <= 100 for line in table.splitlines())


def test_the_terminal_tells_alarms_and_whose_they_are() -> None:
    found = [Note("note", "a trifle"), Note("alarm", "unlike data"), Note("warning", "untuned")]
    one = dataclasses.replace(judged(contrast()), notes=found)
    *_, alarm, warning = claimtext.terminal([one]).splitlines()
    assert alarm.split(maxsplit=1) == ["alarm", f"{one.claim.name}: unlike data"]
    assert warning.startswith("1 warning beside")
    assert "a trifle" not in claimtext.terminal([one])


def test_what_several_claims_share_is_paid_once() -> None:
    one = judged(contrast())
    assert claimtext.seconds([one, one]) == pytest.approx(one.seconds)
    assert one.seconds > 0
    assert claimtext.summary([one, one]) == "2 claims: 2 supported"


def test_judging_and_showing_need_no_torch() -> None:
    code = (
        "import sys, harness.claims.judge, harness.claims.options, harness.report.claims\n"
        "print([name for name in ('torch', 'hydra') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
