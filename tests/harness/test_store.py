"""Records survive kills, locks die with their owner, and nothing is ever deleted."""

import dataclasses
import json
import math
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from harness.record import VERSION, Record
from harness.store import Store, StoreError, dump_json, write_atomically
from tests.harness.spine import python, start

FULL = Record(
    id="abc",
    status="done",
    config={"loss": {"focal": {"gamma": 2.0}}, "data": {"name": "ünïcode ☃"}},
    seed=3,
    metrics={"val/accuracy": 0.5, "test/accuracy": 1 / 3},
    curve=[{"epoch": 1.0, "step": 2.0, "train/loss": 0.1}],
    seconds={"train": 0.25, "total": 0.5},
    steps=2,
    parameters=10,
    peak_memory=2**40,
    seeds={"init": 2**62 + 1},
    fingerprints={"data": "f" * 64},
    provenance={"commit": None, "dirty": False, "started": "2026-01-01T00:00:00.000+00:00"},
)


def kill(process: "subprocess.Popen[str]") -> str:
    """Kill it as the out-of-memory killer does; what it had printed."""
    process.send_signal(signal.SIGKILL)
    out, _ = process.communicate(timeout=60)
    return out


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    store = Store(tmp_path / "a store, with spaces" / "ünï")
    assert store.read("abc") is None
    store.write(FULL)
    assert store.read("abc") == FULL
    failed = dataclasses.replace(FULL, id="b", status="failed", error="ValueError: no", metrics={})
    store.write(failed)
    assert store.read("b") == failed
    assert store.read("abc") == FULL


def test_numbers_that_json_lacks_become_null_and_are_left_out(tmp_path: Path) -> None:
    store = Store(tmp_path)
    values = {"val/nll": math.inf, "val/rmse": math.nan, "val/mae": 1.5}
    store.write(dataclasses.replace(FULL, metrics=values))
    text = (store.run_folder("abc") / "record.json").read_text()

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    assert json.loads(text, parse_constant=refuse)["metrics"] == {
        "val/nll": None,
        "val/rmse": None,
        "val/mae": 1.5,
    }
    read = store.read("abc")
    assert read is not None
    assert read.metrics == {"val/mae": 1.5}


def test_json_keeps_order_and_nesting() -> None:
    value = {"b": [1, (2.5, math.nan)], "a": {"ü": -math.inf, "z": None}}
    text = dump_json(value)
    assert json.loads(text) == {"b": [1, [2.5, None]], "a": {"ü": None, "z": None}}
    assert text.index('"b"') < text.index('"a"')


def test_an_earlier_record_is_kept(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for seed in range(4):
        store.write(dataclasses.replace(FULL, seed=seed))
    read = store.read("abc")
    assert read is not None
    assert read.seed == 3
    kept = sorted(store.run_folder("abc").glob("record.json.earlier-*"))
    assert [json.loads(file.read_text())["seed"] for file in kept] == [0, 1, 2]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"3",
        b'"text"',
        b"\xff\xfe\x00",
        b"[" * 200_000,
        b"{}",
        b'{"version": "1"}',
        b'{"version": 1}',
    ],
)
def test_what_is_no_record_is_named_and_set_aside(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path)
    path = store.run_folder("abc") / "record.json"
    path.parent.mkdir(parents=True)
    for number in (1, 2):
        path.write_bytes(content)
        assert store.read("abc") is None
        told = capsys.readouterr().err
        assert told.count("\n") == 1
        assert str(path) in told
        aside = path.with_name(f"record.json.unreadable-{number}")
        assert aside.name in told
        assert aside.read_bytes() == content
        assert not path.exists()
    store.write(FULL)
    assert store.read("abc") == FULL


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "running"},
        {"status": None},
        {"seed": "3"},
        {"metrics": [1]},
        {"metrics": {"val/mae": "low"}},
        {"config": None},
        {"curve": {}},
        {"steps": 1.5},
        {"id": 7},
    ],
)
def test_a_record_of_other_types_is_set_aside(
    changes: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path)
    store.write(FULL)
    path = store.run_folder("abc") / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    assert store.read("abc") is None
    assert "set aside" in capsys.readouterr().err


def test_what_a_later_minor_change_may_add_is_ignored(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(FULL)
    path = store.run_folder("abc") / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"more": 1}))
    assert store.read("abc") == FULL


def test_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(FULL)
    path = store.run_folder("abc") / "record.json"
    newer = json.dumps(json.loads(path.read_text()) | {"version": VERSION + 1})
    path.write_text(newer)
    with pytest.raises(StoreError, match=f"has version {VERSION + 1}, newer than {VERSION}"):
        store.read("abc")
    assert path.read_text() == newer


WRITER = """
import itertools, sys
from harness.record import Record
from harness.store import Store
store = Store("store")
for n in itertools.count(1):
    curve = [{"epoch": float(i), "train/loss": 1 / i} for i in range(1, 300)]
    store.write(Record(f"run{n % 3}", "done", {}, n, curve=curve))
    print(n, flush=True)
"""


def test_a_kill_at_any_moment_loses_no_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """20 kills at moments drawn with seed 0; what was said to be written is there afterwards."""
    moments = random.Random(0)
    store = Store(tmp_path / "store")
    for _ in range(20):
        process = start(["-c", WRITER], tmp_path)
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(moments.uniform(0, 0.03))
        written = [int(line) for line in [first, *kill(process).split("\n")] if line.strip()]
        latest = {n % 3: n for n in written}
        for number, seed in latest.items():
            record = store.read(f"run{number}")
            assert record is not None
            assert record.seed >= seed  # or it was killed after it wrote and before it said so
            assert len(record.curve) == 299
        shutil.rmtree(store.folder)
    assert capsys.readouterr().err == ""  # nothing was set aside


HOLDER = """
import sys, time
from harness.store import Store
with Store("store").claim("abc") as mine:
    print(mine, flush=True)
    time.sleep(float(sys.argv[1]))
"""


def test_a_run_is_claimed_by_one_process_and_freed_by_its_death(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    process = start(["-c", HOLDER, "600"], tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    with store.claim("abc") as mine, store.claim("another") as free:
        assert (mine, free) == (False, True)
    assert python(["-c", HOLDER, "0"], tmp_path).stdout == "False\n"
    kill(process)
    with store.claim("abc") as mine:
        assert mine
        assert python(["-c", HOLDER, "0"], tmp_path).stdout == "False\n"
        with store.claim("abc") as again:  # nor twice within one process
            assert not again
    assert python(["-c", HOLDER, "0"], tmp_path).stdout == "True\n"


def test_a_claim_is_freed_by_an_error(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(RuntimeError, match="no"), store.claim("abc"):
        raise RuntimeError("no")
    with store.claim("abc") as mine:
        assert mine


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "\ud800")  # a surrogate by itself cannot be encoded
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_store_below_a_file_is_a_store_error(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    store = Store(blocked / "store")
    for action in (
        lambda: store.write(FULL),
        lambda: store.read("abc"),
        lambda: store.claim("abc").__enter__(),
    ):
        with pytest.raises(StoreError, match=rf"^cannot (read|write) {blocked}[^\n]*: Not a dir"):
            action()


ATTEMPT = """
import os, resource, sys
from harness.record import Record
from harness.store import Store, StoreError
exec(sys.argv[1])
for action in sys.argv[2:]:
    try:
        exec(action)
    except StoreError as error:
        print(error)
    else:
        print("it worked")
"""
WRITE = "Store('store').write(Record('abc', 'done', {'long': 'x' * 100_000}, 0))"
CLAIM = "Store('store').claim('abc').__enter__()"
READ = "Store('store').read('abc')"


def attempt(folder: Path, before: str, *actions: str) -> list[str]:
    done = python(["-c", ATTEMPT, before, *actions], folder)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_folder_that_cannot_be_written_is_a_store_error(tmp_path: Path) -> None:
    run = tmp_path / "store" / "runs" / "abc"
    run.mkdir(parents=True)
    (run / "record.json").write_text("{")
    tmp_path.chmod(0o755)
    for folder in (run, run.parent, run.parent.parent):
        folder.chmod(0o555)
    # root may write anywhere, so be nobody; the folder is reached as the current one
    nobody = "os.setuid(65534)" if os.getuid() == 0 else ""
    written, claimed, read = attempt(tmp_path, nobody, WRITE, CLAIM, READ)
    assert written.startswith("cannot write store/runs/abc/record.json")
    assert claimed.startswith("cannot write store/runs/abc")
    assert read.startswith("cannot write store/runs/abc/record.json.unreadable-1")
    assert all(line.endswith("Permission denied") for line in (written, claimed, read))
    (run / "record.json").chmod(0o000)
    (read,) = attempt(tmp_path, nobody, READ)
    assert read == "cannot read store/runs/abc/record.json: Permission denied"
    for folder in (run.parent.parent, run.parent, run):
        folder.chmod(0o755)


def test_a_write_that_is_cut_short_is_a_store_error(tmp_path: Path) -> None:
    """By a limit on the size of files, which needs no privilege."""
    store = Store(tmp_path / "store")
    store.write(FULL)
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))"
    (line,) = attempt(tmp_path, limit, WRITE)
    assert line == "cannot write store/runs/abc/record.json: File too large"
    assert store.read("abc") == FULL
    left = {path.name for path in store.run_folder("abc").iterdir()}
    assert left == {"record.json", "record.json.earlier-1"}


def test_a_full_disk_is_a_store_error_and_keeps_the_record(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        store = Store(disk / "store")
        store.write(FULL)
        (line,) = attempt(disk, "", WRITE)
        assert line == "cannot write store/runs/abc/record.json: No space left on device"
        assert store.read("abc") == FULL
    finally:
        subprocess.run(["umount", str(disk)], check=True)
