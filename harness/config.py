"""The one schema of a run: composed by Hydra, checked here before anything trains."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import torch

import losses
from harness import data, models, tasks
from harness.nested import flat
from harness.terms import ObjectiveConfig, parse_objective
from losses.arguments import (
    Bounds,
    Count,
    NonNegative,
    Parameter,
    Positive,
    check_arguments,
    convert,
    nearest,
    parameters_of,
)

OWN = ("seed", "store", "trackers", "plugins", "save")
"""Keys of a run that say nothing about its arm."""

FREE = (
    "accelerator",
    "strategy",
    "workers",
    "gradients",
    "checkpoint",
    "keep",
    "deterministic",
)
"""Keys of the trainer that do not decide the outcome."""

PARTED = ("devices", "accumulate")
"""Keys that decide it for some models alone, see :func:`outcome`."""

RECIPE = 1
"""Version of what a run computes; raised when the same config would train differently."""


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimiser and its step size, the same for every arm unless an arm says otherwise.

    `own_lr` is the step size of tensors that a loss learns itself; None takes `lr`.
    """

    name: Literal["adam", "adamw", "sgd"] = "adam"
    lr: Positive = 1e-2
    weight_decay: NonNegative = 0.0
    momentum: Annotated[float, Bounds(0, 1, high_open=True)] = 0.0
    own_lr: Positive | None = None
    schedule: Literal["constant", "cosine"] = "constant"


@dataclass(frozen=True)
class TrainerConfig:
    """How long and on what.

    `accelerator`, `strategy` and `workers`, the processes that read pictures which are not kept in
    memory, do not decide the outcome. Nor does `gradients`: every so many steps those
    of the single terms are measured (0: never), see :mod:`harness.gradients`. Nor `checkpoint`:
    every so many steps the run writes down where it is (0: never), see :mod:`harness.checkpoint`.
    Nor `keep`: which weights stay in the run's folder, see :mod:`harness.weights`; auto is both for
    a run that writes checkpoints and none for others. Nor `deterministic`: whether operations that
    need not give the same bits again are used (none), used and noted (warn) or refused (strict).
    Nor, for most models, `devices` and `accumulate`, in how many parts the model sees a batch: the
    loss is that of the whole batch, whatever it compares, and what a part keeps for its gradient is
    computed again when needed. They do for models with dropout, and for torchvision's.

    The number of threads does, in the last bits, so it is fixed and not what the machine has.
    Without `test` the test part is left alone, as a tuner's trials do.
    """

    epochs: Count = 30
    batch_size: Count = 64
    accumulate: Count = 1
    evaluations: Count = 10
    test: bool = True
    gradient_clip: Positive | None = None
    precision: Literal["32-true", "64-true", "bf16-mixed", "16-mixed"] = "32-true"
    threads: Annotated[int, Bounds(1, 1024)] = 1
    accelerator: str = "auto"
    devices: Count = 1
    strategy: str = "auto"
    workers: Annotated[int, Bounds(0, 1024)] = 0
    gradients: Annotated[int, Bounds(0)] = 0
    checkpoint: Annotated[int, Bounds(0)] = 0
    keep: Literal["auto", "none", "last", "best", "both"] = "auto"
    deterministic: Literal["none", "warn", "strict"] = "warn"


@dataclass(frozen=True)
class RunConfig:
    """Everything one run needs; `save` names a file for the weights of the trained model."""

    task: dict[str, Any]
    data: dict[str, Any]
    model: dict[str, Any]
    loss: dict[str, Any]
    teacher: dict[str, Any] | None = None
    projection: dict[str, Any] = field(default_factory=dict)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    seed: Annotated[int, Bounds(0)] = 0
    store: str = "results"
    trackers: list[str] = field(default_factory=list)
    plugins: list[str] = field(default_factory=list)
    save: str | None = None

    def plain(self) -> dict[str, Any]:
        """As nested plain values."""
        return dataclasses.asdict(self)

    def shared(self) -> dict[str, Any]:
        """What all runs of an arm have in common: not what OWN names."""
        return {key: value for key, value in self.plain().items() if key not in OWN}

    def beside(self) -> dict[str, Any]:
        """What it says of the trainer, beyond defaults, that need not decide the outcome."""
        plain = dataclasses.asdict(self.trainer)
        usual = dataclasses.asdict(TrainerConfig())
        return {key: plain[key] for key in (*FREE, *PARTED) if plain[key] != usual[key]}

    @property
    def objective(self) -> ObjectiveConfig:
        """The terms of the loss, parsed."""
        return parse_objective(self.loss)


def check(config: Mapping[str, Any]) -> RunConfig:
    """Return the checked config with every default filled in.

    Raises:
        ValueError: one line that names the key, what must hold, what was given, the nearest name.
    """
    fields = parameters_of(RunConfig)
    for key in config:
        if key not in fields:
            raise ValueError(f"config has no key '{key}'{nearest(str(key), fields)}")
    for key in ("task", "data", "model", "loss"):
        if not isinstance(config.get(key), Mapping) or not config[key]:
            raise ValueError(f"config needs {key}, got {config.get(key)!r}")
    values = {key: convert(key, fields[key].annotation, value) for key, value in config.items()}
    checked = RunConfig(**values)
    _check_devices(checked.trainer)
    task = tasks.get(str(checked.task.get("name")))
    return dataclasses.replace(
        checked,
        task=_named("task", checked.task, parameters_of(task.Settings)),
        data=_named("data", checked.data, data.get(str(checked.data.get("name"))).parameters),
        model=_model("model", checked.model),
        teacher=_model("teacher", checked.teacher) if checked.teacher else None,
        loss=checked.objective.plain(),
        projection={n: _projection(n, given) for n, given in checked.projection.items()},
    )


def _model(group: str, given: Mapping[str, Any]) -> dict[str, Any]:
    return _named(group, given, models.get(str(given.get("name"))).parameters)


def _projection(name: str, given: Any) -> dict[str, Any]:
    """The settings of a projection, with its defaults."""
    owner = f"projection.{name}"
    declared = losses.get_projection(name).parameters
    if not isinstance(given, Mapping):
        raise ValueError(f"{owner} must be a mapping of parameters, got {given!r}")
    biases = convert(f"{owner}.biases", bool, given.get("biases", False))
    defaults = {p.name: p.default for p in declared.values() if not p.required}
    own = {key: value for key, value in given.items() if key != "biases"}
    return {"biases": biases, **check_arguments(owner, declared, defaults | own)}


def _named(
    group: str, given: Mapping[str, Any], parameters: Mapping[str, Parameter]
) -> dict[str, Any]:
    """A registry entry's settings: its name, what was given, and the defaults of the rest."""
    defaults = {p.name: p.default for p in parameters.values() if not p.required}
    settings = {key: value for key, value in given.items() if key != "name"}
    owner = f"{group} {given['name']}"
    return {"name": given["name"], **check_arguments(owner, parameters, defaults | settings)}


def _check_devices(trainer: TrainerConfig) -> None:
    gpus = torch.cuda.device_count()
    wanted = trainer.accelerator in ("gpu", "cuda") or (trainer.accelerator == "auto" and gpus)
    if wanted and trainer.devices > gpus:
        raise ValueError(f"trainer.devices={trainer.devices}, but this machine has {gpus} GPUs")


def outcome(config: RunConfig) -> dict[str, Any]:
    """What decides the result of a run besides its seed: no paths, devices, stores or trackers.

    Of paths it is their content that does. In how many parts the model sees a batch, on devices or
    one after the other, does for models that draw, or normalise, part by part.
    """
    plain = config.shared()
    parted = config.model["name"].startswith("torchvision/") or config.model.get("dropout")
    for key in (*FREE, *PARTED):
        value = plain["trainer"].pop(key)
        if key in PARTED and parted and value != 1:
            plain["trainer"][key] = value
    for key in ("root", "download", "memory"):
        plain["data"].pop(key, None)
    paths = [("data", "path"), ("data", "images"), ("data", "test")]
    for group, key in [*paths, ("model", "pretrained"), ("teacher", "pretrained")]:
        if (plain[group] or {}).get(key):
            plain[group][key] = data.file_hash(plain[group][key])
    return plain


def run_id(config: RunConfig, seed: int) -> str:
    """Identity of a run by content: config, seed, code of its losses, and the recipe's version."""
    named = [term.loss for term in config.objective.terms.values()] + list(config.projection)
    sources = {name: losses.source_hash(name) for name in named}
    if any(term.schemes() for term in config.objective.terms.values()):
        sources["class_weight"] = losses.code_hash(losses.class_weight)
    content = {"recipe": RECIPE, "config": outcome(config), "seed": seed, "sources": sources}
    if config.objective.mix == "convex":  # p is the share of the second, and keys are sorted below
        content["order"] = list(config.objective.losses())
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def differences(config: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys of `config` whose value differs from `other`; None where only `other` has it."""
    mine, theirs = flat(config), flat(other)
    keys: Sequence[str] = [*mine, *(k for k in theirs if k not in mine)]
    missing = object()
    return {k: mine.get(k) for k in keys if mine.get(k, missing) != theirs.get(k, missing)}
