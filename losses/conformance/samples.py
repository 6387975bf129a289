"""Inputs for the properties: outputs and targets of every kind, from a fixed seed."""

import itertools
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from losses.core import Loss

ITEMS, CLASSES = 7, 4  # odd and unequal, so that a swapped axis or an even split shows
EXTREMES = (0.0, 1e-6, -1e-6, 1.0, -1.0, 50.0, -50.0, 1e4, -1e4)


class Sample(NamedTuple):
    """An output in float64 and a target that belongs to it."""

    output: Tensor
    target: Tensor


def has_classes(entry: Loss) -> bool:
    """Whether axis 1 of the output holds one score per class."""
    return entry.target in ("index", "index or probabilities", "probabilities")


def accepts_rows(entry: Loss) -> bool:
    """Whether a target may be a distribution over the classes."""
    return entry.target in ("index or probabilities", "probabilities")


def settings(entry: Loss) -> dict[str, Any]:
    """Values for the parameters without default: one positive number per class."""
    return {
        name: torch.arange(1.0, CLASSES + 1) for name, p in entry.parameters.items() if p.required
    }


def samples(entry: Loss) -> list[Sample]:
    """One sample per form the loss accepts: plain, with a further axis, with soft targets."""
    generator = torch.Generator().manual_seed(0)
    flat, further = (ITEMS,), (ITEMS, 3 if has_classes(entry) else CLASSES)
    only_further = entry.sum_classes and not has_classes(entry)
    shapes = [further] if only_further else [flat, further]
    made = [_sample(entry, shape, generator) for shape in shapes]
    if accepts_rows(entry):
        rows = _normal((ITEMS, CLASSES), generator).softmax(1)
        made.append(Sample(_output(entry, _normal((ITEMS, CLASSES), generator)), rows))
    if entry.target == "binary":
        soft = torch.rand(further, generator=generator, dtype=torch.float64)
        made.append(Sample(_normal(further, generator), soft))
    return made


def hard_samples(entry: Loss) -> list[Sample]:
    """The samples whose targets leave no doubt: labels, zeros and ones, or real numbers."""
    made = samples(entry)
    return [s for s in made if entry.target == "real" or not s.target.is_floating_point()]


def _sample(entry: Loss, shape: tuple[int, ...], generator: torch.Generator) -> Sample:
    if has_classes(entry):
        scores = _normal((shape[0], CLASSES, *shape[1:]), generator)
        return Sample(_output(entry, scores), torch.randint(CLASSES, shape, generator=generator))
    if entry.target == "binary":
        return Sample(_normal(shape, generator), torch.randint(2, shape, generator=generator))
    heads = (entry.heads,) if entry.heads > 1 else ()
    target = _normal(shape, generator)
    target = target.abs() if entry.within else target
    return Sample(_normal((shape[0], *heads, *shape[1:]), generator), target)


def _normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _output(entry: Loss, scores: Tensor) -> Tensor:
    """Scores as the loss takes them: as they are, or as log-probabilities."""
    return scores.log_softmax(1) if entry.output_within else scores


def extremes(entry: Loss, largest: float = 1e4) -> Sample:
    """Every extreme number in two places of an output, against every target."""
    bounds = entry.output_within
    numbers = [n for n in EXTREMES if abs(n) <= largest and (bounds is None or n in bounds)]
    places = 2 if has_classes(entry) else entry.heads
    targets = range(3) if has_classes(entry) else (0, 1)
    pairs = list(itertools.product(itertools.product(numbers, repeat=places), targets))
    output = torch.tensor([row for row, _ in pairs], dtype=torch.float64)
    target = torch.tensor([label for _, label in pairs])
    if has_classes(entry):
        output = F.pad(output, (0, CLASSES - places))
    elif entry.heads == 1 and not entry.sum_classes:
        output = output.squeeze(1)
    return Sample(output, target.unsqueeze(1) if output.shape[1:] == (1,) else target)


def perfect(entry: Loss, target: Tensor) -> Tensor:
    """The output nobody can better for a hard target: the number itself, or scores far apart."""
    if entry.target == "real":
        rest = [torch.zeros_like(target)] * (entry.heads - 1)
        return torch.stack([target, *rest], 1) if rest else target.clone()
    if entry.target == "binary":
        return 50 * (2 * target.double() - 1)
    return _output(entry, 50 * (2 * one_hot(target) - 1))


def mistaken(entry: Loss, target: Tensor) -> Tensor:
    """The output of somebody who is sure of a wrong answer."""
    if entry.target == "real":
        return perfect(entry, target + 50)
    return perfect(entry, 1 - target if entry.target == "binary" else (target + 1) % CLASSES)


def approach(entry: Loss, sample: Sample) -> list[Tensor]:
    """Outputs that start at the sample's and move step by step towards its hard target."""
    output, target = sample
    if entry.target == "real":
        goal = torch.cat([target.unsqueeze(1), output[:, 1:]], 1) if entry.heads > 1 else target
        return [goal + share * (output - goal) for share in (1.0, 0.5, 0.25, 0.0)]
    unit = 2 * target.double() - 1 if entry.target == "binary" else one_hot(target)
    return [_output(entry, output + step * unit) for step in (0, 0.5, 1, 2, 4, 8)]


def one_hot(target: Tensor) -> Tensor:
    """Class indices [N, ...] as rows of zeros and a one, float64 [N, C, ...]."""
    return F.one_hot(target, CLASSES).movedim(-1, 1).double()
