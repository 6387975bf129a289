"""Slots: who may train where, with workers that only pretend to train and GPUs that are not there.

A stand-in for a worker notes when and on what it trained; a run lasts until a file lets it end.
"""

import dataclasses
import errno
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness import crew, locks, slots
from harness.launch import Event, Launch
from harness.locks import Locks
from harness.outlook import summary
from harness.plan import PlannedRun
from harness.slots import Gpu, LaunchError, Places, Slot, find
from harness.store import Store
from tests.harness.builders import make_plan
from tests.harness.spine import alive, children, start, wait_for

WORKER = """
import json, os, queue, sys, threading, time
from pathlib import Path

FOLDER = Path({folder!r})
jobs = queue.Queue()

def listen():
    for line in sys.stdin:
        jobs.put(json.loads(line))
    while (FOLDER / "linger").exists():
        time.sleep(0.01)
    os._exit(0)

def note(**facts):
    handle = os.open(FOLDER / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(handle, (json.dumps(facts) + chr(10)).encode())
    os.close(handle)

threading.Thread(target=listen, daemon=True).start()
print(json.dumps({{"ready": True}}), flush=True)
while True:
    run = jobs.get()["config"]["run"]
    pinned = {{name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")}}
    pinned["ranks"] = sorted(name for name in os.environ if "RANK" in name or "MASTER_" in name)
    pinned["ranks"] += ["WORLD_SIZE"] * ("WORLD_SIZE" in os.environ)
    note(begun=time.monotonic(), run=run, process=os.getpid(), **pinned)
    while not ((FOLDER / "all").exists() or (FOLDER / run).exists()):
        time.sleep(0.005)
    time.sleep(0.02)
    note(ended=time.monotonic(), run=run)
    print(json.dumps({{"status": "done"}}), flush=True)
"""
LEAD = """
import sys
from pathlib import Path
from tests.harness.test_slots import lead
lead(Path({folder!r}), {names!r}, {places})
"""


@dataclass
class Interval:
    """What a worker noted of one run; without an end it still trains."""

    run: str
    process: int
    devices: str
    threads: str
    begun: float
    ended: float = float("inf")


def stand_in(folder: Path) -> str:
    (folder / "worker.py").write_text(WORKER.format(folder=str(folder)))
    return f"exec(open({str(folder / 'worker.py')!r}).read())  # {{path}}"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(locks.FOLDER, str(tmp_path / "slots"))
    monkeypatch.setattr(crew, "SERVE", stand_in(tmp_path))
    return tmp_path


def noted(folder: Path) -> dict[str, Interval]:
    """Intervals by run, as far as they are noted."""
    found: dict[str, Interval] = {}
    for line in (folder / "log").read_text().splitlines() if (folder / "log").exists() else []:
        facts = json.loads(line)
        if "ended" in facts:
            found[facts["run"]].ended = facts["ended"]
        else:
            devices, threads = facts["CUDA_VISIBLE_DEVICES"], facts["OMP_NUM_THREADS"]
            process = facts["process"]
            found[facts["run"]] = Interval(facts["run"], process, devices, threads, facts["begun"])
    return found


def training(folder: Path) -> set[str]:
    return {i.run for i in noted(folder).values() if i.ended == float("inf")}


def run(name: str, width: int = 1, **trainer: Any) -> PlannedRun:
    config = {"run": name, "trainer": {"devices": width, **trainer}}
    return PlannedRun(name, "task", "arm", 0, config)


def on_gpus(number: int, per_device: int = 1, most: int | None = None) -> Places:
    gpus = [Gpu(i, str(i), f"key{i}") for i in range(number)]
    every = [Slot(n, gpu, per_device == 1) for n in range(per_device) for gpu in gpus]
    return Places(tuple(every), most or len(every))


class Going:
    """A launch in a thread of its own."""

    def __init__(self, folder: Path, runs: Sequence[PlannedRun], places: Places) -> None:
        self.said: list[str] = []
        self.ended: list[Event] = []
        self.launch = Launch(
            runs, Store(folder), places=places, log=folder / "workers.log", tell=self.said.append
        )
        self.thread = threading.Thread(target=self._go, daemon=True)
        self.thread.start()

    def _go(self) -> None:
        self.ended.extend(self.launch.events())

    def end(self) -> list[str]:
        self.thread.join(timeout=60)
        assert not self.thread.is_alive()
        assert {event.status for event in self.ended} <= {"done"}
        return [event.run.id for event in self.ended]


def lead(folder: Path, names: Sequence[str], places: Places) -> None:
    """A sweep in a process of its own."""
    crew.SERVE = stand_in(folder)
    log = folder / "workers.log"
    list(Launch([run(n) for n in names], Store(folder), places=places, log=log).events())


def most_at_once(intervals: Sequence[Interval]) -> Counter[str]:
    """For each device the largest number of runs that were on it at one moment."""
    found: Counter[str] = Counter()
    for moment in (i.begun for i in intervals):
        there = [i for i in intervals if i.begun <= moment < i.ended]
        now = Counter(device for i in there for device in i.devices.split(","))
        found |= now
    return found


# Where runs may train


def gpus_there(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    found = [Gpu(i, str(i), f"key{i}") for i in range(number)]
    monkeypatch.setattr(slots, "gpus", lambda: found)


def names(places: Places) -> list[str]:
    return [str(slot) for slot in places.slots]


def test_all_gpus_are_used_by_default_each_by_one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus_there(monkeypatch, 3)
    places = find([run("a")])
    assert (names(places), places.most) == (["gpu 0", "gpu 1", "gpu 2"], 3)
    assert places.where() == " on GPUs 0, 1, 2"
    assert find([run("a")], jobs=2).most == 2
    assert names(find([run("a")], devices="2,0,2")) == ["gpu 2", "gpu 0"]
    assert find([run("a")], devices="1").where() == " on GPU 1"
    assert names(find([run("a")], devices="GPU-key1")) == ["gpu 1"]
    twice = find([run("a")], devices="0,1", per_device=2)
    assert names(twice) == ["gpu 0.0", "gpu 1.0", "gpu 0.1", "gpu 1.1"]  # spread over them first


def test_processors_are_shared_by_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus_there(monkeypatch, 0)
    monkeypatch.setattr(slots, "processors", lambda: 6)
    places = find([run("a"), run("b", threads=2)])
    assert (len(places.slots), places.most, places.threads) == (3, 3, 2)
    assert places.where() == ""
    assert find([run("a", threads=9)]).most == 1
    assert (len(find([run("a")], jobs=2).slots), find([run("a")], jobs=2).most) == (6, 2)
    assert (len(find([run("a")], jobs=9).slots), find([run("a")], jobs=9).most) == (9, 9)
    pinned = places.environment(places.slots[:1])
    assert pinned["CUDA_VISIBLE_DEVICES"] == ""
    assert pinned["OMP_NUM_THREADS"] == pinned["MKL_NUM_THREADS"] == "2"


@pytest.mark.parametrize(
    ("runs", "options", "message"),
    [
        ([run("a")], {"devices": "4"}, "--devices: there is no GPU '4'; there are 0, 1"),
        ([run("a")], {"devices": "0,x"}, "--devices: there is no GPU 'x'; there are 0, 1"),
        ([run("a")], {"devices": ""}, "--devices: there is no GPU ''; there are 0, 1"),
        ([run("a", 3)], {}, "arm arm: trainer.devices=3, but 2 can be used"),
        ([run("a", 3)], {"per_device": 2}, "arm arm: trainer.devices=3, but 2 can be used"),
        ([run("a", 2)], {"jobs": 1}, "arm arm: trainer.devices=2, but 1 can be used"),
        ([run("a", accelerator="cpu")], {"devices": "0"}, "--devices is about GPUs, but trainer."),
        ([run("a", accelerator="cpu")], {"per_device": 2}, "--per-device is about GPUs, but "),
        (
            [run("a", 3, accelerator="cpu")],
            {"jobs": 2},
            "arm arm: trainer.devices=3, but 2 can be used; --jobs 3 makes as many of the pro",
        ),
    ],
)
def test_what_is_not_there_is_refused(
    runs: list[PlannedRun],
    options: dict[str, Any],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpus_there(monkeypatch, 2)
    with pytest.raises(ValueError, match="^" + message.replace("(", r"\(")) as refused:
        find(runs, **options)
    assert "\n" not in str(refused.value)


def test_without_gpus_none_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus_there(monkeypatch, 0)
    with pytest.raises(ValueError, match="--devices: there is no GPU '0'; none can be seen here"):
        find([run("a")], devices="0")
    with pytest.raises(ValueError, match="--per-device is about GPUs, and none can be seen here"):
        find([run("a")], per_device=2)


def counted(monkeypatch: pytest.MonkeyPatch, answer: str, driver: str = "/dev/null") -> list[Any]:
    """Have another process answer, on a machine with this driver; the calls of it."""
    calls: list[Any] = []

    def ask(command: list[str], **_: Any) -> "subprocess.CompletedProcess[str]":
        calls.append(command)
        return subprocess.CompletedProcess(command, 0, answer, "Traceback\nRuntimeError: no driver")

    monkeypatch.setattr(slots, "DRIVERS", (driver,))
    monkeypatch.setattr(slots.subprocess, "run", ask)
    return calls


def test_gpus_are_those_that_an_outer_pinning_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted(monkeypatch, 'noise\n["a", "b"]\n')
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert slots.gpus() == [Gpu(0, "0", "a"), Gpu(1, "1", "b")]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 1,9")
    assert slots.gpus() == [Gpu(0, "3", "a"), Gpu(1, "1", "b")]  # CUDA stops at what is not there
    assert names(find([run("x")], devices="0")) == ["gpu 0"]
    assert find([run("x")], devices="0").environment(find([run("x")]).slots[:1]) == {
        "CUDA_VISIBLE_DEVICES": "3",
        **dict.fromkeys(slots.THREADS, "1"),
    }
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-x,GPU-b")
    assert slots.gpus() == [Gpu(0, "MIG-x", "MIG-x"), Gpu(1, "GPU-b", "b")]
    asked = len(calls)
    for hidden in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert slots.gpus() == []
    assert len(calls) == asked


def test_nobody_is_asked_for_gpus_that_cannot_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    calls = counted(monkeypatch, '["a"]')
    assert len(find([run("a", accelerator="cpu")]).slots) >= 1
    assert calls == []
    calls = counted(monkeypatch, '["a"]', driver="/dev/there-is-none")
    assert slots.gpus() == []
    assert calls == []


def test_the_question_is_put_to_torch_in_a_process_of_its_own(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for torch; one in the current folder, of whatever name, is not asked."""
    cuda = (
        "from types import SimpleNamespace\n"
        "device_count = lambda: 2\n"
        "get_device_properties = lambda i: SimpleNamespace(uuid=f'u{i}') if i else object()\n"
    )
    for folder, content in ((here / "path", cuda), (here, "raise SystemExit('the wrong torch')")):
        (folder / "torch").mkdir(parents=True)
        (folder / "torch" / "__init__.py").write_text("from torch import cuda\n")
        (folder / "torch" / "cuda.py").write_text(content)
    monkeypatch.chdir(here)
    monkeypatch.setenv("PYTHONPATH", str(here / "path"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(slots, "DRIVERS", ("/dev/null",))
    assert slots.gpus() == [Gpu(0, "0", "0"), Gpu(1, "1", "u1")]


def test_no_answer_is_an_error_of_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    counted(monkeypatch, "")
    with pytest.raises(LaunchError, match=r"^GPUs cannot be counted: RuntimeError: no driver$"):
        slots.gpus()


def test_the_outlook_names_processes_and_gpus_and_counts_them() -> None:
    plan = make_plan(seeds=2)
    runs = list(plan.runs())
    cells = [dataclasses.replace(cell, seconds=60.0) for cell in plan.cells]
    plan = dataclasses.replace(plan, cells=cells)

    def said(places: Places, runs: Sequence[PlannedRun] = runs) -> str:
        return summary(plan, {}, runs, places).partition("to run ")[2].splitlines()[0]

    assert said(on_gpus(3)) == "in 3 processes on GPUs 0, 1, 2; about 2:00"
    assert said(on_gpus(1, per_device=2)) == "in 2 processes on GPU 0; about 3:00"
    assert said(on_gpus(4, most=1)) == "in 1 process on GPUs 0, 1, 2, 3; about 6:00"
    assert said(on_gpus(9), runs[:2]).startswith("in 2 processes on GPUs 0, 1, 2, ")
    assert said(Places(tuple(map(Slot, range(2))), 2)) == "in 2 processes; about 3:00"
    wide = [dataclasses.replace(run, config={"trainer": {"devices": 2}}) for run in runs]
    assert said(on_gpus(4), wide) == "in 4 processes on GPUs 0, 1, 2, 3; about 3:00"


# Locks


def test_a_slot_is_locked_for_one_alone(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["some/where/lossbench", "sweep", "quick"])
    mine, other = Locks(on_gpus(2)), Locks(on_gpus(3))
    assert [str(slot) for slot in mine.take(2) or []] == ["gpu 0", "gpu 1"]
    assert mine.take(1) is None
    assert [str(slot) for slot in other.take(1) or []] == ["gpu 2"]
    assert other.take(1) is None
    assert other.holders() == [f"gpu 0, gpu 1 by process {os.getpid()} (lossbench sweep quick)"]
    mine.give(list(mine.held))
    assert [str(slot) for slot in other.take(2) or []] == ["gpu 0", "gpu 1"]


def test_who_asks_for_one_run_per_gpu_has_it_alone(here: Path) -> None:
    alone, pair, third = (Locks(on_gpus(1, n)) for n in (1, 2, 2))
    assert alone.take(1)
    assert pair.take(1) is None
    alone.give(list(alone.held))
    assert pair.take(1)
    assert alone.take(1) is None
    assert third.take(1)  # the GPU's other place
    assert third.take(1) is None
    assert pair.take(1) is None


def test_a_run_on_several_devices_has_each_of_them_once(here: Path) -> None:
    mine = Locks(on_gpus(2, per_device=2))
    for number in (0, 1):
        taken = mine.take(2) or []
        assert [str(slot) for slot in taken] == [f"gpu 0.{number}", f"gpu 1.{number}"]
    assert mine.take(1) is None
    assert Locks(on_gpus(2, per_device=2)).take(3) is None
    mine.give([slot for slot in mine.held if slot.gpu and slot.gpu.number == 0])
    assert mine.take(2) is None  # both free places are on one GPU
    assert mine.take(1)


def test_slots_for_one_run_are_taken_together_or_not_at_all(here: Path) -> None:
    """Only one sweep at a time may keep some and wait for the rest."""
    blocker, first, second = Locks(on_gpus(1)), Locks(on_gpus(3)), Locks(on_gpus(3))
    assert blocker.take(1)
    assert first.take(3) is None
    assert len(second.take(2) or []) == 2
    second.give(list(second.held))
    assert first.take(3, keep=True) is None
    assert second.take(1) is None  # two are kept
    assert second.take(2, keep=True) is None
    assert second.held == {}
    blocker.give(list(blocker.held))
    assert len(first.take(3, keep=True) or []) == 3
    first.give(list(first.held)[:1])
    assert second.take(3, keep=True) is None  # now it is its turn
    assert len(second.held) == 1
    second.drop()
    assert len(first.take(1) or []) == 1


def test_no_more_than_most_are_held(here: Path) -> None:
    mine = Locks(on_gpus(4, most=3))
    assert mine.take(2)
    assert mine.take(2) is None
    assert mine.take(1)
    assert mine.take(1) is None


def test_a_folder_of_locks_that_is_removed_meanwhile_is_made_again(here: Path) -> None:
    mine = Locks(on_gpus(1))
    shutil.rmtree(here / "slots")
    assert mine.take(1) is None
    assert mine.take(1)
    assert Locks(on_gpus(1)).take(1) is None


def test_files_left_behind_lock_nothing(here: Path) -> None:
    first = Locks(on_gpus(1))
    assert first.take(1)
    assert (here / "slots").stat().st_mode & 0o7777 == 0o1777
    files = [path for path in (here / "slots").iterdir() if path.name != locks.COLLECTING]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o666}  # for all users
    assert Locks(on_gpus(1)).take(1) is None
    first.give(list(first.held))
    for path in files:
        path.write_text("999999 a machine that died")
    assert Locks(on_gpus(1)).take(1)


@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
def test_what_is_no_lock_file_is_an_error_of_one_line(here: Path, kind: str) -> None:
    mine = Locks(Places((Slot(0),), 1))
    path, outside = here / "slots" / "cpu.0", here / "outside"
    outside.write_text("precious")
    if kind == "link":
        path.symlink_to(outside)
    else:
        path.mkdir() if kind == "folder" else os.mkfifo(path)
    expected = r"^cannot lock slots in .*/cpu\.0: .*; LOSSBENCH_SLOTS="
    with pytest.raises(LaunchError, match=expected) as told:
        mine.take(1)
    assert "\n" not in str(told.value)
    assert outside.read_text() == "precious"


@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
def test_a_slot_without_a_lock_file_is_named_once_and_not_free(
    here: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    places = Places(tuple(Slot(i) for i in range(2)), 2)
    mine, other = Locks(places), Locks(places)
    path = here / "slots" / "cpu.0"
    if kind == "link":
        path.symlink_to(here)
    else:
        path.mkdir() if kind == "folder" else os.mkfifo(path)
    assert [str(slot) for slot in mine.take(1) or []] == ["cpu 1"]
    assert mine.take(1) is None
    told = capsys.readouterr().err
    assert re.fullmatch(r"lossbench: cannot lock slots in [^\n]*/cpu\.0: [^\n]*without it\n", told)
    assert other.take(1) is None  # the other slot is in use, which is no error
    assert other.holders()[0].startswith(f"cpu 1 by process {os.getpid()} (")
    path.rmdir() if kind == "folder" else path.unlink()
    assert [str(slot) for slot in mine.take(1) or []] == ["cpu 0"]


def test_a_held_slot_outlives_files_that_cannot_be_opened_or_written(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A full disk, and then the files of another user who lets nobody in."""

    def refuse(number: int) -> Callable[..., int]:
        def refused(*_: object) -> int:
            raise OSError(number, os.strerror(number))

        return refused

    mine, other = Locks(on_gpus(3)), Locks(on_gpus(3))
    for name in ("ftruncate", "pwrite"):
        monkeypatch.setattr(os, name, refuse(errno.ENOSPC))
    assert mine.take(1)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(locks, "_open", refuse(errno.EACCES))
    assert [mine.take(1), mine.take(2, keep=True), mine.take(1)] == [None] * 3
    assert capsys.readouterr().err.count("Permission denied") == 3  # two slots and whose turn it is
    assert len(mine.held) == 1
    with pytest.raises(LaunchError, match="Permission denied; LOSSBENCH_SLOTS"):
        other.take(1)


def test_held_locks_look_used_while_a_sweep_waits(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One GPU is kept for a run on two, the other is somebody's."""
    blocker = Locks(on_gpus(1))
    assert blocker.take(1)
    runs, log = [run("wide", 2)], here / "workers.log"
    launch = Launch(runs, Store(here), places=on_gpus(2), log=log, tell=str)
    kept, times = here / "slots" / "gpu.key1", []

    def tick() -> None:
        times.append(kept.stat().st_mtime)
        os.utime(kept, (0, 0))
        monkeypatch.setattr(locks, "TOUCH", 0 if len(times) == 2 else 3600)
        if len(times) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(launch.events(tick))
    assert [when > 0 for when in times] == [True, False, True, False]


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_folder_for_locks_that_is_none_is_an_error(here: Path, kind: str) -> None:
    path = here / "slots"
    path.write_text("") if kind == "file" else path.symlink_to(here)
    with pytest.raises(LaunchError, match=r"^cannot lock slots in .*: it is no folder; LOSSBENCH"):
        Locks(on_gpus(1))


def test_what_others_say_of_themselves_cannot_steer_the_terminal(here: Path) -> None:
    mine, other = (Locks(Places((Slot(0),), 1)) for _ in range(2))
    assert mine.take(1)
    (here / "slots" / "cpu.0").write_text("12 \x1b[31m\nred")
    assert other.holders() == ["cpu 0 by process 12 (�[31m red)"]
    (here / "slots" / "cpu.0").write_bytes(b"\xff\x00nothing")
    assert other.holders() == ["cpu 0 by another process"]


# Sweeps


def test_every_slot_trains_and_none_waits_while_runs_are_left(here: Path) -> None:
    runs = [run(f"r{i}") for i in range(7)]
    going = Going(here, runs, on_gpus(2, per_device=2))
    wait_for(lambda: len(training(here)) == 4, "all slots to train")
    for done in range(1, 4):
        (here / sorted(training(here))[0]).touch()
        wait_for(lambda n=done: len(noted(here)) == 4 + n, "the next run to begin")
    assert len(training(here)) == 4
    (here / "all").touch()
    assert sorted(going.end()) == [r.id for r in runs]
    found = list(noted(here).values())
    assert most_at_once(found) == {"0": 2, "1": 2}
    assert len({i.process for i in found}) == 4  # each of which served several
    assert {i.threads for i in found} == {"1"}


def test_two_sweeps_are_never_in_one_slot(here: Path) -> None:
    (here / "all").touch()
    sweeps = [
        Going(here, [run(f"{name}{i}") for i in range(12)], on_gpus(3, per_device=2))
        for name in "ab"
    ]
    ended = list(itertools.chain.from_iterable(going.end() for going in sweeps))
    assert len(set(ended)) == len(ended) == 24
    assert max(most_at_once(list(noted(here).values())).values()) <= 2


def test_a_sweep_that_finds_no_slot_says_so_once_and_takes_what_becomes_free(here: Path) -> None:
    first = Going(here, [run("a0"), run("a1")], on_gpus(2))
    wait_for(lambda: len(training(here)) == 2, "the first sweep to train")
    second = Going(here, [run("b0"), run("b1"), run("b2")], on_gpus(2))
    wait_for(lambda: second.said, "it to wait")
    (here / "a0").touch()
    wait_for(lambda: "b0" in training(here), "a slot that the first needs no more")
    assert training(here) == {"a1", "b0"}
    (here / "a1").touch()
    wait_for(lambda: training(here) == {"b0", "b1"}, "the other")
    (here / "all").touch()
    assert sorted(first.end()) == ["a0", "a1"]
    assert sorted(second.end()) == ["b0", "b1", "b2"]
    assert first.said == []
    (told,) = second.said
    assert told.startswith(f"waiting   no slot is free: gpu 0, gpu 1 by process {os.getpid()} (")
    assert max(most_at_once(list(noted(here).values())).values()) == 1


def test_a_sweep_that_found_some_slots_takes_the_others_later(here: Path) -> None:
    blocker = Locks(on_gpus(1))
    assert blocker.take(1)
    going = Going(here, [run(f"r{i}") for i in range(3)], on_gpus(2))
    wait_for(lambda: len(training(here)) == 1, "one to train")
    assert {i.devices for i in noted(here).values()} == {"1"}
    blocker.give(list(blocker.held))
    wait_for(lambda: len(training(here)) == 2, "the other slot to be used")
    (here / "all").touch()
    assert len(going.end()) == 3
    assert going.said == []


def test_wide_and_narrow_runs_share_the_devices(here: Path) -> None:
    """A wide one takes its turn although narrow ones could fill every slot for long."""
    (here / "all").touch()
    runs = [run(f"n{i}") for i in range(40)]
    runs[6:6] = [run("w0", 2), run("w1", 3)]
    places = on_gpus(3)
    assert sorted(Going(here, runs, places).end()) == sorted(r.id for r in runs)
    found = noted(here)
    assert sorted(found["w1"].devices.split(",")) == ["0", "1", "2"]
    assert len(set(found["w0"].devices.split(","))) == 2
    assert max(most_at_once(list(found.values())).values()) == 1
    order = [i.run for i in sorted(found.values(), key=lambda i: i.begun)]
    assert max(order.index("w0"), order.index("w1")) < 30  # of 42: many narrow ones come after


def test_narrow_runs_do_not_wait_for_a_wide_one_that_finds_no_room(here: Path) -> None:
    going = Going(here, [run("a"), run("wide", 2), run("b"), run("c")], on_gpus(2))
    wait_for(lambda: training(here) == {"a", "b"}, "a narrow one to go ahead")
    (here / "b").touch()
    wait_for(lambda: training(here) == {"a", "c"}, "another one to go ahead")
    (here / "c").touch()
    (here / "a").touch()
    wait_for(lambda: training(here) == {"wide"}, "the wide one")
    (here / "all").touch()
    assert sorted(going.end()) == ["a", "b", "c", "wide"]


def test_two_sweeps_of_wide_runs_do_not_wait_for_each_other_for_ever(here: Path) -> None:
    (here / "all").touch()
    sweeps = [
        Going(here, [run(f"{name}{i}", 1 + i % 3) for i in range(9)], on_gpus(3)) for name in "abc"
    ]
    assert sum(len(going.end()) for going in sweeps) == 27
    assert max(most_at_once(list(noted(here).values())).values()) == 1


def test_processors_take_a_slot_per_process(here: Path) -> None:
    (here / "all").touch()
    cpu = Places(tuple(Slot(i) for i in range(2)), 2)
    assert len(Going(here, [run("a", 2), run("b", 2), run("c")], cpu).end()) == 3
    assert {i.devices for i in noted(here).values()} == {""}
    wide = sorted((i for i in noted(here).values() if i.run in "ab"), key=lambda i: i.begun)
    assert wide[0].ended <= wide[1].begun


def test_workers_are_nobody_s_second_process(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOCAL_RANK", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "1")
    (here / "all").touch()
    assert Going(here, [run("a")], on_gpus(1)).end() == ["a"]
    begun, _ = map(json.loads, (here / "log").read_text().splitlines())
    assert begun["ranks"] == []


def test_slots_of_a_killed_sweep_are_free_when_its_workers_have_gone(here: Path) -> None:
    code = LEAD.format(folder=str(here), names=["a", "b"], places="on_gpus(2)").replace(
        "import lead", "import lead, on_gpus"
    )
    leader = start(["-c", code], here)
    wait_for(lambda: len(training(here)) == 2, "it to train")
    workers = children(leader.pid)
    (here / "linger").touch()  # as one that writes a checkpoint does
    leader.send_signal(signal.SIGKILL)
    leader.communicate(timeout=5)
    time.sleep(0.1)
    assert all(map(alive, workers))
    mine = Locks(on_gpus(2))
    assert mine.take(1) is None
    (here / "linger").unlink()
    wait_for(lambda: mine.take(2), "both slots", 5)
    assert not any(map(alive, workers))


def test_workers_that_are_killed_at_once_are_started_again(here: Path) -> None:
    """Killed before it is ready it has no run to be counted against."""
    going = Going(here, [run("a")], on_gpus(1))
    worker = wait_for(lambda: [*going.launch.crew.workers], "a worker")[0]
    os.kill(worker.process.pid, signal.SIGKILL)
    (here / "all").touch()
    assert going.end() == ["a"]


def test_a_worker_that_cannot_be_started_leaves_its_slots_free(tmp_path: Path) -> None:
    places = Places((Slot(0), Slot(1)), 2)
    (tmp_path / "workers.log").mkdir()
    launch = Launch([run("a")], Store(tmp_path), places=places, log=tmp_path / "workers.log")
    with pytest.raises(LaunchError, match="cannot write"):
        list(launch.events())
    locks = Locks(places)
    taken = locks.take(2)
    assert taken
    locks.give(taken)
