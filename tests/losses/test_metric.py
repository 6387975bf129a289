"""Losses of labelled batches against loops in numpy, and over two processes."""

import math

import numpy as np
import pytest
import torch

import losses
from tests.losses.embeddings import (
    COUPLED,
    LABELS,
    assert_agrees,
    directions,
    draw,
    gradients,
    two_processes,
)
from tests.losses.test_embedding import DISTANCES, apart


def groups(y, i):
    """Places of the positives and of the negatives of an item."""
    others = [j for j in range(len(y)) if j != i]
    return [j for j in others if y[j] == y[i]], [j for j in others if y[j] != y[i]]


def anchors(value, x, y):
    """A value for each item that has positives, and what it counts."""
    found = np.zeros((2, len(y)))
    for i in range(len(y)):
        positives, negatives = groups(y, i)
        if positives:
            result = value(i, positives, negatives)
            found[:, i] = (0, 0) if result is None else (result, 1)
    return found[0], found[1]


def cosines(x):
    u = directions(x)
    return np.array([[sum(a * b) for b in u] for a in u])


def sup_con(x, y, temperature=0.1):
    s = cosines(x) / temperature

    def value(i, positives, negatives):
        total = math.log(sum(math.exp(s[i, a]) for a in positives + negatives))
        return sum(total - s[i, p] for p in positives) / len(positives)

    return anchors(value, x, y)


def multi_similarity(x, y, alpha=2.0, beta=50.0, threshold=1.0, mining=0.1):
    s = cosines(x)

    def value(i, positives, negatives):
        hard_p, hard_n = positives, negatives
        if mining is not None:
            nearest = max((s[i, n] for n in negatives), default=-math.inf)
            farthest = min(s[i, p] for p in positives)
            hard_p = [p for p in positives if s[i, p] - mining < nearest]
            hard_n = [n for n in negatives if s[i, n] + mining > farthest]
        pulled = math.log1p(sum(math.exp(-alpha * (s[i, p] - threshold)) for p in hard_p))
        pushed = math.log1p(sum(math.exp(beta * (s[i, n] - threshold)) for n in hard_n))
        return pulled / alpha + pushed / beta

    return anchors(value, x, y)


def circle(x, y, scale=80.0, margin=0.4, fixed=None):
    s, weights = cosines(x), cosines(x if fixed is None else fixed)

    def value(i, positives, negatives):
        pulled = [
            -scale * max(0, 1 + margin - weights[i, p]) * (s[i, p] - 1 + margin) for p in positives
        ]
        pushed = [scale * max(0, weights[i, n] + margin) * (s[i, n] - margin) for n in negatives]
        if not pushed:
            return 0
        total = np.logaddexp.reduce(pulled) + np.logaddexp.reduce(pushed)
        return np.logaddexp(0, total)

    return anchors(value, x, y)


def batch_hard(x, y, margin=1.0, distance="euclidean"):
    def value(i, positives, negatives):
        if not negatives:
            return None
        far = max(apart(x[i], x[p], distance) for p in positives)
        near = min(apart(x[i], x[n], distance) for n in negatives)
        return max(0, margin + far - near)

    return anchors(value, x, y)


REFERENCES = {
    "sup_con": sup_con,
    "multi_similarity": multi_similarity,
    "circle": circle,
    "batch_hard": batch_hard,
}
CASES = [
    *[(name, {}) for name in REFERENCES],
    ("sup_con", {"temperature": 1.0}),
    ("multi_similarity", {"mining": None, "threshold": 0.5}),
    ("multi_similarity", {"mining": 0.0, "alpha": 1.0, "beta": 10.0}),
    ("circle", {"scale": 5.0, "margin": 0.25}),
    *[("batch_hard", {"distance": d, "margin": 0.2}) for d in DISTANCES],
]
BATCHES = [
    LABELS,
    torch.tensor([0, 0, 0, 0]),  # no negatives
    torch.tensor([0, 1, 2, 3]),  # no positives
    torch.tensor([5]),
]


@pytest.mark.parametrize("labels", BATCHES, ids=lambda y: str(y.tolist()))
@pytest.mark.parametrize(("name", "given"), CASES)
def test_values_and_gradients_are_the_reference(name, given, labels):
    fixed = "fixed" if name == "circle" else None
    assert_agrees(name, REFERENCES[name], draw(len(labels), 5), labels, fixed=fixed, **given)


@pytest.mark.parametrize("name", REFERENCES)
def test_anchors_without_positive_do_not_count(name):
    x, lonely = draw(7, 5), torch.tensor([0, 0, 1, 1, 2, 3, 4])
    values, counts = losses.get(name).parts(x, lonely)
    assert counts.tolist() == [1, 1, 1, 1, 0, 0, 0]
    assert (values[4:] == 0).all()
    torch.testing.assert_close(losses.build(name)(x, lonely), values[:4].mean())
    x = draw(3, 5).requires_grad_()
    value = losses.build(name)(x, torch.arange(3))
    value.backward()
    assert value == 0
    assert (x.grad == 0).all()


@pytest.mark.parametrize("name", ["sup_con", "multi_similarity", "circle"])
def test_lengths_do_not_matter(name):
    x = draw(len(LABELS), 5)
    stretched = x * torch.linspace(0.01, 100, len(x), dtype=torch.float64).unsqueeze(1)
    module = losses.build(name)
    torch.testing.assert_close(module(stretched, LABELS), module(x, LABELS))


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("place", [0.0, 1.0])
def test_collapsed_embeddings_have_a_finite_gradient(name, place):
    x = torch.full((len(LABELS), 5), place, requires_grad=True)
    value = losses.build(name)(x, LABELS)
    value.backward()
    assert value.isfinite()
    assert x.grad.isfinite().all()


def test_batch_hard_is_the_triplet_loss_of_the_hardest_triplets():
    x, y = draw(8, 5), torch.tensor([0, 1, 2, 0, 1, 2, 2, 0])
    distance = torch.cdist(x, x)
    same = y.unsqueeze(1) == y
    positive = (distance - 1e9 * ~same).argmax(1)
    negative = (distance + 1e9 * same).argmin(1)
    expected = losses.triplet(x, x[positive], x[negative])
    torch.testing.assert_close(losses.batch_hard(x, y), expected)


def test_batch_hard_finds_the_hardest_far_from_the_origin():
    """Squares of coordinates of 1000 would leave float32 no digit for distances of 0.1."""
    x, y = draw(8, 5) / 30, torch.tensor([0, 1, 2, 0, 1, 2, 2, 0])
    far = (x + 1000).float()
    exact = losses.batch_hard(far.double(), y)
    torch.testing.assert_close(losses.batch_hard(far, y).double(), exact, rtol=1e-3, atol=0)


def test_mining_that_spares_nothing_is_no_mining():
    x = draw(8, 5)
    everything = losses.multi_similarity(x, LABELS, mining=2.1)
    torch.testing.assert_close(everything, losses.multi_similarity(x, LABELS, mining=None))


def test_circles_boundary_is_a_circle():
    """Where s_n^2 + (s_p - 1)^2 = 2 m^2 the exponents cancel, and a triplet costs log 2."""
    margin, angle = 0.25, 0.7
    s_n = math.sqrt(2) * margin * math.sin(angle)
    s_p = 1 - math.sqrt(2) * margin * math.cos(angle)
    x = torch.tensor(
        [
            [1, 0],
            [s_p, math.sqrt(1 - s_p**2)],
            [s_n, math.sqrt(1 - s_n**2)],
        ],
        dtype=torch.float64,
    )
    values = losses.circle(x, torch.tensor([0, 0, 1]), margin=margin, reduction="none")
    assert values[0].item() == pytest.approx(math.log(2))


def test_two_processes_that_gather_their_rows_equal_one(tmp_path):
    """To 1e-10, relative, in float64; local batches alone are wrong, so the test can fail."""
    first, second = two_processes(tmp_path)
    for name in COUPLED:
        expected = gradients(name, slice(None), lambda rows: rows)
        size = max(slope.abs().max() for slope in expected)
        for found in (first, second):
            for ours, theirs in zip(found[name, "gathered"], expected, strict=True):
                assert (ours - theirs).abs().max() <= 1e-10 * size, name
        apart = zip(first[name, "apart"], expected, strict=True)
        assert max((ours - theirs).abs().max() for ours, theirs in apart) > 1e-3 * size, name
