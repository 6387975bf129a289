"""What an objective is made of, as a config says it: terms, weights, schedules, their mix."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

import losses
from losses.arguments import (
    Bounds,
    ClassWeight,
    NonNegative,
    Share,
    check_arguments,
    convert,
    nearest,
    parameters_of,
)
from losses.peers import Peer

TERM_KEYS = ("loss", "weight", "biases")


@dataclass(frozen=True)
class Schedule:
    r"""A number that moves from `start` to `end` between two points of the training.

    With u = (t - begin) / (until - begin) clipped to [0, 1] and t the share of steps done:
    linear is start + (end - start) u, cosine start + (end - start) (1 - cos(pi u)) / 2, and step is
    start before `until` and end from there on.
    """

    schedule: Literal["linear", "cosine", "step"]
    start: NonNegative = 0.0
    end: NonNegative = 1.0
    begin: Share = 0.0
    until: Annotated[float, Bounds(0, 1, low_open=True)] = 1.0

    def __post_init__(self) -> None:
        if self.begin >= self.until:
            raise ValueError(f"a schedule's begin={self.begin} must lie before until={self.until}")

    def __str__(self) -> str:
        span = f" over {self.begin:g}..{self.until:g}" if (self.begin, self.until) != (0, 1) else ""
        return f"[{self.schedule} {self.start:g} to {self.end:g}{span}]"

    def at(self, progress: float) -> float:
        """Value when the share `progress` of all steps is done.

        >>> Schedule("linear", start=1, end=3).at(0.25), Schedule("cosine", end=2).at(1.0)
        (1.5, 2.0)
        """
        if self.schedule == "step":
            return self.end if progress >= self.until else self.start
        width = max(self.until - self.begin, 1e-12)
        u = min(max((progress - self.begin) / width, 0.0), 1.0)
        u = (1 - math.cos(math.pi * u)) / 2 if self.schedule == "cosine" else u
        return self.start + (self.end - self.start) * u


Weight = NonNegative | Schedule


@dataclass(frozen=True)
class TermConfig:
    """One term: a registered loss or penalty, its weight, and the loss's own parameters."""

    loss: str
    weight: Weight
    parameters: dict[str, Any]
    biases: bool | None  # None for what is no penalty

    def __str__(self) -> str:
        entry = losses.get_penalty if self.biases is not None else losses.get
        declared = entry(self.loss).parameters
        given = [f"{k}={v}" for k, v in self.parameters.items() if v != declared[k].default]
        given += ["biases=True"] if self.biases else []
        settings = f"({', '.join(given)})" if given else ""
        weight = self.weight if isinstance(self.weight, Schedule) else f"{self.weight:g}"
        return f"{'' if weight == '1' else f'{weight} '}{self.loss}{settings}"

    def schemes(self) -> list[str]:
        """Parameters that name a scheme of class weights, which needs the data's class counts."""
        declared = {} if self.biases is not None else losses.get(self.loss).parameters
        return [
            name
            for name, value in self.parameters.items()
            if isinstance(value, str) and declared[name].annotation == ClassWeight
        ]

    def plain(self) -> dict[str, Any]:
        """As a mapping that `parse_objective` reads back."""
        weight = asdict(self.weight) if isinstance(self.weight, Schedule) else self.weight
        biases = {} if self.biases is None else {"biases": self.biases}
        return {"loss": self.loss, "weight": weight, **biases, **self.parameters}


@dataclass(frozen=True)
class ObjectiveConfig:
    """Terms by name, and how the losses among them are put together.

    `sum` adds weighted terms. `convex` needs exactly two losses, a and b in the order given, and
    minimises (1 - p) a + p b, each times its own weight; penalties are added to either.
    """

    terms: dict[str, TermConfig]
    mix: Literal["sum", "convex"] = "sum"
    p: Share | Schedule | None = None

    def plain(self) -> dict[str, Any]:
        """As a mapping that `parse_objective` reads back."""
        p = asdict(self.p) if isinstance(self.p, Schedule) else self.p
        return {"mix": self.mix, "p": p} | {n: t.plain() for n, t in self.terms.items()}

    def __str__(self) -> str:
        """In short: `cross_entropy + 0.001 l2(half=True)`; defaults are left out."""
        shown = [str(term) for term in self.terms.values()]
        if self.mix == "sum":
            return " + ".join(shown)
        first, second = (str(term) for term in self.losses().values())
        penalties = [str(term) for term in self.terms.values() if term.biases is not None]
        return " + ".join([f"(1-p) {first} + p {second}, p={self.p}", *penalties])

    def weights(self) -> list[Weight | None]:
        """Every number that may be scheduled."""
        return [*(term.weight for term in self.terms.values()), self.p]

    def losses(self) -> dict[str, TermConfig]:
        """The terms that compare output with target."""
        return {name: term for name, term in self.terms.items() if term.biases is None}


def parse_objective(config: Mapping[str, Any]) -> ObjectiveConfig:
    """Read the `loss` node of a config: terms keyed by name, beside `mix` and `p`.

    Raises:
        ValueError: an unknown loss or parameter, a wrong type or value, no loss at all, or a convex
            mix without exactly two losses and a `p`.
    """
    top = parameters_of(ObjectiveConfig)
    options = {
        k: convert(f"loss.{k}", top[k].annotation, config[k]) for k in ("mix", "p") if k in config
    }
    terms = {n: _parse_term(n, given) for n, given in config.items() if n not in ("mix", "p")}
    objective = ObjectiveConfig(terms, **options)
    compared = list(objective.losses())
    if not compared:
        raise ValueError(f"loss needs at least one loss beside penalties, got {sorted(terms)}")
    if objective.mix == "convex" and (len(compared) != 2 or objective.p is None):
        raise ValueError(
            f"loss.mix=convex needs exactly two losses and loss.p, "
            f"got {', '.join(compared)} and p={objective.p}"
        )
    forms = {
        (losses.get(objective.terms[n].loss).heads, losses.get(objective.terms[n].loss).point)
        for n in compared
    }
    if len(forms) > 1:
        raise ValueError(
            f"loss: {' and '.join(compared)} read the model's output in different ways"
        )
    if objective.mix == "sum" and objective.p is not None:
        raise ValueError(f"loss.p={objective.p} is read with loss.mix=convex only")
    return objective


def _parse_term(name: str, given: Any) -> TermConfig:
    if not isinstance(given, Mapping):
        raise ValueError(f"loss.{name} must be a mapping of parameters, got {given!r}")
    kind = given.get("loss", name)
    is_penalty = kind in losses.penalty_names()
    known = [*losses.names(), *losses.penalty_names()]
    if kind not in known and "/" not in str(kind):
        raise ValueError(f"there is no loss '{kind}'{nearest(str(kind), known)}")
    entry = losses.get_penalty(kind) if is_penalty else losses.get(kind)
    own = {k: v for k, v in given.items() if k not in TERM_KEYS}
    defaults = {p.name: p.default for p in entry.parameters.values() if not p.required}
    parameters = check_arguments(f"loss.{name}", entry.parameters, defaults | own)
    if isinstance(entry, Peer):
        entry.construct(parameters)
    weight = convert(f"loss.{name}.weight", Weight, given.get("weight", 1.0))
    if "biases" in given and not is_penalty:
        raise ValueError(f"loss.{name} has no parameter 'biases': {kind} is no penalty")
    biases = convert(f"loss.{name}.biases", bool, given.get("biases", False))
    return TermConfig(kind, weight, parameters, biases if is_penalty else None)
