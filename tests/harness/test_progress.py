"""What a person sees while a sweep runs, on a terminal and elsewhere."""

import dataclasses
import io
import os
import re
import shutil

import pytest

from harness import progress as module
from harness.launch import Event
from harness.plan import Plan, PlannedRun
from harness.progress import Progress, clock
from harness.record import Record
from tests.harness.builders import lose, make_plan, make_records, tuned_plan, with_controls


class Screen(io.StringIO):
    """A terminal: what was printed, and what is to be seen of it."""

    def isatty(self) -> bool:
        return True

    def seen(self) -> list[str]:
        lines: list[str] = [""]
        row = 0
        for part in re.split(r"(\x1b\[\d*[A-Za-z]|\n)", self.getvalue()):
            if part == "\n":
                row += 1
                lines += [""] * (row + 1 - len(lines))
            elif part.endswith("A") and part.startswith("\x1b"):
                row -= int(part[2:-1])
                assert row >= 0
            elif part == "\x1b[2K":
                lines[row] = ""
            else:
                assert "\x1b" not in part
                lines[row] += part
        return lines[:-1] if not lines[-1] else lines


def ends(plan: Plan, records: dict[str, Record], out: io.StringIO, known: int = 0) -> Progress:
    """A progress that has seen all runs end in the order of the plan, but those already known."""
    runs = list(plan.runs())
    there = {run.id: records[run.id] for run in runs[:known]}
    shown = Progress(plan, there, len(runs) - known, out)
    for run in runs[known:]:
        record = records.get(run.id)
        shown.end(Event(run, record.status if record else "refused", "why not"), record)
    return shown


@pytest.fixture
def size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "get_terminal_size", lambda *_: os.terminal_size((80, 24)))


def test_elsewhere_there_is_a_line_per_run() -> None:
    plan = make_plan(seeds=4)
    records = make_records(plan)
    out = io.StringIO()
    ends(plan, records, out)
    lines = out.getvalue().splitlines()
    for number, (line, run) in enumerate(zip(lines, plan.runs(), strict=True), 1):
        value = records[run.id].metrics[plan.metric]
        assert line.startswith(f"[{number:>2}/12] {run.arm}  seed {run.seed}  {plan.metric} ")
        assert f"{value:.4g}" in line
    assert "\x1b" not in out.getvalue()


def test_runs_of_earlier_calls_count() -> None:
    plan = make_plan(seeds=4)
    out = io.StringIO()
    ends(plan, make_records(plan), out, known=7)
    assert [line[:7] for line in out.getvalue().splitlines()] == [
        f"[{number:>2}/12]" for number in range(8, 13)
    ]


def test_what_went_wrong_is_said_in_its_line() -> None:
    plan = make_plan(seeds=3, tasks=("digits", "wine"))
    records = lose(plan, make_records(plan), "focal", [0], "diverged")
    records = lose(plan, records, "mae", [1], None)
    out = io.StringIO()
    ends(plan, records, out)
    lines = out.getvalue().splitlines()
    (diverged,) = [line for line in lines if "digits  focal  seed 0" in line]
    assert diverged.endswith("diverged: why not")
    (refused,) = [line for line in lines if "wine  mae  seed 1" in line]
    assert refused.endswith("refused: why not")


def test_a_metric_that_is_missing_is_said_to_be() -> None:
    plan = make_plan(seeds=2, metric="test/unheard_of")
    out = io.StringIO()
    ends(plan, make_records(plan), out)
    assert all("test/unheard_of missing" in line for line in out.getvalue().splitlines())


def test_a_terminal_shows_one_picture_in_place(size: None) -> None:
    plan = make_plan(seeds=8)
    records = lose(plan, make_records(plan), "focal", [1, 2], "failed")
    out = Screen()
    ends(plan, records, out, known=3)
    head, *arms = out.seen()
    assert head.startswith("losses  24/24 runs")
    assert [line.split()[0] for line in arms] == plan.arms
    assert arms[0].count("█") == module.BAR
    assert "8/8" in arms[0]
    done = [records[run].metrics[plan.metric] for run in plan.cells[0].runs.values()]
    assert f"{sum(done) / len(done):.4g}" in arms[0]
    assert arms[1].rstrip().endswith("2 not done")


def test_a_half_finished_picture_counts_what_is_there(size: None) -> None:
    plan = make_plan(seeds=10)
    records = make_records(plan)
    out = Screen()
    runs = list(plan.runs())
    shown = Progress(plan, {}, len(runs), out)
    shown.draw()
    assert "starting" in out.seen()[0]
    for run in runs[:13]:  # four seeds of all three arms, and one more of the first
        shown.end(Event(run, "done"), records[run.id])
    head, *arms = out.seen()
    assert "13/30 runs" in head
    assert "left" in head
    assert [line.count("█") for line in arms] == [12, 10, 10]  # of 24, for 5, 4 and 4 of 10
    assert [re.search(r"\d+/10", line)[0] for line in arms] == ["5/10", "4/10", "4/10"]  # type: ignore[index]


def test_pictures_fit_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    arms = {f"{'a rather long name ' * 6}{i}": {"focal": {"gamma": i}} for i in range(40)}
    plan = make_plan(arms, seeds=2, baseline=next(iter(arms)))
    for columns, rows in ((40, 10), (100, 30), (500, 60)):
        monkeypatch.setattr(
            shutil,
            "get_terminal_size",
            lambda *_, at=(columns, rows): os.terminal_size(at),
        )
        out = Screen()
        ends(plan, make_records(plan), out)
        seen = out.seen()
        assert len(seen) < rows
        assert all(len(line) < columns for line in seen)
        hidden = 41 - rows + 2
        assert (f"... {hidden} more arms" in seen[-1]) == (rows < 41)


def test_a_picture_is_redrawn_when_it_gets_old(size: None, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    out = Screen()
    shown = Progress(make_plan(seeds=2), {}, 6, out)
    for wait, drawn in ((0.1, 0), (0.2, 1), (0.1, 1), (10, 2)):
        now[0] += wait
        shown.tick()
        assert out.getvalue().count("losses  0/6 runs") == drawn
    elsewhere = io.StringIO()
    quiet = Progress(make_plan(seeds=2), {}, 6, elsewhere)
    now[0] += 100
    quiet.tick()
    assert elsewhere.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0:00"),
        (0.4, "0:00"),
        (59.6, "1:00"),
        (61, "1:01"),
        (3599, "59:59"),
        (90061, "25:01:01"),
    ],
)
def test_clocks_carry(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown


def test_a_run_without_a_record_is_counted(size: None) -> None:
    plan = make_plan(seeds=1)
    run = next(plan.runs())
    assert isinstance(run, PlannedRun)
    for out in (Screen(), io.StringIO()):
        Progress(plan, {}, 3, out).end(Event(run, "done"), None)
        assert "1/3" in out.getvalue()


@pytest.mark.usefixtures("size")
def test_controls_wait_while_arms_are_tuned() -> None:
    """They have neither runs nor trials of their own yet."""
    plan, _ = with_controls(make_plan(), make_records(make_plan()))
    tuned = tuned_plan()
    cells = [dataclasses.replace(cell, runs={}) for cell in plan.cells]
    screen = Screen()
    Progress(dataclasses.replace(tuned, cells=cells, controls=plan.controls), {}, 9, screen).draw()
    assert any(line.startswith("null") and "0/0" in line for line in screen.seen())
