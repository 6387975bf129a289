"""Ours against pytorch-metric-learning."""

import math

import pytest
import torch
from torch.nn import functional as F

import losses
from tests.peers.agreement import agree, images, labels, library

pml = library("pytorch_metric_learning.losses")
reducers = library("pytorch_metric_learning.reducers")
distances = library("pytorch_metric_learning.distances")
pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

CLASSES, FEATURES = 4, 6
EMBEDDING, TARGET = images(24, FEATURES), labels(CLASSES, 24)
VECTORS = images(CLASSES + 1, FEATURES)[1:]  # of length about 5


def held(peer, name="W"):
    """A peer with our class vectors."""
    parameter = getattr(peer, name)
    values = VECTORS if parameter.shape == VECTORS.shape else VECTORS.t()
    parameter.data = values.clone()
    return peer


def test_sup_con():
    agree(losses.build("sup_con"), pml.SupConLoss(temperature=0.1), EMBEDDING, TARGET)


def test_nt_xent():
    first, second = images(2, 12, FEATURES)
    other = pml.NTXentLoss(temperature=0.1)
    ids = torch.arange(12).repeat(2)
    agree(
        losses.build("nt_xent", temperature=0.1),
        lambda x, y: other(torch.cat([x, y]), ids),
        first,
        second,
    )


def test_multi_similarity():
    ours = losses.build("multi_similarity", threshold=0.5, mining=None)
    agree(ours, pml.MultiSimilarityLoss(alpha=2, beta=50, base=0.5), EMBEDDING, TARGET)


def test_circle():
    agree(losses.build("circle"), pml.CircleLoss(m=0.4, gamma=80), EMBEDDING, TARGET)


def with_vectors(name, **given):
    entry = losses.get(name)
    vectors = VECTORS.clone()
    return lambda x, y: entry.divide(entry.fraction(x, y, weight=vectors, **given))


def test_normalised_softmax():
    other = held(pml.NormalizedSoftmaxLoss(CLASSES, FEATURES, temperature=0.05))
    agree(with_vectors("normalised_softmax", temperature=0.05), other, EMBEDDING, TARGET)


def test_cosface():
    other = held(pml.CosFaceLoss(CLASSES, FEATURES, margin=0.35, scale=64))
    agree(with_vectors("cosface"), other, EMBEDDING, TARGET)


def test_arcface():
    other = held(pml.ArcFaceLoss(CLASSES, FEATURES, margin=math.degrees(0.5), scale=64))
    near = F.normalize(VECTORS)[TARGET] + 0.3 * EMBEDDING  # within the angle where both are alike
    agree(with_vectors("arcface"), other, near, TARGET, tolerance=1e-6)


def test_proxy_nca():
    """The peer keeps the true class in the denominator, as a softmax."""
    other = held(pml.ProxyNCALoss(CLASSES, FEATURES, softmax_scale=3), "proxies")
    agree(with_vectors("normalised_softmax", temperature=1 / 6), other, EMBEDDING, TARGET)


def test_proxy_anchor():
    other = held(pml.ProxyAnchorLoss(CLASSES, FEATURES, margin=0.1, alpha=32), "proxies")
    agree(with_vectors("proxy_anchor"), other, EMBEDDING, TARGET)


def test_known_difference_contrastive_distances_are_not_squared():
    other = pml.ContrastiveLoss(
        pos_margin=0,
        neg_margin=1,
        distance=distances.LpDistance(power=1, normalize_embeddings=False),
        reducer=reducers.MeanReducer(),
    )
    first, second = torch.combinations(torch.arange(6)).unbind(1)
    similar = (TARGET[first] == TARGET[second]).long()
    near = 0.4 * F.normalize(EMBEDDING[:6])  # all within the margin, where roots have a slope

    def ours(x):
        halves = losses.contrastive(x[first], x[second], similar, reduction="none")
        lengths = (2 * halves).sqrt()
        return lengths[similar == 1].mean() + lengths[similar == 0].mean()

    agree(ours, lambda x: other(x, TARGET[:6]), near, tolerance=1e-6)


def test_triplets():
    ids = torch.arange(len(TARGET))
    anchor, positive, negative = torch.cartesian_prod(ids, ids, ids).unbind(1)
    chosen = (TARGET[anchor] == TARGET[positive]) & (anchor != positive)
    chosen &= TARGET[anchor] != TARGET[negative]
    anchor, positive, negative = anchor[chosen], positive[chosen], negative[chosen]
    other = pml.TripletMarginLoss(margin=0.3, reducer=reducers.MeanReducer())

    def ours(x):
        x = F.normalize(x)
        return losses.triplet(x[anchor], x[positive], x[negative], margin=0.3)

    agree(ours, lambda x: other(x, TARGET), EMBEDDING, tolerance=1e-6)
