"""Checking an installation: versions, devices, extras, disk, store, losses, configs, sweeps."""

import contextlib
import functools
import importlib.util
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import losses
from harness import data, models, provenance, slots, tasks
from harness.build import build_plan
from harness.compose import compose, expand, options
from harness.config import RunConfig
from harness.outlook import many
from harness.paths import config_dir
from harness.plan import PlannedRun
from harness.prepare import check_fit
from harness.sweep import request
from harness.sweepfile import read
from losses.arguments import ClassCounts, describe

EXTRAS = {"slurm": "submitit", "ray": "ray", "tune": "optuna", "tensorboard": "tensorboard",
          "wandb": "wandb", "mlflow": "mlflow"}  # fmt: skip
"""Extras that a command may ask for, and the module of each."""


def doctor(overrides: Sequence[str]) -> int:
    """Print one line per check; 0 if all is well, 1 otherwise."""
    stores = [text.removeprefix("store=") for text in overrides if text.startswith("store=")]
    store = Path(stores[-1] if stores else "results")
    checks: dict[str, Callable[[], str]] = {
        "versions": _versions,
        "devices": _devices,
        "extras": _extras,
        "disk": lambda: _disk(store),
        "store": lambda: _writable(store),
        "losses": _losses,
        "configs": _configs,
        "sweeps": _sweeps,
    }
    worst = 0
    for name, check in checks.items():
        if name == "losses":
            print("      the rest tries every loss, config and sweep: a minute or more", flush=True)
        if sys.stdout.isatty():  # some take half a minute
            print(f"      {name}", end="\r", flush=True)
        try:
            print(f"ok    {name:<10}{check()}", flush=True)
        except Exception as error:  # every check must be told about, whatever the first one met
            worst = 1
            print(f"FAIL  {name:<10}{' '.join(str(error).split())}", flush=True)
    return worst


def _versions() -> str:
    return ", ".join(f"{name} {version}" for name, version in provenance.versions().items())


def _devices() -> str:
    named = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    places = slots.find([PlannedRun("", "", "", 0, {})])
    there = ", ".join([*(named or ["no GPU"]), many(slots.processors(), "processor")])
    return f"{there}; a sweep has {many(places.most, 'slot')}{places.where()}"


def _extras() -> str:
    there = {name: importlib.util.find_spec(module) is not None for name, module in EXTRAS.items()}
    having = ", ".join(name for name in there if there[name]) or "none"
    lacking = ", ".join(name for name in there if not there[name])
    sbatch = shutil.which("sbatch")
    submits = f"sbatch is {sbatch}" if sbatch else "no sbatch"
    return "; ".join([having, *([f"without {lacking}"] if lacking else []), submits])


def _existing(store: Path) -> Path:
    """The store, or the nearest folder above it that exists."""
    return next(folder for folder in [store.resolve(), *store.resolve().parents] if folder.exists())


def _disk(store: Path) -> str:
    free = shutil.disk_usage(_existing(store)).free
    if free < 100e6:
        raise OSError(f"{free / 1e6:.0f} MB free at {store}")
    return f"{free / 1e9:.1f} GB free at {store}"


def _writable(store: Path) -> str:
    with tempfile.TemporaryFile(dir=_existing(store)):
        return f"{store} can be written"


def _losses() -> str:
    for name in losses.names():
        entry = losses.get(name)
        asked = [*entry.sizes.values(), *(p for p in entry.parameters.values() if p.required)]
        needed: dict[str, Any] = {  # of tensors of its own; [1, 2] where one number is not enough
            p.name: [1, 2] if describe(p.annotation).startswith("a list") else 2 for p in asked
        }
        for parameter in entry.parameters.values():
            if parameter.annotation == ClassCounts:
                needed[parameter.name] = [2.0, 1.0]
        losses.build(name, **needed)
    for name in losses.penalty_names():
        losses.build_penalty(name)
    return f"{len(losses.names())} losses and {len(losses.penalty_names())} penalties build"


def _configs() -> str:
    """Compose every shipped YAML with something that it goes with."""
    for task in own_tasks():
        compose([f"task={task}", together(task, fitting(task)[0])])
    others = [
        (group, path.stem)
        for group in ("data", "model", "loss")
        for path in sorted((config_dir() / group).rglob("*.yaml"))
    ]
    for group, name in others:
        some_task(group, name)
    return f"{len(own_tasks()) + len(others)} configs compose"


def _sweeps() -> str:
    """Plan every shipped sweep; of those that need files, compose the arms alone."""
    files = sorted((config_dir() / "sweep").glob("*.yaml"))
    needy = [path for path in files if needs_files(path)]
    for path in files:
        if path not in needy:
            build_plan(request(path.stem, []))
    more = f"; {len(needy)} more compose and need files of data" if needy else ""
    return f"{len(files) - len(needy)} sweeps plan{more}"


def needs_files(path: Path) -> bool:
    """Whether a sweep's data do not come with a library; its arms are composed."""
    file = read(path, ())
    shared = (file.tasks or {"": [f"task={file.task}"]}).values()
    configs = [compose([*own, *file.overrides, *a]) for own in shared for a in expanded(file.arms)]
    return any(data.get(config.data["name"]).needs for config in configs)


def expanded(arms: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """The overrides of every arm, products of values taken apart."""
    return [each for own in arms.values() for each in expand(own)]


def fitting(task: str) -> list[str]:
    """Names of the losses that a task's data takes, alone or with others beside."""
    return [*_objectives(task)]


def together(task: str, loss: str) -> str:
    """An override that chooses a fitting loss, and another where one does not train the model."""
    return f"loss=[{','.join(_objectives(task)[loss])}]"


@functools.cache
def _objectives(task: str) -> dict[str, list[str]]:
    """By the name of each fitting loss, losses that train a task's own model together."""
    config = compose([f"task={task}", "loss=mse"])
    judge, model = tasks.get(config.task["name"]), models.get(config.model["name"])
    kind = data.get(config.data["name"]).kind or config.data["kind"]
    alone = [name for name in losses.names() if judge.refusal(losses.get(name), kind) is None]
    found = {}
    for name in alone:
        for chosen in ([name], *([name, other] for other in alone if other != name)):
            if not judge.refusal_together({each: losses.get(each) for each in chosen}, model):
                found[name] = chosen
                break
    return found


def some_task(group: str, name: str) -> RunConfig:
    """A config that uses this YAML, on the first task that takes it.

    A model and a loss of one name are used together.
    """
    twin = {"loss": "model", "model": "loss"}.get(group, "")
    for task in own_tasks():
        chosen = [] if group == "loss" else [together(task, fitting(task)[0])]
        if twin and name in options(twin):
            chosen = [f"{twin}={name}"]
        with contextlib.suppress(ValueError):
            config = compose([f"task={task}", f"{group}={name}", *chosen])
            check_fit(config, tasks.get(config.task["name"]))
            return config
    raise ValueError(f"no task takes {group}={name}")


def own_tasks() -> list[str]:
    """Shipped tasks whose data come with a library."""
    return [task for task in options("task") if _comes_along(task)]


@functools.cache
def _comes_along(task: str) -> bool:
    try:
        config = compose([f"task={task}", "loss=mse"])
    except ValueError:  # a path of one's own is missing
        return False
    return not data.get(config.data["name"]).needs
