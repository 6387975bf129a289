"""The weighted sum of named terms that a run minimises: the one place that divides and reduces."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

import losses
from harness import across
from harness.terms import ObjectiveConfig, Schedule, TermConfig
from losses.arguments import ClassCounts, ClassWeight

OUTPUT = "output"
"""The subject of a task that has one only."""


class Evaluated(NamedTuple):
    """What an objective gave for one batch: the total, and each term before its weight."""

    total: Tensor
    terms: dict[str, Tensor]


class Subject(NamedTuple):
    """Something that terms compare, such as the boxes of a detector: an output and its target.

    `divisor`, where it is given, divides the sum of values in place of the loss's own count: a
    detector's scores are many, and are judged per object.
    """

    inputs: tuple[Tensor, Tensor]
    divisor: Tensor | None = None


@dataclass(frozen=True)
class Compared:
    """One batch as terms see it: its subjects, and tensors for losses that name their inputs."""

    subjects: Mapping[str, Subject]
    fields: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Facts:
    """What losses must know before the first batch.

    Attributes:
        class_counts: training items per class, int64 [C].
        sizes: what the losses' own tensors are made by, such as `classes` and `features`.
        seed: of the losses' own tensors.
    """

    class_counts: Tensor | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    seed: int = 0


class Objective(nn.Module):
    """Weighted sum of losses and penalties.

    Terms whose weight is constantly 0 are not computed. Scheduled weights are a buffer, so that
    a change recompiles nothing; constant ones are numbers, and a weight of 1 costs nothing.
    """

    weights: Tensor

    def __init__(
        self,
        config: ObjectiveConfig,
        facts: Facts | None = None,
        reads: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.config, self.reads = config, dict(reads or {})
        self.scheduled = any(isinstance(weight, Schedule) for weight in config.weights())
        start = self._weights(0.0)
        used = [name for name, weight in start.items() if weight != 0 or self._moves(name)]
        if not used:
            raise ValueError(f"loss: every term of {', '.join(start)} has weight 0")
        self.modules_by_term = nn.ModuleDict(
            {name: _build(config.terms[name], name, facts or Facts()) for name in used}
        )
        self.constant = [start[name] for name in used]
        self.register_buffer("weights", torch.tensor(self.constant), persistent=False)

    def advance(self, progress: float) -> None:
        """Set the weights for the share of steps done."""
        now = self._weights(progress)
        self.weights.copy_(torch.tensor([now[name] for name in self.modules_by_term]))

    def current(self) -> list[float]:
        """The weight of every term that is computed, as it is now."""
        return self.weights.tolist() if self.scheduled else list(self.constant)

    def _moves(self, name: str) -> bool:
        weight = self.config.terms[name].weight
        mixed = isinstance(self.config.p, Schedule) and name in self.config.losses()
        return isinstance(weight, Schedule) or (mixed and weight != 0)

    def _weights(self, progress: float) -> dict[str, float]:
        values = {name: _at(term.weight, progress) for name, term in self.config.terms.items()}
        if self.config.mix == "convex" and self.config.p is not None:
            first, second = self.config.losses()
            p = _at(self.config.p, progress)
            values[first] *= 1 - p
            values[second] *= p
        return values

    def point(self, output: Tensor) -> Tensor:
        """What the output predicts, as its losses say: a mean without its variance, a rate."""
        predicted = next(iter(self._compared())).point
        return predicted(output) if predicted else output

    @property
    def heads(self) -> int:
        """Values the model gives per target."""
        return next(iter(self._compared())).heads

    def outputs(self, outputs: int) -> int:
        """Numbers the model gives per item, for data that plainly need so many."""
        ordinal = next(iter(self._compared())).target == "ordinal"  # thresholds between classes
        return outputs - 1 if ordinal else outputs * self.heads

    def _compared(self) -> list[losses.Loss]:
        return [losses.get(term.loss) for term in self.config.losses().values()]

    def forward(self, compared: Compared, model: nn.Module) -> Evaluated:
        """Total and raw terms for a batch; penalties look at `model`."""
        terms = {
            name: self._mean(name, module, compared)
            if isinstance(module, losses.LossModule)
            else module(model)
            for name, module in self.modules_by_term.items()
        }
        if self.scheduled:
            weighted = [w * t for w, t in zip(self.weights, terms.values(), strict=True)]
        else:
            pairs = zip(self.constant, terms.values(), strict=True)
            weighted = [t if w == 1 else w * t for w, t in pairs]
        return Evaluated(functools.reduce(torch.add, weighted), terms)

    def _mean(self, name: str, module: losses.LossModule, compared: Compared) -> Tensor:
        """A term of a batch; of the batches of all processes together where there are several."""
        inputs, divisor = self._inputs(name, module.entry, compared)
        if across.processes():
            fraction = (
                across.summed(module.fraction(*inputs))
                if module.entry.additive
                else module.fraction(*map(across.gathered, inputs))
            )
            divisor = None if divisor is None else across.total(divisor)
        elif divisor is None:
            value: Tensor = module(*inputs)
            return value
        else:
            fraction = module.fraction(*inputs)
        if divisor is not None:
            fraction = fraction._replace(denominator=divisor.clamp(min=1).to(fraction.numerator))
        return module.entry.divide(fraction)

    def _inputs(
        self, name: str, entry: losses.Loss, compared: Compared
    ) -> tuple[tuple[Tensor, ...], Tensor | None]:
        if entry.target == "fields":
            return tuple(compared.fields[key] for key in entry.inputs), None
        subject = compared.subjects[self.reads.get(name, OUTPUT)]
        return subject.inputs, subject.divisor


def _at(weight: float | Schedule, progress: float) -> float:
    return weight.at(progress) if isinstance(weight, Schedule) else weight


def _build(term: TermConfig, name: str, facts: Facts) -> nn.Module:
    parameters = dict(term.parameters)
    if term.biases is not None:
        return losses.build_penalty(term.loss, biases=term.biases, **parameters)
    entry = losses.get(term.loss)
    for key, value in parameters.items():
        annotation = entry.parameters[key].annotation
        if annotation not in (ClassWeight, ClassCounts) or not isinstance(value, str):
            continue
        if facts.class_counts is None:
            raise ValueError(f"loss.{name}.{key}={value} needs a task with classes")
        counted = annotation is ClassCounts
        counts = facts.class_counts
        parameters[key] = counts if counted else losses.class_weight(value, counts)
    for key in entry.sizes:
        if key not in facts.sizes:
            raise ValueError(f"loss.{name} needs to know {key}, which this task has not")
    sizes = {key: facts.sizes[key] for key in entry.sizes}
    drawn = torch.Generator().manual_seed(facts.seed)
    return losses.build(term.loss, generator=drawn, **(parameters | sizes))
