"""Tiny runs and sweeps, and commands in a process of their own, for the tests of the spine."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.compose import compose
from harness.config import RunConfig

ROOT = Path(__file__).parents[2]
IRIS = ("task=classification/iris", "loss=cross_entropy", "trainer.epochs=1")
ARMS: dict[str, list[str]] = {"ce": ["loss=cross_entropy"], "focal": ["loss=focal"]}


def iris(*overrides: str) -> RunConfig:
    """A run of a few hundredths of a second, changed by overrides."""
    return compose([*IRIS, *overrides])


def write_sweep(folder: Path, name: str = "small", **changes: Any) -> Path:
    """A sweep file of two arms and two seeds on iris; None removes a key."""
    content = {
        "task": "classification/iris",
        "metric": "test/accuracy",
        "baseline": "ce",
        "seeds": 2,
        "overrides": ["trainer.epochs=1"],
        "arms": ARMS,
    } | changes
    kept = {key: value for key, value in content.items() if value is not None}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(kept, allow_unicode=True, sort_keys=False), encoding="utf-8")
    return path


def records(store: Path) -> dict[str, dict[str, Any]]:
    """Every record of a store as plain JSON, by run id."""
    files = store.glob("runs/*/record.json")
    return {file.parent.name: json.loads(file.read_text(encoding="utf-8")) for file in files}


def started(store: Path) -> dict[str, str]:
    """When each run of a store was started: what changes if it is trained again."""
    return {run: record["provenance"]["started"] for run, record in records(store).items()}


def start(arguments: Sequence[str], folder: Path, **environment: str) -> "subprocess.Popen[str]":
    """Python in a process of its own, with this code importable from anywhere."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def python(
    arguments: Sequence[str], folder: Path, **environment: str
) -> "subprocess.CompletedProcess[str]":
    """Run Python to its end; its exit code and what it printed."""
    process = start(arguments, folder, **environment)
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def on_one_and_two_devices(words: Sequence[str], folder: Path) -> list[dict[str, Any]]:
    """The records of `lossbench train WORDS` in float64 by one process and by two of its own."""
    shared = ["trainer.precision=64-true", "trainer.accelerator=cpu", "trainer.strategy=ddp"]
    found = []
    for devices in (1, 2):
        several = [f"trainer.devices={devices}", f"store=d{devices}"]
        done = python(["-m", "harness", "train", *words, *shared, *several], folder)
        assert done.returncode == 0, done.stderr
        (record,) = records(folder / f"d{devices}").values()
        found.append(record)
    return found


def modules_after(command: Sequence[str], folder: Path) -> set[str]:
    """Top-level modules that one command of ours imports, given the caches that there are."""
    code = (
        "import sys; from harness.cli import main\n"
        f"try: code = main({list(command)!r})\n"
        "except SystemExit as end: code = end.code\n"
        "print('modules', code, *sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = python(["-c", code], folder)
    words = done.stdout.splitlines()[-1].split() if done.stdout else []
    assert words[:2] == ["modules", "0"], done.stdout + done.stderr
    return set(words[2:])


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    """The first true value of a condition that another process brings about."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"waited {seconds} s for {what}")


def alive(process: int) -> bool:
    """Whether a process of that number runs (a dead one that nobody waited for does not)."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def children(process: int) -> list[int]:
    """The processes that a process has started and that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has ended meanwhile
            continue
        if parent == process and alive(int(path.parent.name)):
            found.append(int(path.parent.name))
    return found


def leaves(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys of a nested mapping with their values."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        inner = isinstance(value, Mapping) and value
        found |= leaves(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return found


def mounted(place: Path, size: int) -> Iterator[Path]:
    """A file system of so many bytes for the body of a fixture, or the test is skipped."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    try:
        refused = subprocess.run(mount, capture_output=True, check=False).returncode
    except FileNotFoundError:
        refused = 1
    if refused:
        pytest.skip("a file system cannot be mounted here: that takes root and mount")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)
