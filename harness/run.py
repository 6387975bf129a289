"""From a checked config to a record: the only file that knows the Trainer."""

import contextlib
import datetime
import logging
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, NamedTuple

import torch
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar, TQDMProgressBar

from harness import data, models, provenance, tasks
from harness.batches import Batches
from harness.config import RunConfig, outcome, run_id
from harness.data import Data
from harness.objective import Objective
from harness.record import Record
from harness.seeds import seed_tree
from harness.store import Store, StoreError, write_atomically
from harness.tasks.base import Diverged, Task
from harness.trackers import Tracker, check_trackers, open_trackers
from losses import get, source_hash


@dataclass
class Prepared:
    """Everything a run needs before its first step."""

    task: Task
    data: Data
    seeds: dict[str, int]
    fingerprints: dict[str, str]


def prepare(config: RunConfig) -> Prepared:
    """Load data, build model and objective, and check that they fit together.

    Raises:
        ValueError: the data cannot be loaded, or a loss does not fit the task.
    """
    seeds = seed_tree(config.seed)
    loaded = load_data(config)
    task_class = tasks.get(config.task.name)
    check_fit(config, task_class)
    objective = Objective(config.objective, loaded.class_counts)
    model = models.build(
        config.model["name"],
        tuple(loaded.train.inputs.shape[1:]),
        loaded.outputs * objective.heads,
        seed=seeds["init"],
        **_without_name(config.model),
    )
    batches = Batches(loaded.train, config.trainer.batch_size, seeds["order"])
    task = task_class(loaded, model, objective, config.optimizer, batches)
    sources = [source_hash(term.loss)[:16] for term in config.objective.terms.values()]
    fingerprints = {
        **loaded.fingerprints,
        "init": models.fingerprint(model),
        "order": batches.fingerprint(),
        "loss": "+".join(sources),
    }
    return Prepared(task, loaded, seeds, fingerprints)


def load_data(config: RunConfig) -> Data:
    """The data of a run, split and corrupted as its seed says.

    Raises:
        ValueError: it cannot be loaded.
    """
    seeds = seed_tree(config.seed)
    drawn = {"split_seed": seeds["split"], "corrupt_seed": seeds["corruption"]}
    return data.load(config.data["name"], **drawn, **_without_name(config.data))


def _without_name(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key != "name"}


def check_fit(config: RunConfig, task: type[Task]) -> None:
    """Raise ValueError if the task cannot use data of this kind, or a loss does not fit it."""
    name = config.task.name
    kind = data.get(config.data["name"]).kind or config.data["kind"]
    if kind not in task.kinds:
        raise ValueError(f"task {name} needs {' or '.join(task.kinds)} data, got {kind}")
    for term in config.objective.losses().values():
        reason = task.refusal(get(term.loss), kind)
        if reason:
            raise ValueError(f"task {name} refuses loss {term.loss}: {reason}")


REHEARSED = 40
"""Least number of steps that are timed to tell how long a run takes."""


def check_ready(config: RunConfig) -> None:
    """Raise ValueError if a run could not even take its first step, before anything is written."""
    check_trackers(config.trackers)
    try:
        probe(config)
    except RuntimeError as error:
        raise ValueError(
            f"one batch does not go through: {' '.join(str(error).split())}"
        ) from error


def progress_bar() -> Callback:
    """A bar of epochs on stderr."""
    return TQDMProgressBar(refresh_rate=20)


class Probe(NamedTuple):
    """What one batch tells about a run: steps, seconds of a step, norm of the first gradient."""

    steps: int
    seconds: float
    gradient: float | None  # None where it is not finite


def probe(config: RunConfig) -> Probe:
    """Push the first batch through a run forward and backward; nothing is trained or kept.

    Raises:
        ValueError, RuntimeError: data, model and loss do not work together, or this machine cannot
            train as asked.
    """
    torch.set_num_threads(config.trainer.threads)
    _check_trainer(config)
    prepared = prepare(config)
    task, batches = prepared.task, Batches(prepared.data.train, config.trainer.batch_size)
    inputs, target = next(iter(batches))
    with torch.random.fork_rng():
        for _ in range(2):  # the first pass pays for allocations
            started = time.perf_counter()
            task.zero_grad()
            task.objective(task(inputs), target, task.model).total.backward()
            seconds = time.perf_counter() - started
    squares = [p.grad.square().sum() for p in task.model.parameters() if p.grad is not None]
    norm = float(torch.stack(squares).sum().sqrt()) if squares else 0.0
    return Probe(len(batches) * config.trainer.epochs, seconds, norm if isfinite(norm) else None)


def rehearse(config: RunConfig) -> tuple[float, float]:
    """Seconds of a run of one epoch, and of one step, from short fits that are forgotten."""
    per_epoch = len(Batches(load_data(config).train, config.trainer.batch_size))
    beyond = -(-REHEARSED // per_epoch)
    _timed_fit(config, 1)  # pays for what is loaded once per process
    short, long = (_timed_fit(config, epochs) for epochs in (1, 1 + beyond))
    return short, max(long - short, 0.0) / (beyond * per_epoch)


def _timed_fit(config: RunConfig, epochs: int) -> float:
    started = time.perf_counter()
    prepared = prepare(config)
    with torch.random.fork_rng(), _quiet():
        _trainer(config, (), epochs).fit(prepared.task)
    for part in (prepared.data.val, prepared.data.test):
        prepared.task.evaluate(part)
    return time.perf_counter() - started


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
    identity = run_id(config, config.seed)
    with store.claim(identity) as free:
        if not free:
            return None
        there = None if force else store.read(identity)
        return there or run(config, store, callbacks=callbacks)


def run(config: RunConfig, store: Store, *, callbacks: Sequence[Callback] = ()) -> Record:
    """Train once and write the record, whatever comes of it.

    Raises:
        StoreError: the record cannot be written.
        KeyboardInterrupt: asked to stop; nothing is written.
    """
    started = time.perf_counter()
    facts: dict[str, Any] = {
        "id": run_id(config, config.seed),
        "config": outcome(config),
        "seed": config.seed,
        "provenance": _provenance(config),
    }
    folder = store.run_folder(facts["id"])
    group = f"{config.task.name}/{config.data['name']}"
    mirrors = open_trackers(config.trackers, folder, facts["id"], facts["config"], group)
    try:
        _train(config, facts, [*callbacks, _Mirror(mirrors)])
        facts["status"] = "done"
    except Diverged as reason:
        facts |= {"status": "diverged", "error": str(reason), "steps": reason.step}
    except StoreError:
        raise
    except Exception as error:  # a failed run is a result too, and must not stop a sweep
        words = " ".join(str(error).split()) or "no message"
        facts |= {"status": "failed", "error": f"{type(error).__name__}: {words}"}
        write_atomically(folder / "error.txt", traceback.format_exc())
    facts["provenance"]["finished"] = _now()
    seconds = facts.get("seconds", {})
    record = Record(**facts | {"seconds": {**seconds, "total": time.perf_counter() - started}})
    store.write(record)
    for mirror in mirrors:
        mirror.finish(record.status, record.metrics)
    return record


class _Mirror(Callback):
    """Shows each new point of a task's curve to the trackers."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self.trackers = trackers

    def on_validation_end(self, _: Trainer, task: LightningModule) -> None:
        assert isinstance(task, Task)
        point = {name: value for name, value in task.curve[-1].items() if "/" in name}
        for tracker in self.trackers:
            tracker.log(point, task.global_step)


def _train(config: RunConfig, facts: dict[str, Any], callbacks: Sequence[Callback]) -> None:
    """Fit and evaluate, noting in `facts` whatever is known, so that a failure keeps it."""
    torch.set_num_threads(config.trainer.threads)
    provenance.reset_peak_memory()
    prepared = prepare(config)
    task = prepared.task
    facts |= {
        "seeds": prepared.seeds,
        "fingerprints": prepared.fingerprints,
        "parameters": models.parameter_count(task.model),
        "curve": task.curve,
    }
    started = time.perf_counter()
    with torch.random.fork_rng(), _quiet():
        torch.manual_seed(prepared.seeds["dropout"])
        trainer = _trainer(config, callbacks, config.trainer.epochs)
        trainer.fit(task)
    facts["steps"] = trainer.global_step
    facts["seconds"] = {"train": time.perf_counter() - started}
    parts = {"val": prepared.data.val, "test": prepared.data.test}
    facts["metrics"] = {
        f"{split}/{name}": value
        for split, part in parts.items()
        for name, value in task.evaluate(part).items()
    }
    facts["peak_memory"] = _peak_memory(task.device)


def _trainer(config: RunConfig, callbacks: Sequence[Callback], epochs: int) -> Trainer:
    wanted = config.trainer
    return Trainer(
        max_epochs=epochs,
        check_val_every_n_epoch=max(1, wanted.epochs // wanted.evaluations),
        gradient_clip_val=wanted.gradient_clip,
        precision=wanted.precision,
        accelerator=wanted.accelerator,
        devices=wanted.devices,
        strategy=wanted.strategy,
        callbacks=[*callbacks],
        deterministic="warn",
        use_distributed_sampler=False,  # Batches shares each batch itself
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=any(isinstance(c, ProgressBar) for c in callbacks),
    )


def _check_trainer(config: RunConfig) -> None:
    try:
        with _quiet():
            _trainer(config, (), 1)
    except Exception as error:  # Lightning has no one class for what a machine cannot do
        raise ValueError(f"trainer: {str(error).partition(chr(10))[0]}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's notices off the terminal: hundreds of lines for a sweep of small runs."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=PossibleUserWarning)
            # Lightning 2.6 uses a name that torch 2.15 is about to drop; nothing a user can change
            warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)")
            yield
    except SystemExit as stop:  # what Lightning makes of Ctrl-C
        raise KeyboardInterrupt from stop
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


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
        "started": _now(),
    }


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
