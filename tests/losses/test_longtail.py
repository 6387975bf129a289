"""Losses that know class counts: against numpy, one another, and what they should learn."""

import re

import numpy as np
import pytest
import scipy.special as sp
import torch

import losses
from tests.losses.oracle import WEIGHTS, assert_agrees, examples, rows

COUNTS = [400, 100, 25, 1]


def logit_adjusted(x, y, class_counts, tau=1.0):
    counts = np.asarray(class_counts, dtype=float)
    counts[counts == 0] = counts[counts > 0].min()
    shares = counts / counts.sum()
    values = []
    for scores, target in zip(x, rows(y, x.shape[1]), strict=True):
        raised = shares**tau * np.exp(scores)
        values.append(-(target * np.log(raised / raised.sum())).sum())
    return np.array(values)


def balanced_softmax(x, y, class_counts):
    counts = np.asarray(class_counts, dtype=float)
    counts[counts == 0] = counts[counts > 0].min()
    p = counts * np.exp(x) / (counts * np.exp(x)).sum(1, keepdims=True)
    return -(rows(y, x.shape[1]) * np.log(p)).sum(1)


def ldam(x, y, class_counts, max_margin=0.5, scale=1.0, class_weight=None):
    counts = np.asarray(class_counts, dtype=float)
    counts[counts == 0] = counts[counts > 0].min()
    margins = counts**-0.25  # the constant C of the paper puts the largest at max_margin
    margins *= max_margin / margins.max()
    weight = np.ones(x.shape[1]) if class_weight is None else class_weight
    values = []
    for row, t in zip(x, y, strict=True):
        own = scale * (row[t] - margins[t])
        others = [scale * row[c] for c in range(len(row)) if c != t]
        values.append(weight[t] * (sp.logsumexp([own, *others]) - own))
    return np.array(values)


REFERENCES = {
    "logit_adjusted": logit_adjusted,
    "balanced_softmax": balanced_softmax,
    "ldam": ldam,
}
CASES = [
    *[(name, {}) for name in REFERENCES],
    *[(name, {"class_counts": [5, 0, 3, 0]}) for name in REFERENCES],
    ("logit_adjusted", {"tau": 0.3}),
    ("logit_adjusted", {"tau": 2.0}),
    ("ldam", {"max_margin": 2.0, "class_weight": WEIGHTS}),
    ("ldam", {"scale": 4.0}),
]


@pytest.mark.parametrize(("name", "given"), CASES)
def test_values_and_gradients_are_the_reference(name, given):
    for output, target in examples(name, seed=4):
        assert_agrees(name, REFERENCES[name], output, target, **{"class_counts": COUNTS} | given)


def draw(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def data():
    return 3 * draw(30, 4), torch.arange(30) % 4


def test_balanced_softmax_is_logit_adjustment_at_one():
    x, y = data()
    adjusted = losses.logit_adjusted(x, y, class_counts=COUNTS, tau=1.0)
    torch.testing.assert_close(losses.balanced_softmax(x, y, class_counts=COUNTS), adjusted)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("logit_adjusted", {"tau": 0.0, "class_counts": COUNTS}),
        ("logit_adjusted", {"class_counts": [7, 7, 7, 7]}),
        ("balanced_softmax", {"class_counts": [7, 7, 7, 7]}),
        ("ldam", {"max_margin": 0.0, "class_counts": COUNTS}),
    ],
)
def test_without_imbalance_or_strength_it_is_cross_entropy(name, given):
    x, y = data()
    torch.testing.assert_close(losses.build(name, **given)(x, y), losses.cross_entropy(x, y))


@pytest.mark.parametrize("name", REFERENCES)
def test_counts_matter_in_proportion_only(name):
    x, y = data()
    by_count = losses.build(name, class_counts=COUNTS)(x, y)
    shares = [count / sum(COUNTS) for count in COUNTS]
    torch.testing.assert_close(losses.build(name, class_counts=shares)(x, y), by_count)


def test_margins_are_the_fourth_root_of_the_imbalance():
    """Two classes at a distance: the loss is log(1 + e^-(distance - margin))."""
    x = torch.zeros(2, 2, dtype=torch.float64)
    values = losses.ldam(
        x, torch.tensor([0, 1]), class_counts=[16, 1], max_margin=0.5, reduction="none"
    )
    margins = torch.log(torch.expm1(values))
    torch.testing.assert_close(margins, torch.tensor([0.25, 0.5]).double())


def test_adjustment_at_one_learns_balanced_scores():
    """Trained on shares of the classes, scores without a feature end up all equal."""
    counts = torch.tensor(COUNTS).double()
    target = (counts / counts.sum()).expand(1, 4)
    plain = torch.zeros(1, 4, dtype=torch.float64)
    for tau, best in ((1.0, plain), (0.0, target.log()), (0.5, target.log() / 2)):
        x = best.clone().requires_grad_()
        losses.logit_adjusted(x, target, class_counts=COUNTS, tau=tau).backward()
        torch.testing.assert_close(x.grad, plain, rtol=0, atol=1e-15)


@pytest.mark.parametrize("name", REFERENCES)
def test_a_class_without_items_gives_finite_losses(name):
    x = data()[0].float().requires_grad_()
    losses.build(name, class_counts=[1000, 0, 10, 0])(x, torch.full((30,), 3)).backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("name", REFERENCES)
def test_counts_must_be_given_and_be_counts(name):
    x, y = data()
    missing = f"{name}.class_counts: pass the number of items of each class"
    for attempt in (
        lambda: losses.build(name),
        lambda: losses.build(name, class_counts="data"),
        lambda: getattr(losses, name)(x, y),
    ):
        with pytest.raises(ValueError, match=re.escape(missing)):
            attempt()
    for empty in ([0, 0, 0, 0], torch.zeros(4), torch.tensor([1.0, float("inf"), 1, 1])):
        with pytest.raises(ValueError, match=rf"{name}.class_counts must be finite, >= 0, and"):
            losses.build(name, class_counts=empty)
    with pytest.raises(ValueError, match=rf"{name}.class_counts must be a list with the number"):
        losses.build(name, class_counts=[1.0, -1.0, 1.0, 1.0])
    with pytest.raises(ValueError, match=rf"{name}.class_counts needs one number per class, 4 "):
        losses.build(name, class_counts=[1, 2, 3])(x, y)
