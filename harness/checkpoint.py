"""Checkpoints of a run, from which it goes on to the last bit as if it had never been stopped.

They lie in the run's own folder, two generations by turns, each written to a temporary file beside
it, synced and renamed, so that one that can be read is there whatever stops the process. What they
hold is tensors and plain values, read as such. They go when the run has its record.
"""

import io
import random
import signal
import sys
import threading
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import Callback, LightningModule

from harness import across
from harness.batches import Batches
from harness.store import write_atomically

GENERATIONS = ("checkpoint-0.pt", "checkpoint-1.pt")
ABOUT, STEP, CHANCE = "lossbench.about", "global_step", "lossbench.chance"
GRACE = 4.0
"""Seconds that a process takes for a last checkpoint when whoever started it has gone."""
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""What a cluster sends to a process whose time is over."""


class Files(CheckpointIO):
    """How Lightning writes a checkpoint and reads it."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """All of it or nothing."""
        del storage_options  # of other file systems
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write_atomically(Path(path), buffer.getvalue())

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Tensors and plain values; nothing that is read can run."""
        del weights_only  # always
        content: dict[str, Any] = torch.load(path, map_location=map_location, weights_only=True)
        return content

    def remove_checkpoint(self, path: str | Path) -> None:
        """Gone, or was never there."""
        Path(path).unlink(missing_ok=True)


def newest(folder: Path, about: Mapping[str, Any]) -> Path | None:
    """The later of the checkpoints that are whole and of which all this is true."""
    found = {}
    for path in (folder / name for name in GENERATIONS):
        try:
            with zipfile.ZipFile(path) as packed:  # torch does not look at the sums of its parts
                whole = packed.testzip() is None
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            if whole and about.items() <= content[ABOUT].items():
                found[int(content[STEP])] = path
        except Exception:  # whatever a file that is not there, or is damaged, makes of its readers
            continue
    return found[max(found)] if found else None


def remove(folder: Path) -> None:
    """Remove a run's checkpoints, and what was left of one that was being written."""
    for path in [*folder.glob("checkpoint-?.pt"), *folder.glob(".checkpoint-?.pt-*")]:
        path.unlink(missing_ok=True)


def finish() -> None:
    """Let a run in this process write a last checkpoint, if it writes any; called by a thread."""
    running = Checkpoints.running
    if running:
        running.stopping = True
        running.ended.wait(GRACE)


class Checkpoints(Callback):
    """Writes one every so many steps, and one more before it obeys a signal to stop.

    Always between two steps, when what follows an epoch is done with. The random states of every
    process are in it, so that dropout goes on where it was.

    Args:
        folder: of the run.
        about: what must be the same where the run goes on: its id, processes, versions, ...
        every: steps between two; 0 for none.
    """

    running: "Checkpoints | None" = None

    def __init__(self, folder: Path, about: Mapping[str, Any], every: int) -> None:
        self.folder, self.about, self.every = folder, dict(about), every
        self.ended = threading.Event()
        self.stopping, self.written, self.turn = False, 0, 0
        self.seconds, self.started = 0.0, time.perf_counter()
        self.chance: list[dict[str, Any]] = []
        self.before: dict[int, Any] = {}

    def newest(self) -> Path | None:
        """Where to go on; None for a run that starts, or that is not to leave any."""
        return newest(self.folder, self.about) if self.every else None

    def on_train_start(self, trainer: Any, _: LightningModule) -> None:
        """Go on with the batches and the random numbers of who wrote the checkpoint."""
        self.written = trainer.global_step
        if self.chance:
            batches = trainer.train_dataloader
            assert isinstance(batches, Batches)
            batches.epoch = trainer.current_epoch
            batches.skip = trainer.fit_loop.epoch_loop.batch_progress.current.completed
            _set_chance(self.chance[trainer.global_rank])
            if trainer.is_global_zero:
                print(f"lossbench: goes on from step {trainer.global_step}", file=sys.stderr)
        if self.every:
            latest = self.newest()
            self.turn = 0 if latest is None else 1 - GENERATIONS.index(latest.name)
            self.before = {each: signal.signal(each, self._stop) for each in SIGNALS}
            Checkpoints.running = self

    def _stop(self, _: int, __: FrameType | None) -> None:
        self.stopping = True

    def on_train_batch_start(self, trainer: Any, _: LightningModule, *__: Any) -> None:
        """Write one if it is time."""
        if not self.every:
            return
        stopping = self.stopping
        if across.processes() > 1:
            stopping = bool(across.total(torch.tensor(float(stopping))))
        step = trainer.global_step
        if step > self.written and (stopping or step % self.every == 0):
            trainer.save_checkpoint(self.folder / GENERATIONS[self.turn])
            self.written, self.turn = step, 1 - self.turn
        if stopping:
            raise KeyboardInterrupt

    def state_dict(self) -> dict[str, Any]:
        """How long the run has trained."""
        return {"seconds": self.seconds + time.perf_counter() - self.started}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """How long it had trained before."""
        self.seconds = state_dict["seconds"]

    def teardown(self, *_: Any, **__: Any) -> None:
        """Leave signals as they were."""
        Checkpoints.running = None
        self.ended.set()
        for each, handler in self.before.items():
            signal.signal(each, handler)
        self.before = {}

    def on_save_checkpoint(self, _: Any, task: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add whose it is and the random states of all processes."""
        states = across.collected(_chance(), task.device) if across.processes() else [_chance()]
        checkpoint |= {ABOUT: self.about, CHANCE: states}

    def on_load_checkpoint(
        self, _: Any, __: LightningModule, checkpoint: Mapping[str, Any]
    ) -> None:
        """Keep the random states until the first step."""
        self.chance = checkpoint[CHANCE]


def _chance() -> dict[str, Any]:
    """States of every generator that a model may draw from, as tensors and plain values."""
    kind, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
        "python": list(random.getstate()),
    }


def _set_chance(states: Mapping[str, Any]) -> None:
    torch.set_rng_state(states["torch"])
    if states["cuda"]:
        torch.cuda.set_rng_state_all(states["cuda"])
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    version, inner, following = states["python"]
    random.setstate((version, tuple(inner), following))
