"""What clusters share, without one: settings, who is handed what, and a node's part of it."""

import importlib.util
import os
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.cli import main
from harness.cluster import node, ray, slurm
from harness.cluster import settings as known
from harness.cluster.cluster import TICK, Cluster
from harness.cluster.node import Node
from harness.launch import TRIES, Event
from harness.plan import PlannedRun
from harness.record import Record
from harness.slots import LaunchError
from harness.store import Store, StoreError
from harness.sweep import request
from tests.harness.spine import ROOT, wait_for, write_sweep


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Settings


def test_settings_are_typed() -> None:
    words = ["launch=slurm", "launch.partition=gpu", "launch.gpus=2", "launch.memory=4"]
    words += ["launch.extra.account=me", "launch.extra={qos: low}"]
    asked = known.parse(words[:-1])
    assert asked == known.Slurm("gpu", gpus=2, memory=4.0, extra={"account": "me"})
    assert known.words(asked) == "slurm partition=gpu gpus=2 memory=4.0 extra={'account': 'me'}"
    assert known.parse(["launch.gpus=0.5", "launch=ray"]) == known.Ray(gpus=0.5)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["launch=slrum"], "launch: there is no engine 'slrum'; did you mean 'slurm'?"),
        (["launch.gpus=1"], "launch.gpus=1 needs launch=slurm or launch=ray\n"),
        (["launch.extra.qos=low"], "launch.extra.qos=low needs launch=slurm\n"),
        (
            ["launch.gpus=1", "launch.address=a:1"],
            "launch.gpus=1 launch.address=a:1 needs launch=ray\n",
        ),
        (["launch.partitoin=a"], "launch.partitoin=a needs launch=slurm or launch=ray\n"),
        (
            ["launch=slurm", "launch.partitoin=a"],
            "launch has no parameter 'partitoin'; did you mean 'partition'?",
        ),
        (["launch=slurm", "launch.gpus=0.5"], "launch.gpus must be whole number >= 0, got 0.5"),
        (["launch=ray", "launch.cpus=0"], "launch.cpus must be > 0, got 0"),
        (["launch=ray", "launch.minutes=-1"], "launch.minutes must be "),
        (["launch=ray", "launch.per_job=2"], "launch has no parameter 'per_job'"),
        (["launch=slurm", "launch.cpus=["], "launch.cpus must be a plain value, got ["),
        (["launch=ray", "launch.cpus=1", "launch.cpus.x=1"], "launch.cpus.x lies in launch.cpus"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    words: list[str], told: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", str(write_sweep(here)), *words]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"lossbench: {told}")
    assert err.count("\n") == 1
    assert not (here / "results").exists()


def test_where_a_sweep_is_launched_is_no_part_of_it(here: Path) -> None:
    path = str(write_sweep(here))
    alone, there = (request(path, words) for words in ([], ["launch=ray", "launch.gpus=1"]))
    assert (there.name, there.digest()) == (alone.name, alone.digest())
    assert there.launch == known.Ray(gpus=1)


@pytest.mark.parametrize("engine", ["slurm", "ray"])
def test_a_missing_extra_is_told_before_anything_is_planned(
    engine: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    gone = {"submitit", "ray"}
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name in gone else find(name, *rest)
    )
    assert main(["sweep", str(write_sweep(here)), f"launch={engine}"]) == 2
    assert capsys.readouterr().err.endswith(f" is missing: pip install lossbench[{engine}]\n")
    assert not (here / "results").exists()


@pytest.mark.parametrize("option", ["--jobs=2", "--devices=0", "--per-device=2"])
def test_options_of_this_machine_are_refused(
    option: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", str(write_sweep(here)), "launch=ray", option]) == 2
    name = option.partition("=")[0]
    told = f"lossbench: {name} is about this machine, but launch= is given; see launch.*\n"
    assert capsys.readouterr().err == told


def test_what_runs_on_nodes_and_watches_them_loads_no_torch() -> None:
    code = "import sys\n" + "".join(
        f"import harness.cluster.{name}\n" for name in ("node", "cluster", "slurm", "ray")
    )
    code += "print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("False\n", "")


# Who is handed what


class Script:
    """An engine that answers what it is told to, and writes the records."""

    minutes = None
    logs = Path("the logs")

    def __init__(self, store: Store, answers: Mapping[str, Sequence[str]]) -> None:
        self.store = store
        self.answers = {run: list(each) for run, each in answers.items()}
        self.jobs: list[Mapping[str, Any]] = []
        self.handed: list[str] = []
        self.stopped = False

    def start(self) -> None: ...

    def room(self) -> int:
        return 2 - len(self.jobs)

    def submit(self, jobs: Sequence[Mapping[str, Any]]) -> None:
        self.jobs += jobs
        self.handed += [job["run"] for job in jobs]
        assert len(self.jobs) <= 2

    def poll(self) -> list[dict[str, Any]]:
        jobs, self.jobs = self.jobs, []
        return [self._answer(job) for job in jobs]

    def _answer(self, job: Mapping[str, Any]) -> dict[str, Any]:
        run, status = job["run"], self.answers[job["run"]].pop(0)
        if status == "done":
            self.store.write(Record(run, "done", {}, 0))
        return {"run": run, "status": status, "error": "a reason"}

    def stop(self) -> None:
        self.stopped = True


def trained(here: Path, answers: Mapping[str, Sequence[str]]) -> tuple[list[Event], Script]:
    store = Store(here)
    engine = Script(store, answers)
    runs = [PlannedRun(run, "task", "arm", 0, {"trainer": {}}) for run in answers]
    cluster = Cluster(runs, store, engine)
    try:
        return list(cluster.events()), engine
    finally:
        assert engine.stopped


def test_runs_are_handed_over_until_they_end(here: Path) -> None:
    """Whatever is lost or was stopped is handed over again, what died so many times only."""
    answers = {
        "a": ["done"],
        "b": ["lost"] * (TRIES + 1) + ["done"],
        "c": ["died"] * TRIES,
        "d": ["stopped", "done"],
        "e": ["refused"],
        "f": ["cancelled"],
    }
    events, engine = trained(here, answers)
    ends = {event.run.id: event.status for event in events}
    assert ends == {
        "a": "done", "b": "done", "c": "failed", "d": "done", "e": "refused", "f": "cancelled"
    }  # fmt: skip
    assert len(events) == len(ends)
    assert {run: engine.handed.count(run) for run in answers} == {
        run: len(each) for run, each in answers.items()
    }
    record = Store(here).read("c")
    assert record is not None
    assert record.error == f"the process that trained it died {TRIES} times (a reason)"


@pytest.mark.parametrize(
    ("status", "error"), [("store error", StoreError), ("broken", LaunchError)]
)
def test_what_no_run_can_help_ends_it_all(status: str, error: type[Exception], here: Path) -> None:
    with pytest.raises(error, match="a reason"):
        trained(here, {"a": [status], "b": ["done"]})


def test_what_another_process_trains_is_waited_for(here: Path) -> None:
    """Nothing is handed over for it; if the other one dies, it is."""
    store = Store(here)
    engine = Script(store, {"a": [], "b": ["done"]})
    runs = [PlannedRun(run, "task", "arm", 0, {"trainer": {}}) for run in ("a", "b")]
    ends: list[Event] = []
    with store.claim("a"), store.claim("b"):
        cluster = Cluster(runs, store, engine)
        watching = threading.Thread(target=lambda: ends.extend(cluster.events()))
        watching.start()
        time.sleep(3 * TICK)
        assert engine.handed == []
        store.write(Record("a", "diverged", {}, 0))
    watching.join(20)
    assert {event.run.id: event.status for event in ends} == {"a": "diverged", "b": "done"}
    assert engine.handed == ["b"]


# A node's part

WORKER = """
import json, os, signal, sys, time; sys.path[:] = {path!r}
print('{{"ready": true}}', flush=True)
for line in sys.stdin:
    job = json.loads(line)
    exec(job["config"]["plugins"][0])
    print(json.dumps({{"status": "done", "pid": os.getpid()}}), flush=True)
"""


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Node:
    """A node whose workers do what the first plug-in says."""
    monkeypatch.setattr(node, "SERVE", WORKER)
    return Node()


def job(here: Path, code: str, **changes: Any) -> dict[str, Any]:
    config = {"plugins": [code], "store": str(here), "seed": 3, "trainer": {}, "task": {}}
    asked = {"run": "a", "config": config, "force": False, "minutes": None, "folder": str(here)}
    return asked | changes


def test_a_node_keeps_its_worker_until_it_dies(here: Path, worker: Node) -> None:
    first = worker.serve(job(here, "pass"))
    assert worker.serve(job(here, "pass")) == first
    died = worker.serve(job(here, "os.kill(os.getpid(), 9)"))
    assert died == {"run": "a", "status": "died", "error": "exit code -9"}
    again = worker.serve(job(here, "pass"))
    assert again["status"] == "done"
    assert again["pid"] != first["pid"]
    worker.close()


def test_a_node_asks_no_worker_for_what_is_there(here: Path, worker: Node) -> None:
    Store(here).write(Record("a", "diverged", {}, 3))
    assert worker.serve(job(here, "pass")) == {"run": "a", "status": "diverged"}
    assert worker.process is None
    assert worker.serve(job(here, "pass", force=True))["status"] == "done"
    worker.close()


def test_a_run_over_its_limit_fails_unless_it_can_go_on(here: Path, worker: Node) -> None:
    """With checkpoints it is told to stop, and what comes of it is left to who handed it over."""
    endless = job(here, "time.sleep(1000)", minutes=0.01)
    assert worker.serve(endless) == {"run": "a", "status": "failed"}
    record = Store(here).read("a")
    assert record is not None
    assert (record.status, record.seed, record.config) == ("failed", 3, {"trainer": {}, "task": {}})
    assert record.error == "took longer than launch.minutes=0.01"
    saves = {**endless["config"], "trainer": {"checkpoint": 5}}
    assert worker.serve({**endless, "config": saves, "run": "b"})["status"] == "stopped"
    assert Store(here).read("b") is None


def test_a_signal_stops_the_run_and_all_after_it(here: Path, worker: Node) -> None:
    def stop() -> None:
        wait_for(lambda: (here / "begun").exists(), "the run to begin")
        worker.stop()

    threading.Thread(target=stop).start()
    code = "open('begun', 'w'); time.sleep(1000)"
    assert worker.serve(job(here, code)) == {"run": "a", "status": "stopped"}
    assert worker.serve(job(here, "pass"))["status"] == "stopped"
    assert worker.process is None


def test_a_worker_that_cannot_start_is_told(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "SERVE", "import sys; sys.exit(3)  # {path}")
    log = here / "log"
    answer = Node().serve(job(here, "pass", log=str(log)))
    assert answer["status"] == "broken"
    assert answer["error"].startswith("exit code 3 on ")
    assert log.exists()


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_log_that_leads_elsewhere_is_refused(
    kind: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the node and by the process that uses Ray; neither waits for a reader of a pipe."""
    log, other = here / "workers.log", here / "other"
    other.write_text("mine")
    if kind == "link":
        log.symlink_to(other)
    else:
        os.mkfifo(log)
    answer = Node().serve(job(here, "pass", log=str(log)))
    assert answer["status"] == "broken"
    assert answer["error"].startswith(f"cannot write {log}: ")
    monkeypatch.setattr(ray, "check", lambda address: None)
    with pytest.raises(LaunchError, match="cannot write"):
        ray.Ray(known.Ray(), log).start()
    assert other.read_text() == "mine"


def test_a_worker_is_told_nothing_of_other_processes(
    here: Path, worker: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever Lightning would take it for one of several by."""
    names = ["LOCAL_RANK", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "SLURM_PROCID"]
    names += ["TORCHELASTIC_RUN_ID", "NODE_RANK"]
    for name in names:
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("OTHER", "1")
    code = f"open('seen', 'w').write(' '.join(n for n in {[*names, 'OTHER']} if n in os.environ))"
    assert worker.serve(job(here, code))["status"] == "done"
    assert (here / "seen").read_text() == "OTHER"
    worker.close()


def test_names_of_jobs_are_plain() -> None:
    engine = slurm.Slurm(known.Slurm(), "a b;$(c)@seeds=3")
    assert engine.name == "lossbench-a_b___c_@seeds=3"


def test_pickles_lie_where_nobody_else_may_write(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a folder of one's own in another such; a link is followed to the cache, not in it."""
    monkeypatch.setattr(slurm, "check", lambda partition: None)
    monkeypatch.setattr(slurm, "_call", lambda *_: subprocess.CompletedProcess([], 0, "", ""))
    (here / "scratch").mkdir()
    (here / "home").symlink_to(here / "scratch")
    monkeypatch.setenv("XDG_CACHE_HOME", str(here / "home"))
    engine = slurm.Slurm(known.Slurm(), "small")
    engine.start()
    place = here / "scratch" / "lossbench" / "slurm"
    assert engine.logs.parent == place
    assert capsys.readouterr().out == f"slurm     logs in {engine.logs}\n"
    assert [stat.S_IMODE(each.stat().st_mode) for each in (place.parent, place, engine.logs)] == [
        0o700
    ] * 3
    engine.stop()
    assert not any(place.iterdir())

    def refused(path: Path) -> None:
        with pytest.raises(LaunchError) as told:
            engine.start()
        assert str(told.value).startswith(f"{path} must be a folder of yours that nobody else")
        assert "\n" not in str(told.value)

    for each in (place, place.parent):
        for mode in (0o770, 0o702):
            each.chmod(mode)
            refused(each)
        each.chmod(0o755)
    engine.start()
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        refused(place.parent)
    place.rename(here / "moved")
    place.symlink_to(here / "moved")
    refused(place)


def test_a_slurm_without_its_file_is_asked_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(shutil, "which", lambda name: name)
    said = subprocess.CompletedProcess([], 1, "", "sinfo: error: x\nsinfo: fatal: no file\n")
    monkeypatch.setattr(slurm, "_call", lambda *_: said)
    with pytest.raises(LaunchError) as told:
        slurm.check(None)
    assert str(told.value) == (
        "slurm does not answer: sinfo: fatal: no file; is this machine configured for Slurm?"
    )


def test_nobody_at_an_address_is_noticed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    with pytest.raises(LaunchError, match="there is no cluster at 127"):
        ray.check("127.0.0.1:1")
