"""Sweeps on a real Ray: one started here, and one of two nodes of which one is killed."""

import contextlib
import importlib.util
import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.cli import main
from tests.harness.clusters import driver, ended, long_sweep, outcomes, saved
from tests.harness.spine import records, started, wait_for, write_sweep

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="needs the extra ray"),
    pytest.mark.xdist_group("ray"),
]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


SEEN = """
import os, pathlib
if "RAY_JOB_ID" in os.environ or "CUDA_VISIBLE_DEVICES" in os.environ:
    pathlib.Path("seen", f"{os.getpid()}").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", ""))
"""


def test_a_sweep_on_a_ray_of_its_own(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the current folder holds is taken for no module; no worker is nicer than we are."""
    (here / "nice.py").write_text(
        "import os, pathlib\nif 'RAY_JOB_ID' in os.environ:\n"
        "    pathlib.Path('niceness').write_text(str(os.nice(0)))\n"
    )
    for name in ("harness", "queue", "json", "ray"):
        (here / f"{name}.py").write_text("raise SystemExit('the wrong module')\n")
    path = write_sweep(here)
    words = ["launch=ray", "launch.cpus=0.5", "launch.minutes=5", "plugins=[nice.py]"]
    assert main(["sweep", str(path), *words]) == 0
    out = capsys.readouterr().out
    assert "[4/4]" in out
    assert re.search(r"^ray       started here with \d+ CPUs.*; logs in .*/workers.log$", out, re.M)
    assert (here / "niceness").read_text() == str(os.nice(0))
    assert {record["status"] for record in records(here / "results").values()} == {"done"}
    before = started(here / "results")
    assert main(["sweep", str(path), "launch=ray", "plugins=[nice.py]"]) == 0
    assert "4 done, 0 to run" in capsys.readouterr().out
    assert started(here / "results") == before


class Nodes:
    """A Ray cluster of processes on this machine, to be ended one by one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[str]] = []
        self.port = 6000 + secrets.randbelow(3000)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def add(self) -> "subprocess.Popen[str]":
        """A node of two processors and one GPU that is none."""
        first = ["--head", f"--port={self.port}", "--include-dashboard=false"]
        where = [f"--address={self.address}"] if self.processes else first
        size = ["--num-cpus=2", "--num-gpus=1", "--object-store-memory=100000000"]
        ray = str(Path(sys.executable).with_name("ray"))
        log = self.folder / f"ray-{len(self.processes)}.log"
        with log.open("w") as out:
            process = subprocess.Popen(
                [ray, "start", "--block", *where, *size],
                stdout=out,
                stderr=out,
                text=True,
                start_new_session=True,
                cwd="/",
            )
        self.processes.append(process)
        wait_for(lambda: "Ray runtime started" in log.read_text(), "a node of Ray", 120)
        return process

    def kill(self, process: "subprocess.Popen[str]") -> None:
        """As a machine that loses its power: everything at once."""
        for each in self.of(process):
            os.kill(each, signal.SIGKILL)
        process.wait()

    def of(self, process: "subprocess.Popen[str]") -> list[int]:
        """The process and all it has started, however deep."""
        parents = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
            except OSError:  # it has ended meanwhile
                continue
        found = [process.pid]
        for each in found:
            found += [child for child, parent in parents.items() if parent == each]
        return found


@pytest.fixture
def nodes(here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # beside other tests they would hardly run
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "5")
    made = Nodes(here)
    made.add()
    yield made
    for process in made.processes:
        if process.poll() is None:
            made.kill(process)


def trains(process: "subprocess.Popen[str]", nodes: Nodes, folder: Path) -> bool:
    """Whether one of its processes has loaded the plug-in."""
    seen = {file.name for file in (folder / "seen").iterdir()}
    return any(str(each) in seen for each in nodes.of(process))


def test_runs_of_a_node_that_is_killed_go_on_elsewhere(here: Path, nodes: Nodes) -> None:
    """Half a GPU each; every run has one record, the same as if nothing had happened."""
    (here / "seen").mkdir()
    (here / "seen.py").write_text(SEEN)
    second = nodes.add()
    path, store = long_sweep(here, arms=4), here / "results"
    words = [f"launch.address={nodes.address}", "launch.gpus=0.5", "launch.cpus=1"]
    process = driver(here, path, "launch=ray", *words, "plugins=[seen.py]")
    wait_for(lambda: [*store.glob("runs/*/checkpoint-0.pt")], "a checkpoint", 300)
    wait_for(lambda: trains(second, nodes, here), "the second node to train", 300)
    nodes.kill(second)
    out = ended(process, 300)
    assert f"\nray       joined the cluster at {nodes.address} with 4 CPUs and 2 GPUs on " in out
    assert "[4/4]" in out
    assert {record["status"] for record in records(store).values()} == {"done"}
    assert not list(store.glob("runs/*/record.json.*"))
    assert {file.read_text() for file in (here / "seen").iterdir()} == {"0"}
    assert len([*(here / "seen").iterdir()]) > 4

    whole = here / "whole"
    assert main(["sweep", str(path), f"store={whole}", "--jobs=1"]) == 0
    assert outcomes(store) == outcomes(whole)


def test_a_cluster_that_goes_away_is_one_line_and_the_next_call_goes_on(
    here: Path, nodes: Nodes, capsys: pytest.CaptureFixture[str]
) -> None:
    path, store = long_sweep(here), here / "results"
    process = driver(here, path, "launch=ray", f"launch.address={nodes.address}")
    wait_for(lambda: [*store.glob("runs/*/checkpoint-1.pt")], "two checkpoints", 300)
    nodes.kill(nodes.processes[0])
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert err.count("\n") == 1
    assert err.startswith(f"lossbench: ray: the cluster at {nodes.address} went away; ")
    assert main(["sweep", str(path), "launch=ray", f"launch.address={nodes.address}"]) == 1
    told = capsys.readouterr().err
    assert told == f"lossbench: ray: there is no cluster at {nodes.address}: Connection refused\n"
    assert main(["sweep", str(path), "--jobs=1"]) == 0
    (record,) = records(store).values()
    assert record["status"] == "done"


def test_ctrl_c_leaves_a_checkpoint_and_no_process(here: Path) -> None:
    before = within(here)
    path, store = long_sweep(here), here / "results"
    process = driver(here, path, "launch=ray")
    wait_for(lambda: [*store.glob("runs/*/checkpoint-1.pt")], "two checkpoints", 300)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped with 1 runs left" in err
    assert not records(store)
    wait_for(lambda: within(here) <= before, "the workers to end", 20)


def within(folder: Path) -> set[Path]:
    """Processes whose current folder it is."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/cwd"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            found |= {link} if link.readlink() == folder else set()
    return found


def test_what_no_node_has_is_told_and_not_waited_for(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_sweep(here)
    saved(path)
    assert main(["sweep", str(path), "launch=ray", "launch.gpus=64"]) == 1
    told = capsys.readouterr().err
    assert told.startswith(
        "lossbench: ray: this Ray has no node for launch.cpus=1 launch.gpus=64; "
    )
    assert told.count("\n") == 1
