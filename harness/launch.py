"""Training a plan's runs: which of them, when, and on how many slots of this machine. No torch."""

import collections
import queue
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.crew import Crew, Worker
from harness.plan import PlannedRun
from harness.record import Record, lacks_gradients, lacks_weights
from harness.slots import LaunchError, Places, width
from harness.store import Store, StoreError

TRIES = 3
"""How many workers may die over one run before it is recorded as failed."""


STARTING = "starting"
PATIENCE = 8
"""How many runs may go ahead of one that finds no room, before all behind it wait."""


@dataclass(frozen=True)
class Event:
    """A run came to an end: its record's status, or why there is none."""

    run: PlannedRun
    status: str
    error: str | None = None


class Launch:
    """Trains runs in processes, one per slot, or per several slots where runs have several devices.

    Iterate over `events` to see them end. Up to `more` runs may be added to `todo` meanwhile. A
    process serves runs of its own width; where a run of another width is next, idle ones make room.
    Slots are taken as they become free, and let go as soon as no run is left for them.

    When a worker dies (killed, out of memory), another one takes its run; a run over which three
    have died is recorded as failed. Runs that another process has claimed are waited for.
    """

    def __init__(
        self,
        runs: Sequence[PlannedRun],
        store: Store,
        *,
        places: Places,
        trackers: Sequence[str] = (),
        plugins: Sequence[str] = (),
        force: bool = False,
        more: int = 0,
        log: Path,
        tell: Callable[[str], object] = print,
    ) -> None:
        self.todo = collections.deque(runs)
        self.crew, self.store, self.force, self.tell = Crew(places, log), store, force, tell
        self.trackers, self.plugins = list(trackers), list(plugins)
        self.left = len(runs) + more
        self.deaths: collections.Counter[str] = collections.Counter()
        self.overtaken: collections.Counter[str] = collections.Counter()
        self.held_until: dict[str, float] = {}
        self.told = False

    def events(self, tick: Callable[[], None] = lambda: None) -> Iterator[Event]:
        """Ends of runs as they happen; `tick` is called several times a second meanwhile.

        Raises:
            StoreError: a record cannot be written; all workers are stopped.
            LaunchError: workers cannot be started.
        """
        try:
            while self.todo or any(worker.run for worker in self.crew.workers):
                for found in self._ended_elsewhere():
                    self.left -= 1
                    yield found
                self._feed()
                self.crew.locks.touch()
                tick()
                try:
                    worker, answer = self.crew.answers.get(timeout=0.2)
                except queue.Empty:
                    continue
                event = self._died(worker) if answer is None else self._answered(worker, answer)
                if event:
                    self.left -= 1
                    self._feed()
                    yield event
        finally:
            self.crew.stop()

    def _ended_elsewhere(self) -> Iterator[Event]:
        """Runs that another process has trained meanwhile."""
        now = time.monotonic()
        for run in [run for run in self.todo if self.held_until.get(run.id, now + 1) <= now]:
            with self.store.claim(run.id) as free:
                self.held_until[run.id] = now + 0.5
            if not free:
                continue
            del self.held_until[run.id]
            record = None if self.force else self.store.read(run.id)
            if record and not self._lacks(record, run):
                self.todo.remove(run)
                yield Event(run, record.status)

    def _lacks(self, record: Record, run: PlannedRun) -> bool:
        asked, folder = run.config.get("trainer", {}), self.store.run_folder(run.id)
        gradients, weights = asked.get("gradients", 0), asked.get("keep", "auto")
        return lacks_gradients(record, gradients) or lacks_weights(record, folder, weights)

    def _feed(self) -> None:
        """Let every run train that can, and slots go that nothing is left for."""
        now, idle = time.monotonic(), self.crew.idle()
        ready = [run for run in self.todo if self.held_until.get(run.id, 0) <= now]
        waiting = self._match(ready, idle)
        self._make_room(waiting, idle)
        if not waiting:
            self.crew.locks.drop()
        elif not self.crew.workers:
            self._say_who_is_there()
        if not waiting or not self._starves(waiting[0]):  # else they are for it
            running = sum(1 for worker in self.crew.workers if worker.run)
            for worker in idle[max(0, self.left - len(self.todo) - running) :]:
                self.crew.end(worker)

    def _match(self, ready: Sequence[PlannedRun], idle: list[Worker]) -> list[PlannedRun]:
        """Give runs to idle workers of their width, and return those that find none.

        A run may go ahead of the first that waits, unless that has let many go ahead already.
        """
        waiting: list[PlannedRun] = []
        for run in ready:
            worker = next((w for w in idle if len(w.slots) == width(run)), None)
            if worker is None or (waiting and self._starves(waiting[0])):
                waiting.append(run)
                continue
            idle.remove(worker)
            if worker.ready:  # else it is for this run when it is
                self.todo.remove(run)
                worker.send(self._job(run), run)
                self.overtaken.update(first.id for first in waiting[:1])
        return waiting

    def _served(self, run: PlannedRun) -> bool:
        """Whether some worker, busy or not, has the run's width."""
        return any(len(worker.slots) == width(run) for worker in self.crew.workers)

    def _starves(self, run: PlannedRun) -> bool:
        return self.overtaken[run.id] >= PATIENCE and not self._served(run)

    def _make_room(self, waiting: Sequence[PlannedRun], idle: list[Worker]) -> None:
        """Start workers where slots are free; for the first run idle ones of other widths go."""
        narrowest = min(map(width, waiting), default=0)
        failed = max(map(width, waiting), default=0) + 1
        for place, run in enumerate(waiting):
            if width(run) >= failed:
                continue
            alone = width(run) == narrowest and not self._served(run)
            keep = place == 0 and (alone or self._starves(run))
            hired = self.crew.hire(width(run), keep=keep)
            while not hired and place == 0 and idle:
                self.crew.end(idle.pop())
                hired = self.crew.hire(width(run), keep=keep)
            if hired:
                self.told = True  # it has found some
                self.overtaken.update(first.id for first in waiting[: min(place, 1)])
                continue
            failed = width(run)
            if keep or failed == narrowest:
                return

    def _say_who_is_there(self) -> None:
        holders = [] if self.told else self.crew.locks.holders()
        if holders:
            self.tell(f"waiting   no slot is free: {'; '.join(holders)}")
            self.told = True

    def _job(self, run: PlannedRun) -> dict[str, Any]:
        own = {
            "seed": run.seed,
            "store": str(self.store.folder),
            "trackers": self.trackers,
            "plugins": self.plugins,
            "save": None,
        }
        return {"config": {**run.config, **own}, "force": self.force}

    def _answered(self, worker: Worker, answer: dict[str, Any]) -> Event | None:
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

    def _died(self, worker: Worker) -> Event | None:
        if worker not in self.crew.workers:  # it was idle and made room
            return None
        self.crew.end(worker)
        code, run = worker.process.returncode, worker.run
        if not worker.ready:
            self.deaths[STARTING] += 1
            if code >= 0 or self.deaths[STARTING] >= TRIES:
                raise LaunchError(
                    f"a worker could not start (exit code {code}); see {self.crew.log}"
                )
        if run is None:
            return None
        self.deaths[run.id] += 1
        if self.deaths[run.id] < TRIES:
            self.todo.appendleft(run)
            return None
        error = f"the process that trained it died {TRIES} times (exit code {code})"
        self.store.write(Record(run.id, "failed", run.config, run.seed, error=error))
        return Event(run, "failed", error)
