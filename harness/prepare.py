"""Everything a run needs before its first step: data, model and objective that fit together."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, NamedTuple

import torch

from harness import data, models, tasks
from harness.batches import Batches
from harness.config import RunConfig
from harness.data import Data
from harness.objective import Objective
from harness.seeds import seed_tree
from harness.tasks.base import Task
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
        objective.outputs(loaded.outputs),
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
        within = get(term.loss).within
        if within and config.data.get("standardise"):
            raise ValueError(
                f"loss {term.loss} needs targets {within}, and these are standardised: "
                "set data.standardise=false"
            )


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
