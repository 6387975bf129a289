"""A line through the outputs of a loss, along which everything else here is measured."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from losses.core import Fraction, Loss

Inputs = tuple[Tensor, ...]
Along = Callable[[Tensor], Inputs]
"""From places x [K] on a line to K batches: the loss's inputs, each [K, items, ...]."""


@dataclass(frozen=True)
class Line:
    """One way to go wrong: a path through outputs, the target held fixed.

    Attributes:
        coordinate: what x measures, in words.
        inputs: from places x [K] to K batches.
        ways: the directions in which the output becomes more wrong.
        right: the place of the target: infinite where it is only approached, None where unknown.
        ordinary: how far from 0 an ordinary mistake lies.
        span: the places that are drawn and searched, from and to.
        trade: two paths whose values agree if the loss is symmetric.
        symmetry: what is traded between them, or why nothing can be.
        scaled: the inputs at places x made larger by a factor; None: x itself is.
        scaling: what the factor multiplies, in words.
        outlying: for real targets: from a nudge [K] of the output and distances [K] of the target.
        points: places on a fine grid; fewer where each is expensive.
    """

    coordinate: str
    inputs: Along
    ways: tuple[int, ...] = (-1,)
    right: float | None = math.inf
    ordinary: float = 0.0
    span: tuple[float, float] = (-8.0, 8.0)
    trade: tuple[Along, Along] | None = None
    symmetry: str = "no two of its inputs can trade places"
    scaled: Callable[[Tensor, float], Inputs] | None = None
    scaling: str = "the coordinate"
    outlying: Callable[[Tensor, Tensor], Inputs] | None = None
    points: int = 1025

    def grid(self, points: int | None = None) -> Tensor:
        """Places of the span, a little off round numbers, so that no kink lies on one."""
        low, high = self.span
        x = torch.linspace(low, high, points or self.points, dtype=torch.float64)
        return x + (high - low) * 1e-5 * math.sqrt(2)


def fractions(entry: Loss, inputs: Inputs) -> Fraction:
    """Sums and counts [K] of K batches; batches of coupled losses are taken one by one."""
    rows = len(inputs[0])
    if entry.additive:
        values, counts = entry.parts(*(tensor.flatten(0, 1) for tensor in inputs))
        counts = torch.ones_like(values) if counts is None else counts
        return Fraction(values.reshape(rows, -1).sum(1), counts.reshape(rows, -1).sum(1))
    try:
        return Fraction(*torch.func.vmap(lambda *batch: tuple(entry.fraction(*batch)))(*inputs))
    except (RuntimeError, ValueError):  # it does what vmap cannot follow
        made = [entry.fraction(*batch) for batch in zip(*inputs, strict=True)]
        return Fraction(*map(torch.stack, zip(*made, strict=True)))


def values(entry: Loss, inputs: Inputs) -> Tensor:
    """The loss [K] of K batches."""
    return entry.divide(fractions(entry, inputs))


def least(objective: Callable[[Tensor], Tensor], low: float, high: float, axes: int) -> Tensor:
    """Where a function of `axes` numbers [K, axes] is least, by ever finer grids around the best.

    Of equals it takes the one nearest the middle of the grid.
    """
    per_axis = 97 if axes == 1 else 33
    centre = torch.full((axes,), (low + high) / 2, dtype=torch.float64)
    half = (high - low) / 2
    while half > 1e-7:
        steps = half * torch.linspace(-1, 1, per_axis, dtype=torch.float64)
        steps = steps[steps.abs().argsort(stable=True)]
        points = (centre + torch.cartesian_prod(*[steps] * axes).reshape(-1, axes)).clamp(low, high)
        value = objective(points)
        value = torch.where(value.isnan(), math.inf, value)
        tied = value <= value.min() + 1e-13 * (1 + value.min().abs())
        centre = points[tied.int().argmax()]
        half *= 4 / (per_axis - 1)
    return centre


def slopes(entry: Loss, along: Along, x: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and derivative [K] at places x, the derivative being what training sees."""
    x = x.detach().clone().requires_grad_()
    value = values(entry, along(x))
    if not value.requires_grad:
        return value, torch.zeros_like(x)
    (slope,) = torch.autograd.grad(value.sum(), x, allow_unused=True)
    return value.detach(), torch.zeros_like(x) if slope is None else slope
