"""Inputs for the properties: outputs and targets of every kind, from a fixed seed."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from losses.arguments import ClassCounts, ClassWeight, Count, PerClass
from losses.core import Loss

ITEMS, CLASSES, FEATURES = 7, 4, 5  # odd and unequal, so that a swapped axis or an even split shows
EXTREMES = (0.0, 1e-6, -1e-6, 1.0, -1.0, 50.0, -50.0, 1e4, -1e4)

LABELS = (torch.tensor([0, 1, 2, 0, 1, 2, 0]), torch.tensor([1, 0, 1, 3, 1, 0, 0]))
"""Every label at least twice, and one of them alone."""


class Sample(NamedTuple):
    """An output in float64 and a target that belongs to it."""

    output: Tensor
    target: Tensor


def has_classes(entry: Loss) -> bool:
    """Whether axis 1 of the output holds one score per class."""
    return entry.target in ("index", "index or probabilities", "probabilities")


def columns(entry: Loss) -> int:
    """How many columns axis 1 of a sample's output has, if targets have no such axis; else 0."""
    if entry.target == "ordinal":
        return CLASSES - 1
    if entry.target == "labels":
        return FEATURES
    return CLASSES if has_classes(entry) or entry.target == "place" else 0


def accepts_rows(entry: Loss) -> bool:
    """Whether a target may be a distribution over the classes."""
    return entry.target in ("index or probabilities", "probabilities")


def settings(entry: Loss) -> dict[str, Any]:
    """Values for class counts and the parameters without default: a positive number per class.

    A list of whole numbers parts the classes.
    """
    return {
        name: [1, 2, CLASSES] if p.annotation == Sequence[Count] else torch.arange(1.0, CLASSES + 1)
        for name, p in entry.parameters.items()
        if p.required or p.annotation == ClassCounts
    }


def per_class(entry: Loss) -> dict[str, Tensor]:
    """The parameters of a bound entry that hold one number per class."""
    kinds = (ClassCounts, ClassWeight, PerClass)
    own = {n: p.default for n, p in entry.parameters.items() if p.annotation in kinds}
    return {name: value for name, value in own.items() if isinstance(value, Tensor)}


def own_tensors(entry: Loss) -> dict[str, Tensor]:
    """The loss's own tensors as a training starts with them, but class vectors at right angles."""
    made = fresh_tensors(entry, 0)
    if entry.target == "labels":
        made = {n: torch.eye(*t.shape) if t.ndim == 2 else t for n, t in made.items()}
    return {n: t.double() if t.is_floating_point() else t for n, t in made.items()}


def fresh_tensors(entry: Loss, seed: int) -> dict[str, Tensor]:
    """The loss's own tensors as a training starts with them."""
    sizes = {"classes": CLASSES, "features": FEATURES, "class_counts": [3.0, 1.0, 2.0, 7.0]}
    set_too = {name: p.default for name, p in entry.parameters.items() if not p.required}
    return entry.make_own(settings(entry) | set_too | sizes, torch.Generator().manual_seed(seed))


def batch(entry: Loss) -> tuple[Tensor, ...]:
    """One batch of whatever the loss takes."""
    if entry.target == "fields" and entry.example:
        return entry.example(torch.Generator().manual_seed(0))
    return samples(entry)[0]


def samples(entry: Loss) -> list[Sample]:
    """One sample per form the loss accepts: plain, with a further axis, with soft targets."""
    generator = torch.Generator().manual_seed(0)
    if entry.target == "labels":
        return [Sample(_normal((ITEMS, FEATURES), generator), labels) for labels in LABELS]
    if entry.target == "boxes":
        return _boxes(generator)
    flat: tuple[int, ...] = (ITEMS, 6) if entry.region else (ITEMS,)
    further = (ITEMS, 3, 4) if entry.region else (ITEMS, 3 if columns(entry) else CLASSES)
    only_further = entry.sum_classes and not columns(entry)
    shapes = [further] if only_further else [flat, further]
    made = [_sample(entry, shape, generator) for shape in shapes]
    if accepts_rows(entry):
        rows = _normal((ITEMS, CLASSES), generator).softmax(1)
        made.append(Sample(_output(entry, _normal((ITEMS, CLASSES), generator)), rows))
    if entry.target == "place":
        between = (CLASSES - 1) * torch.rand(ITEMS, generator=generator, dtype=torch.float64)
        made.append(Sample(_normal((ITEMS, CLASSES), generator), between))
    if entry.target == "binary":
        soft = torch.rand(further, generator=generator, dtype=torch.float64)
        made.append(Sample(_normal(further, generator), soft))
    return made


def hard_samples(entry: Loss) -> list[Sample]:
    """The samples whose targets leave no doubt: labels, zeros and ones, or real numbers."""
    made = samples(entry)
    return [s for s in made if _points(entry) or not s.target.is_floating_point()]


def _points(entry: Loss) -> bool:
    """Whether an output is of the target's own kind, and right where it equals the target."""
    return entry.target in ("real", "boxes")


def _boxes(generator: torch.Generator) -> list[Sample]:
    """Boxes with sides from 1 to 3 that overlap, and the same with the true ones far away."""
    low = torch.rand(2, ITEMS, 2, generator=generator, dtype=torch.float64)
    sides = 1 + 2 * torch.rand(2, ITEMS, 2, generator=generator, dtype=torch.float64)
    boxes, target = torch.cat([low, low + sides], 2)
    away = torch.tensor([5.0, -7.0] * 2, dtype=torch.float64)
    return [Sample(boxes, target), Sample(boxes.clone(), target + away)]


def _sample(entry: Loss, shape: tuple[int, ...], generator: torch.Generator) -> Sample:
    if columns(entry):
        scores = _normal((shape[0], columns(entry), *shape[1:]), generator)
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
    if entry.target == "boxes":
        return _extreme_boxes()
    bounds = entry.output_within
    numbers = [n for n in EXTREMES if abs(n) <= largest and (bounds is None or n in bounds)]
    places = 2 if columns(entry) else entry.heads
    targets = range(3) if columns(entry) else (0, 1)
    pairs = list(itertools.product(itertools.product(numbers, repeat=places), targets))
    output = torch.tensor([row for row, _ in pairs], dtype=torch.float64)
    target = torch.tensor([label for _, label in pairs])
    if columns(entry):
        output = F.pad(output, (0, columns(entry) - places))
    elif entry.heads == 1 and not entry.sum_classes:
        output = output.squeeze(1)
    if entry.region:  # three elements to an item
        output = output.reshape(-1, 3, *output.shape[1:]).movedim(1, -1)
        return Sample(output, target.reshape(-1, 3))
    return Sample(output, target.unsqueeze(1) if output.shape[1:] == (1,) else target)


def _extreme_boxes() -> Sample:
    """Every pair of extreme numbers as x1 and x2, inverted ones too, against boxes of all sizes."""
    across = itertools.product(EXTREMES, repeat=2)
    heights = [(0, 1), (0, 0), (1e-6, 2e-6), (1e4, -1e4)]
    targets = [(0, 0, 1, 1), (0, 0, 0, 0), (-1e4, 0, 1e4, 1e-6), (1, 1, -1, -1)]
    pairs = itertools.product(across, heights, targets)
    rows = [[(x1, y1, x2, y2), target] for (x1, x2), (y1, y2), target in pairs]
    boxes = torch.tensor(rows, dtype=torch.float64)
    return Sample(boxes[:, 0], boxes[:, 1])


def perfect(entry: Loss, target: Tensor, size: float = 50) -> Tensor:
    """The output nobody can better for a hard target: the number itself, or scores far apart."""
    if _points(entry):
        goal = _pointing(entry, target)
        rest = [torch.zeros_like(target)] * (entry.heads - 1)
        return torch.stack([goal, *rest], 1) if rest else goal
    if entry.target == "labels":
        return size * F.pad(one_hot(target), (0, FEATURES - CLASSES))
    return _output(entry, size * _signs(entry, target))


def _pointing(entry: Loss, target: Tensor) -> Tensor:
    """The output that stands for a number: the number, or its logarithm."""
    return target.log() if entry.point is torch.exp else target.clone()


def _signs(entry: Loss, target: Tensor) -> Tensor:
    """Scores of 1 where the answer is yes and -1 where it is no."""
    if entry.target == "binary":
        return 2 * target.double() - 1
    yes = one_hot(target)
    if entry.target == "ordinal":
        yes = 1 - yes.cumsum(1)[:, :-1]  # whether the class is above each step
    return 2 * yes - 1


def mistaken(entry: Loss, target: Tensor) -> Tensor:
    """The output of somebody who is sure of a wrong answer."""
    if _points(entry):
        return perfect(entry, target + 50)
    if entry.target == "labels" and not entry.own:
        return perfect(entry, torch.tensor([0, 0, 1, 1, 2, 2, 2]))  # together across labels
    return perfect(entry, 1 - target if entry.target == "binary" else (target + 1) % CLASSES)


def approach(entry: Loss, sample: Sample) -> list[Tensor]:
    """Outputs that start at the sample's and move step by step towards its hard target."""
    output, target = sample
    if _points(entry):
        goal = _pointing(entry, target)
        goal = torch.cat([goal.unsqueeze(1), output[:, 1:]], 1) if entry.heads > 1 else goal
        return [goal + share * (output - goal) for share in (1.0, 0.5, 0.25, 0.0)]
    if entry.target == "labels":
        return [output, output + perfect(entry, target)]
    unit = one_hot(target) if has_classes(entry) else _signs(entry, target)
    return [_output(entry, output + step * unit) for step in (0, 0.5, 1, 2, 4, 8)]


def one_hot(target: Tensor) -> Tensor:
    """Class indices [N, ...] as rows of zeros and a one, float64 [N, C, ...]."""
    return F.one_hot(target, CLASSES).movedim(-1, 1).double()
