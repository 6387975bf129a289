"""From a checked config to a record."""

import contextlib
import datetime
import errno
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule

from harness import checkpoint, deterministic, memory, models, provenance, samples
from harness.batches import Batches
from harness.checkpoint import Checkpoints
from harness.config import RunConfig, outcome, run_id
from harness.data import Part
from harness.followers import followed
from harness.gradients import Gradients
from harness.prepare import load_data, prepare, probe
from harness.record import Record, lacks_gradients, lacks_weights
from harness.store import Store, StoreError, write_atomically
from harness.tasks._shown import pictures
from harness.tasks.base import Diverged, Task
from harness.trackers import Tracker, check_trackers, open_trackers
from harness.trainer import check_trainer, fit, follows, make_trainer, quiet
from harness.weights import Weights, kept

REHEARSED = 40
"""Least number of steps that are timed to tell how long a run takes."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Errors of a disk that takes no more."""
FEW, JUDGED = 8, 256
"""Steps of a short fit, and items that are judged, where a whole epoch would take too long."""


def rehearse(config: RunConfig) -> tuple[float, float]:
    """Seconds of a run of one epoch, and of one step, from short fits that are forgotten.

    Where an epoch is longer than the rehearsal, seconds of a run are those of no more than a few
    steps and of evaluating once, which is estimated from a few items.
    """
    per_epoch = len(Batches(load_data(config).train, config.trainer.batch_size))
    if per_epoch > REHEARSED:
        _timed_fit(config, 1, FEW)
        short, long = (_timed_fit(config, 1, steps) for steps in (FEW, REHEARSED))
        return short, max(long - short, 0.0) / (REHEARSED - FEW)
    beyond = -(-REHEARSED // per_epoch)
    _timed_fit(config, 1)  # pays for what is loaded once per process
    short, long = (_timed_fit(config, epochs) for epochs in (1, 1 + beyond))
    return short, max(long - short, 0.0) / (beyond * per_epoch)


def _timed_fit(config: RunConfig, epochs: int, steps: int | None = None) -> float:
    """Seconds of a fit and of evaluating; with `steps` of so many only, and of evaluating a few."""
    started = time.perf_counter()
    prepared = prepare(config)
    # that it diverges is a result, when it is run
    with torch.random.fork_rng(), quiet(), contextlib.suppress(Diverged):
        fit(make_trainer(config, (), epochs, steps), prepared.task)
    seconds = time.perf_counter() - started
    for part in (prepared.data.val, prepared.data.test):
        started, judged = time.perf_counter(), part.first(JUDGED) if steps else part
        with contextlib.suppress(Diverged):
            prepared.task.evaluate(judged)
            prepared.task.references(judged)
        seconds += (time.perf_counter() - started) * len(part) / len(judged)
    return seconds


def run_once(
    config: RunConfig,
    store: Store,
    *,
    force: bool = False,
    callbacks: Sequence[Callback] = (),
) -> Record | None:
    """The record of a run: the one there is, or a new one; None while another process trains it.

    Raises:
        StoreError: the store cannot be read or written.
    """
    if follows():
        run(config, store)
        return None
    identity = run_id(config, config.seed)
    with store.claim(identity) as free:
        if not free:
            return None
        if force and store.read(identity) is None:  # else they are of the forced run itself
            checkpoint.remove(store.run_folder(identity))
        unsaved = config.save and not Path(config.save).exists()
        there = None if force or unsaved else store.read(identity)
        if (
            there is None
            or lacks_gradients(there, config.trainer.gradients)
            or lacks_weights(there, store.run_folder(identity), config.trainer.keep)
        ):
            return run(config, store, callbacks=callbacks)
        return there


def run(config: RunConfig, store: Store, *, callbacks: Sequence[Callback] = ()) -> Record:
    """Train once and write the record, whatever comes of it.

    Raises:
        StoreError: the record cannot be written.
        KeyboardInterrupt: asked to stop, or another process of the run was killed; nothing is
            written.
    """
    started = time.perf_counter()
    facts: dict[str, Any] = {
        "id": run_id(config, config.seed),
        "config": outcome(config),
        "seed": config.seed,
        "provenance": _provenance(config),
    }
    folder = store.run_folder(facts["id"])
    group = f"{config.task['name']}/{config.data['name']}"
    mirrors = (
        []
        if follows()
        else open_trackers(config.trackers, folder, facts["id"], facts["config"], group)
    )
    try:
        with followed(config), deterministic.watched(facts.setdefault("notes", [])):
            _train(config, facts, folder, [*callbacks, _Mirror(mirrors)])
        facts["status"] = "done"
    except Diverged as reason:
        facts |= {"status": "diverged", "error": str(reason), "steps": reason.step}
    except StoreError:
        raise
    except Exception as error:  # a failed run is a result too, and must not stop a sweep
        if isinstance(error, OSError) and error.errno in FULL:  # which is no fault of this run
            raise StoreError(f"cannot write {error.filename or folder}: {error.strerror}") from None
        facts |= {"status": "failed", "error": memory.told(error, config)}
        write_atomically(folder / "error.txt", traceback.format_exc())
    memory.release()
    facts["provenance"]["finished"] = _now()
    seconds = facts.get("seconds", {})
    total = facts.pop("earlier", 0.0) + time.perf_counter() - started
    record = Record(**facts | {"seconds": {**seconds, "total": total}})
    if not follows():
        store.write(record)
        checkpoint.remove(folder)
    for mirror in mirrors:
        mirror.finish(record.status, record.metrics)
    return record


class _Mirror(Callback):
    """Shows each new point of a task's curve to the trackers."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self.trackers = trackers

    def on_validation_end(self, _: Any, task: LightningModule) -> None:
        assert isinstance(task, Task)
        point = {name: value for name, value in task.curve[-1].items() if "/" in name}
        for tracker in self.trackers:
            tracker.log(point, task.global_step)


class _References(Callback):
    """Judges what has learnt nothing, with the model where it is trained."""

    def __init__(self, parts: Mapping[str, Part]) -> None:
        self.parts = parts
        self.found: dict[str, dict[str, float]] = {}

    def state_dict(self) -> dict[str, Any]:
        return self.found

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.found.update(state_dict)

    def on_fit_start(self, _: Any, task: LightningModule) -> None:
        assert isinstance(task, Task)
        if self.found:  # before the run was stopped; the model has learnt since
            return
        for split, part in self.parts.items():
            for name, metrics in task.references(part).items():
                judged = {f"{split}/{metric}": value for metric, value in metrics.items()}
                self.found.setdefault(name, {}).update(judged)


def _train(
    config: RunConfig, facts: dict[str, Any], folder: Path, callbacks: Sequence[Callback]
) -> None:
    """Fit and evaluate, noting in `facts` whatever is known, so that a failure keeps it."""
    torch.set_num_threads(config.trainer.threads)
    provenance.reset_peak_memory()
    prepared = prepare(config)
    task = prepared.task
    facts["notes"] += prepared.data.notes
    facts |= {
        "seeds": prepared.seeds,
        "fingerprints": prepared.fingerprints,
        "parameters": models.parameter_count(task.model),
        "curve": task.curve,
    }
    parts = {"val": prepared.data.val} | (
        {"test": prepared.data.test} if config.trainer.test else {}
    )
    references, gradients = _References(parts), Gradients(config.trainer.gradients)
    facts |= {"references": references.found, "start": gradients.start}
    facts["gradients"] = gradients.found
    about = {
        "run": facts["id"],
        "devices": config.trainer.devices,
        "accumulate": config.trainer.accumulate,
        "gradients": config.trainer.gradients,
        "keep": kept(config.trainer),
        "fingerprints": prepared.fingerprints,
        "versions": facts["provenance"]["versions"],
    }
    checkpoints = Checkpoints(folder, about, config.trainer.checkpoint)
    weights, newest = Weights(folder, config.trainer), checkpoints.newest()
    if newest is None and not follows():
        weights.set_aside(folder)
    started = time.perf_counter()
    with torch.random.fork_rng(), quiet():
        torch.manual_seed(prepared.seeds["dropout"])
        own = [*callbacks, references, gradients, weights, checkpoints]
        trainer = make_trainer(config, own, config.trainer.epochs)
        facts["provenance"]["flags"] = deterministic.flags()
        fit(trainer, task, newest)
    facts["steps"], facts["earlier"] = trainer.global_step, checkpoints.seconds
    seconds = checkpoints.seconds + time.perf_counter() - started - gradients.seconds
    facts["seconds"] = {"train": seconds}
    if gradients.every:
        facts["seconds"]["gradients"] = gradients.seconds
    val = task.evaluate(prepared.data.val)
    task.end_curve(val)
    facts["metrics"] = {f"val/{name}": value for name, value in val.items()}
    if config.trainer.test:
        test = task.evaluate(prepared.data.test)
        facts["metrics"] |= {f"test/{name}": value for name, value in test.items()}
        _keep_samples(task, prepared.data.test, facts["id"], Store(config.store))
    facts["peak_memory"] = _peak_memory(task.device)
    if trainer.is_global_zero:
        weights.end(task)
        if config.save:
            models.save(task.model, config.save)


def _keep_samples(task: Task, part: Part, run: str, store: Store) -> None:
    images = pictures(part, samples.MOST)
    if images is None or follows():
        return
    task.eval()
    with torch.no_grad():
        kept = task.samples(part, images)
    if kept is not None:
        samples.write(store, run, kept)


def check_ready(config: RunConfig) -> None:
    """Raise ValueError if a run could not even take its first step, before anything is written."""
    check_trackers(config.trackers)
    check_trainer(config)
    try:
        with deterministic.watched([]):
            probe(config)
    except (RuntimeError, MemoryError) as error:
        raise ValueError(f"one batch does not go through: {memory.told(error, config)}") from error


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return provenance.peak_memory()


def _provenance(config: RunConfig) -> dict[str, Any]:
    gpu = config.trainer.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    device = torch.cuda.get_device_name() if gpu else "cpu"
    return {
        **provenance.code_version(),
        "versions": provenance.versions(),
        **provenance.machine(device, config.trainer.threads),
        "devices": config.trainer.devices,
        "beside": config.beside(),
        "started": _now(),
    }


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
