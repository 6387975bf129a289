"""Losses of whole batches of labelled embeddings: every pair of items is compared at once.

Items of one label are positives of each other, all others negatives. In the formulas P and N are
the positives and negatives of an anchor and s is the cosine between it and another item; an item is
never its own positive. The value of an anchor depends on the rest of the batch, so batches that are
split over processes must be gathered first. Anchors without a positive cost nothing and do not
count, hence a batch should hold several items of each label.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from losses.arguments import NonNegative, Positive, Share
from losses.core import Parts, loss
from losses.embedding import Distance, distance_of, unit
from losses.products import log_sums


def pairs(target: Tensor) -> tuple[Tensor, Tensor]:
    """Which items are positives and which are negatives of each, both bool [N, N]."""
    same = target.unsqueeze(1) == target
    itself = torch.eye(len(target), dtype=torch.bool, device=target.device)
    return same & ~itself, ~same


def masked_logsumexp(scores: Tensor, mask: Tensor, dim: int = 1) -> Tensor:
    """Log of the sum of exponentials where the mask is true; minus infinity where it never is."""
    return scores.masked_fill(~mask, -torch.inf).logsumexp(dim)


def log1p_exp(scores: Tensor) -> Tensor:
    """Softplus without torch's threshold, beyond which it is rounded."""
    return -F.logsigmoid(-scores)


@loss(
    "sup_con",
    target="labels",
    source="Khosla et al. 2020, arXiv:2004.11362, eq. 2",
    additive=False,
    minimum=None,
)
def sup_con(embedding: Tensor, target: Tensor, *, temperature: Positive = 0.1) -> Parts:
    r"""Cross-entropy of finding the positives, :math:`-\frac{1}{|P|} \sum_{p \in P}
    \log \frac{e^{s_p / \tau}}{\sum_{a \ne i} e^{s_a / \tau}}`.

    The mean over positives is outside the logarithm, the form that the paper found better. With one
    positive each it is :func:`losses.nt_xent`.

    Args:
        embedding: float [N, D]; only directions matter.
        target: labels, int [N].
        temperature: :math:`\tau`; smaller ones look at the hardest items only.
    """
    vectors = unit(embedding) / math.sqrt(temperature)
    rows, _ = log_sums(vectors)
    place = torch.searchsorted(target.sort().values, target)  # one number for each label
    number = _gathered(torch.ones_like(rows), place) - 1
    others = _gathered(vectors, place) - vectors
    values = rows - (vectors * others).sum(1) / number.clamp(min=1)
    return _counted(values, number > 0)


def _gathered(rows: Tensor, place: Tensor) -> Tensor:
    """For each row the sum of those in the same place."""
    return torch.zeros_like(rows).index_add(0, place, rows)[place]


@loss(
    "multi_similarity",
    target="labels",
    source="Wang et al. 2019, arXiv:1904.06627",
    additive=False,
)
def multi_similarity(
    embedding: Tensor,
    target: Tensor,
    *,
    alpha: Positive = 2.0,
    beta: Positive = 50.0,
    threshold: float = 1.0,
    mining: NonNegative | None = 0.1,
) -> Parts:
    r"""Soft thresholds on cosines, :math:`\frac1\alpha \log(1 + \sum_P e^{-\alpha (s - \lambda)})
    + \frac1\beta \log(1 + \sum_N e^{\beta (s - \lambda)})`.

    Pairs are weighted by how hard they are, among themselves and against each other. Only hard ones
    are looked at: positives less similar than the most similar negative plus `mining`, and
    negatives more similar than the least similar positive less `mining`.

    Args:
        embedding: float [N, D]; only directions matter.
        target: labels, int [N].
        alpha: sharpness among positives.
        beta: sharpness among negatives.
        threshold: :math:`\lambda`, the cosine both kinds are held against; 1 in the paper, 0.5 in
            the authors' code.
        mining: the paper's :math:`\epsilon`; null for all pairs.
    """
    if not len(target):
        return _nothing(embedding)
    vectors = unit(embedding)
    scores = vectors @ vectors.mT
    positive, negative = pairs(target)
    counted = positive.any(1)
    if mining is not None:
        fixed = scores.detach()
        nearest = fixed.masked_fill(~negative, -torch.inf).amax(1, keepdim=True)
        farthest = fixed.masked_fill(~positive, torch.inf).amin(1, keepdim=True)
        positive = positive & (fixed < nearest + mining)
        negative = negative & (fixed > farthest - mining)
    pulled = masked_logsumexp(-alpha * (scores - threshold), positive)
    pushed = masked_logsumexp(beta * (scores - threshold), negative)
    return _counted(log1p_exp(pulled) / alpha + log1p_exp(pushed) / beta, counted)


@loss(
    "circle",
    target="labels",
    source="Sun et al. 2020, arXiv:2002.10857, section 3.2",
    additive=False,
    detached="the weights of pairs, which say how far a cosine is from its optimum",
)
def circle(
    embedding: Tensor,
    target: Tensor,
    *,
    scale: Positive = 80.0,
    margin: Share = 0.4,
) -> Parts:
    r"""Each cosine pulled by its own distance from the optimum, :math:`\log(1 + \sum_N
    e^{\gamma [s + m]_+ (s - m)} \sum_P e^{-\gamma [1 + m - s]_+ (s - 1 + m)})`.

    The weights in brackets carry no gradient: they make cosines that are far off move faster.

    Args:
        embedding: float [N, D]; only directions matter.
        target: labels, int [N].
        scale: :math:`\gamma`; the paper takes 80 for retrieval and 256 for faces.
        margin: m, the radius of the circle that pairs (cosine of a negative, of a positive) end up
            in; the paper takes 0.4 for retrieval and 0.25 for faces.
    """
    vectors = unit(embedding)
    scores = vectors @ vectors.mT
    positive, negative = pairs(target)
    fixed = scores.detach()
    pulled = -scale * F.relu(1 + margin - fixed) * (scores - 1 + margin)
    pushed = scale * F.relu(fixed + margin) * (scores - margin)
    both = masked_logsumexp(pulled, positive) + masked_logsumexp(pushed, negative)
    return _counted(log1p_exp(both), positive.any(1))


@loss(
    "batch_hard",
    target="labels",
    source="Hermans, Beyer & Leibe 2017, arXiv:1703.07737",
    additive=False,
)
def batch_hard(
    embedding: Tensor,
    target: Tensor,
    *,
    margin: NonNegative = 1.0,
    distance: Distance = "euclidean",
) -> Parts:
    r"""Triplets of the farthest positive and the nearest negative, :math:`\max(0, m +
    \max_P D - \min_N D)`.

    The triplet loss on the hardest triplet of each item. Anchors without a negative do not count
    either. Hard negatives of a fresh network tend to pull all embeddings together, where the loss
    is the margin: a low learning rate at the start helps.

    Args:
        embedding: float [N, D].
        target: labels, int [N].
        margin: m, in units of the distance.
        distance: `euclidean`, `squared_euclidean`, or `cosine` for 1 less the cosine.
    """
    if not len(target):
        return _nothing(embedding)
    positive, negative = pairs(target)
    order = _order(embedding.detach(), distance)
    farthest = order.masked_fill(~positive, -torch.inf).argmax(1)
    nearest = order.masked_fill(~negative, torch.inf).argmin(1)
    # Only chosen pairs are measured exactly and have a gradient, N of them instead of N^2.
    far = distance_of(embedding, embedding[farthest], distance)
    near = distance_of(embedding, embedding[nearest], distance)
    return _counted(F.relu(margin + far - near), positive.any(1) & negative.any(1))


def _order(embedding: Tensor, distance: Distance) -> Tensor:
    """Numbers [N, N] that order the columns of each row by distance, from one matrix product."""
    if distance == "cosine":
        vectors = unit(embedding)
        return -(vectors @ vectors.mT)
    centred = embedding - embedding.mean(0)  # or a common offset would swallow the digits
    return centred.square().sum(1) - 2 * centred @ centred.mT


def _counted(values: Tensor, counted: Tensor) -> Parts:
    return Parts(torch.where(counted, values, 0), counted.to(values.dtype))


def _nothing(embedding: Tensor) -> Parts:
    """No anchors: a maximum over no items is an error in torch."""
    values = embedding.sum(1)
    return Parts(values, values.detach())
