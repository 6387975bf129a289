"""The Hausdorff loss by erosion against scipy's morphology."""

import numpy as np
import pytest
import scipy.special as sp
import torch
from scipy import ndimage

import losses
from losses.conformance import check
from tests.losses.oracle import STEP, TOLERANCE


def hausdorff_er(x, y, alpha=2.0, erosions=10):
    """Of one item, with scipy's filters; beyond the rim lies the rim."""
    error, total = (sp.expit(x) - y) ** 2, 0.0
    cross = ndimage.generate_binary_structure(error.ndim, 1)
    for k in range(1, erosions + 1):
        error = ndimage.grey_erosion(error, footprint=cross, mode="nearest")
        total += k**alpha * error.sum()
    return total / error.size


REFERENCES = {"hausdorff_er": hausdorff_er}
SETTINGS = [{}, {"alpha": 0.5, "erosions": 1}, {"alpha": 3.0, "erosions": 3}]


@pytest.mark.parametrize("shape", [(2, 9), (2, 6, 7), (2, 4, 5, 3)])
@pytest.mark.parametrize("given", SETTINGS)
def test_values_and_gradients_are_the_reference(given, shape):
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=shape, scale=3), draw.random(shape)

    def referred(x):
        return np.array([hausdorff_er(*item, **given) for item in zip(x, y, strict=True)])

    scores = torch.tensor(x, requires_grad=True)
    values = losses.hausdorff_er(scores, torch.tensor(y), reduction="none", **given).squeeze(1)
    np.testing.assert_allclose(values.detach(), referred(x), rtol=1e-9)
    (gradient,) = torch.autograd.grad(values.sum(), scores)
    for place in np.ndindex(shape[1:]):
        step = np.zeros_like(x)
        step[(slice(None), *place)] = STEP
        slope = (referred(x + step) - referred(x - step)) / (2 * STEP)
        ours = gradient[(slice(None), *place)]
        np.testing.assert_allclose(ours, slope, rtol=TOLERANCE, atol=TOLERANCE)


def square(size, *shape):
    mask = torch.zeros(1, *shape)
    mask[0, 4 : 4 + size, 4 : 4 + size] = 1
    return mask


def sure(mask):
    return 60 * (mask - 0.5)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 9])
def test_of_hard_masks_it_counts_what_is_left_after_each_erosion(size):
    mistake = square(size, 20, 20)
    value = losses.hausdorff_er(sure(mistake), torch.zeros_like(mistake), reduction="sum")
    left = mistake[0].numpy() > 0
    expected = 0.0
    for k in range(1, 11):
        left = ndimage.binary_erosion(left)
        expected += k**2 * left.sum()
    assert value.item() == pytest.approx(expected / 400, rel=1e-6)
    assert (value < 1e-12) == (size < 3)


def test_it_grows_with_the_distance_of_the_boundaries():
    """As the Hausdorff distance and the loss of distances do, with masks of one size."""
    true = square(8, 30, 30)
    moved = [sure(true.roll(shift, 2)) for shift in (0, 2, 4, 6, 8)]
    costs = [losses.hausdorff_er(x, true).item() for x in moved]
    assert max(costs[:2]) < 1e-9  # strips of two are gone after one erosion
    assert costs[1:] == sorted(costs[1:])
    assert costs[-1] > 3 * costs[2]


def test_thick_mistakes_cost_more_than_as_many_thin_ones():
    thick, thin = square(6, 20, 20), torch.zeros(1, 20, 20)
    thin[0, [2, 10], :18] = 1
    assert thin.sum() == thick.sum()
    costs = [losses.hausdorff_er(sure(m), torch.zeros(1, 20, 20)).item() for m in (thick, thin)]
    assert costs[1] < 1e-9 < costs[0]
    everywhere = [losses.bce(sure(m), torch.zeros(1, 20, 20)).item() for m in (thick, thin)]
    assert everywhere[0] == pytest.approx(everywhere[1])


def test_ignored_elements_are_no_mistakes():
    mistake = square(5, 12, 12)
    target = torch.zeros(1, 12, 12).long()
    target[0, 6, 6] = -100  # the middle
    ours = losses.hausdorff_er(sure(mistake), target, reduction="sum")
    error = mistake.clone()
    error[0, 6, 6] = 0
    expected = losses.hausdorff_er(sure(error), torch.zeros(1, 12, 12), reduction="sum")
    assert ours.item() == pytest.approx(expected.item() * 144 / 143, rel=1e-6)


@pytest.mark.parametrize("given", SETTINGS[1:])
def test_other_settings_conform(given):
    assert [f for f in check("hausdorff_er", **given) if f.verdict == "fail"] == []
