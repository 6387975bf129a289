"""Whatever is killed at whatever moment: nothing is lost, nothing trained twice, nobody left over.

What was trained is counted from a log that the workers write for this test, not from records.
"""

import collections
import contextlib
import itertools
import json
import os
import random
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from harness.store import Store
from tests.harness.spine import alive, children, python, records, start, wait_for, write_sweep

KILLS, SEEDS, WORKERS = 100, 10, 2
VICTIMS = ["leader", "all", "worker", "worker", "worker"]
ARMS = {
    "ce": ["loss=cross_entropy"],
    "focal": ["loss=focal", "loss.focal.gamma=1,2,5"],
}
LOGGED = """
import os
import harness.run

LOG = {log!r}
TRAIN = harness.run.run

def note(word, run):
    handle = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(handle, f"{{word}} {{run}}\\n".encode())  # one write to a file's end is never torn
    os.close(handle)

def logged(config, store, **options):
    run = harness.run.run_id(config, config.seed)
    note("begun", run)
    record = TRAIN(config, store, **options)
    note("ended", run)
    return record

harness.run.run = logged
"""
DIED = "the process that trained it died"


class Watched:
    """A sweep, its processes, and the log of what they have begun and ended."""

    def __init__(self, folder: Path, seeds: int, epochs: int, workers: int) -> None:
        self.folder, self.log, self.store = folder, folder / "log", folder / "results"
        self.own = {"LOSSBENCH_SLOTS": str(folder / "slots")}  # no other sweep's, on this machine
        (folder / "logged.py").write_text(LOGGED.format(log=str(self.log)))
        overrides = [f"trainer.epochs={epochs}", "trainer.evaluations=1"]
        self.path = write_sweep(folder, arms=ARMS, seeds=seeds, overrides=overrides)
        self.words = ["-m", "harness", "sweep", str(self.path), "plugins=[logged.py]"]
        self.words += [f"--jobs={workers}"]

    def start(self) -> "subprocess.Popen[str]":
        return start(self.words, self.folder, **self.own)

    def wait_for_a_beginning(self, leader: "subprocess.Popen[str]") -> None:
        before = self.noted("begun").total()
        wait_for(
            lambda: leader.poll() is not None or self.noted("begun").total() > before,
            "a run to begin",
        )

    def noted(self, word: str) -> "collections.Counter[str]":
        """How often each run was begun or ended."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        pairs = [line.split() for line in lines]
        return collections.Counter(run for said, run in pairs if said == word)


def kill(process: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
        os.kill(process, signal.SIGKILL)


def strike(leader: "subprocess.Popen[str]", victim: str, draw: random.Random) -> int:
    """Kill the leading process, one worker or all; how many runs that may have cost.

    Workers whose leader was killed must be gone after five seconds.
    """
    workers = children(leader.pid)
    if victim == "worker":
        if workers:
            kill(draw.choice(workers))
        return 1
    for worker in workers if victim == "all" else []:
        kill(worker)
    leader.kill()
    leader.communicate(timeout=60)
    wait_for(lambda: not any(map(alive, workers)), "the workers to end", 5)
    return len(workers)


@pytest.mark.slow
def test_a_hundred_kills_lose_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Victims and moments are drawn with seed 0; the first fall into planning.

    Where more runs are done than their share of the kills, the next comes soon, in whatever
    starts, and to the leader, so that no run ends meanwhile; else some time after a run has begun.
    """
    draw, cost, began = random.Random(0), 0, time.monotonic()
    sweep = Watched(tmp_path, SEEDS, 25, WORKERS)
    leader = sweep.start()
    for number in range(KILLS):
        victims = VICTIMS
        if number < 3:
            time.sleep(draw.uniform(0, 4))
        elif sweep.noted("ended").total() / (4 * SEEDS - 15) > number / KILLS:
            victims = [victim for victim in VICTIMS if victim != "worker"]
            time.sleep(draw.uniform(0, 0.4))
        else:
            sweep.wait_for_a_beginning(leader)
            time.sleep(draw.uniform(0, 1.5))
        cost += strike(leader, draw.choice(victims), draw)
        if leader.poll() is not None:
            _, err = leader.communicate()
            assert leader.returncode != 0, "it was done before it was killed often enough"
            assert leader.returncode == -signal.SIGKILL or "could not start (exit code -9)" in err
            assert "Traceback" not in err
            leader = sweep.start()
    leader.kill()
    leader.communicate()
    left = 4 * SEEDS - len(records(sweep.store))
    done = python([*sweep.words, "--retry-failed"], tmp_path, **sweep.own)
    assert done.returncode == 0, done.stderr
    begun, ended = sweep.noted("begun"), sweep.noted("ended")
    with capsys.disabled():
        print(
            f"\n{KILLS} kills in {time.monotonic() - began:.0f} s, {begun.total()} starts of "
            f"{len(begun)} runs, {left} left for the last call"
        )
    check_nothing_is_lost(sweep, begun, ended)
    assert begun.total() - 4 * SEEDS <= cost + WORKERS <= (KILLS + 1) * WORKERS
    check_that_nothing_is_left_to_do(sweep, capsys)


def check_nothing_is_lost(
    sweep: Watched, begun: "collections.Counter[str]", ended: "collections.Counter[str]"
) -> None:
    found = records(sweep.store)
    assert len(found) == 4 * SEEDS
    assert found.keys() == begun.keys() >= ended.keys()
    assert {record["status"] for record in found.values()} == {"done"}
    assert set(ended.values()) == {1}, "a run was trained to its end twice"
    read = [Store(sweep.store).read(run) for run in found]
    assert all(record and record.metrics for record in read)
    beside = [*sweep.store.glob("runs/*/record.json.*")]
    # a run over which three workers died was recorded as failed, and tried again
    assert all(json.loads(path.read_text())["error"].startswith(DIED) for path in beside)


def check_that_nothing_is_left_to_do(sweep: Watched, capsys: pytest.CaptureFixture[str]) -> None:
    (log,) = sweep.store.glob("sweeps/*/workers.log")
    log.unlink()
    before, began = sweep.log.read_text(), time.monotonic()
    again = python(sweep.words, sweep.folder, **sweep.own)
    with capsys.disabled():
        print(f"a finished sweep's rerun took {time.monotonic() - began:.1f} s")
    assert again.returncode == 0, again.stderr
    assert f"{4 * SEEDS} done, 0 to run" in again.stdout
    assert not log.exists()  # no worker was started
    assert sweep.log.read_text() == before


@pytest.mark.slow
def test_two_people_who_start_a_sweep_at_once_share_it(tmp_path: Path) -> None:
    """Neither finds a plan; each run is trained once, and both see the same table."""
    sweep = Watched(tmp_path, 4, 25, 1)
    tables = []
    for process in [sweep.start(), sweep.start()]:
        out, err = process.communicate(timeout=180)
        assert (process.returncode, err) == (0, "")
        table = itertools.dropwhile(lambda line: "(higher is better)" not in line, out.split("\n"))
        tables.append("\n".join(table))
    assert tables[0] == tables[1]
    assert re.search(r"^\*?ce +0\.\d+ +baseline$", tables[0], re.MULTILINE), tables[0]
    begun = sweep.noted("begun")
    assert begun == sweep.noted("ended")
    assert set(begun.values()) == {1}
    assert records(sweep.store).keys() == begun.keys()
    assert not [*sweep.store.glob("runs/*/record.json.*")]
