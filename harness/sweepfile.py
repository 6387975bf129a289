"""The schema of a sweep file, and reading one."""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from harness.archive import FAULTS
from harness.compose import expand, parse
from harness.config import OWN
from losses.arguments import Bounds, Positive, check_arguments, parameters_of

LARGEST = 200_000
"""Most bytes of a YAML file; one screen has about two thousand."""
LONGEST = 5_000
"""Most characters of an override; reading them takes long."""
DEEPEST = 50
"""Most lists and mappings within each other."""
_BEGIN = yaml.FlowSequenceStartToken | yaml.FlowMappingStartToken
_BEGIN |= yaml.BlockSequenceStartToken | yaml.BlockMappingStartToken
_END = yaml.FlowSequenceEndToken | yaml.FlowMappingEndToken | yaml.BlockEndToken
REFUSED = (*OWN, "data.download")
"""Keys that are the command line's alone: where to write, what code to load, what to fetch."""
_REFERENCE = re.compile(r"\$\{[\w.]+\}")
Number = Annotated[int, Bounds(1, 10_000)]
"""How many of something: no number in a file makes lists that memory cannot hold."""


@dataclass(frozen=True)
class TuneFile:
    """What a sweep file may say under `tune`.

    Attributes:
        space: range per config key, shared by all arms; none of `loss`.
        arms: ranges that single arms have besides, by arm.
        trials: settings tried per arm, the same number for each.
        seeds: runs of each trial; their mean decides.
        sampler: `spread` evenly over the ranges, the same values for all arms, or Optuna's `tpe`.
        metric: of the validation part; the sweep's own if that is not said.
        anew: tune again for every seed, so that the interval holds what tuning adds.
    """

    space: dict[str, Any] = field(default_factory=dict)
    arms: dict[str, dict[str, Any]] = field(default_factory=dict)
    trials: Number = 8
    seeds: Number = 1
    sampler: Literal["spread", "tpe"] = "spread"
    metric: str | None = None
    anew: bool = False


@dataclass(frozen=True)
class SweepFile:
    """What a sweep file may say.

    It may come from somebody else, so its overrides may refer to other keys, `${trainer.epochs}`,
    but not to the environment or any other resolver, and the keys of :data:`REFUSED` are for the
    command line alone.

    Attributes:
        metric: the headline metric, `val/NAME` or `test/NAME`.
        baseline: the arm others are compared with.
        arms: overrides per arm; a list of values in an override makes one arm of each.
        question: what the sweep asks, in a sentence.
        cost: how long it takes, in words.
        outcome: what came out when it was run, in words.
        task: the task of every arm, unless `tasks` names several with overrides of their own.
        tasks: overrides per task.
        seeds: how many seeds (0, 1, ...), or a list of them.
        margin: differences smaller than this, in the metric's units, do not matter in practice.
        overrides: overrides of every arm.
        tune: what is tuned for every arm before the comparison, with how much effort.
        controls: arms whose outcome is known beforehand, see :mod:`harness.controls`.
    """

    metric: str
    baseline: str
    arms: dict[str, list[str]]
    question: str = ""
    cost: str = ""
    outcome: str = ""
    task: str | None = None
    tasks: dict[str, list[str]] = field(default_factory=dict)
    seeds: Number | list[Annotated[int, Bounds(0)]] = 10
    margin: Positive | None = None
    overrides: list[str] = field(default_factory=list)
    tune: TuneFile | None = None
    controls: list[str] = field(default_factory=list)


OPTIONS = ("metric", "baseline", "seeds", "margin", "tune", "controls")
"""Keys of a sweep file that the command line may replace; `tune.trials=4` is one of `tune`."""


def is_option(override: str) -> bool:
    """Whether an override is for the sweep, and not for the config of its runs."""
    key, _, inner = override.partition("=")[0].partition(".")
    return key in OPTIONS and (key == "tune" or not inner)


def read(path: Path, overrides: Sequence[str]) -> SweepFile:
    """Read and check a sweep file; overrides of its own options replace what it says.

    Raises:
        ValueError: it is no YAML, a key is unknown, missing, or of the wrong type, or an override
            is none that a file may have.
    """
    content = load(path, "sweep")
    owner = f"sweep {path.stem}"
    if not isinstance(content, Mapping):
        raise ValueError(f"{owner} must be a mapping, got {type(content).__name__}")
    given: dict[str, Any] = {str(key): value for key, value in content.items()}
    for text in overrides:
        key, _, inner = text.partition("=")[0].partition(".")
        if not is_option(text):
            continue
        if not inner:
            given[key] = _value(text)
        elif not isinstance(given.get(key), Mapping):
            raise ValueError(f"{owner} has no {key}, so nothing for '{text}' to change")
        else:
            given[key] = {**given[key], inner: _value(text.removeprefix(f"{key}."))}
    if isinstance(given.get("controls"), list):  # YAML reads the word null as no word
        given["controls"] = ["null" if word is None else word for word in given["controls"]]
    checked = check_arguments(owner, parameters_of(SweepFile), given)
    for key, value in checked.items():
        if isinstance(value, str):
            checked[key] = " ".join(value.split())
            if not checked[key].isprintable():
                raise ValueError(f"{owner}.{key} must be printable text, got {value!r}")
    read = SweepFile(**checked)
    _check_lists(owner, {"arms": read.arms, "tasks": read.tasks})
    for texts in (read.overrides, *read.arms.values(), *read.tasks.values()):
        _check_received(owner, texts)
    _check_keys(owner, overrides, "is not for a sweep, which takes seeds=N, store=PATH")
    if not read.arms:
        raise ValueError(f"{owner} has no arms")
    if (read.task is None) == (not read.tasks):
        raise ValueError(f"{owner} needs either task or tasks")
    if not seeds_of(read) or len(set(seeds_of(read))) < len(seeds_of(read)):
        raise ValueError(f"{owner}.seeds must be at least one, each once, got {read.seeds}")
    return read


def load(path: Path, kind: str) -> Any:
    """A YAML file as plain values; what it refers to is left alone.

    Aliases are refused: a few lines of them can stand for more than memory holds, or for
    themselves.

    Raises:
        ValueError: it is no YAML, too large, nested too deeply, or has an alias.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    if len(content) > LARGEST:
        raise ValueError(f"{path} has more than {LARGEST} bytes, too many for a {kind} file")
    try:
        text = content.decode()
        aliases = _aliases(text)
        read = OmegaConf.create({}) if aliases else OmegaConf.load(io.StringIO(text))
        plain = OmegaConf.to_container(read, resolve=False)
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deeply for a {kind} file") from error
    except (OmegaConfBaseException, YAMLError, ValueError, OSError, *FAULTS) as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if aliases:
        raise ValueError(f"{path}: the alias *{aliases[0]} cannot stand in a {kind} file")
    return plain


def _aliases(text: str) -> list[str]:
    """Every alias of a YAML text; RecursionError where it is nested more than `DEEPEST` deep."""
    found, depth = [], 0
    for token in yaml.scan(text, Loader=yaml.SafeLoader):
        depth += isinstance(token, _BEGIN) - isinstance(token, _END)
        if depth > DEEPEST:
            raise RecursionError
        if isinstance(token, yaml.AliasToken):
            found.append(token.value)
    return found


def _value(override: str) -> Any:
    """The right side of `key=value` as YAML."""
    try:
        (value,) = dict(OmegaConf.from_dotlist([override])).values()
    except (OmegaConfBaseException, YAMLError) as error:
        raise ValueError(f"cannot read '{override}': {' '.join(str(error).split())}") from error
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def seeds_of(file: SweepFile) -> list[int]:
    """The seeds a sweep file asks for."""
    return list(range(file.seeds)) if isinstance(file.seeds, int) else list(file.seeds)


def _check_received(owner: str, texts: Sequence[str]) -> None:
    """Refuse overrides that a file must not have, as Hydra's grammar and not the eye reads them."""
    for text in texts:
        if len(text) > LONGEST:
            raise ValueError(f"{owner}: '{text[:80]}' has more than {LONGEST} characters")
        for override in parse([word for (word,) in expand([text])]):
            keys = (override.key_or_group, override.package or "")
            if {*keys} & {*REFUSED} or "hydra" in {re.split(r"[./@]", key)[0] for key in keys}:
                raise ValueError(f"{owner}: '{text}' cannot stand in a sweep file")
            if any("${" in _REFERENCE.sub("", each) for each in _strings(override.value())):
                raise ValueError(
                    f"{owner}: '{text}' cannot stand in a sweep file, whose references are plain, "
                    f"such as ${{trainer.epochs}}"
                )


def _strings(value: Any) -> Iterator[str]:
    """Every text within a value."""
    if isinstance(value, Mapping):
        for key, entry in value.items():
            yield from (*_strings(key), *_strings(entry))
    elif isinstance(value, list):
        for entry in value:
            yield from _strings(entry)
    else:
        yield str(value)


def _check_keys(owner: str, texts: Sequence[str], why: str) -> None:
    """Refuse what is not for an arm to say: where to write, what code to load, Hydra's own keys."""
    for text in texts:
        key = text.lstrip("+~").partition("=")[0]
        if key in OWN or re.split(r"[./@]", key)[0] == "hydra":
            raise ValueError(f"{owner}: '{text}' {why}")


def _check_lists(owner: str, groups: Mapping[str, Mapping[str, Any]]) -> None:
    for group, entries in groups.items():
        for name, texts in entries.items():
            if not (isinstance(name, str) and name.strip() and name.isprintable()):
                raise ValueError(f"{owner}.{group}: a name must be printable text, got {name!r}")
            listed = isinstance(texts, list) and all(isinstance(text, str) for text in texts)
            if not listed:
                raise ValueError(
                    f"{owner}.{group}.{name} must be a list of overrides, got {texts!r}"
                )
