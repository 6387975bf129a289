"""The weighted sum of named terms that a run minimises: the one place that divides and reduces."""

import functools
from typing import NamedTuple

import torch
from torch import Tensor, distributed, nn

import losses
from harness.terms import ObjectiveConfig, Schedule, TermConfig
from losses.arguments import ClassCounts, ClassWeight


class Evaluated(NamedTuple):
    """What an objective gave for one batch: the total, and each term before its weight."""

    total: Tensor
    terms: dict[str, Tensor]


class Objective(nn.Module):
    """Weighted sum of losses and penalties.

    Terms whose weight is constantly 0 are not computed. Scheduled weights are a buffer, so that
    a change recompiles nothing; constant ones are numbers, and a weight of 1 costs nothing.
    """

    weights: Tensor

    def __init__(self, config: ObjectiveConfig, class_counts: Tensor | None = None) -> None:
        super().__init__()
        self.config = config
        self.scheduled = any(isinstance(weight, Schedule) for weight in config.weights())
        start = self._weights(0.0)
        used = [name for name, weight in start.items() if weight != 0 or self._moves(name)]
        if not used:
            raise ValueError(f"loss: every term of {', '.join(start)} has weight 0")
        self.modules_by_term = nn.ModuleDict(
            {name: _build(config.terms[name], class_counts) for name in used}
        )
        self.constant = [start[name] for name in used]
        self.register_buffer("weights", torch.tensor(self.constant), persistent=False)

    def advance(self, progress: float) -> None:
        """Set the weights for the share of steps done."""
        now = self._weights(progress)
        self.weights.copy_(torch.tensor([now[name] for name in self.modules_by_term]))

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

    def forward(self, output: Tensor, target: Tensor, model: nn.Module) -> Evaluated:
        """Total and raw terms for a batch; penalties look at `model`."""
        terms = {
            name: _mean(module, output, target)
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


def _at(weight: float | Schedule, progress: float) -> float:
    return weight.at(progress) if isinstance(weight, Schedule) else weight


def _build(term: TermConfig, class_counts: Tensor | None) -> nn.Module:
    parameters = dict(term.parameters)
    if term.biases is not None:
        return losses.build_penalty(term.loss, biases=term.biases, **parameters)
    declared = losses.get(term.loss).parameters
    for key, value in parameters.items():
        annotation = declared[key].annotation
        if annotation not in (ClassWeight, ClassCounts) or not isinstance(value, str):
            continue
        if class_counts is None:
            raise ValueError(f"loss.{term.loss}.{key}={value} needs a task with classes")
        counted = annotation is ClassCounts
        parameters[key] = class_counts if counted else losses.class_weight(value, class_counts)
    return losses.build(term.loss, **parameters)


def _mean(module: losses.LossModule, output: Tensor, target: Tensor) -> Tensor:
    """The loss of a batch; over the batches of all processes where there are several."""
    if distributed.is_available() and distributed.is_initialized():
        return module.entry.divide(_across_ranks(module.fraction(output, target)))
    value: Tensor = module(output, target)
    return value


def _across_ranks(fraction: losses.Fraction) -> losses.Fraction:
    """Numerator and denominator over all processes, the gradient scaled for DDP's mean of ranks.

    The value is the global one; the local gradient is multiplied by the number of processes, which
    DDP divides by, so that the result equals one process with the whole batch.
    """
    both = torch.stack([fraction.numerator.detach(), fraction.denominator.to(fraction.numerator)])
    distributed.all_reduce(both)
    scaled = fraction.numerator * distributed.get_world_size()
    return losses.Fraction(scaled + (both[0] - scaled).detach(), both[1])
