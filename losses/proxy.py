"""Losses with learnt class vectors: embeddings are compared with these, not with one another.

The class vectors are parameters of the loss. `losses.build("arcface", classes=10, features=64)`
makes a module that holds them, to be given to the optimiser beside the model's; the function takes
them as an argument after the labels. In the formulas c is the cosine between an embedding and the
vector of a class, t the true class, and theta the angle of the true one. Lengths do not matter but
in :func:`losses.linear_softmax`.
"""

import math
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from losses.arguments import Bounds, Count, NonNegative, Positive
from losses.core import Parts, loss
from losses.embedding import unit
from losses.metric import log1p_exp, masked_logsumexp

Angle = Annotated[float, Bounds(0, math.pi / 2)]
Classes = Annotated[int, Bounds(2)]


def class_vectors(
    *, classes: Classes, features: Count, generator: torch.Generator | None
) -> Tensor:
    """A random direction of length 1 for each class, [C, D]."""
    return unit(torch.randn(classes, features, generator=generator))


def class_biases(*, classes: Classes, generator: torch.Generator | None) -> Tensor:
    """A 0 for each class, [C]."""
    del generator  # the same for everybody
    return torch.zeros(classes)


@loss(
    "linear_softmax",
    target="labels",
    source="Cox 1958, The regression analysis of binary sequences; for embeddings Zhai & Wu 2018",
    own={"weight": class_vectors, "bias": class_biases},
)
def linear_softmax(embedding: Tensor, target: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    r"""Cross-entropy through a linear classifier, :math:`-\log \frac{e^{w_t \cdot x + b_t}}
    {\sum_j e^{w_j \cdot x + b_j}}`.

    The last layer of a classifier, held by the loss: what it is given are a classifier's features,
    the baseline that losses of embeddings are held against. Unlike in the others here lengths do
    matter.

    Args:
        embedding: x, float [N, D].
        target: class indices, int [N].
        weight: class vectors w, float [C, D].
        bias: b, float [C].
    """
    return _cross_entropy(embedding @ weight.mT + bias, target)


@loss(
    "normalised_softmax",
    target="labels",
    source="Zhai & Wu 2018, Classification is a strong baseline for deep metric learning",
    own={"weight": class_vectors},
)
def normalised_softmax(
    embedding: Tensor, target: Tensor, weight: Tensor, *, temperature: Positive = 0.05
) -> Tensor:
    r"""Cross-entropy of cosines, :math:`-\log \frac{e^{c_t / \tau}}{\sum_j e^{c_j / \tau}}`.

    A classifier without bias whose embeddings can be compared by cosine afterwards; the plain
    baseline of this family.

    Args:
        embedding: float [N, D].
        target: class indices, int [N].
        weight: class vectors, float [C, D].
        temperature: :math:`\tau`, 1 over the scale of the logits.
    """
    return _cross_entropy((unit(embedding) / temperature) @ unit(weight).mT, target)


@loss(
    "cosface",
    target="labels",
    source="Wang et al. 2018, arXiv:1801.09414, eq. 4",
    own={"weight": class_vectors},
)
def cosface(
    embedding: Tensor,
    target: Tensor,
    weight: Tensor,
    *,
    margin: NonNegative = 0.35,
    scale: Positive = 64.0,
) -> Tensor:
    r"""Cross-entropy with a margin on the true cosine, :math:`-\log
    \frac{e^{s (c_t - m)}}{e^{s (c_t - m)} + \sum_{j \ne t} e^{s c_j}}`.

    Args:
        embedding: float [N, D].
        target: class indices, int [N].
        weight: class vectors, float [C, D].
        margin: m, by how much the cosine with the true class must exceed the others.
        scale: s, the length of the logits.
    """
    logits, column = (scale * unit(embedding)) @ unit(weight).mT, target.unsqueeze(1)
    true = logits.gather(1, column) - scale * margin
    return _cross_entropy(logits.scatter(1, column, true), target)


@loss(
    "arcface",
    target="labels",
    source="Deng et al. 2019, arXiv:1801.07698, eq. 3",
    own={"weight": class_vectors},
)
def arcface(
    embedding: Tensor,
    target: Tensor,
    weight: Tensor,
    *,
    margin: Angle = 0.5,
    scale: Positive = 64.0,
) -> Tensor:
    r"""Cross-entropy with a margin on the true angle, :math:`-\log \frac{e^{s \cos(\theta + m)}}
    {e^{s \cos(\theta + m)} + \sum_{j \ne t} e^{s c_j}}`.

    Beyond :math:`\theta = \pi - m` the formula would reward a larger angle. From there on the true
    logit is :math:`s (\cos\theta - 1 + \cos m)`, which joins it and goes on falling.

    Args:
        embedding: float [N, D].
        target: class indices, int [N].
        weight: class vectors, float [C, D].
        margin: m, by how much the angle must be smaller, in radians.
        scale: s, the length of the logits.
    """
    logits, column = (scale * unit(embedding)) @ unit(weight).mT, target.unsqueeze(1)
    true = scale * _turned(logits.gather(1, column) / scale, margin)
    return _cross_entropy(logits.scatter(1, column, true), target)


def _turned(cosine: Tensor, margin: float) -> Tensor:
    """Cosine of the angle plus the margin, without the angle: acos has no slope at the ends."""
    squared = 1 - cosine * cosine
    slanted = squared > torch.finfo(cosine.dtype).eps  # the sine's slope is infinite at 0
    sine = torch.where(slanted, torch.where(slanted, squared, 1).sqrt(), 0)
    turned = math.cos(margin) * cosine - math.sin(margin) * sine
    return torch.where(cosine > -math.cos(margin), turned, cosine - 1 + math.cos(margin))


@loss(
    "proxy_nca",
    target="labels",
    source="Movshovitz-Attias et al. 2017, arXiv:1703.07464, with squared distances",
    own={"weight": class_vectors},
    minimum=None,
)
def proxy_nca(
    embedding: Tensor, target: Tensor, weight: Tensor, *, scale: Positive = 1.0
) -> Tensor:
    r"""True class against the others alone, :math:`-\log \frac{e^{-s D_t}}
    {\sum_{j \ne t} e^{-s D_j}},\ D = 2 - 2 c`.

    D is the squared distance of unit vectors. Unlike a softmax the denominator leaves the true
    class out, so values may be below 0 and an item is never done with.

    Args:
        embedding: float [N, D].
        target: class indices, int [N].
        weight: class vectors, float [C, D].
        scale: s, 1 in the paper.
    """
    scores = (2 * scale * unit(embedding)) @ unit(weight).mT
    column = target.unsqueeze(1)
    true = scores.gather(1, column).squeeze(1)
    return scores.scatter(1, column, -torch.inf).logsumexp(1) - true


@loss(
    "proxy_anchor",
    target="labels",
    source="Kim et al. 2020, arXiv:2003.13911, eq. 4",
    own={"weight": class_vectors},
    additive=False,
    minimum=None,
)
def proxy_anchor(
    embedding: Tensor,
    target: Tensor,
    weight: Tensor,
    *,
    margin: NonNegative = 0.1,
    alpha: Positive = 32.0,
) -> Parts:
    r"""Class vectors as anchors of a batch, :math:`\frac{1}{|C^+|} \sum_{C^+} \log(1 + \sum_{P}
    e^{-\alpha (c - m)}) + \frac{1}{|C|} \sum_{C} \log(1 + \sum_{N} e^{\alpha (c + m)})`.

    P and N are the items in and not in a class, :math:`C^+` the classes that the batch has. Items
    are weighted among one another, so a batch has one value, [1], and must not be split.

    Args:
        embedding: float [N, D].
        target: class indices, int [N].
        weight: class vectors, float [C, D].
        margin: m, in units of the cosine.
        alpha: sharpness.
    """
    cosine = unit(embedding) @ unit(weight).mT
    inside = target.unsqueeze(1) == torch.arange(len(weight), device=target.device)
    pulled = log1p_exp(masked_logsumexp(-alpha * (cosine - margin), inside, 0))
    pushed = log1p_exp(masked_logsumexp(alpha * (cosine + margin), ~inside, 0))
    present = inside.any(0).sum().clamp(min=1)
    value = pulled.sum() / present + pushed.mean()
    return Parts(value.reshape(1), value.new_full((1,), float(len(target) > 0)))


def _cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(logits, target, reduction="none")
