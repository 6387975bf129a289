"""Training a plan's runs in worker processes: the only place that starts processes. No torch."""

import collections
import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from harness.plan import PlannedRun
from harness.record import Record
from harness.store import Store, StoreError

SERVE = "import sys; sys.path[:] = {path!r}; from harness.worker import main; main()"
"""A worker imports what this process imports, whatever lies in the current folder."""
TRIES = 3
"""How many workers may die over one run before it is recorded as failed."""


class LaunchError(Exception):
    """Workers cannot be started."""


@dataclass(frozen=True)
class Event:
    """A run came to an end: its record's status, or why there is none."""

    run: PlannedRun
    status: str
    error: str | None = None


@dataclass
class _Worker:
    process: "subprocess.Popen[str]"
    run: PlannedRun | None = None
    ready: bool = False

    def hang_up(self) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):  # it may be dead already
            self.process.stdin.close()

    def send(self, job: dict[str, Any], run: PlannedRun) -> None:
        assert self.process.stdin is not None
        self.run = run
        with contextlib.suppress(BrokenPipeError):  # its death is noticed when its output closes
            self.process.stdin.write(json.dumps(job) + "\n")
            self.process.stdin.flush()


def default_jobs() -> int:
    """One worker per processor this process may use."""
    available = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    return len(available) if available else os.cpu_count() or 1


class Launch:
    """Trains runs in `jobs` processes; iterate over `events` to see them end.

    Up to `more` runs may be added to `todo` meanwhile.

    When a worker dies (killed, out of memory), another one takes its run; a run over which three
    have died is recorded as failed. Runs that another process has claimed are waited for.
    """

    def __init__(
        self,
        runs: Sequence[PlannedRun],
        store: Store,
        *,
        jobs: int,
        trackers: Sequence[str] = (),
        plugins: Sequence[str] = (),
        force: bool = False,
        more: int = 0,
        log: Path,
    ) -> None:
        self.todo = collections.deque(runs)
        self.store, self.force, self.trackers, self.log = store, force, list(trackers), log
        self.plugins = list(plugins)
        self.jobs = min(jobs, len(runs) + more)
        self.answers: queue.Queue[tuple[_Worker, dict[str, Any] | None]] = queue.Queue()
        self.workers: list[_Worker] = []
        self.deaths: collections.Counter[str] = collections.Counter()
        self.held_until: dict[str, float] = {}

    def events(self, tick: Callable[[], None] = lambda: None) -> Iterator[Event]:
        """Ends of runs as they happen; `tick` is called several times a second meanwhile.

        Raises:
            StoreError: a record cannot be written; all workers are stopped.
            LaunchError: workers cannot be started.
        """
        try:
            self.workers = [self._start() for _ in range(self.jobs)]
            while self.todo or any(worker.run for worker in self.workers):
                tick()
                try:
                    worker, answer = self.answers.get(timeout=0.2)
                except queue.Empty:
                    self._feed()
                    continue
                event = self._died(worker) if answer is None else self._answered(worker, answer)
                self._feed()
                if event:
                    yield event
        finally:
            self.stop()

    def stop(self) -> None:
        """End all workers at once; what they were training is not recorded."""
        for worker in self.workers:
            worker.hang_up()
        for worker in self.workers:
            try:
                worker.process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
        self.workers = []

    def _start(self) -> _Worker:
        with self._open_log() as log:
            process = subprocess.Popen(
                [sys.executable, "-c", SERVE.format(path=[*map(str, sys.path)])],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C is for the process that leads
            )
        worker = _Worker(process)
        threading.Thread(target=self._read, args=[worker], daemon=True).start()
        return worker

    def _open_log(self) -> TextIO:
        """To be added to, unless it leads elsewhere or to a reader who does not come."""
        flags = os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            return open(self.log, "a", opener=lambda path, given: os.open(path, given | flags))
        except OSError as error:
            raise LaunchError(f"cannot write {self.log}: {error.strerror}") from error

    def _read(self, worker: _Worker) -> None:
        assert worker.process.stdout is not None
        with worker.process.stdout as lines:
            for line in lines:
                self.answers.put((worker, json.loads(line)))
        self.answers.put((worker, None))

    def _feed(self) -> None:
        """Give every idle worker the next run that no other process held a moment ago."""
        now = time.monotonic()
        for worker in self.workers:
            if worker.run or not worker.ready:
                continue
            for _ in range(len(self.todo)):
                run = self.todo.popleft()
                if self.held_until.get(run.id, 0) <= now:
                    worker.send(self._job(run), run)
                    break
                self.todo.append(run)

    def _job(self, run: PlannedRun) -> dict[str, Any]:
        own = {
            "seed": run.seed,
            "store": str(self.store.folder),
            "trackers": self.trackers,
            "plugins": self.plugins,
            "save": None,
        }
        return {"config": {**run.config, **own}, "force": self.force}

    def _answered(self, worker: _Worker, answer: dict[str, Any]) -> Event | None:
        if answer.get("ready"):
            worker.ready = True
            return None
        run, worker.run = worker.run, None
        assert run is not None
        if answer["status"] == "held":
            self.held_until[run.id] = time.monotonic() + 0.5
            self.todo.append(run)
            return None
        if answer["status"] == "store error":
            raise StoreError(answer["error"])
        return Event(run, answer["status"], answer.get("error"))

    def _died(self, worker: _Worker) -> Event | None:
        self.workers.remove(worker)
        worker.hang_up()
        code = worker.process.wait()
        if not worker.ready:
            raise LaunchError(f"a worker could not start (exit code {code}); see {self.log}")
        run = worker.run
        if self.todo or run:
            self.workers.append(self._start())
        if run is None:
            return None
        self.deaths[run.id] += 1
        if self.deaths[run.id] < TRIES:
            self.todo.appendleft(run)
            return None
        error = f"the process that trained it died {TRIES} times (exit code {code})"
        self.store.write(Record(run.id, "failed", run.config, run.seed, error=error))
        return Event(run, "failed", error)
