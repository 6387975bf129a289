"""Losses of ordered classes against numpy loops, and the distributions that they fit."""

import math

import numpy as np
import pytest
import scipy.special as sp
import torch

import losses
from tests.losses.oracle import assert_agrees

CLASSES = 5


def corn(x, y):
    values = []
    for row, t in zip(x, y, strict=True):
        total = 0.0
        for k, logit in enumerate(row):
            if t > k - 1:  # only then is the question asked
                total -= sp.log_expit(logit) if t > k else sp.log_expit(-logit)
        values.append(total)
    return np.array(values)


def coral(x, y):
    values = []
    for row, t in zip(x, y, strict=True):
        s = 1 / (1 + np.exp(-row))
        values.append(-sum(math.log(s[k] if t > k else 1 - s[k]) for k in range(len(row))))
    return np.array(values)


REFERENCES = {"corn": corn, "coral": coral}


def data(items=40, seed=0):
    draw = np.random.default_rng(seed)
    return draw.normal(size=(items, CLASSES - 1), scale=3), draw.integers(0, CLASSES, items)


def tensors(items=40):
    return tuple(torch.tensor(part) for part in data(items))


@pytest.mark.parametrize("name", REFERENCES)
def test_values_and_gradients_are_the_reference(name):
    assert_agrees(name, REFERENCES[name], *data())


def test_corn_divides_by_the_questions_asked():
    """As the paper's sum over conditional subsets: all items, those above 0, those above 1, ..."""
    x, y = tensors()
    total, asked = 0.0, 0
    for k in range(CLASSES - 1):
        subset = y > k - 1
        asked += int(subset.sum())
        labels = (y[subset] > k).double()
        total += losses.bce(x[subset, k], labels, reduction="sum")
    torch.testing.assert_close(losses.corn(x, y), total / asked)
    assert losses.get("corn").fraction(x, y).denominator == asked


def test_corn_does_not_count_ignored_items():
    x, y = tensors()
    y[::3] = -100
    kept = y != -100
    torch.testing.assert_close(losses.corn(x, y), losses.corn(x[kept], y[kept]))


def test_corn_is_the_likelihood_of_its_own_distribution():
    x, y = tensors()
    log_p = losses.get("corn").point(x)
    torch.testing.assert_close(log_p.exp().sum(1), torch.ones(40).double())
    ours = losses.corn(x, y, reduction="none")
    torch.testing.assert_close(ours, losses.nll(log_p, y, reduction="none"))
    above = x.sigmoid().cumprod(1)  # the paper's P(y > k)
    tails = log_p.exp().flip(1).cumsum(1).flip(1)[:, 1:]
    torch.testing.assert_close(tails, above)


def test_coral_is_the_likelihood_of_its_own_distribution_up_to_its_norm():
    x, y = tensors()
    log_p = losses.get("coral").point(x)
    torch.testing.assert_close(log_p.exp().sum(1), torch.ones(40).double())
    values = torch.stack([losses.coral(x, y * 0 + t, reduction="none") for t in range(CLASSES)], 1)
    torch.testing.assert_close((-values).log_softmax(1), log_p)


def test_corals_largest_score_is_the_number_of_questions_answered_with_yes():
    """For logits of one score and falling biases, as its model makes them."""
    score = torch.linspace(-6, 6, 25, dtype=torch.float64).unsqueeze(1)
    x = score + torch.tensor([2.5, 1.0, -0.3, -4.0]).double()
    predicted = losses.get("coral").point(x).argmax(1)
    assert torch.equal(predicted, (x.sigmoid() > 0.5).sum(1))
    assert set(predicted.tolist()) == set(range(CLASSES))


@pytest.mark.parametrize("name", REFERENCES)
def test_two_classes_are_binary_cross_entropy(name):
    x, y = torch.tensor(data()[0][:, :1]), torch.arange(40) % 2
    expected = losses.bce(x.squeeze(1), y)
    torch.testing.assert_close(losses.build(name)(x, y), expected)
    log_p = losses.get(name).point(x)
    torch.testing.assert_close(log_p[:, 1], x.squeeze(1).sigmoid().log())


@pytest.mark.parametrize("name", REFERENCES)
def test_maps_have_a_point_per_place(name):
    x = torch.tensor(data(24)[0]).unflatten(0, (4, 3, 2)).movedim(-1, 1)
    point = losses.get(name).point
    flat = point(x.movedim(1, -1).flatten(0, 2))
    torch.testing.assert_close(point(x).movedim(1, -1).flatten(0, 2), flat)


def test_the_range_of_labels_has_one_more_class_than_there_are_questions():
    x, y = torch.zeros(3, 4), torch.tensor([0, 4, 2])
    assert losses.coral(x, y).isfinite()
    with pytest.raises(ValueError, match=r"coral needs class indices below 5, got values from 0"):
        losses.coral(x, y + 1 - (y == 0).long())
    with pytest.raises(ValueError, match=r"corn needs output \[N, C - 1, ...\] and target \[N"):
        losses.corn(x, y.unsqueeze(1))
    with pytest.raises(ValueError, match=r"corn needs class indices \(int64\), got torch.float32"):
        losses.corn(x, y.float())
