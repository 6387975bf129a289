"""Losses of given pairs and triplets against numpy and torch."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import losses
from tests.losses.embeddings import assert_agrees, directions, draw


def apart(a, b, distance="euclidean"):
    if distance == "cosine":
        a, b = directions(a[None])[0], directions(b[None])[0]
        return 1 - sum(x * y for x, y in zip(a, b, strict=True))
    squared = sum((x - y) ** 2 for x, y in zip(a, b, strict=True))
    return squared if distance == "squared_euclidean" else np.sqrt(squared)


def triplet(anchor, positive, negative, margin=1.0, distance="euclidean"):
    triplets = zip(anchor, positive, negative, strict=True)
    return np.array(
        [max(0, apart(a, p, distance) - apart(a, n, distance) + margin) for a, p, n in triplets]
    )


def contrastive(first, second, similar, margin=1.0):
    pairs = zip(first, second, similar, strict=True)
    return np.array(
        [apart(a, b) ** 2 / 2 if s else max(0, margin - apart(a, b)) ** 2 / 2 for a, b, s in pairs]
    )


def cosine_embedding(first, second, similar, margin=0.0):
    found = []
    for a, b, s in zip(first, second, similar, strict=True):
        distance = apart(a, b, "cosine")
        found.append(distance if s else max(0, 1 - distance - margin))
    return np.array(found)


REFERENCES = {
    "triplet": triplet,
    "contrastive": contrastive,
    "cosine_embedding": cosine_embedding,
}
SIMILAR = torch.tensor([1, 0, 0, 1, 0, 0, 1, 0, 1])
TRIPLETS = [draw(9, 4, seed=seed) for seed in range(3)]
PAIRS = [*TRIPLETS[:2], SIMILAR]
DISTANCES = ["euclidean", "squared_euclidean", "cosine"]
CASES = [
    *[("triplet", TRIPLETS, {"distance": d}) for d in DISTANCES],
    ("triplet", TRIPLETS, {"margin": 5.0}),
    ("contrastive", PAIRS, {}),
    ("contrastive", PAIRS, {"margin": 9.0}),
    ("cosine_embedding", PAIRS, {}),
    ("cosine_embedding", PAIRS, {"margin": -0.5}),
]


@pytest.mark.parametrize(("name", "tensors", "given"), CASES)
def test_values_and_gradients_are_the_reference(name, tensors, given):
    assert_agrees(name, REFERENCES[name], *tensors, **given)


def test_triplet_is_torchs():
    ours = losses.triplet(*TRIPLETS, margin=0.5)
    # torch adds 1e-6 to every difference before it takes the norm
    theirs = F.triplet_margin_loss(*TRIPLETS, margin=0.5)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)
    cosine = F.triplet_margin_with_distance_loss(
        *TRIPLETS, distance_function=lambda a, b: 1 - F.cosine_similarity(a, b), margin=0.5
    )
    ours = losses.triplet(*TRIPLETS, margin=0.5, distance="cosine")
    torch.testing.assert_close(ours, cosine)


def test_cosine_embedding_is_torchs_with_zeros_for_its_minus_ones():
    theirs = F.cosine_embedding_loss(*TRIPLETS[:2], 2 * SIMILAR - 1, margin=0.2)
    torch.testing.assert_close(losses.cosine_embedding(*PAIRS, margin=0.2), theirs)
    with pytest.raises(ValueError, match=r"cosine_embedding needs similar >= 0 and <= 1, got val"):
        losses.cosine_embedding(*TRIPLETS[:2], 2 * SIMILAR - 1)


@pytest.mark.parametrize("distance", DISTANCES)
def test_collapsed_triplets_cost_the_margin_and_keep_a_finite_gradient(distance):
    for point in (torch.zeros(1, 3), torch.ones(1, 3)):
        fields = [point.clone().requires_grad_() for _ in range(3)]
        value = losses.triplet(*fields, margin=0.2, distance=distance)
        assert value.item() == pytest.approx(0.2)
        slopes = torch.autograd.grad(value, fields)
        assert all(slope.abs().max() < 1e-6 for slope in slopes)


def test_one_means_similar():
    """A distance of 3 costs a similar pair 9 / 2; swapped labels would make it free."""
    first, second = torch.zeros(1, 2), torch.tensor([[3.0, 0.0]])
    assert losses.contrastive(first, second, torch.tensor([1])).item() == 4.5
    assert losses.contrastive(first, second, torch.tensor([0])).item() == 0
    assert losses.contrastive(first, second, torch.tensor([0]), margin=5.0).item() == 2


@pytest.mark.parametrize("similar", [0, 1])
def test_equal_pairs_have_a_finite_gradient_and_cost_what_they_should(similar):
    first, second = (torch.ones(1, 3, requires_grad=True) for _ in range(2))
    value = losses.contrastive(first, second, torch.tensor([similar]), margin=2.0)
    assert value.item() == (0 if similar else 2)
    for slope in torch.autograd.grad(value, [first, second]):
        assert (slope == 0).all()


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-13])
def test_a_vector_without_direction_has_a_small_gradient(size):
    first = torch.full((1, 3), size, requires_grad=True)
    value = losses.cosine_embedding(first, torch.ones(1, 3), torch.tensor([1]))
    assert value.item() == pytest.approx(1)
    value.backward()
    assert first.grad.norm().item() == pytest.approx(1)
