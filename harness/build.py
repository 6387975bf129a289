"""Resolving a sweep: composing every arm, checking it, and naming its runs."""

import contextlib
import dataclasses
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import controls, data, deterministic, memory, tasks, tune
from harness.compose import compose, expand, register
from harness.config import RunConfig, differences, outcome, run_id
from harness.paths import config_dir
from harness.plan import Cell, Direction, Plan
from harness.prepare import check_fit, load_data, probe
from harness.run import rehearse
from harness.sweep import Request
from harness.sweepfile import SweepFile, is_option, read, seeds_of
from harness.trainer import check_trainer
from losses.arguments import nearest

Resolved = dict[str, dict[str, RunConfig]]
"""Config by task and arm."""


def build_plan(wanted: Request) -> Plan:
    """The plan of a sweep.

    Raises:
        ValueError: the file is wrong, an arm cannot be composed, does not fit its task or equals
            another, the baseline is no arm, or a task lacks the metric.
    """
    owner = f"sweep {wanted.path.stem}"
    file = read(wanted.path, wanted.overrides)
    register(wanted.plugins)
    arms = _expand_arms(owner, file.arms)
    if file.baseline not in arms:
        raise ValueError(
            f"{owner}: baseline '{file.baseline}' is no arm{nearest(file.baseline, arms)}"
        )
    resolved = _resolve(owner, file, arms, wanted.overrides)
    seeds = seeds_of(file)
    known = controls.parse(owner, file.controls, list(arms))
    tuning = tune.first_trials(owner, file, resolved, arms) if file.tune else None
    cells = [
        cell
        for task, by_arm in resolved.items()
        for cell in _cells_of_task(owner, task, by_arm, seeds, known, file.baseline)
    ]
    if tuning:  # their runs are known when their settings are
        cells = [dataclasses.replace(cell, runs={}) for cell in cells]
    plan = Plan(
        name=wanted.name,
        question=file.question,
        metric=file.metric,
        directions=_directions(owner, resolved, file.metric, tuning.metric if tuning else None),
        baseline=file.baseline,
        margin=file.margin,
        tasks=list(resolved),
        arms=list(arms),
        seeds=seeds,
        cells=cells,
        differences=_differences(next(iter(resolved.values())), file.baseline),
        command=" ".join(["lossbench sweep", _shell(wanted)]),
        overrides=list(wanted.overrides),
        watched=_watched(resolved),
        tuning=tuning,
        controls=known,
    )
    if tuning is None:
        return plan
    trials = [*tuning.trials, *controls.mirrored(plan, tuning.trials)]
    return dataclasses.replace(plan, tuning=dataclasses.replace(tuning, trials=trials))


def _resolve(
    owner: str, file: SweepFile, arms: Mapping[str, list[str]], overrides: Sequence[str]
) -> Resolved:
    """Every arm of every task composed; what the command line adds has the last word."""
    given = [text for text in overrides if not is_option(text)]
    tasks_of_file = file.tasks or {str(file.task): [f"task={file.task}"]}
    resolved = {
        task: {
            arm: _compose(f"{owner}, arm {arm}", [*common, *file.overrides, *own, *given])
            for arm, own in arms.items()
        }
        for task, common in tasks_of_file.items()
    }
    for by_arm in resolved.values():
        _refuse_equal(owner, by_arm)
    return resolved


def _cells_of_task(
    owner: str,
    task: str,
    by_arm: Mapping[str, RunConfig],
    seeds: Sequence[int],
    known: Mapping[str, float],
    baseline: str,
) -> list[Cell]:
    """The cells of all arms, then those of the control arms."""
    beside = {
        word: controls.config_of(word, factor, by_arm[baseline]) for word, factor in known.items()
    }
    cells = _cells(owner, task, {**by_arm, **beside}, seeds)
    return [
        controls.cell(cell.arm, cell, beside[cell.arm], seeds) if cell.arm in beside else cell
        for cell in cells
    ]


def _cells(
    owner: str, task: str, by_arm: Mapping[str, RunConfig], seeds: Sequence[int]
) -> list[Cell]:
    """Push a batch through every arm, so that what cannot train is refused before anything does."""
    probes = {}
    for arm, config in by_arm.items():
        with _told(f"{owner}, arm {arm} on {task}", config):
            check_trainer(config)
            probes[arm] = probe(dataclasses.replace(config, seed=seeds[0]))
    first = next(iter(by_arm))
    with _told(f"{owner}, arm {first} on {task}", by_arm[first]):
        fixed, step = rehearse(dataclasses.replace(_narrow(by_arm[first]), seed=seeds[0]))
    beyond = max(step - probes[first].seconds, 0.0)  # what the Trainer adds to a step of any arm
    return [
        Cell(
            task,
            arm,
            config.shared(),
            {seed: run_id(config, seed) for seed in seeds},
            steps=probes[arm].steps,
            seconds=fixed + probes[arm].steps * (probes[arm].seconds + beyond),
            gradient=probes[arm].gradient,
        )
        for arm, config in by_arm.items()
    ]


def _narrow(config: RunConfig) -> RunConfig:
    """The same on one device."""
    trainer = dataclasses.replace(config.trainer, devices=1, strategy="auto")
    return dataclasses.replace(config, trainer=trainer)


@contextlib.contextmanager
def _told(who: str, config: RunConfig) -> Iterator[None]:
    """Say in one line whose batch does not go through, and why."""
    try:
        with deterministic.watched([]):  # what a run warns of is in its notes
            yield
    except ValueError as error:
        raise ValueError(f"{who}: {' '.join(str(error).split())}") from error
    except (RuntimeError, MemoryError) as error:
        raise ValueError(f"{who}: {memory.told(error, config)}") from error


def _shell(wanted: Request) -> str:
    """The sweep's name or path and its overrides, as a shell takes them."""
    shipped = wanted.path.parent == config_dir() / "sweep"
    name = wanted.path.stem if shipped else str(wanted.path)
    store = [] if str(wanted.store.folder) == "results" else [f"store={wanted.store.folder}"]
    plugins = [f"plugins=[{','.join(wanted.plugins)}]"] if wanted.plugins else []
    return shlex.join([name, *wanted.overrides, *store, *plugins])


def _expand_arms(owner: str, arms: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """One arm per point of the product of values; swept ones are named by their values.

    >>> _expand_arms("sweep x", {"ce": ["loss=cross_entropy"], "f": ["loss.focal.gamma=1,2"]})
    {'ce': ['loss=cross_entropy'], \
'f:gamma=1': ['loss.focal.gamma=1'], \
'f:gamma=2': ['loss.focal.gamma=2']}
    """
    expanded = {}
    for name, overrides in arms.items():
        products = expand(overrides)
        for product in products:
            swept = [_label(text) for text in product if text not in overrides]
            arm = f"{name}:{','.join(swept)}" if len(products) > 1 else name
            if arm in expanded:
                raise ValueError(f"{owner}: there are two arms '{arm}'")
            expanded[arm] = product
    return expanded


def _label(override: str) -> str:
    key, _, value = override.partition("=")
    return f"{key.rpartition('.')[2]}={value}"


def _compose(owner: str, overrides: Sequence[str]) -> RunConfig:
    try:
        config = compose(overrides)
        check_fit(config, tasks.get(config.task["name"]))
    except ValueError as error:
        raise ValueError(f"{owner}: {error}") from error
    return config


def _refuse_equal(owner: str, by_arm: Mapping[str, RunConfig]) -> None:
    seen: dict[str, str] = {}
    for arm, config in by_arm.items():
        twin = seen.setdefault(run_id(config, 0), arm)
        if twin != arm:
            apart = ", ".join(differences(by_arm[twin].plain(), config.plain()))
            words = f"; {apart} decide nothing that is compared" if apart else ""
            raise ValueError(f"{owner}: arms '{twin}' and '{arm}' are the same config{words}")


def _directions(owner: str, resolved: Resolved, *needed: str | None) -> dict[str, Direction]:
    """Which way is better, for every metric any task records; each task must have some of them."""
    directions: dict[str, Direction] = {}
    for task, by_arm in resolved.items():
        config = next(iter(by_arm.values()))
        yardsticks = tasks.get(config.task["name"]).yardsticks(load_data(config))
        named = {
            f"{split}/{name}": yardstick.direction
            for split in ("val", "test")
            for name, yardstick in yardsticks.items()
            if yardstick.direction
        }
        for metric in needed:
            if metric and metric not in named:
                raise ValueError(
                    f"{owner}: task {task} has no metric '{metric}'{nearest(metric, named)}"
                )
        directions |= named
    return directions


def _differences(by_arm: Mapping[str, RunConfig], baseline: str) -> dict[str, dict[str, Any]]:
    reference = _without_loss(by_arm[baseline])
    return {
        arm: {"objective": str(config.objective), **differences(_without_loss(config), reference)}
        for arm, config in by_arm.items()
    }


def _without_loss(config: RunConfig) -> dict[str, Any]:
    return {key: value for key, value in outcome(config).items() if key != "loss"}


def _watched(resolved: Resolved) -> dict[str, str]:
    paths = {
        c.data["path"] for by_arm in resolved.values() for c in by_arm.values() if "path" in c.data
    }
    return {str(Path(path).expanduser()): data.file_hash(path) for path in sorted(paths)}
