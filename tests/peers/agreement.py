"""Comparing a loss with another library's: the same value, and the same gradient."""

import importlib
import warnings
from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import Tensor

Formula = Callable[..., Tensor]


def library(name: str) -> ModuleType:
    """The library, or the whole file is skipped; what its import warns of is its own affair."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(name)
        except ImportError as error:
            pytest.skip(f"needs extras 'peers', 'references': {error}", allow_module_level=True)


def sloped(formula: Formula, output: Tensor, *others: Tensor) -> tuple[Tensor, Tensor]:
    """Value of a scalar formula, and its gradient by the output."""
    output = output.detach().clone().requires_grad_()
    value = formula(output, *others)
    return value.detach(), torch.autograd.grad(value, output)[0]


def agree(ours: Formula, theirs: Formula, *inputs: Tensor, tolerance: float = 1e-9) -> None:
    """Same value and gradient, to a relative and absolute tolerance: by default of float64 sums."""
    for mine, other in zip(sloped(ours, *inputs), sloped(theirs, *inputs), strict=True):
        torch.testing.assert_close(
            mine, other.reshape(mine.shape), rtol=tolerance, atol=tolerance, check_dtype=False
        )


def images(*shape: int) -> Tensor:
    """Scores of a few images in float64, from a fixed seed: any will do."""
    generator = torch.Generator().manual_seed(0)
    return 2 * torch.randn(shape, generator=generator, dtype=torch.float64)


def labels(classes: int, *shape: int) -> Tensor:
    """Class indices, from a fixed seed; every item has every class in its first elements."""
    made = torch.randint(classes, shape, generator=torch.Generator().manual_seed(1))
    if len(shape) > 1:
        made.flatten(1)[:, :classes] = torch.arange(classes)
    return made
