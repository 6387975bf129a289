"""The scale of inputs and targets: columns by the training part, targets in a unit of choice."""

import numpy as np
import torch
from torch import Tensor

from harness.data.split import Array

Scale = tuple[Tensor, Tensor]


def in_units(
    target: Array, scale: Scale, *, standardise: bool = True
) -> tuple[Array, Scale | None]:
    """A standardised regression target in the units it is trained in, and how to get back.

    Args:
        target: in units of its sd over the training part, float [N] or [N, K].
        scale: its mean and sd.
        standardise: leave it so; false gives back the original units, which losses of counts and
            logarithms need.
    """
    if standardise:
        return target, scale
    mean, sd = (part.double().numpy() for part in scale)
    return target * sd + mean, None


def standardised(target: Array, train: Array, names: tuple[str, ...]) -> tuple[Array, Scale]:
    """The target in units of its sd over the rows `train`, and (mean, sd).

    Raises:
        ValueError: it is constant there.
    """
    mean, sd = target[train].mean(0), target[train].std(0)
    constant = np.ptp(target[train], axis=0) == 0
    for each in np.flatnonzero(constant)[:1]:
        raise ValueError(f"target '{names[each]}' is constant in the training part")
    return (target - mean) / sd, (torch.as_tensor(mean).double(), torch.as_tensor(sd).double())


def z_scored(inputs: Array, train: Array) -> Array:
    """Columns with mean 0 and sd 1 over the rows `train`; 0 throughout where constant there."""
    part = inputs[train]
    sd = part.std(0)
    constant = np.ptp(part, axis=0) == 0
    return np.where(constant, 0.0, (inputs - part.mean(0)) / np.where(constant, 1.0, sd))
