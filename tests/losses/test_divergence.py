"""Divergences against numpy and scipy."""

import math

import numpy as np
import pytest
import scipy.spatial.distance
import scipy.special as sp
import torch
from torch.nn import functional as F

import losses
from tests.losses.oracle import assert_agrees, examples, rows


def divergence(p, q):
    return sp.rel_entr(p, q).sum(1)


def both(x, y, smoothing=0.0):
    """The target's distribution, smoothed, and the model's."""
    p = rows(y, x.shape[1])
    return (1 - smoothing) * p + smoothing / x.shape[1], sp.softmax(x, 1)


def kl(x, y):
    p, q = both(x, y)
    return divergence(p, q)


def reverse_kl(x, y, smoothing=0.01):
    p, q = both(x, y, smoothing)
    return divergence(q, p)


def jeffreys(x, y, smoothing=0.01):
    p, q = both(x, y, smoothing)
    return divergence(p, q) + divergence(q, p)


def jensen_shannon(x, y):
    p, q = both(x, y)
    middle = (p + q) / 2
    return (divergence(p, middle) + divergence(q, middle)) / 2


def skew(p, q, alpha):
    return divergence(p, alpha * q + (1 - alpha) * p)


def skew_kl(x, y, alpha=0.5):
    return skew(*both(x, y), alpha)


def skew_js(x, y, alpha=0.5):
    p, q = both(x, y)
    return (skew(p, q, alpha) + skew(q, p, alpha)) / 2


REFERENCES = {
    "kl": kl,
    "reverse_kl": reverse_kl,
    "jeffreys": jeffreys,
    "jensen_shannon": jensen_shannon,
    "skew_kl": skew_kl,
    "skew_js": skew_js,
}
CASES = [
    *[(name, {}) for name in REFERENCES],
    ("reverse_kl", {"smoothing": 0.3}),
    ("jeffreys", {"smoothing": 1e-6}),
    ("skew_kl", {"alpha": 0.99}),
    ("skew_kl", {"alpha": 1.0}),
    ("skew_js", {"alpha": 0.1}),
    ("skew_js", {"alpha": 0.99}),
]


@pytest.mark.parametrize(("name", "given"), CASES)
def test_values_and_gradients_are_the_reference(name, given):
    for output, target in examples(name, seed=3):
        assert_agrees(name, REFERENCES[name], output, target, **given)


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(shape, dtype=torch.float64, generator=generator)


def pair():
    """Logits and a positive distribution [N, C]."""
    return draw(30, 4), draw(30, 4, seed=1).softmax(1)


def test_kl_is_torchs_batchmean():
    x, p = pair()
    expected = F.kl_div(x.log_softmax(1), p, reduction="batchmean")
    torch.testing.assert_close(losses.kl(x, p), expected)


def test_kl_is_cross_entropy_less_the_targets_entropy():
    x, p = pair()
    entropy = torch.special.entr(p).sum(1).mean()
    torch.testing.assert_close(losses.kl(x, p), losses.cross_entropy(x, p) - entropy)
    y = torch.arange(30) % 4
    torch.testing.assert_close(losses.kl(x, y), losses.cross_entropy(x, y))


def test_jensen_shannon_is_the_square_of_scipys_distance():
    x, p = pair()
    q = x.softmax(1)
    expected = scipy.spatial.distance.jensenshannon(p.numpy(), q.numpy(), axis=1) ** 2
    values = losses.jensen_shannon(x, p, reduction="none")
    np.testing.assert_allclose(values.numpy(), expected, rtol=1e-9)


def test_relations_between_divergences():
    x, p = pair()
    torch.testing.assert_close(losses.skew_js(x, p, alpha=0.5), losses.jensen_shannon(x, p))
    torch.testing.assert_close(losses.skew_kl(x, p, alpha=1.0), losses.kl(x, p))
    nearly = {"smoothing": 1e-12}
    half = losses.jeffreys(x, p, **nearly) / 2
    # rtol: the shares of 1e-12 left of the mixture and of the smoothing, over the least
    # probability here, about 1e-6.
    torch.testing.assert_close(losses.skew_js(x, p, alpha=1 - 1e-12), half, rtol=1e-6, atol=0)
    directions = losses.kl(x, p) + losses.reverse_kl(x, p, **nearly)
    torch.testing.assert_close(2 * half, directions, rtol=1e-6, atol=0)


def test_symmetric_divergences_do_not_mind_the_order():
    x, p = pair()
    q = x.softmax(1)
    for name, given in (
        ("jensen_shannon", {}),
        ("skew_js", {"alpha": 0.8}),
        ("jeffreys", {"smoothing": 1e-12}),
    ):
        module = losses.build(name, **given)
        torch.testing.assert_close(module(x, p), module(p.log(), q), rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", REFERENCES)
def test_the_optimum_is_the_target(name):
    """Zero value and gradient where q is p, as far as float64 goes; p is smoothed alike first."""
    p = draw(5, 4).softmax(1)
    smoothing = losses.get(name).parameters.get("smoothing")
    share = smoothing.default if smoothing else 0
    x = ((1 - share) * p + share / 4).log().requires_grad_()
    value = losses.build(name)(x, p)
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-15)
    assert x.grad.abs().max().item() == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("distance", [50.0, 1e4])
def test_bounds_where_model_and_label_are_disjoint(distance):
    x = torch.tensor([[distance, 0.0, 0.0]], requires_grad=True)
    y = torch.tensor([1])
    expected = {
        "kl": distance,
        "jensen_shannon": math.log(2),
        "skew_kl": math.log(2),
        "skew_js": math.log(2),
        "reverse_kl": -math.log(0.01 / 3),
    }
    for name, value in expected.items():
        result = losses.build(name)(x, y)
        assert result.item() == pytest.approx(value, rel=1e-6)
        (slope,) = torch.autograd.grad(result, x)
        assert slope.isfinite().all()


@pytest.mark.parametrize("name", ["reverse_kl", "jeffreys"])
def test_what_would_be_infinite_must_be_smoothed(name):
    with pytest.raises(ValueError, match=rf"{name}.smoothing must be > 0 and <= 1, got 0.0"):
        losses.build(name, smoothing=0.0)
