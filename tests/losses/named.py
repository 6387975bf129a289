"""Compares a loss of named fields with a reference written in numpy: values, and gradients.

A reference takes the fields as arrays in the loss's order, with its parameters as keywords, and
gives the unreduced values. Items do not see each other.
"""

import numpy as np
import torch

from losses import core
from losses.conformance.fields import learnt
from losses.module import build

STEP = 1e-6
# Central differences with this step are off by STEP^2 times a third derivative and by rounding,
# 2e-16 / STEP times the value; both stay below this for sums of values up to about 1000.
TOLERANCE = 1e-6


def draw(name, seed=5):
    """Fields such as the loss takes."""
    return core.get(name).example(torch.Generator().manual_seed(seed))


def assert_agrees(name, reference, *fields, **given):
    """The values are the reference's, and so is the gradient of their sum in each field."""
    places = learnt(core.get(name), fields)
    arrays = [field.numpy() for field in fields]
    leaves = [f.clone().requires_grad_() if i in places else f for i, f in enumerate(fields)]
    values = build(name, reduction="none", **given)(*leaves)
    expected = torch.as_tensor(reference(*arrays, **given))
    torch.testing.assert_close(values.detach(), expected, rtol=1e-9, atol=1e-12)
    slopes = torch.autograd.grad(values.sum(), [leaves[i] for i in places])
    for i, slope in zip(places, slopes, strict=True):
        difference = torch.as_tensor(_slope(reference, arrays, i, given))
        torch.testing.assert_close(slope, difference, rtol=TOLERANCE, atol=TOLERANCE)


def _slope(reference, arrays, place, given):
    slope = np.zeros_like(arrays[place])
    for index in np.ndindex(slope.shape):
        ends = []
        for step in (STEP, -STEP):
            moved = [array.copy() for array in arrays]
            moved[place][index] += step
            ends.append(reference(*moved, **given).sum())
        slope[index] = (ends[0] - ends[1]) / (2 * STEP)
    return slope
