"""Training a plan's runs on a cluster, with the face of :class:`harness.launch.Launch`. No torch.

An engine takes jobs and says what became of them. Here is what is common to engines: whom a run is
handed to, how often, and that it has ended only when its record is there.
"""

import collections
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from harness.cluster.node import recorded
from harness.launch import TRIES, Event
from harness.plan import PlannedRun
from harness.record import Record
from harness.slots import LaunchError
from harness.store import Store, StoreError

TICK, LOOK = 0.2, 1.0
"""Seconds between two looks at the engine, and at a run that somebody else has."""
LAG = 60.0
"""Seconds after which a record that was written is to be seen on every machine."""


class Engine(Protocol):
    """Where runs go.

    Answers are mappings with the `run`'s id, a `status` and, where there is one, an `error`. The
    status is that of :class:`harness.cluster.node.Node`, or `lost` with a machine, not by its own
    fault, or `cancelled` by somebody. `logs` is where nodes write what went wrong.
    """

    minutes: float | None
    logs: Path

    def start(self) -> None:
        """Reach the cluster; raises LaunchError or ValueError."""

    def room(self) -> int:
        """How many jobs may be handed over now."""

    def submit(self, jobs: Sequence[Mapping[str, Any]]) -> None:
        """Hand over jobs."""

    def poll(self) -> list[dict[str, Any]]:
        """Answers since the last call."""

    def stop(self) -> None:
        """End whatever still runs."""


class Cluster:
    """Trains runs on a cluster; iterate over `events` to see them end.

    Runs may be added to `todo` meanwhile. Runs that another process has claimed are waited for, and
    one over which three workers have died is recorded as failed.
    """

    def __init__(
        self,
        runs: Sequence[PlannedRun],
        store: Store,
        engine: Engine,
        *,
        trackers: Sequence[str] = (),
        plugins: Sequence[str] = (),
        force: bool = False,
        log: Path | None = None,
    ) -> None:
        self.todo = collections.deque(runs)
        self.store, self.engine, self.force = store, engine, force
        self.trackers = list(trackers)
        self.plugins = [str(Path(file).resolve()) for file in plugins]
        self.log = str(log.resolve()) if log else None
        self.running: dict[str, PlannedRun] = {}
        self.held: dict[str, tuple[PlannedRun, float]] = {}
        self.written: dict[str, tuple[PlannedRun, dict[str, Any], float]] = {}
        self.deaths: collections.Counter[str] = collections.Counter()

    def events(self, tick: Callable[[], None] = lambda: None) -> Iterator[Event]:
        """Ends of runs as they happen; `tick` is called several times a second meanwhile.

        Raises:
            StoreError: a record cannot be written.
            LaunchError: the cluster cannot be reached, or no worker starts there.
        """
        try:
            self.engine.start()
            while self.todo or self.running or self.held or self.written:
                tick()
                self._hand_over()
                for answer in self.engine.poll():
                    event = self._answered(answer)
                    if event:
                        yield event
                yield from self._recorded()
                yield from self._look()
                time.sleep(TICK)
        finally:
            self.engine.stop()

    def _hand_over(self) -> None:
        jobs: list[dict[str, Any]] = []
        for _ in range(min(len(self.todo), self.engine.room())):
            run = self.todo.popleft()
            if self._free(run):
                self.running[run.id] = run
                jobs.append(self._job(run))
            else:
                self.held[run.id] = (run, time.monotonic() + LOOK)
        if jobs:
            self.engine.submit(jobs)

    def _free(self, run: PlannedRun) -> bool:
        """Whether nobody trains it, on whatever machine."""
        if not self.store.run_folder(run.id).is_dir():
            return True
        with self.store.claim(run.id) as free:
            return free

    def _job(self, run: PlannedRun) -> dict[str, Any]:
        own = {
            "seed": run.seed,
            "store": str(self.store.folder.resolve()),
            "trackers": self.trackers,
            "plugins": self.plugins,
            "save": None,
        }
        return {
            "run": run.id,
            "config": {**run.config, **own},
            "force": self.force,
            "minutes": self.engine.minutes,
            "folder": str(Path.cwd()),
            "log": self.log,
        }

    def _answered(self, answer: dict[str, Any]) -> Event | None:
        run = self.running.pop(answer["run"], None)
        if run is None:
            return None
        status, error = answer["status"], answer.get("error")
        if status in ("done", "failed", "diverged"):
            self.written[run.id] = (run, answer, time.monotonic() + LAG)
        elif status == "held":
            self.held[run.id] = (run, time.monotonic() + LOOK)
        elif status in ("lost", "stopped"):
            self.todo.append(run)
        elif status == "died":
            return self._died(run, error)
        elif status == "store error":
            raise StoreError(str(error))
        elif status == "broken":
            raise LaunchError(f"a worker could not start ({error}); see {self.engine.logs}")
        else:
            return Event(run, status, error)
        return None

    def _died(self, run: PlannedRun, error: str | None) -> Event | None:
        self.deaths[run.id] += 1
        if self.deaths[run.id] < TRIES:
            self.todo.appendleft(run)
            return None
        words = f"the process that trained it died {TRIES} times ({error})"
        self.store.write(Record(run.id, "failed", run.config, run.seed, error=words))
        return Event(run, "failed", words)

    def _recorded(self) -> Iterator[Event]:
        """Runs that have ended, once their record can be seen from here."""
        for run, answer, until in list(self.written.values()):
            record = self.store.read(run.id)
            if record or time.monotonic() > until:
                del self.written[run.id]
                yield Event(run, record.status if record else answer["status"])

    def _look(self) -> Iterator[Event]:
        """Runs that somebody else had: they have a record now, or are to be trained here."""
        now = time.monotonic()
        for run, due in list(self.held.values()):
            if now < due:
                continue
            record = None if self.force else recorded(self.store, run.id, run.config)
            if record or self._free(run):
                del self.held[run.id]
            else:
                self.held[run.id] = (run, now + LOOK)
            if record:
                yield Event(run, record.status, record.error)
            elif run.id not in self.held:
                self.todo.append(run)
