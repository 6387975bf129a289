"""Penalties on parameters: terms of an objective that look at weights, not at outputs."""

import functools
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from losses.arguments import (
    NonNegative,
    Parameter,
    check_arguments,
    convert,
    look_up,
    parameters_of,
)

HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Penalty:
    """One registered penalty: its name, elementwise maths, source and parameters."""

    name: str
    function: Callable[..., Tensor]
    source: str
    parameters: dict[str, Parameter]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by name: the function's own name leads to its summing form."""
        return get_penalty, (self.name,)


PENALTIES: dict[str, Penalty] = {}


def penalty(name: str, *, source: str) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Register an elementwise function of a parameter tensor; what is registered sums it over all.

    Raises:
        ValueError: the name is taken.
    """

    def register(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        if name in PENALTIES:
            raise ValueError(f"penalty '{name}' is registered twice")
        entry = Penalty(name, function, source, parameters_of(function))
        PENALTIES[name] = entry

        @functools.wraps(function)
        def call(parameters: Tensor | Iterable[Tensor], /, **settings: Any) -> Tensor:
            given = check_arguments(name, entry.parameters, settings)
            tensors = [parameters] if isinstance(parameters, Tensor) else list(parameters)
            return _total(entry, tensors, given)

        call.__doc__ = f"{inspect.getdoc(function)}\n\nSource: {source}\n"
        return call

    return register


def _total(entry: Penalty, tensors: list[Tensor], settings: dict[str, Any]) -> Tensor:
    """Sum over all entries of all tensors, half precision in float32; 0 if there are none."""
    if not tensors:
        return torch.zeros(())
    wide = [t.float() if t.dtype in HALF else t for t in tensors]
    return torch.stack([entry.function(t, **settings).sum() for t in wide]).sum()


def penalised(module: nn.Module, biases: bool = False) -> list[Tensor]:
    """Trainable parameters a penalty acts on: the weights, or with `biases` all of them.

    Biases and the scales of normalisation layers do not control how strongly an input is used, so
    they are exempt by default: what has fewer than two dimensions or belongs to a layer norm.
    Frozen parameters are left out, and one shared by several layers counts once.
    """
    norms = [m for m in module.modules() if isinstance(m, nn.LayerNorm | nn.RMSNorm)]
    exempt = {id(p) for norm in norms for p in norm.parameters()}
    trained = [p for p in module.parameters() if _requires_grad(p)]
    return [p for p in trained if biases or (p.ndim > 1 and id(p) not in exempt)]


def _requires_grad(parameter: Tensor) -> bool:
    """Whether it is trained; inside `torch.func.vmap` only the tensor beneath knows."""
    if torch.compiler.is_compiling():
        return parameter.requires_grad
    while not parameter.requires_grad and torch._C._functorch.is_batchedtensor(parameter):
        parameter = torch._C._functorch.get_unwrapped(parameter)
    return parameter.requires_grad


class PenaltyModule(nn.Module):
    """A penalty with its settings; `module(model)` is a scalar. Made by :func:`build_penalty`."""

    def __init__(self, entry: Penalty, biases: bool, settings: dict[str, Any]) -> None:
        super().__init__()
        self.entry, self.biases, self.settings = entry, biases, settings

    def forward(self, model: nn.Module) -> Tensor:
        """The penalty of a model's parameters, see :func:`penalised`."""
        return _total(self.entry, penalised(model, self.biases), self.settings)

    def extra_repr(self) -> str:
        """Name and settings, for `print(module)`."""
        given = {"biases": self.biases, **self.settings}
        return ", ".join([self.entry.name, *(f"{k}={v}" for k, v in given.items())])


def penalty_names() -> list[str]:
    """Names of all registered penalties, sorted."""
    return sorted(PENALTIES)


def get_penalty(name: str) -> Penalty:
    """The registered penalty of that name.

    Raises:
        ValueError: no such penalty; the message has the nearest name.
    """
    return look_up("penalty", name, PENALTIES)


def build_penalty(name: str, *, biases: bool = False, **settings: Any) -> PenaltyModule:
    """Make a module of a registered penalty.

    Args:
        name: the registered name.
        biases: whether biases and normalisation scales are penalised too.
        settings: the penalty's own parameters.

    Raises:
        ValueError: unknown penalty or parameter, wrong type, or a value out of bounds.
    """
    entry = get_penalty(name)
    biases = convert(f"{name}.biases", bool, biases)
    return PenaltyModule(entry, biases, check_arguments(name, entry.parameters, settings))


@penalty("l1", source="Tibshirani 1996, Regression shrinkage and selection via the lasso")
def l1(parameter: Tensor) -> Tensor:
    r"""Sum of absolute values: :math:`\sum |w|`, with subgradient 0 at 0.

    Args:
        parameter: weights, float [...].
    """
    return parameter.abs()


@penalty("l2", source="Hoerl & Kennard 1970, Ridge regression")
def l2(parameter: Tensor, *, half: bool = False) -> Tensor:
    r"""Sum of squares: :math:`\sum w^2`, or half of it.

    Under SGD a weight of this term of `c` with `half=true` equals `weight_decay=c`; under Adam it
    does not (Loshchilov & Hutter 2019, arXiv:1711.05101).

    Args:
        parameter: weights, float [...].
        half: use :math:`\frac12 \sum w^2`, whose gradient is w.
    """
    return parameter.square() / 2 if half else parameter.square()


@penalty("elastic_net", source="Zou & Hastie 2005, Regularization and variable selection")
def elastic_net(parameter: Tensor, *, l1: NonNegative = 1.0, l2: NonNegative = 1.0) -> Tensor:
    r"""Both penalties: :math:`\lambda_1 \sum |w| + \lambda_2 \sum w^2`.

    Args:
        parameter: weights, float [...].
        l1: factor of the absolute values.
        l2: factor of the squares (without the half).
    """
    return l1 * parameter.abs() + l2 * parameter.square()
