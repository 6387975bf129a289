"""Losses of two views against loops in numpy and torch's own functions."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import losses
from tests.losses.embeddings import assert_agrees, directions, draw


def nt_xent(first, second, temperature=0.1):
    views = directions(np.concatenate([first, second]))
    items, found = len(first), np.zeros(len(first))
    for i, u in enumerate(views):
        partner = (i + items) % (2 * items)
        others = [math.exp(u @ z / temperature) for j, z in enumerate(views) if j != i]
        found[i % items] += (math.log(sum(others)) - u @ views[partner] / temperature) / 2
    return found


def clip(first, second, temperature=0.07):
    u, v = directions(first), directions(second)
    found = []
    for i in range(len(u)):
        right = math.exp(u[i] @ v[i] / temperature)
        rows = sum(math.exp(u[i] @ other / temperature) for other in v)
        columns = sum(math.exp(other @ v[i] / temperature) for other in u)
        found.append(-math.log(right / rows) / 2 - math.log(right / columns) / 2)
    return np.array(found)


def learned_clip(first, second, log_scale):
    return clip(first, second, 1 / min(math.exp(log_scale), 100))


def siglip(first, second, log_scale, bias):
    u, v = directions(first), directions(second)
    found = np.zeros(len(u))
    for i in range(len(u)):
        for j in range(len(v)):
            score = math.exp(log_scale) * (u[i] @ v[j]) + bias
            found[i] -= math.log(1 / (1 + math.exp(-score if i == j else score)))
    return found


def cov(a, b):
    return sum((a - a.mean()) * (b - b.mean())) / (len(a) - 1)


def vicreg(
    first, second, invariance=25.0, variance=25.0, covariance=1.0, deviation=1.0, floor=1e-4
):
    features = first.shape[1]
    value = invariance * np.mean((first - second) ** 2)
    for view in (first, second):
        for j in range(features):
            spread = math.sqrt(cov(view[:, j], view[:, j]) + floor)
            value += variance * max(0, deviation - spread) / features
            for k in range(features):
                if j != k:
                    squared = cov(view[:, j], view[:, k]) ** 2
                    value += covariance * squared / features
    return np.array([value])


def barlow_twins(first, second, off_diagonal=0.005):
    value = 0.0
    for j, a in enumerate(first.T):
        for k, b in enumerate(second.T):
            size = math.sqrt(cov(a, a) * cov(b, b))
            correlation = cov(a, b) / size
            value += (1 - correlation) ** 2 if j == k else off_diagonal * correlation**2
    return np.array([value])


REFERENCES = {
    "nt_xent": nt_xent,
    "clip": clip,
    "learned_clip": learned_clip,
    "siglip": siglip,
    "vicreg": vicreg,
    "barlow_twins": barlow_twins,
}
VIEWS = draw(7, 5), draw(7, 5, seed=1)
WIDE = draw(4, 9), draw(4, 9, seed=1)  # fewer items than features
CASES = [
    *[(name, VIEWS, {}) for name in ("nt_xent", "clip", "vicreg", "barlow_twins")],
    ("nt_xent", VIEWS, {"temperature": 1.0}),
    ("clip", VIEWS, {"temperature": 1.0}),
    ("learned_clip", (*VIEWS, torch.tensor(1.3).double()), {}),
    ("siglip", (*VIEWS, torch.tensor(1.3).double(), torch.tensor(-0.4).double()), {}),
    ("vicreg", WIDE, {"deviation": 4.0, "invariance": 1.0, "variance": 2.0, "floor": 0.1}),
    ("vicreg", WIDE, {"invariance": 0.0, "variance": 0.0, "covariance": 0.1}),
    ("barlow_twins", WIDE, {"off_diagonal": 0.5}),
]


@pytest.mark.parametrize(("name", "tensors", "given"), CASES)
def test_values_and_gradients_are_the_reference(name, tensors, given):
    assert_agrees(name, REFERENCES[name], *tensors, **given)


def test_contrastive_losses_are_cross_entropies():
    u, v = (F.normalize(view) for view in VIEWS)
    scores, partner = u @ v.mT / 0.07, torch.arange(7)
    both = (F.cross_entropy(scores, partner) + F.cross_entropy(scores.mT, partner)) / 2
    torch.testing.assert_close(losses.clip(*VIEWS), both)
    views = torch.cat([u, v])
    scores = (views @ views.mT / 0.1).fill_diagonal_(-math.inf)
    expected = F.cross_entropy(scores, torch.arange(14).roll(7))
    torch.testing.assert_close(losses.nt_xent(*VIEWS), expected)


def test_nt_xent_is_sup_con_where_each_label_has_two_views():
    labels = torch.arange(7).repeat(2)
    expected = losses.sup_con(torch.cat(VIEWS), labels, temperature=0.3)
    torch.testing.assert_close(losses.nt_xent(*VIEWS, temperature=0.3), expected)


def test_siglip_is_binary_cross_entropy_of_all_pairs():
    module = losses.build("siglip").double()
    scores = 10 * F.normalize(VIEWS[0]) @ F.normalize(VIEWS[1]).mT - 10
    expected = losses.bce(scores, torch.eye(7), reduction="sum") / 7
    # rtol: the logarithm of 10 is kept in float32
    torch.testing.assert_close(module(*VIEWS), expected, rtol=1e-6, atol=0)


def test_learned_clip_starts_as_clip_and_stops_at_a_scale_of_100():
    module = losses.build("learned_clip")
    views = [view.float() for view in VIEWS]
    torch.testing.assert_close(module(*views), losses.clip(*views))
    with torch.no_grad():
        module.log_scale.fill_(9.0)
    value = module(*views)
    torch.testing.assert_close(value, losses.clip(*views, temperature=0.01))
    value.backward()
    assert module.log_scale.grad != 0  # or it could never come back


def test_views_that_agree_and_differ_from_the_rest_cost_nearly_nothing():
    u = torch.eye(4, dtype=torch.float64).requires_grad_()
    sure = {"nt_xent": {"temperature": 0.01}, "clip": {"temperature": 0.01}}
    for name, given in sure.items():
        value = losses.build(name, **given)(u, u)
        assert value.item() == pytest.approx(0, abs=1e-12)
        assert torch.autograd.grad(value, u)[0].isfinite().all()
    certain = torch.tensor(5.0).double(), torch.tensor(-70.0).double()
    value = losses.siglip(u, u, *certain)
    assert value.item() == pytest.approx(0, abs=1e-12)


def test_unrelated_features_of_unit_variance_cost_nothing():
    """Columns of a Hadamard matrix but the constant one: their means and products are 0."""
    two = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    view = torch.kron(torch.kron(two, two), two)[:, 1:].requires_grad_()
    for name in ("vicreg", "barlow_twins"):
        value = losses.build(name)(view, view)
        assert value.item() == pytest.approx(0, abs=1e-12)
        assert torch.autograd.grad(value, view)[0].isfinite().all()


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("items", [1, 4])
@pytest.mark.parametrize("place", [0.0, 1.0, 1e4])
def test_collapsed_views_have_a_finite_value_and_gradient(name, items, place):
    views = [torch.full((items, 5), place, requires_grad=True) for _ in range(2)]
    value = losses.build(name)(*views)
    assert value.isfinite()
    assert all(slope.isfinite().all() for slope in torch.autograd.grad(value, views))


@pytest.mark.parametrize("name", ["nt_xent", "clip", "learned_clip", "siglip"])
def test_lengths_do_not_matter(name):
    module = losses.build(name)
    stretched = VIEWS[0] * torch.linspace(0.01, 100, 7, dtype=torch.float64).unsqueeze(1)
    torch.testing.assert_close(module(stretched, VIEWS[1] / 7), module(*VIEWS))


def test_barlow_twins_minds_neither_place_nor_scale_of_a_feature():
    moved = 3 * VIEWS[0] + torch.arange(5.0).double()
    torch.testing.assert_close(losses.barlow_twins(moved, VIEWS[1]), losses.barlow_twins(*VIEWS))
