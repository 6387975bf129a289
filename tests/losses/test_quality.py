"""Losses of dense detectors against numpy, their relatives, and where they are least."""

import math

import numpy as np
import pytest
import scipy.special as sp
import torch

import losses
from tests.losses.oracle import TOLERANCE, assert_agrees, examples, slopes


def quality_focal(x, q, beta=2.0):
    p = sp.expit(x)
    return -(abs(q - p) ** beta) * (q * sp.log_expit(x) + (1 - q) * sp.log_expit(-x))


def varifocal(x, q, alpha=0.75, gamma=2.0):
    p = sp.expit(x)
    positive = -q * (q * sp.log_expit(x) + (1 - q) * sp.log_expit(-x))
    return np.where(q > 0, positive, -alpha * p**gamma * sp.log_expit(-x))


def distribution_focal(x, y):
    values = []
    for row, place in zip(x, y, strict=True):
        s = sp.softmax(row)
        i = min(math.floor(place), len(row) - 2)
        values.append(-(i + 1 - place) * math.log(s[i]) - (place - i) * math.log(s[i + 1]))
    return np.array(values)


REFERENCES = {
    "quality_focal": quality_focal,
    "varifocal": varifocal,
    "distribution_focal": distribution_focal,
}
CASES = [
    ("quality_focal", {}),
    ("quality_focal", {"beta": 1.0}),
    ("quality_focal", {"beta": 3.5}),
    ("varifocal", {}),
    ("varifocal", {"alpha": 2.0, "gamma": 0.5}),
    ("varifocal", {"gamma": 0.0}),
]


@pytest.mark.parametrize(("name", "given"), CASES)
def test_values_and_gradients_are_the_reference(name, given):
    for output, target in examples(name, seed=6):
        assert_agrees(name, REFERENCES[name], output, target, **given)


def places(items=40, bins=5, seed=0):
    draw = np.random.default_rng(seed)
    y = draw.uniform(0, bins - 1, items)
    y[:bins] = range(bins)  # each bin itself, the first and the last among them
    return draw.normal(size=(items, bins), scale=3), y


@pytest.mark.parametrize("items", [(), (4, 5)])
def test_distribution_focal_is_the_reference(items):
    x, y = places()
    expected, slope = distribution_focal(x, y), slopes(distribution_focal, x, y)

    def fold(t):
        """Items [40, ...] as they are or as maps [2, ..., 4, 5], bins staying in axis 1."""
        t = torch.tensor(t)
        return t.unflatten(0, (2, *items)).movedim((1, 2), (-2, -1)) if items else t

    scores = fold(x).requires_grad_()
    values = losses.distribution_focal(scores, fold(y), reduction="none")
    values.sum().backward()
    torch.testing.assert_close(values.detach(), fold(expected))
    torch.testing.assert_close(scores.grad, fold(slope), rtol=TOLERANCE, atol=TOLERANCE)


def draw(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("power", [1.0, 2.0, 3.5])
def test_hard_qualities_are_binary_focal(power):
    x = 10 * draw(50)
    y = torch.arange(50) % 2
    focal = losses.binary_focal(x, y, gamma=power, reduction="none")
    ours = losses.quality_focal(x, y, beta=power, reduction="none")
    torch.testing.assert_close(ours, focal, rtol=1e-10, atol=1e-14)
    negatives = losses.varifocal(x, 0 * y, alpha=1.0, gamma=power)
    torch.testing.assert_close(negatives, losses.binary_focal(x, 0 * y, gamma=power))


def test_hard_positives_of_varifocal_are_cross_entropy():
    x, one = draw(50), torch.ones(50)
    torch.testing.assert_close(losses.varifocal(x, one), losses.bce(x, one))
    torch.testing.assert_close(
        losses.varifocal(x, 0 * one, alpha=1.0, gamma=0.0), losses.bce(x, 0 * one)
    )


@pytest.mark.parametrize("name", ["quality_focal", "varifocal"])
def test_the_optimum_is_the_quality(name):
    q = torch.tensor([0.02, 0.3, 0.5, 0.9], dtype=torch.float64)
    x = q.logit().requires_grad_()
    value = losses.build(name, reduction="none")(x, q)
    value.sum().backward()
    torch.testing.assert_close(x.grad, torch.zeros_like(q), rtol=0, atol=1e-15)
    entropy = torch.special.entr(q) + torch.special.entr(1 - q)
    least = {"quality_focal": 0 * q, "varifocal": q * entropy}[name]
    torch.testing.assert_close(value.detach(), least, rtol=1e-9, atol=1e-15)


def test_quality_focal_refuses_powers_with_an_infinite_gradient():
    with pytest.raises(ValueError, match=r"quality_focal.beta must be >= 1, got 0.5"):
        losses.build("quality_focal", beta=0.5)


def test_distribution_focal_is_cross_entropy_with_the_two_nearest_bins():
    x, y = (torch.tensor(part) for part in places())
    bins = torch.arange(5)
    shares = (1 - (y.unsqueeze(1) - bins).abs()).clamp(min=0)
    torch.testing.assert_close(losses.distribution_focal(x, y), losses.cross_entropy(x, shares))
    whole = y[:5].long()
    ours = losses.distribution_focal(x[:5], whole)
    torch.testing.assert_close(ours, losses.cross_entropy(x[:5], whole))


def test_the_mean_of_the_best_distribution_is_the_number():
    y = torch.tensor([0.0, 0.25, 1.9, 3.0], dtype=torch.float64)
    shares = (1 - (y.unsqueeze(1) - torch.arange(4)).abs()).clamp(min=0)
    x = shares.clamp(min=1e-30).log().requires_grad_()
    losses.distribution_focal(x, y).backward()
    assert x.grad.abs().max() < 1e-15
    torch.testing.assert_close(losses.get("distribution_focal").point(x), y)


def test_places_outside_the_bins_are_refused():
    x = torch.zeros(2, 4)
    for place in (-0.1, 3.1, float("nan")):
        with pytest.raises(ValueError, match=r"distribution_focal needs places from 0 to 3, got"):
            losses.distribution_focal(x, torch.tensor([1.0, place]))
    with pytest.raises(ValueError, match=r"needs output \[N, K, ...\] and target \[N, ...\]; got"):
        losses.distribution_focal(x, torch.zeros(2, 4))
