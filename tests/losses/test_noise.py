"""Losses for wrong labels against numpy and scipy, their limits, and their robustness."""

import math

import numpy as np
import pytest
import scipy.optimize
import scipy.special as sp
import torch

import losses
from losses.noise import _tempered_log_softmax
from tests.losses.oracle import assert_agrees, examples


def gce(x, y, q=0.7):
    return np.array([(1 - p[t] ** q) / q for p, t in zip(sp.softmax(x, 1), y, strict=True)])


def symmetric_ce(x, y, alpha=0.1, beta=1.0, log_zero=-4.0):
    values = []
    for p, t in zip(sp.softmax(x, 1), y, strict=True):
        log_label = [0.0 if c == t else log_zero for c in range(len(p))]
        reverse = -sum(p[c] * log_label[c] for c in range(len(p)))
        values.append(-alpha * math.log(p[t]) + beta * reverse)
    return np.array(values)


def tempered_softmax(row, t):
    """Normalised by bracketing; the sum falls in the normaliser, from above 1 to below."""
    if t == 1:
        return sp.softmax(row)
    gaps = row.max() - row

    def q(shift):
        return (1 + (t - 1) * (gaps + shift)) ** (-1 / (t - 1))

    most = (len(row) ** (t - 1) - 1) / (t - 1)  # of a row of equal scores
    shift = scipy.optimize.brentq(lambda s: q(s).sum() - 1, 0, most + 1, xtol=1e-15, rtol=1e-15)
    return q(shift)


def tempered_log(z, t):
    return np.log(z) if t == 1 else (z ** (1 - t) - 1) / (1 - t)


def bi_tempered(x, y, t1=0.8, t2=1.2):
    """The paper's divergence, as a sum over classes of the label's row and the model's."""
    values = []
    for row, label in zip(x, y, strict=True):
        total = 0.0
        for c, p in enumerate(tempered_softmax(row, t2)):
            own = 1.0 if c == label else 0.0
            gained = own * (tempered_log(own, t1) - tempered_log(p, t1)) if own else 0.0
            total += gained - (own ** (2 - t1) - p ** (2 - t1)) / (2 - t1)
        values.append(total)
    return np.array(values)


REFERENCES = {"gce": gce, "symmetric_ce": symmetric_ce, "bi_tempered": bi_tempered}
CASES = [
    *[(name, {}) for name in REFERENCES],
    ("gce", {"q": 0.05}),
    ("gce", {"q": 1.0}),
    ("symmetric_ce", {"alpha": 6.0, "beta": 0.1, "log_zero": -9.0}),
    ("bi_tempered", {"t1": 1.0, "t2": 1.0}),
    ("bi_tempered", {"t1": 0.0, "t2": 1.0}),
    ("bi_tempered", {"t1": 1.0, "t2": 4.0}),
    ("bi_tempered", {"t1": 0.3, "t2": 2.0}),
]


@pytest.mark.parametrize(("name", "given"), CASES)
def test_values_and_gradients_are_the_reference(name, given):
    for output, target in examples(name, seed=5):
        assert_agrees(name, REFERENCES[name], output, target, **given)


def draw(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def data():
    return 3 * draw(30, 4), torch.arange(30) % 4


# Limits


def test_gce_lies_between_cross_entropy_and_the_absolute_error():
    x, y = data()
    # (1 - p^q) / q is -log p + q (log p)^2 / 2 at first; the squares here are below 1000.
    near = losses.gce(x, y, q=1e-9)
    torch.testing.assert_close(near, losses.cross_entropy(x, y), rtol=1e-6, atol=0)
    p = x.softmax(1).gather(1, y.unsqueeze(1)).mean()
    torch.testing.assert_close(losses.gce(x, y, q=1.0), 1 - p)


def test_symmetric_ce_is_poly1_of_another_name():
    x, y = data()
    ours = losses.symmetric_ce(x, y, alpha=0.5, beta=2.0, log_zero=-3.0)
    torch.testing.assert_close(ours, 0.5 * losses.poly1(x, y, epsilon=12.0))
    alone = losses.symmetric_ce(x, y, alpha=1.0, beta=0.0)
    torch.testing.assert_close(alone, losses.cross_entropy(x, y))


def test_bi_tempered_at_one_and_one_is_cross_entropy_and_comes_to_it():
    x, y = data()
    expected = losses.cross_entropy(x, y)
    torch.testing.assert_close(losses.bi_tempered(x, y, t1=1.0, t2=1.0), expected)
    for t1, t2 in ((1.0, 1 + 1e-8), (1 - 1e-8, 1.0), (1 - 1e-8, 1 + 1e-8)):
        near = losses.bi_tempered(x, y, t1=t1, t2=t2)
        # As for gce, the difference is about 1e-8 times squares of log p and of scores.
        torch.testing.assert_close(near, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ["gce", "bi_tempered"])
def test_bounded_losses_stay_below_their_bound(name):
    given, bound = {"gce": ({"q": 0.7}, 1 / 0.7), "bi_tempered": ({"t1": 0.8}, 1 / 0.2)}[name]
    x = torch.tensor([[0.0, distance] for distance in (1.0, 1e2, 1e4, 1e8)])
    values = losses.build(name, reduction="none", **given)(x, torch.zeros(4, dtype=torch.long))
    assert (values.diff() >= 0).all()
    assert (values <= bound).all()
    assert values[-1] > 0.8 * bound


def test_symmetric_noise_leaves_the_absolute_error_its_order():
    """Summed over all labels it is C - 1 whatever the scores, which is why noise cannot move it."""
    x = data()[0]
    total = sum(losses.gce(x, torch.full((30,), t), q=1.0) for t in range(4))
    assert total.item() == pytest.approx(3)
    plain = sum(losses.cross_entropy(x, torch.full((30,), t), reduction="none") for t in range(4))
    assert plain.std() > 1


# The normaliser


@pytest.mark.parametrize("t", [1 + 1e-6, 1.05, 1.2, 2.0, 4.0, 10.0])
def test_a_tempered_softmax_sums_to_one_and_has_the_normalisers_gradient(t):
    for classes in (1, 2, 10, 10_000):
        gaps = torch.tensor([0.0, 0.01, 1.0, 30.0, 1e3, 1e6], dtype=torch.float64)
        x = (gaps.unsqueeze(1) * -draw(6, classes).abs()).requires_grad_()
        q = _tempered_log_softmax(x, t).exp()
        torch.testing.assert_close(q.sum(1), torch.ones(6).double(), rtol=0, atol=1e-12)
        (slope,) = torch.autograd.grad(q.square().sum(), x)
        weight = q**t / (q**t).sum(1, keepdim=True)  # d lambda / dx, from the sum being 1
        along = 2 * q ** (1 + t)
        expected = along - along.sum(1, keepdim=True) * weight
        torch.testing.assert_close(slope, expected.detach(), rtol=1e-9, atol=1e-12)


def test_few_scores_far_above_many_are_normalised_too():
    """The slowest case for Newton: the sum is that of the few at 0 and of the many at the root."""
    gaps = torch.logspace(-2, 7, 40, dtype=torch.float64).unsqueeze(1)
    x = -gaps.repeat(1, 3000)
    x[:, :3] = 0
    for t in (1.5, 2.0, 3.0, 5.0):
        total = _tempered_log_softmax(x, t).exp().sum(1)
        torch.testing.assert_close(total, torch.ones(40).double(), rtol=0, atol=1e-12)


def test_the_tail_is_a_power():
    """Far below the rest, exp_t of -d is ((t - 1) d)^(-1 / (t - 1)): times 10, 10^5 less at 1.2."""
    x = torch.tensor([[0.0, -1e6], [0.0, -1e7]], dtype=torch.float64)
    log_q = _tempered_log_softmax(x, 1.2)[:, 1]
    assert (log_q[0] - log_q[1]).item() == pytest.approx(5 * math.log(10), rel=1e-5)
