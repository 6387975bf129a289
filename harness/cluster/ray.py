"""Runs as tasks of a Ray cluster. No torch.

Ray ends the process that uses it when its cluster goes away, and prints at length; so a process of
its own does, which reads jobs and writes answers as a worker does.
"""

import contextlib
import dataclasses
import importlib
import importlib.util
import json
import os
import queue
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from harness.cluster.node import Node
from harness.crew import open_log
from harness.slots import LaunchError

if TYPE_CHECKING:
    from harness.cluster.settings import Ray as Settings

BRIDGE = "import sys; sys.path[:] = {path!r}; from harness.cluster.ray import main; main()"
READY = 90.0
"""Seconds in which a cluster has to answer."""
ENDING = 10.0
"""Seconds in which runs that are stopped may write a checkpoint."""
NODE = Node()
"""That of a worker process of Ray, which may serve one task after the other."""


class Ray:
    """Tasks, each of one run."""

    def __init__(self, settings: "Settings", log: Path) -> None:
        self.settings, self.logs = settings, log
        self.minutes = settings.minutes
        self.process: subprocess.Popen[str] | None = None
        self.answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self.out = 0

    @property
    def where(self) -> str:
        """The cluster in words."""
        return f"the cluster at {self.settings.address}" if self.settings.address else "this Ray"

    def start(self) -> None:
        """Join the cluster, or start one here, and print which and where logs lie.

        Raises:
            LaunchError: there is none at the address, none of its nodes is large enough, or the
                log cannot be written.
            ValueError: Ray is missing.
        """
        check(self.settings.address)
        with open_log(self.logs) as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", BRIDGE.format(path=[*map(str, sys.path)])],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=Path(__file__).resolve().parents[2],  # nodes look for modules there
                env=_environment(self.settings.address),
                start_new_session=True,  # Ctrl-C is for the process that leads
            )
        threading.Thread(target=self._listen, args=[self.process], daemon=True).start()
        self._send(dataclasses.asdict(self.settings))
        first = None
        with contextlib.suppress(queue.Empty):
            first = self.answers.get(timeout=READY)
        if first is None or "error" in first:
            self.process.kill()
            why = first["error"] if first else f"cannot be joined; see {self.logs}"
            raise LaunchError(f"ray: {self.where} {why}")
        where = f"joined {self.where}" if self.settings.address else "started here"
        print(f"ray       {where} with {first['has']}; logs in {self.logs}", flush=True)

    def room(self) -> int:
        """What `parallel` leaves."""
        return max(0, self.settings.parallel - self.out)

    def submit(self, jobs: Sequence[Mapping[str, Any]]) -> None:
        """One task per job."""
        for job in jobs:
            self.out += 1
            self._send(job)

    def poll(self) -> list[dict[str, Any]]:
        """What tasks have answered.

        Raises:
            LaunchError: the cluster is no more.
        """
        found = []
        while not self.answers.empty():
            answer = self.answers.get()
            if answer is None:
                raise LaunchError(
                    f"ray: {self.where} went away; the same command goes on; see {self.logs}"
                )
            self.out -= 1
            found.append(answer)
        return found

    def stop(self) -> None:
        """Cancel what still runs, and leave the cluster."""
        if self.process is None:
            return
        assert self.process.stdin
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(timeout=2 * ENDING)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _send(self, content: Mapping[str, Any]) -> None:
        assert self.process
        assert self.process.stdin
        with contextlib.suppress(OSError):  # its death is noticed when its output closes
            self.process.stdin.write(json.dumps(content) + "\n")
            self.process.stdin.flush()

    def _listen(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout
        with process.stdout as lines:
            for line in lines:
                self.answers.put(json.loads(line))
        self.answers.put(None)


def check(address: str | None) -> None:
    """See that Ray is there, and somebody at the address, on whom Ray itself would wait long.

    Raises:
        ValueError: Ray is missing.
        LaunchError: nobody is at HOST:PORT.
    """
    if importlib.util.find_spec("ray") is None:
        raise ValueError("launch=ray: ray is missing: pip install lossbench[ray]")
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        except OSError as error:
            said = error.strerror or "no answer in 10 s"
            raise LaunchError(f"ray: there is no cluster at {address}: {said}") from error


def _environment(address: str | None) -> dict[str, str]:
    """One that is started here answers only to who knows a word of its own, and reports nothing.

    Its workers are as nice as this process; by Ray's default they would hardly run on a busy one.
    """
    alone = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    alone |= {"RAY_USAGE_STATS_ENABLED": "0"}
    alone |= {"RAY_worker_niceness": "0"}
    return {**os.environ, **({} if address else alone)}


# In the process that uses Ray


def serve(job: Mapping[str, Any]) -> dict[str, Any]:
    """A task, on a node."""
    try:
        return NODE.serve(job)
    except BaseException:  # it is cancelled
        NODE.close()
        raise


def main() -> None:
    """Hand jobs that come on stdin to the cluster until stdin closes."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever Ray prints must not be taken for an answer
    settings = json.loads(sys.stdin.readline())
    jobs: queue.Queue[dict[str, Any] | None] = queue.Queue()
    threading.Thread(target=_jobs, args=[jobs], daemon=True).start()
    ray = importlib.import_module("ray")
    try:
        _join(ray, settings["address"])
    except Exception as error:  # Ray has no one class for what can go wrong
        _answer(answers, {"error": _said(error)})
        return
    lacking = _lacking(ray, settings)
    _answer(answers, {"error": lacking} if lacking else {"has": _has(ray)})
    if not lacking:
        given = {key: settings[f"{key[4:]}"] for key in ("num_cpus", "num_gpus")}
        _hand_on(ray, ray.remote(**given, max_retries=0)(serve), jobs, answers)
    ray.shutdown()


def _jobs(jobs: "queue.Queue[dict[str, Any] | None]") -> None:
    for line in sys.stdin:
        jobs.put(json.loads(line))
    jobs.put(None)


def _join(ray: Any, address: str | None) -> None:
    alone = {} if address else {"include_dashboard": False}
    ray.init(address=address or "local", log_to_driver=False, logging_level="ERROR", **alone)


def _has(ray: Any) -> str:
    """What the cluster is, in words."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    counts = {kind: sum(node.get(kind, 0) for node in nodes) for kind in ("CPU", "GPU")}
    words = " and ".join(f"{n:g} {kind}s" for kind, n in counts.items() if n or kind == "CPU")
    return words if len(nodes) == 1 else f"{words} on {len(nodes)} nodes"


def _lacking(ray: Any, settings: Mapping[str, Any]) -> str | None:
    """What no node has, since Ray would wait for one that has it for ever."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    wanted = {"CPU": settings["cpus"], "GPU": settings["gpus"]}
    if any(all(node.get(key, 0) >= wanted[key] for key in wanted) for node in nodes):
        return None
    most = ", ".join(f"{max(node.get(k, 0) for node in nodes):g} {k}s" for k in wanted)
    asked = f"launch.cpus={settings['cpus']:g} launch.gpus={settings['gpus']:g}"
    return f"has no node for {asked}; the most of one are {most}"


def _hand_on(
    ray: Any, task: Any, jobs: "queue.Queue[dict[str, Any] | None]", answers: TextIO
) -> None:
    """Tasks for jobs, and answers for tasks, until there are no more jobs to come."""
    tasks: dict[Any, str] = {}
    while True:
        with contextlib.suppress(queue.Empty):
            while True:
                job = jobs.get(timeout=0 if tasks else None)
                if job is None:
                    _cancel(ray, tasks)
                    return
                tasks[task.remote(job)] = job["run"]
        ready, _ = ray.wait([*tasks], timeout=0.3)
        for each in ready:
            _answer(answers, _result(ray, each, tasks.pop(each)))


def _result(ray: Any, task: Any, run: str) -> dict[str, Any]:
    """A node's answer, or what became of it."""
    try:
        answer: dict[str, Any] = ray.get(task)
    except ray.exceptions.NodeDiedError:
        return {"run": run, "status": "lost"}
    except ray.exceptions.TaskCancelledError:
        return {"run": run, "status": "cancelled", "error": "its task was cancelled"}
    except Exception as error:
        return {"run": run, "status": "died", "error": _said(error)}
    return answer


def _cancel(ray: Any, tasks: Mapping[Any, str]) -> None:
    """Let runs in progress write down where they are."""
    for each in tasks:
        ray.cancel(each)
    if tasks:
        ray.wait([*tasks], num_returns=len(tasks), timeout=ENDING)


def _answer(answers: TextIO, content: Mapping[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps(content), file=answers, flush=True)


def _said(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason'}"
