"""Odd stores: one line that says what is wrong, nothing lost, and the next command goes on."""

import errno
import fcntl
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import run as runs
from harness.cli import main
from harness.config import run_id
from harness.record import VERSION
from harness.run import run
from harness.store import Store, StoreError
from tests.harness.spine import iris, mounted, python, records, started, write_sweep

TRAIN = ["train", "task=classification/iris", "loss=cross_entropy", "trainer.epochs=1"]
Told = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOSSBENCH_SLOTS", str(tmp_path / "slots"))
    return tmp_path


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Told:
    """Exit code and output of a command."""

    def command(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(list(words))
        return (code, *capsys.readouterr())

    return command


def one_line(err: str, *parts: str) -> bool:
    return err.count("\n") == 1 and err.startswith("lossbench: ") and all(p in err for p in parts)


def content(store: Path) -> dict[str, bytes]:
    files = [path for path in store.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(store)): path.read_bytes() for path in files}


@pytest.mark.parametrize("place", ["file", "file/store"])
def test_a_store_that_is_a_file(place: str, here: Path, told: Told) -> None:
    (here / "file").write_text("mine")
    sweep = str(write_sweep(here, seeds=1))
    for words in (TRAIN, ["sweep", sweep], ["plan", sweep], ["report", sweep], ["bundle", sweep]):
        code, _, err = told(*words, f"store={place}")
        assert code == 1, words
        assert one_line(err, f"store={place}", "file is a file, not a folder"), err
    assert (here / "file").read_text() == "mine"
    assert told(*TRAIN, "store=folder")[0] == 0


@pytest.fixture
def disk(here: Path) -> Iterator[Path]:
    """A file system of its own, to be made read-only by :func:`remount`."""
    yield from mounted(here / "disk", 8 << 20)


def remount(disk: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], check=True)


@pytest.mark.slow
def test_a_store_that_is_read_only(disk: Path, here: Path, told: Told) -> None:
    """What it holds can be looked at, and the sweep goes on when it can be written."""
    sweep, store = str(write_sweep(here)), disk / "store"
    own = [sweep, "store=disk/store"]
    assert told("sweep", *own, "--jobs=1", "--only=ce")[0] == 0
    before = content(store)
    remount(disk, "ro")
    code, out, err = told("plan", *own)
    assert (code, err) == (0, "")
    assert "2 done, 2 to run" in out
    code, out, err = told("report", *own)
    assert code == 1
    assert "ce " in out
    assert one_line(err, "plan.json", "Read-only file system"), err
    for words in (["sweep", *own], [*TRAIN, "store=disk/store"], [*TRAIN, "store=disk/new"]):
        code, _, err = told(*words)
        assert code == 1
        assert one_line(err, "cannot write disk/", "Read-only file system"), err
    assert content(store) == before
    remount(disk, "rw")
    kept = started(store)
    assert told("sweep", *own, "--jobs=1")[0] == 0
    assert started(store).items() >= kept.items()
    assert len(started(store)) == 4


def test_a_file_system_that_becomes_read_only_fails_no_run(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run is not to blame where something of its own cannot be written."""

    def refuse(*_: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system", "disk/own")

    with monkeypatch.context() as patched:
        patched.setattr(runs, "_keep_samples", refuse)
        with pytest.raises(StoreError, match=r"^cannot write disk/own: Read-only file system$"):
            run(iris(), Store(disk))
    assert not records(disk)
    assert run(iris(), Store(disk)).status == "done"


@pytest.mark.slow
def test_a_store_of_a_newer_version(here: Path, told: Told) -> None:
    sweep = str(write_sweep(here, seeds=1))
    assert told("sweep", sweep, "--jobs=1")[0] == 0
    path = next((here / "results").glob("runs/*/record.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": VERSION + 1}))
    before = content(here / "results")
    for words in (["sweep", sweep], ["plan", sweep], ["report", sweep], ["bundle", sweep]):
        code, _, err = told(*words)
        assert code == 1
        assert one_line(err, path.parent.name, f"has version {VERSION + 1}, newer than"), err
    assert content(here / "results") == before
    path.unlink()
    assert told("sweep", sweep, "--jobs=1")[0] == 0
    assert len(records(here / "results")) == 2


AGES = {"the future": "2999-01-01T00:00:00.000+00:00", "the past": "1970-01-01T00:00:00.000+00:00"}


@pytest.mark.slow
@pytest.mark.parametrize("age", AGES)
def test_records_and_plans_of_another_time(age: str, here: Path, told: Told) -> None:
    """Dates are shown and decide nothing; here a run has also ended before it began."""
    sweep = str(write_sweep(here))
    assert told("sweep", sweep, "--jobs=1")[0] == 0
    table = told("report", sweep)[1]
    for path in (here / "results").glob("runs/*/record.json"):
        record = json.loads(path.read_text())
        record["provenance"] |= {"started": AGES[age], "finished": "1969-01-01T00:00:00.000+00:00"}
        path.write_text(json.dumps(record))
    (plan,) = (here / "results").glob("sweeps/*/plan.json")
    stored = json.loads(plan.read_text())
    stored["plan"]["planned"] = dict.fromkeys(stored["plan"]["planned"], AGES[age])
    plan.write_text(json.dumps(stored))
    for path in here.rglob("*"):
        os.utime(path, (2**33, 2**33) if age == "the future" else (0, 0))
    kept = started(here / "results")
    code, out, err = told("sweep", sweep, "--jobs=1")
    assert (code, err) == (0, "")
    assert "4 done, 0 to run" in out
    assert told("report", sweep)[1] == table
    assert started(here / "results") == kept
    assert told("plan", sweep, "seeds=3")[0] == 0
    assert told(*TRAIN)[0] == 0


def test_a_clock_that_jumps_while_a_run_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    days = iter(AGES.values())
    monkeypatch.setattr(runs, "_now", lambda: next(days))
    record = run(iris(), Store("results"))
    assert record.status == "done"
    assert record.provenance["started"] > record.provenance["finished"]
    assert 0 < record.seconds["train"] <= record.seconds["total"] < 60
    assert Store("results").read(record.id) == record


# Locks and folders of others


@pytest.mark.parametrize("left", [b"", b"host dead-node pid 123\n", b"\xff" * 5000])
def test_a_lock_file_left_by_a_dead_machine(left: bytes, told: Told) -> None:
    """What holds a run is the lock that the system keeps, not the file."""
    lock = Store("results").run_folder(run_id(iris(), 0)) / ".lock"
    lock.parent.mkdir(parents=True)
    lock.write_bytes(left)
    assert told(*TRAIN)[0] == 0
    assert lock.read_bytes() == left


def test_a_lock_that_is_never_let_go_is_ended_by_removing_its_file(told: Told) -> None:
    """As that of a machine which is gone can be, on a network file system."""
    lock = Store("results").run_folder(run_id(iris(), 0)) / ".lock"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        code, out, _ = told(*TRAIN)
        assert (code, out) == (1, "another process is training this run\n")
        lock.unlink()
        assert told(*TRAIN)[0] == 0


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_what_is_no_lock_file(kind: str, here: Path, told: Told) -> None:
    lock = Store("results").run_folder(run_id(iris(), 0)) / ".lock"
    lock.parent.mkdir(parents=True)
    if kind == "folder":
        lock.mkdir()
    else:
        lock.symlink_to(here / "elsewhere")
    code, _, err = told(*TRAIN)
    assert code == 1
    assert one_line(err, "cannot write results/runs/"), err
    assert not (here / "elsewhere").exists()
    lock.rmdir() if kind == "folder" else lock.unlink()
    assert told(*TRAIN)[0] == 0


def test_a_file_system_without_locks(monkeypatch: pytest.MonkeyPatch, told: Told) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", refuse)
        code, _, err = told(*TRAIN)
    assert code == 1
    assert one_line(err, "cannot lock results/runs/", "No locks available"), err
    assert told(*TRAIN)[0] == 0


NOBODY = """
import os, sys
from harness.cli import main
words = sys.argv[1:]
assert main([*words, "store=own"]) == 0  # whatever is imported late is imported now
if os.getuid() == 0:
    os.setuid(65534)
sys.exit(main([*words, "store=theirs"]))
"""


@pytest.mark.parametrize("closed", ["runs/ID", "runs/ID/.lock", "runs/ID/record.json", "."])
def test_a_folder_of_somebody_else(closed: str, here: Path, told: Told) -> None:
    """It is left as it is; root may write anywhere, so this is nobody."""
    here.chmod(0o755)
    folder = Store(here / "theirs").run_folder(run_id(iris(), 0))
    folder.mkdir(parents=True)
    (folder / ".lock").touch()
    if closed.endswith("record.json"):
        (folder / "record.json").write_text("{}")
    for path in (folder, folder.parent, folder.parent.parent):
        path.chmod(0o777)
    (folder / ".lock").chmod(0o666)
    wrong = here / "theirs" / closed.replace("ID", folder.name)
    wrong.chmod(0o700 if wrong.is_dir() else 0o600)
    done = python(["-c", NOBODY, *TRAIN], here)
    assert done.returncode == 1, done.stderr
    assert one_line(done.stderr, "theirs", "Permission denied"), done.stderr
    left = {path.name: path.read_text() for path in folder.iterdir()}
    assert left == {".lock": "", **({"record.json": "{}"} if "record" in closed else {})}
    assert told(*TRAIN, "store=theirs")[0] == 0  # as its owner
