"""Everything a run needs before its first step: data, model and objective that fit together."""

import copy
import functools
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, NamedTuple

import torch
from torch import nn

import losses
from harness import data, models, tasks
from harness.batches import Batches
from harness.config import RunConfig, TrainerConfig
from harness.data import Data
from harness.data.augment import Augment
from harness.objective import Objective
from harness.seeds import seed_tree
from harness.tasks.base import Task
from losses import build_projection, get, source_hash

TARGETS = ("", "binary_", "multiclass_", "multilabel_")
"""What names of losses begin with where there is one for each kind of target."""


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
    task_class = tasks.get(config.task["name"])
    check_fit(config, task_class)
    settings = task_class.Settings(**_without_name(config.task))
    terms = config.objective.losses()
    objective = Objective(
        config.objective,
        task_class.facts(loaded, settings, seeds["init"]),
        {name: task_class.reads(name, get(term.loss)) for name, term in terms.items()},
    )
    shape = tuple(loaded.train.inputs.shape[1:])
    outputs = task_class.outputs(loaded, settings)
    model = _built(config.model, shape, objective.outputs(outputs), seeds["init"])
    teacher = _built(config.teacher, shape, outputs, 0) if config.teacher else None
    draw = task_class.draw(loaded, config.trainer.batch_size, settings)
    augment = Augment(loaded.augment, seeds["augment"])
    batches = Batches(loaded.train, config.trainer.batch_size, seeds["order"], draw, augment)
    _check_model(config, model, batches)
    projections = [build_projection(name, **given) for name, given in config.projection.items()]
    task = task_class(
        loaded, model, objective, config.optimizer, batches, settings, teacher, projections
    )
    task.parts = config.trainer.accumulate
    sources = [source_hash(term.loss)[:16] for term in config.objective.terms.values()]
    fingerprints = {
        **loaded.fingerprints,
        "init": models.fingerprint(model),
        "order": batches.fingerprint(),
        "loss": "+".join(sources),
    }
    return Prepared(task, loaded, seeds, fingerprints)


def _built(config: Mapping[str, Any], shape: tuple[int, ...], outputs: int, seed: int) -> nn.Module:
    return models.build(config["name"], shape, outputs, seed=seed, **_without_name(config))


def _check_model(config: RunConfig, model: nn.Module, batches: Batches) -> None:
    """Refuse what would fail at an epoch's last batch, and pixels that would be scaled twice."""
    name, trainer = config.model["name"], config.trainer
    if config.data.get("normalise") and getattr(model, "normalises", False):
        raise ValueError(f"{name} normalises colours itself: set data.normalise=false")
    sizes = [len(rows) for rows in batches.rows(0)]
    least, most = min(sizes), -(-max(sizes) // trainer.devices)
    normed = any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in model.modules())
    if trainer.accumulate > 1 and (normed or models.get(name).gives == "boxes"):
        why = "normalises over the batch" if normed else "is a detector"
        raise ValueError(f"trainer.accumulate={trainer.accumulate}: {name} {why}, not in parts")
    if most <= trainer.accumulate > 1:
        shared = f" over {trainer.devices} devices" if trainer.devices > 1 else ""
        raise ValueError(
            f"trainer.accumulate={trainer.accumulate} must be less than the {most} items of a "
            f"batch, with trainer.batch_size={trainer.batch_size}{shared}"
        )
    if least // trainer.devices != 1 or not normed or models.get(name).gives == "boxes":
        return
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        try:
            copy.deepcopy(model).train()(torch.zeros(1, *batches.part.inputs.shape[1:]))
        except ValueError as error:  # of batch normalisation, where an item is a single place
            items = len(batches.part)
            raise ValueError(
                f"{name} cannot train on a batch of one item, which trainer.batch_size="
                f"{trainer.batch_size} leaves of {items}: choose another ({error})"
            ) from None


def load_data(config: RunConfig) -> Data:
    """The data of a run, split and corrupted as its seed says; what was left out is printed.

    Raises:
        ValueError: it cannot be loaded.
    """
    seeds = seed_tree(config.seed)
    drawn = {"split_seed": seeds["split"], "corrupt_seed": seeds["corruption"]}
    own, workers = _without_name(config.data), config.trainer.workers
    loaded = data.load(config.data["name"], **drawn, workers=workers, **own)
    for note in loaded.notes:
        _tell(f"{config.data['name']}: {note}")
    return loaded


@functools.cache
def _tell(note: str) -> None:
    """Print a note once per process."""
    print(f"lossbench: {note}", file=sys.stderr)


def _without_name(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key != "name"}


def _alike(loss: str) -> list[str]:
    """Losses of the same name for other targets."""
    names = [f"{kind}{loss.removeprefix(own)}" for own in TARGETS for kind in TARGETS]
    return [name for name in losses.names() if name in names and name != loss]


def check_fit(config: RunConfig, task: type[Task]) -> None:
    """Raise ValueError if data, model and losses are not what the task can use."""
    name = config.task["name"]
    kind = data.get(config.data["name"]).kind or config.data["kind"]
    if kind not in task.kinds:
        raise ValueError(f"task {name} needs {' or '.join(task.kinds)} data, got {kind}")
    if config.data.get("split") == "classes" and not task.unseen:
        raise ValueError(f"task {name} must train on every class: not with data.split=classes")
    for model in [config.model, *([config.teacher] if config.teacher else [])]:
        gives = models.get(model["name"]).gives
        if gives != task.gives:
            raise ValueError(
                f"task {name} needs a model of {task.gives}, {model['name']} has {gives}"
            )
    for term, wanted in config.objective.losses().items():
        loss = get(wanted.loss)
        reason = task.refusal(loss, kind, term)
        if reason:
            fits = [like for like in _alike(wanted.loss) if not task.refusal(get(like), kind, term)]
            hint = f"; {' or '.join(fits)} fits" if fits else ""
            raise ValueError(f"task {name} refuses loss {wanted.loss}: {reason}{hint}")
        if loss.within and config.data.get("standardise"):
            raise ValueError(
                f"loss {wanted.loss} needs targets {loss.within}, and these are standardised: "
                "set data.standardise=false"
            )
    terms = {name: get(term.loss) for name, term in config.objective.losses().items()}
    reason = task.refusal_together(terms, models.get(config.model["name"]))
    if reason:
        raise ValueError(f"task {name}: {reason}")
    _check_teacher(config)


def _check_teacher(config: RunConfig) -> None:
    wanting = [
        t.loss for t in config.objective.losses().values() if "teacher" in get(t.loss).inputs
    ]
    if wanting and not config.teacher:
        raise ValueError(
            f"loss {wanting[0]} needs a teacher: teacher=MODEL teacher.pretrained=FILE"
        )
    if config.teacher and not config.teacher["pretrained"]:
        raise ValueError("a teacher must have learnt something: set teacher.pretrained=FILE")


def _device(trainer: TrainerConfig) -> torch.device:
    """Where a run of one device would train, of a processor and the first GPU."""
    wanted = trainer.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return torch.device("cuda" if wanted else "cpu")


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
    task, batches = prepared.task, prepared.task.batches
    device = _device(config.trainer)
    task.to(device)
    batches.part = batches.part.to(device)
    inputs, target = next(iter(batches))
    with torch.random.fork_rng():
        for _ in range(2):  # the first pass pays for allocations
            started = time.perf_counter()
            task.zero_grad()
            task.objective(task.compare(inputs, target), task.model).total.backward()
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds = time.perf_counter() - started
    squares = [p.grad.square().sum() for p in task.model.parameters() if p.grad is not None]
    norm = float(torch.stack(squares).sum().sqrt()) if squares else 0.0
    return Probe(len(batches) * config.trainer.epochs, seconds, norm if isfinite(norm) else None)
