"""Losses of margins against numpy, torch and scikit-learn."""

import math

import numpy as np
import pytest
import sklearn.metrics
import torch
from torch.nn import functional as F

import losses
from tests.losses.oracle import WEIGHTS, assert_agrees, examples


def signed(y):
    return 2 * y - 1


def mixed(loss_of_margin, x, y):
    """Expected value under the label's probability, from a function of the signed score."""
    return y * loss_of_margin(x) + (1 - y) * loss_of_margin(-x)


def hinge(x, y, margin=1.0):
    return mixed(lambda s: np.maximum(0, margin - s), x, y)


def squared_hinge(x, y, margin=1.0):
    return mixed(lambda s: np.maximum(0, margin - s) ** 2, x, y)


def soft_margin(x, y):
    return mixed(lambda s: np.log1p(np.exp(-s)), x, y)


def binary_perceptron(x, y):
    return mixed(lambda s: np.maximum(0, -s), x, y)


def multilabel_hinge(x, y, margin=1.0):
    return hinge(x, y, margin).sum(1)


def rivals(row, label):
    return [score for c, score in enumerate(row) if c != label]


def perceptron(x, y, class_weight=None):
    weight = np.ones(x.shape[1]) if class_weight is None else class_weight
    return np.array([weight[t] * (max(row) - row[t]) for row, t in zip(x, y, strict=True)])


def multiclass_hinge(x, y, margin=1.0, power=1, mean_over_classes=False, class_weight=None):
    weight = np.ones(x.shape[1]) if class_weight is None else class_weight
    share = x.shape[1] if mean_over_classes else 1
    values = []
    for row, t in zip(x, y, strict=True):
        lacks = [max(0, margin + rival - row[t]) ** power for rival in rivals(row, t)]
        values.append(weight[t] * sum(lacks) / share)
    return np.array(values)


def max_hinge(x, y, margin=1.0, class_weight=None):
    weight = np.ones(x.shape[1]) if class_weight is None else class_weight
    values = []
    for row, t in zip(x, y, strict=True):
        values.append(weight[t] * max(0, margin + max(rivals(row, t)) - row[t]))
    return np.array(values)


REFERENCES = {
    "hinge": hinge,
    "squared_hinge": squared_hinge,
    "soft_margin": soft_margin,
    "binary_perceptron": binary_perceptron,
    "perceptron": perceptron,
    "multiclass_hinge": multiclass_hinge,
    "max_hinge": max_hinge,
    "multilabel_hinge": multilabel_hinge,
}
CASES = [
    *[(name, {}) for name in REFERENCES],
    ("hinge", {"margin": 0.2}),
    ("squared_hinge", {"margin": 2.5}),
    ("multilabel_hinge", {"margin": 2.5}),
    ("perceptron", {"class_weight": WEIGHTS}),
    ("multiclass_hinge", {"power": 2, "margin": 0.5}),
    ("multiclass_hinge", {"mean_over_classes": True, "class_weight": WEIGHTS}),
    ("max_hinge", {"margin": 2.5, "class_weight": WEIGHTS}),
]


@pytest.mark.parametrize(("name", "given"), CASES)
def test_values_and_gradients_are_the_reference(name, given):
    for output, target in examples(name, seed=2):
        assert_agrees(name, REFERENCES[name], output, target, **given)


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(shape, dtype=torch.float64, generator=generator)


def labels(*shape, classes=4, seed=0):
    return torch.randint(classes, shape, generator=torch.Generator().manual_seed(seed))


def test_hinge_is_scikit_learns():
    x, y = draw(40), labels(40, classes=2)
    expected = sklearn.metrics.hinge_loss(y.numpy(), x.numpy())
    assert losses.hinge(x, y).item() == pytest.approx(expected, rel=1e-12)


def test_max_hinge_is_scikit_learns():
    x, y = draw(40, 4), labels(40)
    expected = sklearn.metrics.hinge_loss(y.numpy(), x.numpy(), labels=range(4))
    assert losses.max_hinge(x, y).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("margin", [0.5, 1.0])
@pytest.mark.parametrize("weight", [None, torch.tensor(WEIGHTS).double()])
def test_multiclass_hinge_is_torchs_times_the_classes(power, margin, weight):
    x, y = draw(40, 4).requires_grad_(), labels(40)
    theirs = F.multi_margin_loss(x, y, p=power, margin=margin, weight=weight)
    given = {"power": power, "margin": margin, "class_weight": weight, "normalizer": "count"}
    ours = losses.multiclass_hinge(x, y, **given)
    torch.testing.assert_close(ours, 4 * theirs)
    (our_slope,), (their_slope,) = torch.autograd.grad(ours, x), torch.autograd.grad(theirs, x)
    torch.testing.assert_close(our_slope, 4 * their_slope)
    torch.testing.assert_close(
        losses.multiclass_hinge(x, y, mean_over_classes=True, **given), theirs
    )


def test_two_classes_make_every_multiclass_hinge_the_binary_one():
    x, y = draw(40), labels(40, classes=2)
    pair = torch.stack([-x / 2, x / 2], 1)
    binary = losses.hinge(x, y)
    torch.testing.assert_close(losses.multiclass_hinge(pair, y), binary)
    torch.testing.assert_close(losses.max_hinge(pair, y), binary)
    torch.testing.assert_close(losses.perceptron(pair, y), losses.binary_perceptron(x, y))


def test_a_hinge_without_margin_is_the_perceptron():
    x, y = draw(40, 4), labels(40)
    torch.testing.assert_close(losses.max_hinge(x, y, margin=0), losses.perceptron(x, y))
    yes = labels(40, 4, classes=2)
    torch.testing.assert_close(losses.hinge(x, yes, margin=0), losses.binary_perceptron(x, yes))


def test_soft_margin_is_bce_and_torchs_where_that_is_finite():
    x, y = draw(40), labels(40, classes=2)
    torch.testing.assert_close(losses.soft_margin(x, y), losses.bce(x, y))
    torch.testing.assert_close(losses.soft_margin(x, y), F.soft_margin_loss(x, signed(y).double()))


def test_soft_margin_does_not_overflow():
    x = torch.tensor([-1e4, -100.0, 1e4], requires_grad=True)
    values = losses.soft_margin(x, torch.ones(3), reduction="none")
    values.sum().backward()
    assert values.tolist() == [1e4, 100, 0]
    assert x.grad.tolist() == [-1, -1, 0]


def test_perceptron_lies_below_cross_entropy_by_at_most_log_c():
    """And has no gradient where the answer is right, which is what it gives up."""
    x, y = draw(200, 4).requires_grad_(), labels(200)
    values = losses.perceptron(x, y, reduction="none")
    gap = losses.cross_entropy(x, y, reduction="none") - values
    assert (gap >= 0).all()
    assert (gap <= math.log(4)).all()
    (slope,) = torch.autograd.grad(values.sum(), x)
    right = x.argmax(1) == y
    assert right.any()
    assert (slope[right] == 0).all()
    assert (slope[~right].abs().sum(1) == 2).all()


def test_at_the_kink_hinges_have_no_gradient_and_perceptrons_learn():
    def slope(name, scores, target, **given):
        x = torch.tensor(scores, requires_grad=True)
        losses.build(name, reduction="sum", **given)(x, torch.tensor(target)).backward()
        return x.grad.tolist()

    for name in ("hinge", "squared_hinge"):
        assert slope(name, [1.0, -1.0], [1, 0]) == [0, 0]
    for name in ("multiclass_hinge", "max_hinge"):
        assert slope(name, [[2.0, 1.0, 1.0]], [0]) == [[0, 0, 0]]
    assert slope("binary_perceptron", [0.0, 0.0], [1, 0]) == [-0.5, 0.5]
    assert slope("perceptron", [[0.0, 0.0]], [0]) == [[-0.5, 0.5]]
    assert slope("max_hinge", [[0.0, 0.0, 0.0]], [0]) == [[-1, 0.5, 0.5]]


def test_the_margin_survives_large_scores():
    """1e8 + 1 is 1e8 in float32, so the difference must come before the margin."""
    x, y = torch.tensor([[1e8, 1e8]]), torch.tensor([0])
    assert losses.multiclass_hinge(x, y) == losses.max_hinge(x, y) == 1
