"""Unified focal losses against numpy, element by element, and against what they contain."""

import math

import numpy as np
import pytest
import scipy.special as sp
import torch

import losses
from losses.conformance import check
from tests.losses.oracle import STEP, TOLERANCE


def focal_of(p, y, delta, gammas):
    total = 0.0
    for pi, yi in zip(p, y, strict=True):
        total -= delta * yi * (1 - pi) ** gammas[0] * math.log(pi)
        total -= (1 - delta) * (1 - yi) * pi ** gammas[1] * math.log(1 - pi)
    return total / len(p)


def tversky_of(p, y, delta, smooth):
    """With delta on what is missed."""
    tp, fn, fp = sum(p * y), sum((1 - p) * y), sum(p * (1 - y))
    return 1 - (tp + smooth) / (tp + delta * fn + (1 - delta) * fp + smooth)


def unified_focal(p, y, share=0.5, delta=0.6, gamma=0.5, smooth=1.0):
    errors = [tversky_of(*sides, delta, smooth) for sides in ((p, y), (1 - p, 1 - y))]
    regions = np.mean([error ** (1 - gamma) for error in errors])
    return share * focal_of(p, y, delta, (gamma, gamma)) + (1 - share) * regions


def asymmetric_unified_focal(p, y, share=0.5, delta=0.6, gamma=0.5, smooth=1.0):
    mask, background = (tversky_of(*s, delta, smooth) for s in ((p, y), (1 - p, 1 - y)))
    regions = (mask ** (1 - gamma) + background) / 2
    return share * focal_of(p, y, delta, (0, gamma)) + (1 - share) * regions


REFERENCES = {
    "unified_focal": unified_focal,
    "asymmetric_unified_focal": asymmetric_unified_focal,
}
SETTINGS = [
    {},
    {"share": 0.2, "delta": 0.9, "gamma": 0.25},
    {"share": 1.0, "gamma": 0.0},
    {"share": 0.0, "smooth": 0.01},
]


def data(seed=0, items=4, elements=12, soft=False):
    """Scores and masks [N, H, W]; the last mask is empty and the one before it full."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(items, elements // 3, 3), scale=2)
    y = draw.random(x.shape) if soft else draw.integers(0, 2, x.shape).astype(float)
    y[-2], y[-1] = 1, 0
    return x, y


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("given", SETTINGS)
@pytest.mark.parametrize("name", REFERENCES)
def test_values_and_gradients_are_the_reference(name, given, soft):
    x, y = data(soft=soft)

    def referred(x):
        pairs = zip(sp.expit(x), y, strict=True)
        return np.array([REFERENCES[name](p.ravel(), m.ravel(), **given) for p, m in pairs])

    scores = torch.tensor(x, requires_grad=True)
    values = losses.build(name, reduction="none", **given)(scores, torch.tensor(y)).squeeze(1)
    np.testing.assert_allclose(values.detach(), referred(x), rtol=1e-9)
    (gradient,) = torch.autograd.grad(values.sum(), scores)
    for place in np.ndindex(x.shape[1:]):
        step = np.zeros_like(x)
        step[(slice(None), *place)] = STEP
        slope = (referred(x + step) - referred(x - step)) / (2 * STEP)
        ours = gradient[(slice(None), *place)]
        np.testing.assert_allclose(ours, slope, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("name", REFERENCES)
def test_ignored_elements_are_left_out(name):
    x, y = (torch.tensor(part).flatten(1) for part in data())
    marked = torch.cat([y, torch.full((4, 5), -100.0)], 1).long()
    ours = losses.build(name)(torch.cat([x, torch.full((4, 5), 3.0)], 1), marked)
    torch.testing.assert_close(ours, losses.build(name)(x, y))


def tensors():
    return tuple(torch.tensor(part) for part in data())


def test_its_first_part_is_the_focal_loss():
    x, y = tensors()
    ours = losses.unified_focal(x, y, share=1.0, delta=0.7, gamma=0.4)
    torch.testing.assert_close(ours, losses.binary_focal(x, y, gamma=0.4, alpha=0.7))


def test_its_second_part_is_the_focal_tversky_loss_of_mask_and_background():
    x, y = tensors()
    given = {"fp_weight": 0.3, "fn_weight": 0.7, "exponent": 0.6, "reduction": "none"}
    sides = [losses.binary_focal_tversky(*side, **given) for side in ((x, y), (-x, 1 - y))]
    ours = losses.unified_focal(x, y, share=0.0, delta=0.7, gamma=0.4, reduction="none")
    torch.testing.assert_close(ours, sum(sides) / 2)


def test_without_focusing_both_are_cross_entropy_and_dice():
    x, y = tensors()
    given = {"delta": 0.5, "gamma": 0.0}
    symmetric = losses.unified_focal(x, y, **given)
    torch.testing.assert_close(losses.asymmetric_unified_focal(x, y, **given), symmetric)
    dice = [losses.binary_dice(*s, smooth=2.0) for s in ((x, y), (-x, 1 - y))]
    torch.testing.assert_close(symmetric, losses.bce(x, y) / 4 + sum(dice) / 4)


def test_only_the_asymmetric_one_keeps_the_gradient_of_easy_elements_of_a_mask():
    x, y = torch.full((1, 4), 3.0, requires_grad=True), torch.ones(1, 4)
    slopes = [
        torch.autograd.grad(losses.build(name, share=1.0)(x, y), x)[0].abs().sum()
        for name in REFERENCES
    ]
    assert slopes[0] < 0.5 * slopes[1]


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize(
    ("given", "lost"),
    [
        ({"share": 1.0, "gamma": 0.0, "delta": 0.9}, set()),
        ({"gamma": 0.9, "smooth": 0.01}, set()),
        ({"share": 0.0}, {"wrong and confident"}),  # Tversky's alone, which saturates
    ],
)
def test_other_settings_conform(name, given, lost):
    assert {f.property for f in check(name, **given) if f.verdict == "fail"} == lost


def test_a_strength_of_1_is_refused():
    with pytest.raises(ValueError, match=r"unified_focal.gamma must be >= 0 and < 1, got 1"):
        losses.build("unified_focal", gamma=1.0)
