"""Hydra's part: from overrides to a config; every registered name can be chosen without a YAML."""

import dataclasses
import functools
import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, RangeSweep
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

import losses
from harness import data, models, plugins
from harness.config import OptimizerConfig, RunConfig, TrainerConfig, check
from harness.nested import flat
from harness.paths import config_dir
from losses import peers
from losses.arguments import Parameter, nearest, parameters_of

GROUPS = ("task", "data", "model", "loss", "teacher", "projection")
MOST = 10_000
"""Most points of a product: a few characters can name more than memory holds."""


def register(files: Sequence[str] = ()) -> None:
    """Put the root and every registered name into Hydra's store, after loading plug-in files."""
    plugins.load(files)
    _register_root()
    for name in losses.names():
        _register_loss(name)
    for name in losses.penalty_names():
        _register_penalty(name)


@functools.cache
def _register_penalty(name: str) -> None:
    settings = {"biases": False, **_defaults(losses.get_penalty(name).parameters)}
    node = {name: {"weight": 1.0, **settings}}
    ConfigStore.instance().store(group="loss", name=name, node=node)


@functools.cache
def _register_loss(name: str) -> None:
    node = {name: {"weight": 1.0, **_defaults(losses.get(name).parameters)}}
    ConfigStore.instance().store(group="loss", name=name, node=node)


@functools.cache
def _register_peer(name: str) -> None:
    """A loss of another library under its own name as the term's: `loss.DiceCELoss`."""
    defaults = _defaults(losses.get(name).parameters)
    node = {peers.key(name): {"loss": name, "weight": 1.0, **defaults}}
    folder, _, last = name.rpartition("/")
    ConfigStore.instance().store(group=f"loss/{folder}", name=last, node=node, package="loss")


@functools.cache
def _register_root() -> None:
    store = ConfigStore.instance()
    quiet = [{f"override hydra/{log}_logging": "disabled"} for log in ("job", "hydra")]
    root = {
        "defaults": [
            "_self_",
            {"task": "classification/digits"},
            {"loss": "???"},
            {"teacher": None},
            {"projection": None},
            *quiet,
        ],
        "loss": {"mix": "sum", "p": None},
        "teacher": None,
        "projection": {},
        "optimizer": _defaults(parameters_of(OptimizerConfig)),
        "trainer": _defaults(parameters_of(TrainerConfig)),
        "seed": 0,
        "store": "results",
        "trackers": [],
        "plugins": [],
        "save": None,
        "hydra": {
            "output_subdir": None,
            "run": {"dir": "."},
            "sweep": {"dir": "${store}/multirun", "subdir": "."},
        },
    }
    store.store(name="run", node=root)
    for name in losses.projection_names():
        settings = {"biases": False, **_defaults(losses.get_projection(name).parameters)}
        store.store(group="projection", name=name, node={name: settings})
    for group, registry in (("data", data), ("model", models), ("teacher", models)):
        for name in registry.names():
            _register_named(group, name, registry.get(name).parameters)


def _register_named(group: str, name: str, parameters: Mapping[str, Parameter]) -> None:
    node = {"name": name, **_defaults(parameters)}
    *folders, last = name.split("/")
    path = "/".join([group, *folders])
    ConfigStore.instance().store(group=path, name=last, node=node, package=group)


def _defaults(parameters: Mapping[str, Parameter]) -> dict[str, Any]:
    """Defaults as a config node; a parameter without one must be given, which Hydra writes ???."""
    return {p.name: "???" if p.required else p.default for p in parameters.values()}


def options(group: str) -> list[str]:
    """Everything that `group=` accepts: registered names and YAML files."""
    registered = {
        "loss": [*losses.names(), *losses.penalty_names()],
        "data": data.names(),
        "model": models.names(),
        "teacher": models.names(),
        "projection": losses.projection_names(),
    }
    folder = config_dir() / group
    files = [path.relative_to(folder).with_suffix("") for path in folder.rglob("*.yaml")]
    return sorted({*registered.get(group, []), *(file.as_posix() for file in files)})


def parse(overrides: Sequence[str]) -> list[Override]:
    """Overrides in Hydra's own grammar.

    Raises:
        ValueError: one cannot be read.
    """
    parser = OverridesParser.create()
    parsed = []
    for text in overrides:
        try:
            parsed.append(parser.parse_override(text))
        except HydraException as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(f"cannot read '{text}' as key=value: {reason}") from error
        except RecursionError as error:
            raise ValueError(f"cannot read '{text[:80]}': it is nested too deeply") from error
    return parsed


def plugin_files(overrides: Sequence[str]) -> tuple[str, ...]:
    """What `plugins=` names among the overrides."""
    named = [text.partition("=")[2] for text in overrides if text.startswith("plugins=")]
    return plugins.words(named[-1]) if named else ()


def expand(overrides: Sequence[str]) -> list[list[str]]:
    """The product of all sweeps among the overrides, in order: `a=1,2 b=3` gives two lists.

    Raises:
        ValueError: one cannot be read or has no end, or there are more than :data:`MOST` points.

    >>> expand(["a=1,2", "b=3"])
    [['a=1', 'b=3'], ['a=2', 'b=3']]
    """
    choices = []
    for text, override in zip(overrides, parse(overrides), strict=True):
        if override.is_sweep_override():
            if not override.is_discrete_sweep() or isinstance(override.value(), Glob):
                raise ValueError(f"'{text}' names no finite list of values")
            key = override.get_key_element()
            choices.append([f"{key}={value}" for value in _values(text, override)])
        else:
            choices.append([text])
    if math.prod(map(len, choices)) > MOST:
        raise ValueError(f"{' '.join(overrides)[:80]} is more than {MOST} points")
    return [list(product) for product in itertools.product(*choices)]


def _values(text: str, override: Override) -> list[str]:
    """What a sweep names, counted before it is put into a list."""
    value = override.value()
    # a range that is to be shuffled is made a list of by Hydra
    first = itertools.islice(value.range(), MOST + 1) if isinstance(value, RangeSweep) else ()
    if len(list(first)) > MOST:
        raise ValueError(f"'{text}' is more than {MOST} values")
    return list(override.sweep_string_iterator())


def compose(overrides: Sequence[str]) -> RunConfig:
    """Compose and check one run's config.

    Raises:
        ValueError: an unknown name or key, a wrong type or value; one line with the nearest name.
    """
    parsed = parse(overrides)
    register(plugin_files(overrides))
    _check_groups(parsed)
    top = {field.name for field in dataclasses.fields(RunConfig)}
    for override in parsed:
        key = override.key_or_group
        first = re.split(r"[./@]", key)[0]
        if first not in top:  # hydra.* is read by train -m alone
            launch = "; launch= is for the commands sweep and claim"
            hint = launch if first == "launch" else nearest(key, top)
            raise ValueError(f"config has no key '{key}'{hint}")
    if not any(override.key_or_group == "loss" for override in parsed):
        raise ValueError("a run needs loss=NAME, such as loss=cross_entropy; see lossbench losses")
    try:
        composed = _composed(overrides)
        plain = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(_explain(parsed, error)) from error
    except RecursionError as error:
        raise ValueError("an override is nested too deeply") from error
    assert isinstance(plain, dict)
    return check({str(key): value for key, value in plain.items()})


def _composed(overrides: Sequence[str]) -> Any:
    if not GlobalHydra.instance().is_initialized():
        initialize_config_dir(config_dir=str(config_dir()), version_base="1.3")
    return hydra_compose("run", overrides=with_settings(overrides))


def with_settings(overrides: Iterable[str]) -> list[str]:
    """Overrides in which settings of the task may be given that its YAML leaves at their defaults.

    They are not in Hydra's tree; whether the task has them is checked once it is known.

    >>> with_settings(["task.features=8", "seed=1"])
    ['++task.features=8', 'seed=1']
    """
    return [f"++{text}" if text.startswith("task.") else text for text in overrides]


def _check_groups(parsed: Iterable[Override]) -> None:
    for override in parsed:
        group = override.key_or_group
        if group not in GROUPS or override.is_sweep_override():
            continue
        chosen = override.value()
        listed = [str(name) for name in (chosen if isinstance(chosen, list) else [chosen])]
        terms = [peers.key(name) if group == "loss" else name for name in listed]
        for name, term in zip(listed, terms, strict=True):
            if terms.count(term) > 1:
                raise ValueError(
                    f"{group} names '{term}' twice: add +{group}.OTHER={{loss:{name}}}"
                )
        for name in listed:
            if "/" in name and group == "loss" and name not in losses.names():
                _register_peer(name)
            elif name.startswith("torchvision/") and group == "model":
                _register_named("model", name, models.get(name).parameters)
            elif name not in options(group):
                article = {"data": "data set"}.get(group, group)
                raise ValueError(f"there is no {article} '{name}'{nearest(name, options(group))}")
            elif group == "task":
                _register_models_of(name)


def _register_models_of(task: str) -> None:
    """Models of torchvision that a task's file names; they are in no store until one asks."""
    text = (config_dir() / "task" / f"{task}.yaml").read_text(encoding="utf-8")
    for name in re.findall(r"/model: (torchvision/\w+)", text):
        _register_named("model", name, models.get(name).parameters)


def _explain(parsed: Sequence[Override], error: Exception) -> str:
    """Hydra's complaint as one line with the nearest key, never its advice to add a key with +."""
    groups = [o for o in parsed if o.key_or_group in GROUPS]
    for override in parsed:
        if override.is_sweep_override():
            return (
                f"'{override.input_line}' names several values: use train -m, or a sweep file; "
                f"a list is written [a,b]"
            )
    try:
        known = flat(OmegaConf.to_container(_composed([str(o.input_line) for o in groups])))  # type: ignore[arg-type]
    except (HydraException, OmegaConfBaseException):
        return " ".join(str(error).split())
    branches = {
        ".".join(key.split(".")[: i + 1]) for key in known for i in range(key.count(".") + 1)
    }
    for override in parsed:
        key = override.key_or_group
        added = override.is_add() or key.startswith("task.")
        if key not in branches and key not in GROUPS and not added:
            return f"config has no key '{key}'{nearest(key, {*branches, *GROUPS})}"
    given = {override.key_or_group for override in parsed}
    missing = [key for key, value in known.items() if value == "???" and key not in given]
    if missing:
        return f"config needs a value for {', '.join(missing)}"
    return " ".join(str(error).split())
