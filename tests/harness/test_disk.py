"""A disk that is full: one line, everything stays readable, and the same command goes on later."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.cli import main
from harness.store import Store
from tests.harness.spine import mounted, python, records, started, write_sweep
from tests.harness.test_checkpoint import LONG

SIZE = 2 << 20
FULL = "No space left on device"
FILLING = """
import contextlib
from pathlib import Path
import torch
from losses import loss

CALLS = []

@loss("filling", target="index", source="a test")
def filling(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    CALLS.append(1)
    if Path({armed!r}).exists() and len(CALLS) > int(Path({armed!r}).read_text()):
        with contextlib.suppress(OSError), open({filler!r}, "wb", buffering=0) as file:
            while file.write(bytes(512)):
                pass
    return torch.nn.functional.cross_entropy(logits, target, reduction="none")
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    yield from mounted(tmp_path / "disk", SIZE)


def fill(disk: Path, but: int = 0) -> Path:
    """Leave so many bytes."""
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    (disk / "filler").write_bytes(bytes(max(0, free - but)))
    return disk / "filler"


def full_after_calls(folder: Path, disk: Path) -> str:
    """What loads a loss that fills a disk after as many calls as a file `armed` says."""
    armed, filler = str(folder / "armed"), str(disk / "filler")
    (folder / "filling.py").write_text(FILLING.format(armed=armed, filler=filler))
    return "plugins=[filling.py]"


def one_line(err: str, path: str) -> bool:
    return err.count("\n") == 1 and err.startswith("lossbench: cannot write") and path in err


def test_no_room_for_a_plan(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["sweep", str(write_sweep(tmp_path, seeds=1)), "store=disk/store", "--jobs=1"]
    filler = fill(disk)
    assert main(words) == 1
    told = capsys.readouterr().err
    assert one_line(told, "plan.json"), told
    assert FULL in told
    assert not [path for path in (disk / "store").rglob("*") if path.is_file()]
    filler.unlink()
    assert main(words) == 0
    assert len(records(disk / "store")) == 2


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_no_room_for_a_record(jobs: int, disk: Path, tmp_path: Path) -> None:
    """The disk is full after a few runs; those are not trained again."""
    plugin = full_after_calls(tmp_path, disk)
    arms = {"ce": ["loss=cross_entropy"], "filling": ["loss=filling"]}
    path = write_sweep(tmp_path, seeds=3, arms=arms)
    words = ["-m", "harness", "sweep", str(path), "store=disk/store", plugin, f"--jobs={jobs}"]
    assert python([*words, "--only=ce"], tmp_path).returncode == 0
    before = started(disk / "store")
    (tmp_path / "armed").write_text("0")
    stopped = python(words, tmp_path)
    assert stopped.returncode == 1
    assert one_line(stopped.stderr, "disk/store/runs/"), stopped.stderr
    assert FULL in stopped.stderr
    left = started(disk / "store")
    assert left.items() >= before.items()
    assert len(left) < 6
    assert all(Store(disk / "store").read(run) for run in left)
    assert all(json.loads(file.read_text()) for file in disk.glob("store/sweeps/*/plan.json"))
    (disk / "filler").unlink()
    (tmp_path / "armed").unlink()
    again = python(words, tmp_path)
    assert again.returncode == 0, again.stderr
    after = started(disk / "store")
    assert len(after) == 6
    assert after.items() >= left.items()
    assert {record["status"] for record in records(disk / "store").values()} == {"done"}


@pytest.mark.slow
def test_no_room_for_a_checkpoint(disk: Path, tmp_path: Path) -> None:
    """It goes on from the one before."""
    plugin = full_after_calls(tmp_path, disk)
    words = ["-m", "harness", "train", *LONG, "task=classification/iris", "loss=filling", plugin]
    words += ["trainer.checkpoint=3"]
    assert python([*words, "store=whole"], tmp_path).returncode == 0
    (tmp_path / "armed").write_text("10")
    stopped = python([*words, "store=disk/store"], tmp_path)
    assert stopped.returncode == 1
    assert one_line(stopped.stderr, "checkpoint-"), stopped.stderr
    assert FULL in stopped.stderr
    assert not records(disk / "store")
    (disk / "filler").unlink()
    (tmp_path / "armed").unlink()
    again = python([*words, "store=disk/store"], tmp_path)
    assert again.returncode == 0, again.stderr
    assert "goes on from step" in again.stderr
    (one,), (other,) = (records(tmp_path / name).values() for name in ("whole", "disk/store"))
    assert (one["metrics"], one["curve"]) == (other["metrics"], other["curve"])


@pytest.mark.slow
def test_checkpoints_need_no_room_for_temporary_files(disk: Path, tmp_path: Path) -> None:
    """TMPDIR is on another file system, which is full."""
    plugin = full_after_calls(tmp_path, disk)
    fill(disk)
    words = ["-m", "harness", "train", *LONG, "task=classification/iris", "loss=filling", plugin]
    words += ["trainer.checkpoint=3"]
    done = python(words, tmp_path, TMPDIR=str(disk))
    assert done.returncode == 0, done.stderr
    (one,) = records(tmp_path / "results").values()
    assert one["status"] == "done"


@pytest.mark.slow
def test_no_room_for_a_report(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table is printed all the same, and the page that was there is still whole."""
    monkeypatch.chdir(tmp_path)
    path = str(write_sweep(tmp_path, seeds=1))
    words = [path, "store=disk/store"]
    assert main(["sweep", *words, "--jobs=1"]) == 0
    page = disk / "store" / "sweeps" / "small" / "report.html"
    before, kept = page.read_text(), started(disk / "store")
    filler = fill(disk, but=page.stat().st_size // 2)
    capsys.readouterr()
    assert main(["report", *words]) == 1
    out, err = capsys.readouterr()
    assert one_line(err, "sweeps/small/"), err
    assert FULL in err
    assert "focal" in out
    assert page.read_text() == before
    assert started(disk / "store") == kept
    filler.unlink()
    assert main(["report", *words]) == 0
