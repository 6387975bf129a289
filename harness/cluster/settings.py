"""What `launch=` takes on the command line, with types and bounds like everything else."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import yaml

from losses.arguments import (
    Bounds,
    Count,
    NonNegative,
    Positive,
    check_arguments,
    nearest,
    parameters_of,
)


@dataclass(frozen=True)
class Slurm:
    """Elements of a job array.

    Attributes:
        partition: of the cluster; None leaves it to Slurm.
        gpus, cpus, memory: what an element is given; memory in GB.
        minutes: how long a run may train before it is stopped.
        parallel: most elements at once.
        per_job: runs of an element, one after the other.
        extra: other options of sbatch, such as account or constraint, by their long names.
    """

    partition: str | None = None
    gpus: Annotated[int, Bounds(0)] = 0
    cpus: Count = 1
    memory: Positive | None = None
    minutes: Positive | None = None
    parallel: Count = 100
    per_job: Annotated[int, Bounds(1, 1000)] = 1
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ray:
    """Tasks of a Ray cluster.

    Attributes:
        address: of the cluster, HOST:PORT; None starts one on this machine and ends it.
        gpus, cpus: what a run is given; fractions share one.
        minutes: how long a run may train before it is stopped.
        parallel: most runs handed over at once.
    """

    address: str | None = None
    gpus: NonNegative = 0.0
    cpus: Positive = 1.0
    minutes: Positive | None = None
    parallel: Count = 1000


ENGINES: dict[str, type[Slurm] | type[Ray]] = {"slurm": Slurm, "ray": Ray}


def parse(words: Sequence[str]) -> Slurm | Ray:
    """Settings from `launch=NAME` and `launch.KEY=VALUE`.

    Raises:
        ValueError: one line that names the key, what must hold, what was given, the nearest name.
    """
    given: dict[str, Any] = {}
    name = ""
    for word in words:
        key, _, text = word.partition("=")
        value = _value(key, text)
        if key == "launch":
            name = str(value)
            continue
        *groups, last = key.split(".")[1:]
        inner = given
        for group in groups:
            inner = inner.setdefault(group, {})
            if not isinstance(inner, dict):
                raise ValueError(f"{key} lies in launch.{group}, which is {inner!r}")
        inner[last] = value
    if not name:
        having = [
            name for name, kind in ENGINES.items() if given.keys() <= parameters_of(kind).keys()
        ]
        engines = " or ".join(f"launch={name}" for name in having or ENGINES)
        raise ValueError(f"{' '.join(words)} needs {engines}")
    if name not in ENGINES:
        raise ValueError(f"launch: there is no engine '{name}'{nearest(name, ENGINES)}")
    settings = ENGINES[name]
    return settings(**check_arguments("launch", parameters_of(settings), given))


def words(settings: Slurm | Ray) -> str:
    """What is asked for, beyond defaults, in one line."""
    (name,) = (name for name, kind in ENGINES.items() if isinstance(settings, kind))
    parameters = parameters_of(type(settings)).values()
    given = {each.name: getattr(settings, each.name) for each in parameters}
    asked = [f"{p.name}={given[p.name]}" for p in parameters if given[p.name] != p.default]
    return " ".join([name, *asked])


def _value(key: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{key} must be a plain value, got {text:.80}") from error
