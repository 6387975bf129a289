"""Compares a registered loss with a reference written in numpy: values per item, and gradients.

A reference takes (output, target) as float64 and integer arrays with the loss's parameters as
keywords, and gives one unreduced value per item: scores [N, C] with labels [N] or distributions
[N, C], or, for binary losses, arrays of any one shape. Items do not see each other.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from losses import core
from losses.module import build

Reference = Callable[..., np.ndarray]
WEIGHTS = [0.5, 2.0, 1.0, 3.0]
STEP = 1e-6
# Central differences with this step are off by STEP^2 times a third derivative and by rounding,
# 2e-16 / STEP times the value; both stay below this for values up to about 100.
TOLERANCE = 1e-7


def rows(target: np.ndarray, classes: int) -> np.ndarray:
    """Labels [N] as one-hot rows [N, C]; rows stay as they are."""
    return target if target.ndim == 2 else np.eye(classes)[target]


def slopes(
    reference: Reference, output: np.ndarray, target: np.ndarray, **given: Any
) -> np.ndarray:
    """Derivative of each item's value by its own outputs, by central differences."""
    value = reference(output, target, **given)
    if value.shape == output.shape:
        step = np.full_like(output, STEP)
        return _difference(reference, output, step, target, given)
    columns = np.eye(output.shape[1]) * STEP
    return np.stack([_difference(reference, output, c, target, given) for c in columns], 1)


def _difference(
    reference: Reference, output: np.ndarray, step: np.ndarray, target: np.ndarray, given: Any
) -> np.ndarray:
    high = reference(output + step, target, **given)
    low = reference(output - step, target, **given)
    return (high - low) / (2 * STEP)


def examples(name: str, seed: int, items: int = 40) -> list[tuple[np.ndarray, np.ndarray]]:
    """Random outputs (far enough from every kink for the step) with each kind of target."""
    entry, draw = core.get(name), np.random.default_rng(seed)
    output = draw.normal(size=(items, len(WEIGHTS)), scale=3)
    if entry.output_within:
        output = output - np.logaddexp.reduce(output, 1)[:, None]
    if entry.target == "binary":
        return [(output, draw.integers(0, 2, output.shape)), (output, draw.random(output.shape))]
    made = [(output, draw.integers(0, len(WEIGHTS), items))]
    if entry.target != "index":
        soft = draw.dirichlet(np.full(len(WEIGHTS), 0.5), items)
        sparse = np.where(soft < 0.1, 0, soft)  # some classes have a probability of exactly 0
        made += [(output, sparse / sparse.sum(1, keepdims=True))]
    return made


def assert_agrees(
    name: str, reference: Reference, output: np.ndarray, target: np.ndarray, **given: Any
) -> None:
    """The loss's values and gradient are the reference's, for items in a list and in a map."""
    values = reference(output, target, **given)
    gradient = slopes(reference, output, target, **given)
    for as_given in (_same, _map):
        x = as_given(torch.tensor(output)).requires_grad_()
        result = losses_values(name, x, as_given(torch.tensor(target)), given)
        result.sum().backward()
        expected = as_given(torch.tensor(values))
        torch.testing.assert_close(result.detach(), expected, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(
            x.grad, as_given(torch.tensor(gradient)), rtol=TOLERANCE, atol=TOLERANCE
        )


def losses_values(
    name: str, output: torch.Tensor, target: torch.Tensor, given: dict[str, Any]
) -> torch.Tensor:
    """Unreduced values of the module a config would build."""
    return build(name, reduction="none", **given)(output, target)


def _same(items: torch.Tensor) -> torch.Tensor:
    return items


def _map(items: torch.Tensor) -> torch.Tensor:
    """Items [N, ...] as a map of 4 by 5 [N / 20, ..., 4, 5], classes staying in axis 1."""
    folded = items.unflatten(0, (-1, 4, 5))
    return folded.movedim((1, 2), (-2, -1))
