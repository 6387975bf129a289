"""Sweeps on a real Slurm, on loopback with GPUs that are none: see scripts/slurm."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.cli import main
from harness.cluster import slurm
from tests.harness.clusters import driver, ended, long_sweep, outcomes, saved
from tests.harness.spine import ROOT, records, started, wait_for, write_sweep

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("sbatch"), reason="needs Slurm: see scripts/slurm"),
    pytest.mark.xdist_group("slurm"),
]
SCRIPT = str(ROOT / "scripts" / "slurm")


@pytest.fixture(scope="module", autouse=True)
def _there() -> Iterator[None]:
    """One Slurm for the module: that of `scripts/slurm test`, or one of its own."""
    pytest.importorskip("submitit", reason="needs the extra slurm")
    given = Path(os.environ.get("SLURM_CONF", ""))
    if given.parent.name.startswith("lossbench-slurm-"):  # nobody's real one
        yield
        return
    if os.geteuid() != 0 or not shutil.which("munged", path=os.environ["PATH"] + ":/usr/sbin"):
        pytest.skip("scripts/slurm needs root and munge")
    up = subprocess.run([SCRIPT, "up"], capture_output=True, text=True, timeout=60)
    assert up.returncode == 0, up.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", up.stdout.strip().partition("SLURM_CONF=")[2])
        yield
        subprocess.run([SCRIPT, "down"], check=True, timeout=120)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(slurm, "ASK", 1.0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield tmp_path
    call("scancel", "--user=root")


def call(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def queue() -> dict[str, str]:
    """Jobs that have not ended, with their states."""
    return dict(line.split("|") for line in call("squeue", "-h", "-r", "-o%i|%T").splitlines())


def one_job() -> str:
    wait_for(lambda: "RUNNING" in queue().values(), "a job to run", 60)
    (job,) = queue()
    return job


def two_checkpoints(store: Path, but: int = 0) -> list[Path]:
    found = [*store.glob("runs/*/checkpoint-1.pt")]
    return [path for path in found if step(path) > but]


def step(path: Path) -> int:
    try:
        content = torch.load(path, weights_only=True)
    except Exception:  # it is gone
        return 0
    return int(content["global_step"])


SEEN = """
import os, pathlib
names = "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "SLURM_JOB_ID"
if "SUBMITIT_EXECUTOR" in os.environ:
    seen = tuple(os.environ.get(name) for name in names)
    pathlib.Path("seen", f"{os.getpid()}").write_text(repr(seen))
"""


def test_a_sweep_in_an_array(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each element has one GPU; what the current folder holds is taken for no module."""
    (here / "seen").mkdir()
    (here / "seen.py").write_text(SEEN)
    for name in ("harness", "queue", "json", "submitit"):
        (here / f"{name}.py").write_text("raise SystemExit('the wrong module')\n")
    words = ["launch.gpus=1", "launch.cpus=2", "launch.per_job=2", "launch.parallel=2"]
    words += ["launch.minutes=9", "plugins=[seen.py]", "launch.extra.comment=two words"]
    path = write_sweep(here)
    assert main(["sweep", str(path), "launch=slurm", *words]) == 0
    out = capsys.readouterr().out
    assert "[4/4]" in out
    seen = [file.read_text() for file in (here / "seen").iterdir()]
    assert set(seen) == {"('0', '1', None)", "('1', '1', None)"}
    assert len(seen) == 2  # workers, each for the runs of an element
    assert {record["status"] for record in records(here / "results").values()} == {"done"}
    shown = call("squeue", "-h", "-tall", "--name=lossbench-small", "-o%l|%C")
    assert set(shown.split()) == {"23:00|2"}  # twice nine minutes, and five to load
    assert f"slurm     logs in {here}/cache/lossbench/slurm/lossbench-small-" in out
    assert not any((here / "cache" / "lossbench" / "slurm").iterdir())
    assert not [*(here / "results").rglob("*.pkl")]

    before = started(here / "results")
    assert main(["sweep", str(path), "launch=slurm", *words]) == 0
    assert "4 done, 0 to run" in capsys.readouterr().out
    assert started(here / "results") == before


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the long run comes to where nothing interrupts it, on this machine without Slurm."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["sweep", str(long_sweep(folder)), "--jobs=1"]) == 0
    return outcomes(folder / "results")


def test_preemption_and_signals_save_and_requeue(here: Path, whole: dict[str, Any]) -> None:
    """By a job that may take its place, by the signal Slurm is asked for, and by hand."""
    path, store = long_sweep(here), here / "results"
    process = driver(here, path, "launch=slurm", "launch.partition=debug")
    wait_for(lambda: two_checkpoints(store), "two checkpoints", 200)
    job = one_job()

    def again(what: str) -> int:
        """Step at which the run was put down, once it trains again."""
        wait_for(lambda: queue().get(job) == "PENDING", f"{what} to put it back", 60)
        (folder,) = store.glob("runs/*")
        latest = max(step(file) for file in folder.glob("checkpoint-?.pt"))
        call("scontrol", "update", f"JobId={job}", "StartTime=now")  # not in two minutes
        wait_for(lambda: two_checkpoints(store, latest), "it to go on", 90)
        return latest

    urgent = ["sbatch", "--partition=urgent", "--cpus-per-task=8", "--output=/dev/null"]
    call(*urgent, "--wrap=sleep 1")
    steps = [again("the urgent job")]
    for command in (["scancel", "--signal=USR2", job], ["scontrol", "requeue", job]):
        call(*command)
        steps.append(again(command[0]))
    assert steps == sorted(set(steps))
    assert any(at % 100 for at in steps)  # written between two, when the signal came
    ended(process)
    assert outcomes(store) == whole
    assert not list(store.glob("runs/*/record.json.*"))


def test_ctrl_c_cancels_and_a_dead_driver_s_jobs_go_on(here: Path, whole: dict[str, Any]) -> None:
    path, store = long_sweep(here), here / "results"
    process = driver(here, path, "launch=slurm")
    wait_for(lambda: two_checkpoints(store), "two checkpoints", 200)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped with 1 runs left; go on with" in err
    wait_for(lambda: not queue(), "the job to be cancelled", 60)
    assert not records(store)

    process = driver(here, path, "launch=slurm")
    wait_for(lambda: "RUNNING" in queue().values(), "the job to run again")
    process.kill()
    process.communicate()
    out = ended(driver(here, path, "launch=slurm"))  # waits for whom it finds at work
    assert "[1/1]" in out
    assert outcomes(store) == whole
    assert not list(store.glob("runs/*/record.json.*"))


def test_two_drivers_share_one_sweep(here: Path) -> None:
    path = write_sweep(here, seeds=3, overrides=["trainer.epochs=100"])
    plan = saved(path)
    both = [driver(here, path, "launch=slurm", "launch.per_job=2"), driver(here, path, "--jobs=1")]
    for process in both:
        ended(process)
    assert records(here / "results").keys() == {run.id for run in plan.runs()}
    assert not list((here / "results").glob("runs/*/record.json.*"))  # none was trained twice


def processes_of(module: str, folder: Path) -> list[int]:
    """Python processes that were started with `-m MODULE` and something in the folder."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            words = file.read_text().split("\0")
            mine = words[1:4] == ["-u", "-m", module] and words[4].startswith(str(folder))
            found += [int(file.parent.name)] if mine else []
    return found


def test_a_killed_job_is_tried_again_and_a_cancelled_one_is_not(here: Path) -> None:
    path, store = long_sweep(here, arms=2), here / "results"
    process = driver(here, path, "launch=slurm", "launch.parallel=1")
    wait_for(lambda: two_checkpoints(store), "two checkpoints", 200)
    jobs = queue()
    (running,) = (job for job, state in jobs.items() if state == "RUNNING")
    (waiting,) = jobs.keys() - {running}
    call("scancel", waiting)
    (serving,) = processes_of("submitit.core._submit", here)
    os.kill(serving, signal.SIGKILL)
    wait_for(lambda: running not in queue(), "the job to end")
    out = ended(process)
    assert f"cancelled: job {waiting} was cancelled" in out
    (record,) = records(store).values()
    assert record["status"] == "done"
    assert "[2/2]" in out


def test_a_run_that_takes_too_long_fails_or_goes_on(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It fails without checkpoints; a run behind it in the same element is trained all the same."""
    arms = {
        "for ever": ["loss=cross_entropy", "trainer.epochs=1000000"],
        "ce": ["loss=cross_entropy"],
    }
    path = write_sweep(here, seeds=1, arms=arms)
    saved(path)
    words = ["launch=slurm", "launch.minutes=0.1", "launch.per_job=2"]
    assert main(["sweep", str(path), *words]) == 0
    found = {record["status"]: record for record in records(here / "results").values()}
    assert found.keys() == {"failed", "done"}
    assert found["failed"]["error"] == "took longer than launch.minutes=0.1"
    assert "failed: took longer" in capsys.readouterr().out


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    told = capsys.readouterr().err
    assert told.count("\n") == 1, told
    return told


def test_what_slurm_has_not_is_told_in_one_line(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(write_sweep(here))
    assert main(["sweep", path, "launch=slurm", "launch.partition=dbug"]) == 2
    told = one_line(capsys)
    assert told == ("lossbench: launch.partition: Slurm has no 'dbug'; did you mean 'debug'?\n")
    assert not (here / "results").exists()
    assert main(["sweep", path, "launch=slurm", "launch.gpus=3"]) == 1
    assert "Requested node configuration is not available" in one_line(capsys)
    assert main(["sweep", path, "launch=slurm", "launch.extra.nonsense=1"]) == 1
    assert "nonsense" in one_line(capsys)
    broken = here / "slurm.conf"
    text = Path(os.environ["SLURM_CONF"]).read_text()
    port = next(line for line in text.splitlines() if line.startswith("SlurmctldPort"))
    broken.write_text(text.replace(port, "SlurmctldPort=1"))
    with monkeypatch.context() as patch:
        patch.setenv("SLURM_CONF", str(broken))
        assert main(["sweep", path, "launch=slurm"]) == 1
        assert one_line(capsys).startswith("lossbench: slurm does not answer: ")
        patch.setenv("PATH", "")
        assert main(["sweep", path, "launch=slurm"]) == 1
        assert "this machine has no Slurm" in one_line(capsys)


def test_a_slurm_that_goes_away_leaves_what_there_is(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(slurm, "PATIENCE", 2.0)
    path = write_sweep(here)
    saved(path)
    ask = slurm._call

    def silent(*command: str) -> "subprocess.CompletedProcess[str]":
        if command[0] == "squeue":
            return subprocess.CompletedProcess(command, 1, "", "nobody there\n")
        return ask(*command)

    monkeypatch.setattr(slurm, "_call", silent)
    assert main(["sweep", str(path), "launch=slurm"]) == 1
    assert "slurm does not answer (nobody there)" in one_line(capsys)
    monkeypatch.undo()
    monkeypatch.chdir(here)
    assert main(["sweep", str(path), "launch=slurm"]) == 0
    assert len(records(here / "results")) == 4


def test_answers_are_read_in_whole_lines(here: Path) -> None:
    file = here / "answers"
    assert slurm._lines(file, 0) == ([], 0)
    first = json.dumps({"run": "a", "status": "begun"}) + "\n"
    file.write_text(first + '{"run": "a", "sta')
    assert slurm._lines(file, 0) == ([{"run": "a", "status": "begun"}], len(first))
    assert slurm._lines(file, len(first)) == ([], len(first))
