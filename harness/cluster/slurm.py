"""Runs as elements of Slurm's job arrays, handed over by submitit. No torch.

What comes back is one file of lines per element. It lies with what submitit has the nodes unpickle,
and so where nobody else can put anything: in this user's cache, not in the store, which may be a
group's.
"""

import contextlib
import importlib
import importlib.util
import io
import json
import math
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cluster.node import Node
from harness.paths import cache_dir
from harness.slots import LaunchError

if TYPE_CHECKING:
    from harness.cluster.settings import Slurm as Settings

ASK, READ = 5.0, 1.0
"""Seconds between two calls of squeue, and between two looks at what elements say."""
PATIENCE = 120.0
"""Seconds for which Slurm may not answer."""
LOADING = 5
"""Minutes of an element beside those of its runs."""
LOST = ("BOOT_FAIL", "NODE_FAIL", "PREEMPTED", "REVOKED")
"""Ends that are not the fault of what ran."""
OVER = (*LOST, "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "OUT_OF_MEMORY", "TIMEOUT", "GONE")
"""All ends; one that Slurm does not know any more is gone."""


# On the node


def element(jobs: Sequence[Mapping[str, Any]], answers: Path) -> None:
    """Serve the jobs of one element; after a signal it ends, and is queued again if it still runs.

    What was answered before the element was queued again is left alone.
    """
    node = Node()
    for each in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(each, lambda *_: node.stop())
    signal.signal(signal.SIGCONT, signal.SIG_DFL)
    known = {a["run"] for a in _lines(answers, 0)[0] if a["status"] != "begun"}
    try:
        for job in jobs:
            if job["run"] in known:
                continue
            _say(answers, {"run": job["run"], "status": "begun"})
            answer = node.serve(job)
            if answer["status"] == "stopped" and (not _runs() or _requeue()):
                return
            _say(answers, answer)
    finally:
        node.close()


def _say(answers: Path, answer: Mapping[str, Any]) -> None:
    with answers.open("a", encoding="utf-8") as file:
        file.write(json.dumps(answer) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _runs() -> bool:
    """Whether Slurm wants this element to go on: it is neither cancelled nor put back already."""
    done = _call("squeue", "--noheader", "--jobs", os.environ["SLURM_JOB_ID"], "--format=%T")
    return done.returncode == 0 and done.stdout.strip() == "RUNNING"


def _requeue() -> bool:
    return _call("scontrol", "requeue", os.environ["SLURM_JOB_ID"]).returncode == 0


def _lines(path: Path, start: int) -> tuple[list[dict[str, Any]], int]:
    """Whole lines of a file from a byte on, and where the next one begins."""
    try:
        with path.open("rb") as file:
            file.seek(start)
            content = file.read()
    except FileNotFoundError:
        return [], start
    whole = content[: content.rfind(b"\n") + 1]
    return [json.loads(line) for line in whole.splitlines()], start + len(whole)


def _call(*command: str) -> "subprocess.CompletedProcess[str]":
    """A command of Slurm; one that does not answer has failed."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"{command[0]} does not answer")


# Where the sweep is


@dataclass
class _Element:
    jobs: dict[str, Mapping[str, Any]]
    answers: Path
    read: int = 0
    state: str = "PENDING"
    begun: str | None = None
    over: int = 0  # how often in a row Slurm has said so


class Slurm:
    """Arrays of elements.

    The first array holds every run, so that Slurm goes on with it whatever happens here; later ones
    hold as many as there is room for.
    """

    def __init__(self, settings: "Settings", name: str) -> None:
        self.settings = settings
        self.minutes = settings.minutes
        self.name = "lossbench-" + re.sub(r"[^\w.@=-]", "_", name)[:60]
        self.logs = self.place = cache_dir() / "slurm"
        self.elements: dict[str, _Element] = {}
        self.submitted: list[str] = []
        self.files, self.largest, self.clean = 0, 1000, True
        self.asked = self.looked = -math.inf
        self.heard = 0.0

    def start(self) -> None:
        """See that Slurm answers and has the partition; print where logs lie.

        Raises:
            LaunchError: it is not so, or there is no safe place for submitit's pickles.
            ValueError: submitit is missing, or Slurm has no such partition.
        """
        check(self.settings.partition)
        shown = _call("scontrol", "show", "config").stdout
        found = re.search(r"MaxArraySize\s*=\s*(\d+)", shown)
        self.largest = max(1, min(1000, int(found[1]) - 1)) if found else 1000
        try:
            self.logs = Path(tempfile.mkdtemp(prefix=f"{self.name}-", dir=_own(self.place)))
        except OSError as error:
            raise LaunchError(f"cannot write {self.place}: {error.strerror}") from error
        print(f"slurm     logs in {self.logs}", flush=True)
        self.heard = time.monotonic()

    def room(self) -> int:
        """All of the first call, then what `parallel` leaves."""
        if not self.elements:
            return self.largest * self.settings.per_job
        return max(0, self.settings.parallel - len(self.elements)) * self.settings.per_job

    def submit(self, jobs: Sequence[Mapping[str, Any]]) -> None:
        """One array.

        Raises:
            LaunchError: Slurm refuses it; the message is Slurm's.
        """
        submitit = importlib.import_module("submitit")
        size = self.settings.per_job
        shares = [jobs[i : i + size] for i in range(0, len(jobs), size)]
        answers = [self.logs / f"{self.files + i}.answers" for i in range(len(shares))]
        self.files += len(shares)
        executor = submitit.SlurmExecutor(folder=self.logs)
        try:
            executor.update_parameters(**self._parameters())
            with _outside(), contextlib.redirect_stderr(io.StringIO()):  # it is told below
                made = executor.map_array(element, shares, answers)
        except Exception as error:  # submitit has no one class for what sbatch says
            raise LaunchError(f"slurm: {_said(error)}") from error
        self.submitted.append(made[0].job_id.partition("_")[0])
        for job, share, path in zip(made, shares, answers, strict=True):
            self.elements[job.job_id] = _Element({each["run"]: each for each in share}, path)
        self.asked = time.monotonic() - ASK + 1  # they may be short

    def _parameters(self) -> dict[str, Any]:
        wanted = self.settings
        root = shlex.quote(str(Path(__file__).resolve().parents[2]))
        minutes = wanted.minutes and math.ceil(wanted.minutes * wanted.per_job) + LOADING
        given = {
            "partition": wanted.partition,
            "gres": f"gpu:{wanted.gpus}" if wanted.gpus else None,
            "cpus_per_task": wanted.cpus,
            "mem": f"{math.ceil(wanted.memory * 1024)}MB" if wanted.memory else None,
            "time": minutes,
        }
        kept = {key: value for key, value in given.items() if value is not None or key == "time"}
        return kept | {
            "job_name": self.name,
            "array_parallelism": wanted.parallel,
            "additional_parameters": {"requeue": True, **wanted.extra},
            "setup": [  # found as here, and no file of the current folder is taken for a module
                f"export PYTHONPATH={root}${{PYTHONPATH:+:$PYTHONPATH}} PYTHONSAFEPATH=1"
            ],
        }

    def poll(self) -> list[dict[str, Any]]:
        """What elements have said, and what became of those that are no more.

        Raises:
            LaunchError: Slurm has not answered for long, or an element could not start.
        """
        now = time.monotonic()
        if now >= self.asked + ASK and self.elements:
            self._ask(now)
        elif now < self.looked + READ:
            return []
        self.looked, found = now, []
        for key, one in list(self.elements.items()):
            if one.state != "PENDING":
                found += self._read(one)
            if one.over > 1:
                found += self._lost(key, one)
            if not one.jobs or one.over > 1:
                del self.elements[key]
        return found

    def _ask(self, now: float) -> None:
        """Which state each element is in."""
        self.asked = now
        done = _call("squeue", "--noheader", "--array", "--states=all", f"--name={self.name}",
                     "--format=%i|%T")  # fmt: skip
        if done.returncode:
            if now - self.heard > PATIENCE:
                said = done.stderr.strip().splitlines()[-1:] or ["no reason"]
                raise LaunchError(f"slurm does not answer ({said[0]}); its jobs may go on, and the "
                                  "same command joins them")  # fmt: skip
            return
        self.heard = now
        states = dict(line.split("|", 1) for line in done.stdout.splitlines() if "|" in line)
        for key, one in self.elements.items():
            one.state = states.get(key, "GONE")
            one.over = one.over + 1 if one.state in OVER else 0

    def _read(self, one: _Element) -> list[dict[str, Any]]:
        lines, one.read = _lines(one.answers, one.read)
        said = []
        for answer in lines:
            if answer["status"] == "begun":
                one.begun = answer["run"]
            elif one.jobs.pop(answer["run"], None):
                self.clean &= answer["status"] not in ("died", "broken", "refused")
                said.append(answer)
        return said

    def _lost(self, key: str, one: _Element) -> Iterator[dict[str, Any]]:
        """What became of the runs of an element that ended without a word about them."""
        if one.jobs and one.begun is None and one.state not in (*LOST, "CANCELLED"):
            self.clean = False
            told = f"job {key} could not start ({one.state})"
            raise LaunchError(f"{told}; see {self.logs}, which all machines must share")
        for run in one.jobs:
            if one.state == "CANCELLED":
                yield {"run": run, "status": "cancelled", "error": f"job {key} was cancelled"}
            elif run == one.begun and one.state not in LOST:
                self.clean = False
                yield {"run": run, "status": "died", "error": f"job {key}: {one.state}"}
            else:
                yield {"run": run, "status": "lost"}

    def stop(self) -> None:
        """Cancel what is left; Slurm gives runs that write checkpoints time for one more."""
        if self.elements and self.submitted:
            _call("scancel", *self.submitted)
        elif self.clean and self.logs != self.place:
            shutil.rmtree(self.logs, ignore_errors=True)


def check(partition: str | None) -> None:
    """See that submitit is there, that Slurm answers and has the partition.

    Raises:
        LaunchError: Slurm is not there or does not answer.
        ValueError: submitit is missing, or Slurm has no such partition.
    """
    if importlib.util.find_spec("submitit") is None:
        raise ValueError("launch=slurm: submitit is missing: pip install lossbench[slurm]")
    if not all(map(shutil.which, ("sbatch", "srun", "squeue", "sinfo", "scontrol"))):
        raise LaunchError("launch=slurm: this machine has no Slurm (there is no sbatch)")
    done = _call("sinfo", "--noheader", "--format=%R")
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or ["no reason"]
        raise LaunchError(
            f"slurm does not answer: {said[0]}; is this machine configured for Slurm?"
        )
    known = sorted(set(done.stdout.split()))
    for name in (partition or "").split(",") if partition else []:
        if name not in known:
            from losses.arguments import nearest

            raise ValueError(f"launch.partition: Slurm has no '{name}'{nearest(name, known)}")


def _own(folder: Path) -> Path:
    """The folder, made if need be, in which nobody else can put or rename anything.

    Raises:
        OSError: it cannot be made.
        LaunchError: somebody else owns it or the folder that it lies in, or may write to one.
    """
    folder = folder.parent.resolve() / folder.name
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    for each in (folder.parent, folder):
        found = each.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
            raise LaunchError(
                f"{each} must be a folder of yours that nobody else may write to, since what lies "
                f"in it is run as you: chmod go-w {shlex.quote(str(each))}, or name another cache "
                "with XDG_CACHE_HOME"
            )
    return folder


@contextlib.contextmanager
def _outside() -> Iterator[None]:
    """Without what Slurm tells the job in which this process may run itself."""
    ours = {k: v for k, v in os.environ.items() if k.startswith("SLURM_") and k != "SLURM_CONF"}
    for key in ours:
        del os.environ[key]
    try:
        yield
    finally:
        os.environ.update(ours)


def _said(error: Exception) -> str:
    """What sbatch says of why, in one line."""
    text = str(error)
    lines = [line for line in text.splitlines() if "error:" in line] or text.splitlines()[:1]
    return " ".join(" ".join(lines).replace("sbatch: error:", "").split())
