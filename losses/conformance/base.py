"""What the properties are written with."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from losses.conformance.samples import Sample
from losses.core import Loss

Property = Callable[[Loss], None]
PROPERTIES: dict[str, Property] = {}
ROUNDING = 1e-12  # of float64 in sums of a few dozen terms of size up to 100


class Counterexample(Exception):  # noqa: N818 - a finding, not an error of the program
    """A loss was seen to lack a property."""


class NotApplicable(Exception):  # noqa: N818 - likewise
    """A property says nothing about this loss."""


def prop(name: str) -> Callable[[Property], Property]:
    """Name a property: a function of a loss that raises unless what its docstring says holds."""

    def register(function: Property) -> Property:
        PROPERTIES[name] = function
        return function

    return register


def require(holds: object, what: str) -> None:
    """Raise a counterexample unless it holds."""
    if not holds:
        raise Counterexample(what)


def same(ours: Tensor, theirs: Tensor, what: str, tolerance: float = ROUNDING) -> None:
    """Require one shape, and values equal to a relative or absolute tolerance; NaN equals NaN."""
    close = ours.shape == theirs.shape and torch.allclose(
        ours, theirs, rtol=tolerance, atol=tolerance, equal_nan=True
    )
    require(close, f"{what}: {short(ours)} against {short(theirs)}")


def short(tensor: Tensor) -> str:
    """A tensor's numbers, or its shape and first numbers."""
    if tensor.numel() > 6:
        return f"{list(tensor.shape)} {tensor.flatten()[:6].tolist()}..."
    return str(tensor.tolist())


def mean(entry: Loss, output: Tensor, target: Tensor, **given: Any) -> Tensor:
    """The loss as it is trained on."""
    return entry.divide(entry.fraction(output, target, **given))


def numerator(entry: Loss, output: Tensor, target: Tensor, **given: Any) -> Tensor:
    """The sum of values, before the division."""
    return entry.fraction(output, target, **given).numerator


def gradient(
    entry: Loss, sample: Sample, of: Callable[..., Tensor] = mean, **given: Any
) -> tuple[Tensor, Tensor]:
    """Value and gradient with respect to the output."""
    output = sample.output.detach().clone().requires_grad_()
    value = of(entry, output, sample.target, **given)
    require(value.requires_grad, "the value has no graph")
    return value.detach(), torch.autograd.grad(value, output)[0]
