"""A node's part: serves jobs, one after the other, in a worker process of its own. No torch.

The worker is that of any sweep. It is watched here, so that a run that takes too long, or takes its
process down, ends alone.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.crew import RANKS, SERVE, open_log
from harness.record import Record, lacks_gradients, lacks_weights
from harness.slots import THREADS, LaunchError
from harness.store import Store

OWN = ("seed", "store", "trackers", "plugins", "save")
CALM = "import signal; signal.signal(signal.SIGUSR2, signal.SIG_IGN); "
"""Slurm signals every process of a job; what this one means is told the worker by another."""
OTHERS = ("SLURM_", "SRUN_", "SBATCH_", "PMI_", "PMIX_", "TORCHELASTIC_")
"""What other variables begin with that say what RANKS do."""
SAVING = 120.0
"""Seconds in which a worker that is told to stop has to write its checkpoint."""


def recorded(store: Store, run: str, config: Mapping[str, Any]) -> Record | None:
    """The record of a run, if it has all that the config asks for."""
    record, asked = store.read(run), config.get("trainer", {})
    if record is None or lacks_gradients(record, asked.get("gradients", 0)):
        return None
    lacks = lacks_weights(record, store.run_folder(run), asked.get("keep", "auto"))
    return None if lacks else record


class Node:
    """One worker, started when it is needed and again when it has died."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None
        self.stopping = False
        self.limit: threading.Timer | None = None
        self.over = False

    def serve(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """What came of a job: the answer of a worker, with the run's id.

        Beside a worker's there are `died` (with the worker), `stopped` (by a signal, or at the
        run's time limit with a checkpoint to go on from) and `broken` (no worker can start).
        """
        store = Store(job["config"]["store"])
        record = None if job["force"] else recorded(store, job["run"], job["config"])
        answer = {"status": record.status} if record else self._train(job, store)
        return {"run": job["run"], **answer}

    def stop(self) -> None:
        """Have the run in progress, if there is one, write a checkpoint and end."""
        self.stopping = True
        if self.process:
            self.process.send_signal(signal.SIGUSR1)

    def close(self) -> None:
        """End the worker."""
        process, self.process = self.process, None
        if process is None:
            return
        assert process.stdin
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout
        process.stdout.close()

    def _train(self, job: Mapping[str, Any], store: Store) -> dict[str, Any]:
        if self.process is None and not self.stopping:
            try:
                self.process = _start(job)
            except LaunchError as refused:
                return {"status": "broken", "error": str(refused)}
            ready = self._read()
            if ready is None and not self.stopping:
                code = self._ended()
                return {"status": "broken", "error": f"exit code {code} on {os.uname().nodename}"}
        if self.stopping or self.process is None:
            return {"status": "stopped"}
        saves = job["config"]["trainer"].get("checkpoint", 0) > 0
        answer = self._ask(self.process, job, saves)
        if answer is not None:
            if job["config"]["trainer"].get("devices", 1) > 1:
                self.close()  # where it went wrong, its processes are out of step
            return answer
        code = self._ended()
        if self.stopping or (self.over and saves):
            return {"status": "stopped"}
        if not self.over:
            return {"status": "died", "error": f"exit code {code}"}
        config = {key: value for key, value in job["config"].items() if key not in OWN}
        error = f"took longer than launch.minutes={job['minutes']:g}"
        store.write(Record(job["run"], "failed", config, job["config"]["seed"], error=error))
        return {"status": "failed"}

    def _ask(
        self, process: "subprocess.Popen[str]", job: Mapping[str, Any], saves: bool
    ) -> dict[str, Any] | None:
        """The worker's answer, or None if it has died; the run's time limit holds meanwhile."""
        assert process.stdin
        self.over = False
        if job["minutes"]:
            self._limit(60 * job["minutes"], process, saves)
        with contextlib.suppress(BrokenPipeError):
            asked = {"config": job["config"], "force": job["force"]}
            process.stdin.write(json.dumps(asked) + "\n")
            process.stdin.flush()
        try:
            return self._read()
        finally:
            if self.limit:
                self.limit.cancel()

    def _limit(self, seconds: float, process: "subprocess.Popen[str]", saves: bool) -> None:
        """Stop the worker after so long: at once, or so that it can write a checkpoint before."""

        def end() -> None:
            self.over = True
            process.send_signal(signal.SIGUSR1 if saves else signal.SIGKILL)
            if saves:
                self._limit(SAVING, process, saves=False)

        self.limit = threading.Timer(seconds, end)
        self.limit.daemon = True
        self.limit.start()

    def _read(self) -> dict[str, Any] | None:
        """The next line, or None if the worker has ended; Ray can interrupt between two looks."""
        assert self.process
        assert self.process.stdout
        while not select.select([self.process.stdout], [], [], 0.2)[0]:
            pass
        line = self.process.stdout.readline()
        return json.loads(line) if line else None

    def _ended(self) -> int:
        assert self.process
        code = self.process.wait()
        self.close()
        return code


def _start(job: Mapping[str, Any]) -> "subprocess.Popen[str]":
    """A worker in the folder of the call, to which its device is all there is.

    What Slurm tells a job would also make Lightning write checkpoints of its own.
    """
    apart = {*RANKS, "PYTHONSAFEPATH"}
    there = {k: v for k, v in os.environ.items() if k not in apart and not k.startswith(OTHERS)}
    threads = job["config"]["trainer"].get("threads", 1)
    there |= dict.fromkeys(THREADS, str(threads))
    with open_log(Path(job["log"])) if job.get("log") else contextlib.nullcontext() as log:
        return subprocess.Popen(
            [sys.executable, "-c", CALM + SERVE.format(path=[*map(str, sys.path)])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=there,
            cwd=job["folder"] if Path(job["folder"]).is_dir() else None,
        )
