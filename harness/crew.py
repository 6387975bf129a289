"""Worker processes, each pinned to its slots: the only place that starts them. No torch."""

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from harness.locks import Locks
from harness.plan import PlannedRun
from harness.slots import LaunchError, Places, Slot

SERVE = "import sys; sys.path[:] = {path!r}; from harness.worker import main; main()"
"""A worker imports what this process imports, whatever lies in the current folder."""
RANKS = ("LOCAL_RANK", "RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE",
         "MASTER_ADDR", "MASTER_PORT")  # fmt: skip
"""Variables by which Lightning takes a run for one of several processes; such a process would train
for nothing, or wait for the rest."""


def open_log(log: Path) -> TextIO:
    """A file to be added to, unless it leads elsewhere or to a reader who does not come.

    Raises:
        LaunchError: it cannot be written.
    """
    flags = os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        return open(log, "a", opener=lambda path, given: os.open(path, given | flags))
    except OSError as error:
        raise LaunchError(f"cannot write {log}: {error.strerror}") from error


@dataclass(eq=False)
class Worker:
    """A process that trains one run at a time.

    Attributes:
        ready: it has loaded what it needs.
    """

    process: "subprocess.Popen[str]"
    slots: Sequence[Slot]
    run: PlannedRun | None = None
    ready: bool = False

    def hang_up(self) -> None:
        """Tell it to end, whatever it is doing."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):  # it may be dead already
            self.process.stdin.close()

    def send(self, job: dict[str, Any], run: PlannedRun) -> None:
        """Have it train a run."""
        assert self.process.stdin is not None
        self.run = run
        with contextlib.suppress(BrokenPipeError):  # its death is noticed when its output closes
            self.process.stdin.write(json.dumps(job) + "\n")
            self.process.stdin.flush()


class Crew:
    """The workers of a launch and the slots they have locked."""

    def __init__(self, places: Places, log: Path) -> None:
        self.places, self.log = places, log
        self.locks = Locks(places)
        self.answers: queue.Queue[tuple[Worker, dict[str, Any] | None]] = queue.Queue()
        self.workers: list[Worker] = []

    def idle(self) -> list[Worker]:
        """Those without a run; the ones that could begin at once come first."""
        return sorted((w for w in self.workers if not w.run), key=lambda w: not w.ready)

    def hire(self, number: int, *, keep: bool) -> bool:
        """Start a worker on so many slots, if they can be had; see :meth:`Locks.take`."""
        slots = self.locks.take(number, keep=keep)
        if slots:
            self._start(slots)
        return bool(slots)

    def stop(self) -> None:
        """End all workers at once; what they were training is not recorded."""
        for worker in self.workers:
            worker.hang_up()
        for worker in [*self.workers]:
            self.end(worker)
        self.locks.drop()
        self.locks.give([*self.locks.held])  # of a worker that could not be started

    def end(self, worker: Worker) -> None:
        """Wait until it has ended, and let its slots go."""
        worker.hang_up()
        try:
            worker.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()
        self.workers.remove(worker)
        self.locks.give(worker.slots)

    def _start(self, slots: Sequence[Slot]) -> None:
        with open_log(self.log) as log:
            process = subprocess.Popen(
                [sys.executable, "-c", SERVE.format(path=[*map(str, sys.path)])],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C is for the process that leads
                env={k: v for k, v in os.environ.items() if k not in RANKS}
                | self.places.environment(slots),
                pass_fds=self.locks.handles(slots),  # it may live longer than this process
            )
        worker = Worker(process, slots)
        self.workers.append(worker)
        threading.Thread(target=self._read, args=[worker], daemon=True).start()

    def _read(self, worker: Worker) -> None:
        assert worker.process.stdout is not None
        with worker.process.stdout as lines:
            for line in lines:
                self.answers.put((worker, json.loads(line)))
        self.answers.put((worker, None))
