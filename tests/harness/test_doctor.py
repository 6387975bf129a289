"""What doctor says of this machine and installation, before its slow part."""

import importlib.util
import shutil
import tomllib

import pytest

from harness import doctor, slots
from harness.cli import main
from harness.slots import Gpu
from tests.harness.spine import ROOT


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for check in ("_losses", "_configs", "_sweeps"):
        monkeypatch.setattr(doctor, check, lambda: "as they must be")


def said(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("ok ")] == [
        *("versions", "devices", "extras", "disk", "store", "losses", "configs", "sweeps")
    ]
    assert lines[5] == "      the rest tries every loss, config and sweep: a minute or more"
    return {line.split()[1]: line[16:] for line in lines}


def test_slots_are_those_of_a_sweep(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "processors", lambda: 3)
    monkeypatch.setattr(slots, "gpus", list)
    assert said(capsys)["devices"].endswith("3 processors; a sweep has 3 slots")
    monkeypatch.setattr(slots, "gpus", lambda: [Gpu(i, str(i), str(i)) for i in range(2)])
    assert said(capsys)["devices"].endswith("3 processors; a sweep has 2 slots on GPUs 0, 1")


def test_extras_are_those_that_can_be_installed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].keys()
    assert doctor.EXTRAS.keys() == extras - {"peers", "references", "test"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: name == "submitit" or None)
    monkeypatch.setattr(shutil, "which", {"sbatch": "bin/sbatch"}.get)
    others = "ray, tune, tensorboard, wandb, mlflow"
    assert said(capsys)["extras"] == f"slurm; without {others}; sbatch is bin/sbatch"
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: True)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert said(capsys)["extras"] == f"slurm, {others}; no sbatch"
