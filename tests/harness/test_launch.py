"""Sweeps on real worker processes: they resume, survive kills, share work, and stop when asked."""

import dataclasses
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from harness import crew, slots
from harness import launch as module
from harness import sweep as sweeps
from harness.cli import main
from harness.commands import read_all
from harness.launch import Event, Launch
from harness.plan import Plan, PlannedRun
from harness.progress import Progress
from harness.record import Record
from harness.slots import Gpu, LaunchError, find
from harness.store import Store
from harness.sweep import request
from tests.harness import tiny
from tests.harness.spine import alive, children, records, start, started, wait_for, write_sweep

FOREVER = ["trainer.epochs=1000000"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def saved(path: Path) -> Plan:
    """The plan of a sweep, kept so that another process need not make it."""
    wanted = request(str(path), [])
    plan = sweeps.plan(wanted)
    sweeps.save(wanted, plan)
    return plan


def launched(runs: list[PlannedRun], here: Path, jobs: int = 1) -> Launch:
    places = find(runs, jobs=jobs)
    return Launch(runs, Store(here / "results"), places=places, log=here / "workers.log")


def in_progress(store: Path) -> list[Path]:
    """Folders of runs that were begun and have no record."""
    return [
        lock.parent
        for lock in store.glob("runs/*/.lock")
        if not lock.with_name("record.json").exists()
    ]


def earlier(store: Path) -> list[Path]:
    return sorted(store.glob("runs/*/record.json.*"))


def test_a_sweep_goes_on_where_it_was_and_trains_nothing_twice(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Some arms first, then all, then again; in a folder with files named like our modules."""
    for name in ("losses", "harness", "torch", "queue", "json"):
        (here / f"{name}.py").write_text("raise SystemExit('the wrong module')\n")
    arms = {
        "ce": ["loss=cross_entropy"],
        "wild": ["loss=focal", "optimizer.name=sgd", "optimizer.lr=1e30"],
        "focal": ["loss=focal"],
    }
    words = ["sweep", str(write_sweep(here, arms=arms)), "--jobs", "1"]
    store = here / "results"

    assert main([*words, "--only", "c?"]) == 0
    out = capsys.readouterr().out
    assert "0 done, 2 to run in 1 process" in out
    assert "[2/2] ce  seed 1  test/accuracy " in out
    first = started(store)
    assert len(first) == 2

    assert main(words) == 0
    out = capsys.readouterr().out
    assert "2 done, 4 to run" in out
    lines = [line for line in out.splitlines() if line.startswith("[")]
    assert [line[:5] for line in lines] == [f"[{number}/6]" for number in range(3, 7)]
    assert [line.split()[1:4] for line in lines] == [
        [arm, "seed", seed] for seed in "01" for arm in ("wild", "focal")
    ]
    assert all("diverged: " in line and " at step " in line for line in lines[::2])
    second = started(store)
    assert len(second) == 6
    assert second.items() >= first.items()
    statuses = sorted(record["status"] for record in records(store).values())
    assert statuses == ["diverged"] * 2 + ["done"] * 4

    (store / "sweeps" / "small" / "workers.log").unlink()
    assert main(words) == 0
    assert "6 done, 0 to run\n" in capsys.readouterr().out
    assert main([*words, "--only", "ce"]) == 0  # what is wanted is done, and other things too
    assert started(store) == second
    assert not (store / "sweeps" / "small" / "workers.log").exists()  # no worker was started
    reports = {path.name for path in (store / "sweeps" / "small").iterdir()}
    assert {"comparison.csv", "comparison.md", "comparison.tex", "report.html"} < reports
    assert earlier(store) == []


@pytest.mark.slow
def test_done_runs_are_trained_again_by_force_and_failed_ones_on_request(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_sweep(here)
    plan = saved(path)
    store = Store(here / "results")
    runs = list(plan.runs())
    old = {"started": "2001-01-01T00:00:00.000+00:00"}
    for run, status in zip(runs, ("done", "failed", "diverged", "done"), strict=True):
        metrics = {plan.metric: 0.5} if status == "done" else {}
        store.write(
            Record(run.id, status, run.config, run.seed, metrics, provenance=old, error="once")  # type: ignore[arg-type]
        )
    before = started(store.folder)

    assert main(["sweep", str(path), "--jobs=1"]) == 0  # failed runs are results
    assert "4 done, 0 to run" in capsys.readouterr().out
    assert started(store.folder) == before

    assert main(["sweep", str(path), "--jobs=1", "--retry-failed"]) == 0
    assert "4 done, 2 to run" in capsys.readouterr().out
    after = started(store.folder)
    again = {run.id for run in runs[1:3]}
    assert {run for run in before if after[run] != before[run]} == again
    assert {record["status"] for record in records(store.folder).values()} == {"done"}
    assert {file.parent.name for file in earlier(store.folder)} == again

    assert main(["sweep", str(path), "--jobs=1", "--force", "--only=*/focal"]) == 0
    assert "4 done, 2 to run" in capsys.readouterr().out
    forced = {run.id for run in runs if run.arm == "focal"}
    latest = started(store.folder)
    assert {run for run in after if latest[run] != after[run]} == forced
    kept = [json.loads(file.read_text()) for file in earlier(store.folder)]
    assert sorted(record["status"] for record in kept) == ["diverged", "done", "done", "failed"]


def test_a_killed_worker_loses_nothing(here: Path) -> None:
    """Its run is trained by another; what a worker cannot train is told and holds nobody up."""
    before = set(children(os.getpid()))  # torch's compiler keeps some
    plan = saved(write_sweep(here, overrides=["trainer.epochs=40"]))
    runs = list(plan.runs())
    wrong = dataclasses.replace(runs[0], id="wrong", config={**runs[0].config, "more": 1})
    launch = launched([*runs, wrong], here)
    killed: list[int] = []

    def kill_once() -> None:
        if not killed and in_progress(here / "results"):
            killed.append(launch.crew.workers[0].process.pid)
            os.kill(killed[0], signal.SIGKILL)

    ended = {event.run.id: event for event in launch.events(kill_once)}
    assert killed
    assert launch.deaths.total() == 1
    assert {ended[run.id].status for run in runs} == {"done"}
    assert ended["wrong"].status == "refused"
    assert str(ended["wrong"].error).startswith("ValueError: config has no key 'more'; ")
    found = read_all(plan, launch.store)
    assert len(found) == 4
    assert all(record.status == "done" for record in found.values())
    assert earlier(here / "results") == []
    assert launch.crew.workers == []
    assert not set(children(os.getpid())) - before


def test_a_run_that_kills_its_workers_is_recorded_as_failed(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "TRIES", 1)
    path = write_sweep(here, seeds=1, arms={"ce": ["loss=cross_entropy", *FOREVER]})
    plan = saved(path)
    (run,) = plan.runs()
    launch = launched([run], here)

    def kill() -> None:
        if in_progress(here / "results"):
            os.kill(launch.crew.workers[0].process.pid, signal.SIGKILL)

    (event,) = launch.events(kill)
    assert (event.run, event.status) == (run, "failed")
    assert event.error == "the process that trained it died 1 times (exit code -9)"
    record = launch.store.read(run.id)
    assert record is not None
    assert (record.status, record.error) == ("failed", event.error)
    for command in ("plan", "report", "sweep"):  # that record has no times
        assert main([command, str(path)]) == 0
    assert "1 done, 0 to run" in capsys.readouterr().out


def test_workers_that_cannot_start_are_an_error_that_names_the_log(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(crew, "SERVE", "import sys; sys.exit('no such library')  # {path}")
    path = write_sweep(here)
    runs = list(saved(path).runs())
    log = here / "results" / "sweeps" / "small" / "workers.log"
    with pytest.raises(LaunchError, match="could not start"):
        list(launched(runs, here).events())
    assert main(["sweep", str(path)]) == 1
    told = capsys.readouterr().err
    assert (
        told == f"lossbench: a worker could not start (exit code 1); see {log.relative_to(here)}\n"
    )
    assert "no such library" in log.read_text()


def test_a_store_that_cannot_be_written_ends_the_sweep(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = set(children(os.getpid()))
    path = write_sweep(here, seeds=1)
    first, _ = saved(path).runs()
    folder = here / "results" / "runs" / first.id
    folder.parent.mkdir(parents=True)
    folder.symlink_to(here / "nowhere" / "at all")  # reads as missing, cannot be made
    assert main(["sweep", str(path), "--jobs=1"]) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert told.startswith(f"lossbench: cannot write results/runs/{first.id}")
    assert not set(children(os.getpid())) - before


# Whole sweeps as processes


def leader(here: Path, path: Path, *words: str) -> "subprocess.Popen[str]":
    return start(["-m", "harness", "sweep", str(path), "--jobs=1", *words], here)


@pytest.mark.slow
def test_two_sweeps_of_one_plan_share_the_work(here: Path) -> None:
    path = write_sweep(here, seeds=4, overrides=["trainer.epochs=20"])
    plan = saved(path)
    leaders = [leader(here, path) for _ in range(2)]
    for process in leaders:
        out, err = process.communicate(timeout=180)
        assert process.returncode == 0, err
        assert "8 done" in out or "[8/8]" in out
        assert err == ""
    assert records(here / "results").keys() == {run.id for run in plan.runs()}
    assert earlier(here / "results") == []  # none was trained twice


def begun(here: Path) -> tuple["subprocess.Popen[str]", list[int]]:
    """A sweep that is training something endless, and its workers."""
    path = write_sweep(here, overrides=FOREVER)
    saved(path)
    process = leader(here, path)
    wait_for(lambda: in_progress(here / "results"), "a run to begin")
    workers = children(process.pid)
    assert len(workers) == 1
    return process, workers


@pytest.mark.slow
@pytest.mark.parametrize("wanted", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_everything_and_says_how_to_go_on(here: Path, wanted: int) -> None:
    process, workers = begun(here)
    process.send_signal(wanted)
    out, err = process.communicate(timeout=5)
    assert process.returncode == 130
    path = here / "small.yaml"
    assert err == f"\nlossbench: stopped with 4 runs left; go on with: lossbench sweep {path}\n"
    assert "Traceback" not in out
    wait_for(lambda: not any(map(alive, workers)), "the workers to end", 5)
    assert records(here / "results") == {}
    assert len(in_progress(here / "results")) == 1
    with Store(here / "results").claim(in_progress(here / "results")[0].name) as free:
        assert free


def test_ctrl_c_after_the_last_run_says_that_nothing_is_left(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before, real = signal.getsignal(signal.SIGTERM), Progress.end

    def end(self: Progress, event: Event, record: Record | None) -> None:
        real(self, event, record)
        if self.ended == self.to_do:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Progress, "end", end)
    path = write_sweep(here, seeds=1)
    assert main(["sweep", str(path), "--jobs=1"]) == 130
    said = f"when all runs had ended; the same command prints the table: lossbench sweep {path}"
    assert capsys.readouterr().err == f"\nlossbench: stopped {said}\n"
    assert signal.getsignal(signal.SIGTERM) is before
    assert main(["sweep", str(path)]) == 0


@pytest.mark.slow
def test_workers_end_when_their_leader_is_killed(here: Path) -> None:
    process, workers = begun(here)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=5)
    wait_for(lambda: not any(map(alive, workers)), "the workers to end", 5)
    assert records(here / "results") == {}


@pytest.mark.slow
def test_workers_have_processes_that_read_pictures(here: Path) -> None:
    """A process that is forked while a thread waits for stdin must not wait for that thread."""
    folder = tiny.folder(here / "own", n=15)
    shared = [f"data.path={folder}", "data.size=[16,16]", "model=cnn", "data.memory=0"]
    shared += ["trainer.workers=2", "trainer.epochs=2", "trainer.accelerator=cpu"]
    task = "classification/image_folder"
    path = write_sweep(here, task=task, overrides=shared, seeds=1)
    runs = list(saved(path).runs())
    assert [event.status for event in launched(runs, here).events()] == ["done"] * 2


@pytest.mark.slow
def test_workers_are_pinned_before_they_load_anything(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """GPUs that are not there: torch finds none, and trains on the processor."""
    found = [Gpu(i, str(90 + i), f"key{i}") for i in range(3)]
    monkeypatch.setattr(slots, "gpus", lambda: found)
    (here / "noting.py").write_text(
        "import os, sys\n"
        f"with open({str(here / 'noted')!r}, 'a') as log:\n"
        "    names = ('CUDA_VISIBLE_DEVICES', 'OMP_NUM_THREADS', 'MKL_NUM_THREADS')\n"
        "    print(*map(os.environ.get, names), file=log)\n"
    )
    path = write_sweep(here, seeds=3)
    words = ["sweep", str(path), "plugins=[noting.py]", "--devices", "0,2"]
    assert main([*words[:-1], "0,3"]) == 2
    assert (
        capsys.readouterr().err == "lossbench: --devices: there is no GPU '3'; there are 0, 1, 2\n"
    )
    assert not (here / "results").exists()
    (here / "noted").unlink()
    assert main(["plan", *words[1:]]) == 0
    assert "6 to run in 2 processes on GPUs 0, 2; about" in capsys.readouterr().out
    assert main(words) == 0
    assert "6 to run in 2 processes on GPUs 0, 2; about" in capsys.readouterr().out
    pinned = {line for line in (here / "noted").read_text().splitlines() if line.startswith("9")}
    assert pinned == {"90 1 1", "92 1 1"}
    monkeypatch.setattr(slots, "find", lambda *_, **__: pytest.fail("asked for devices"))
    assert main(words) == 0  # there is nothing left that needs any


# Runs on several devices


def wide(here: Path, *overrides: str, **changes: Any) -> Path:
    """A sweep of an arm on one device, and one on two of the processor."""
    shared = ["trainer.accelerator=cpu", "trainer.precision=64-true", *overrides]
    arms = {
        "ce": ["loss=cross_entropy"],
        "focal": ["loss=focal", "trainer.devices=2", "trainer.strategy=ddp"],
    }
    return write_sweep(here, overrides=shared, **{"arms": arms} | changes)


@pytest.mark.slow
def test_runs_on_two_devices_are_those_of_one(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = wide(here, "trainer.epochs=3")
    assert main(["sweep", str(path), "--jobs=1"]) == 2
    said = "arm focal: trainer.devices=2, but 1 can be used; --jobs 2 makes as many"
    assert capsys.readouterr().err == f"lossbench: {said} of the processors\n"
    assert not (here / "results").exists()

    assert main(["sweep", str(path), "--jobs=2"]) == 0
    assert "4 to run in 2 processes; about" in capsys.readouterr().out
    one = ["trainer.devices=1", "trainer.strategy=auto", "store=one"]
    assert main(["sweep", str(path), "--jobs=1", *one]) == 0
    two, alone = records(here / "results"), records(here / "one")
    assert two.keys() == alone.keys()
    assert sorted(record["provenance"]["devices"] for record in two.values()) == [1, 1, 2, 2]
    for run, record in two.items():
        assert record["status"] == "done"
        # sums are taken in another order, in float64; metrics are computed in float32
        assert record["metrics"] == pytest.approx(alone[run]["metrics"], abs=1e-6)
        assert record["fingerprints"] == alone[run]["fingerprints"]


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["first", "follower"])
def test_a_run_on_two_devices_survives_the_death_of_either_process(here: Path, victim: str) -> None:
    plan = saved(wide(here, "trainer.epochs=60", seeds=1))
    (run,) = [run for run in plan.runs() if run.arm == "focal"]
    launch = launched([run], here, jobs=2)
    followers: list[int] = []
    killed: list[int] = []

    def kill_once() -> None:
        first = [worker.process.pid for worker in launch.crew.workers]
        followers.extend(pid for f in first for pid in children(f) if pid not in followers)
        if followers and not killed and in_progress(here / "results"):
            killed.append(followers[0] if victim == "follower" else first[0])
            os.kill(killed[0], signal.SIGKILL)

    (event,) = launch.events(kill_once)
    assert killed
    assert (event.run.id, event.status) == (run.id, "done")
    assert launch.deaths.total() == 1
    assert len(followers) == 2
    wait_for(lambda: not any(map(alive, followers)), "what followed them to end", 5)
    assert earlier(here / "results") == []


@pytest.mark.slow
def test_nobody_is_left_of_a_killed_sweep_of_wide_runs(here: Path) -> None:
    path = wide(here, *FOREVER)
    saved(path)
    process = start(["-m", "harness", "sweep", str(path), "--jobs=2", "--only=focal"], here)
    (worker,) = wait_for(lambda: children(process.pid), "a worker")
    followers = wait_for(lambda: children(worker), "what follows it")
    wait_for(lambda: in_progress(here / "results"), "the run to begin")
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=5)
    everybody = [worker, *followers]
    wait_for(lambda: not any(map(alive, everybody)), "everybody to end", 5)
    assert records(here / "results") == {}
