"""What a wheel holds, and that a clone says plainly why it cannot be set up."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from harness.paths import config_dir

ROOT = Path(__file__).resolve().parent.parent
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-qq"]


def files_below(folder: Path) -> set[str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)) for p in files if "__pycache__" not in p.parts}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([*PIP, "wheel", "--no-deps", "-w", folder, ROOT], check=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([*PIP, "install", "--no-deps", "--target", folder, wheel], check=True)
    return folder


def test_a_clone_finds_its_own_configs():
    assert config_dir() == ROOT / "configs"
    assert any(config_dir().rglob("*.yaml"))


@pytest.mark.slow
def test_a_wheel_holds_the_packages_and_the_configs_and_nothing_else(wheel):
    expected = {f"harness/configs/{name}" for name in files_below(ROOT / "configs")}
    for package in ("harness", "losses"):
        expected |= {f"{package}/{name}" for name in files_below(ROOT / package)}
    names = zipfile.ZipFile(wheel).namelist()
    assert {name for name in names if ".dist-info/" not in name} == expected


@pytest.mark.slow
def test_a_wheel_has_the_command(wheel):
    archive = zipfile.ZipFile(wheel)
    (name,) = [name for name in archive.namelist() if name.endswith("/entry_points.txt")]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [f"{command} = {function}" for command, function in project["scripts"].items()]
    assert archive.read(name).decode().splitlines() == ["[console_scripts]", *lines]


@pytest.mark.slow
def test_an_installed_wheel_plans_a_shipped_sweep(installed, tmp_path):
    def run(*arguments):
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(installed)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    found = run("-c", "from harness.paths import config_dir; print(config_dir())")
    assert Path(found) == installed / "harness" / "configs"
    assert "runs" in run("-m", "harness", "plan", "quick")


@pytest.fixture
def bare_path(tmp_path):
    """A PATH with what the scripts need of a shell, and no Python."""
    for name in ("bash", "cat", "cksum", "dirname", "rm"):
        (tmp_path / name).symlink_to(shutil.which(name))
    return str(tmp_path)


@pytest.mark.parametrize("script", ["scripts/demo", "scripts/test", ".ci/run"])
@pytest.mark.parametrize(
    ("active", "told"),
    [
        ({}, "needs Python 3.11, 3.12 or 3.13 with its venv module; found none on the PATH"),
        ({"VIRTUAL_ENV": "gone"}, "the active environment gone has no Python"),
        ({"CONDA_PREFIX": "gone"}, "the active environment gone has no Python"),
    ],
)
def test_a_script_without_a_python_says_so_in_one_line(script, active, told, tmp_path, bare_path):
    clone = tmp_path / "a clone"
    for folder in ("scripts", ".ci"):
        shutil.copytree(ROOT / folder, clone / folder)
    (clone / "pyproject.toml").touch()
    done = subprocess.run(
        ["bash", clone / script], env={"PATH": bare_path, **active}, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [f"lossbench: {told}"]
    assert done.stdout == ""
