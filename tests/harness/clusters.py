"""What tests of clusters share: long runs, their outcome, and drivers in processes of their own."""

import subprocess
from pathlib import Path
from typing import Any

from harness import sweep as sweeps
from harness.plan import Plan
from harness.sweep import request
from tests.harness.spine import records, start, write_sweep

LONG = ["trainer.epochs=1500", "trainer.evaluations=2", "trainer.checkpoint=100"]
"""3000 steps of milliseconds, written down every hundred."""


def saved(path: Path) -> Plan:
    """The plan of a sweep, kept so that no command need make it."""
    wanted = request(str(path), [])
    plan = sweeps.plan(wanted)
    sweeps.save(wanted, plan)
    return plan


def long_sweep(folder: Path, arms: int = 1) -> Path:
    """A sweep of one seed whose runs last long enough to be interrupted."""
    names = {f"focal{i}": ["loss=focal", f"loss.focal.gamma={i}"] for i in range(1, arms)}
    every = {"ce": ["loss=cross_entropy"], **names}
    path = write_sweep(folder, "long", seeds=1, arms=every, overrides=LONG)
    saved(path)
    return path


def driver(folder: Path, path: Path, *words: str) -> "subprocess.Popen[str]":
    return start(["-m", "harness", "sweep", str(path), *words], folder)


def ended(process: "subprocess.Popen[str]", seconds: float = 200) -> str:
    """What a driver printed that went well."""
    out, err = process.communicate(timeout=seconds)
    assert process.returncode == 0, out + err
    return out


def outcomes(store: Path) -> dict[str, Any]:
    """Of every run what must not depend on where it was trained, or in how many pieces."""
    apart = {"provenance": None, "seconds": None, "peak_memory": None}
    return {run: record | apart for run, record in records(store).items()}
