"""Projections of parameters: what is applied to weights after each step of the optimiser.

A penalty pulls on weights by its gradient; a projection puts them where they must be, exactly, and
so does not depend on the optimiser. `projection(model, lr)` follows `optimizer.step()`.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from losses.arguments import (
    NonNegative,
    Parameter,
    Positive,
    check_arguments,
    convert,
    look_up,
    parameters_of,
)
from losses.penalty import HALF, penalised


@dataclass(frozen=True)
class ProjectionRule:
    """One registered projection: its name, maths on one tensor, source and parameters.

    Attributes:
        name: the name in configs, snake case.
        function: from a tensor, and the step's learning rate `lr` if it has such a parameter, to
            the tensor projected.
        source: paper or book.
        parameters: the keyword-only parameters of `function`.
    """

    name: str
    function: Callable[..., Tensor]
    source: str
    parameters: dict[str, Parameter]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by name: the function's own name leads to its checking form."""
        return get_projection, (self.name,)


PROJECTIONS: dict[str, ProjectionRule] = {}


def projection(
    name: str, *, source: str
) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Register a pure function of a parameter, and of `lr` if it wants, that gives a new tensor.

    Raises:
        ValueError: the name is taken.
    """

    def register(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        if name in PROJECTIONS:
            raise ValueError(f"projection '{name}' is registered twice")
        entry = ProjectionRule(name, function, source, parameters_of(function))
        PROJECTIONS[name] = entry

        @functools.wraps(function)
        def call(parameter: Tensor, lr: float | None = None, **settings: Any) -> Tensor:
            return _apply(entry, parameter, lr, check_arguments(name, entry.parameters, settings))

        call.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
        call.__doc__ = f"{inspect.getdoc(function)}\n\nSource: {source}\n"
        return call

    return register


def _apply(
    entry: ProjectionRule, parameter: Tensor, lr: float | None, settings: dict[str, Any]
) -> Tensor:
    """The projected tensor, half precision by way of float32; NaN stays NaN."""
    if not parameter.is_floating_point():
        raise ValueError(f"{entry.name} needs floating-point parameters, got {parameter.dtype}")
    wide = parameter.float() if parameter.dtype in HALF else parameter
    if "lr" not in inspect.signature(entry.function).parameters:
        return entry.function(wide, **settings).to(parameter.dtype)
    if lr is None or not lr >= 0:
        raise ValueError(f"{entry.name} needs the step's learning rate, >= 0, got {lr!r}")
    return entry.function(wide, lr, **settings).to(parameter.dtype)


class Projection:
    """A projection with its settings; `projection(model, lr)` changes the model's parameters.

    Made by :func:`build_projection`. Which of them is as for penalties, see
    :func:`losses.penalised`.
    """

    def __init__(self, entry: ProjectionRule, biases: bool, settings: dict[str, Any]) -> None:
        self.entry, self.biases, self.settings = entry, biases, settings

    @torch.no_grad()
    def __call__(self, model: nn.Module, lr: float) -> None:
        """Project in place; `lr` is the learning rate of the step that has just been taken."""
        for parameter in penalised(model, self.biases):
            parameter.copy_(_apply(self.entry, parameter, lr, self.settings))

    def __repr__(self) -> str:
        """Name and settings."""
        given = {"biases": self.biases, **self.settings}
        return (
            f"Projection({', '.join([self.entry.name, *(f'{k}={v}' for k, v in given.items())])})"
        )


def projection_names() -> list[str]:
    """Names of all registered projections, sorted."""
    return sorted(PROJECTIONS)


def get_projection(name: str) -> ProjectionRule:
    """The registered projection of that name.

    Raises:
        ValueError: no such projection; the message has the nearest name.
    """
    return look_up("projection", name, PROJECTIONS)


def build_projection(name: str, *, biases: bool = False, **settings: Any) -> Projection:
    """Make a registered projection, to be called after each step of the optimiser.

    Args:
        name: the registered name.
        biases: whether biases and normalisation scales are projected too.
        settings: the projection's own parameters.

    Raises:
        ValueError: unknown projection or parameter, wrong type, or a value out of bounds.
    """
    entry = get_projection(name)
    biases = convert(f"{name}.biases", bool, biases)
    return Projection(entry, biases, check_arguments(name, entry.parameters, settings))


@projection(
    "max_norm", source="Srivastava et al. 2014, Dropout, a simple way to prevent overfitting"
)
def max_norm(parameter: Tensor, *, limit: Positive) -> Tensor:
    r"""Each unit's incoming weights shortened to a length,
    :math:`w_i \leftarrow w_i \min(1, c / \lVert w_i \rVert_2)`.

    A unit is a row: all that axis 0 does not number, as in torch's linear and convolutional layers
    (3 or 4 are usual for c). A unit's bias is not part of its length; where biases are projected
    too, each is a unit of its own and ends in [-c, c]. Rows within the limit stay as they are.

    Args:
        parameter: weights, float [units, ...].
        limit: c, the largest length.
    """
    if not parameter.numel():
        return parameter.clone()
    rows = parameter.reshape(len(parameter) if parameter.ndim else 1, -1)
    largest = rows.abs().amax(1, keepdim=True)
    scale = torch.where(largest > 0, largest, 1)  # or squares of what is large would overflow
    lengths = scale * (rows / scale).norm(dim=1, keepdim=True)
    short = rows * (limit / torch.where(lengths > limit, lengths, limit))
    return torch.where(lengths > limit, short, rows).reshape(parameter.shape)


@projection("clip_weights", source="Arjovsky et al. 2017, arXiv:1701.07875, algorithm 1")
def clip_weights(parameter: Tensor, *, limit: Positive = 0.01) -> Tensor:
    r"""Every weight into an interval, :math:`w \leftarrow \min(c, \max(-c, w))`.

    How a Wasserstein critic was first kept Lipschitz; set `biases=true` for it, as in the paper. A
    gradient penalty does the same with less damage.

    Args:
        parameter: weights, float [...].
        limit: c, the largest absolute value.
    """
    return parameter.clamp(-limit, limit)


@projection("proximal_l1", source="Parikh & Boyd 2014, Proximal algorithms")
def proximal_l1(parameter: Tensor, lr: float, *, strength: NonNegative) -> Tensor:
    r"""Soft threshold, :math:`w \leftarrow \mathrm{sign}(w) \max(0, |w| - \eta \lambda)`.

    The exact step for :math:`\lambda \sum |w|` that a gradient cannot take: weights become 0 and
    stay there, where :func:`losses.l1` lets them swing about it. With plain SGD the pair is
    proximal gradient descent; under Adam the threshold knows nothing of its step sizes.

    Args:
        parameter: weights, float [...].
        lr: eta, the step's learning rate.
        strength: lambda, the weight of the sum of absolute values.
    """
    return parameter.sign() * (parameter.abs() - lr * strength).clamp(min=0)
