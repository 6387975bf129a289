"""Losses of margins: how far the score of the right answer lies above the others.

In the formulas x are the scores, m the margin, t the true class of C. Binary targets y are 0 or 1
as everywhere in this package (not signs); one between them mixes both parts. Where max(0, .) has a
kink the subgradient is 0, except in the perceptrons, which could not leave a start at zero scores.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from losses import derivatives
from losses.arguments import ClassWeight, NonNegative
from losses.core import Parts, loss
from losses.weighting import Normalizer, weighted


@loss("hinge", target="binary", source="Cortes & Vapnik 1995, Support-vector networks")
def hinge(scores: Tensor, target: Tensor, *, margin: NonNegative = 1.0) -> Tensor:
    r"""How much the score lacks to the margin, :math:`y \max(0, m - x) + (1-y) \max(0, m + x)`.

    The support vector machine's loss: items beyond the margin have no say, and scores are no
    probabilities. It is not `F.hinge_embedding_loss`, which takes distances.

    Args:
        scores: positive for the class 1, float [...].
        target: 0, 1 or between, [...].
        margin: m, in units of the score.
    """
    return target * F.relu(margin - scores) + (1 - target) * F.relu(margin + scores)


@loss(
    "squared_hinge",
    target="binary",
    source="Chang, Hsieh & Lin 2008, Coordinate descent method for large-scale L2-loss linear SVM",
)
def squared_hinge(scores: Tensor, target: Tensor, *, margin: NonNegative = 1.0) -> Tensor:
    r"""Square of the hinge, :math:`y \max(0, m - x)^2 + (1-y) \max(0, m + x)^2`.

    Smooth where the hinge has its kink and harder on large mistakes; the L2-SVM.

    Args:
        scores: positive for the class 1, float [...].
        target: 0, 1 or between, [...].
        margin: m, in units of the score.
    """
    positive, negative = F.relu(margin - scores).square(), F.relu(margin + scores).square()
    return target * positive + (1 - target) * negative


@loss(
    "soft_margin",
    target="binary",
    source="Friedman, Hastie & Tibshirani 2000, Additive logistic regression",
    derivative=derivatives.bce,
)
def soft_margin(scores: Tensor, target: Tensor) -> Tensor:
    r"""Smooth hinge without margin, :math:`y \log(1 + e^{-x}) + (1-y) \log(1 + e^x)`.

    The same function as :func:`losses.bce`, written for signs elsewhere as
    :math:`\log(1 + e^{-sx})`. It is `F.soft_margin_loss`, which overflows in float32 below a score
    of -88.

    Args:
        scores: positive for the class 1, float [...].
        target: 0, 1 or between, [...].
    """
    return -target * F.logsigmoid(scores) - (1 - target) * F.logsigmoid(-scores)


@loss("binary_perceptron", target="binary", source="Rosenblatt 1958, The perceptron")
def binary_perceptron(scores: Tensor, target: Tensor) -> Tensor:
    r"""How far a score is on the wrong side, :math:`y \max(0, -x) + (1-y) \max(0, x)`.

    The hinge without margin: nothing is left to learn from items on the right side, however near.
    A score of 0 is half a mistake and has half its gradient, so that training can start there.

    Args:
        scores: positive for the class 1, float [...].
        target: 0, 1 or between, [...].
    """
    return torch.maximum(scores, torch.zeros_like(scores)) - target * scores


@loss(
    "perceptron",
    target="index",
    source="Rosenblatt 1958; for many classes Duda & Hart 1973",
)
def perceptron(
    scores: Tensor,
    target: Tensor,
    *,
    class_weight: ClassWeight = None,
    normalizer: Normalizer = "weight",
) -> Parts:
    r"""How far the best score lies above the right one, :math:`w_t (\max_c x_c - x_t)`.

    Cross-entropy with its log-sum-exp replaced by a maximum: it lies below cross-entropy by at most
    log C, and items that are right, by however little, have neither loss nor gradient. Scores that
    tie for the best share its gradient evenly.

    Args:
        scores: unnormalised, float [N, C, ...].
        target: class indices, int [N, ...].
        class_weight: factor per class w [C].
        normalizer: see :func:`losses.cross_entropy`.
    """
    values = scores.amax(1) - scores.gather(1, target.unsqueeze(1)).squeeze(1)
    return weighted(values, target, class_weight, normalizer)


@loss(
    "multiclass_hinge",
    target="index",
    source="Weston & Watkins 1999, Support vector machines for multi-class pattern recognition",
)
def multiclass_hinge(
    scores: Tensor,
    target: Tensor,
    *,
    margin: NonNegative = 1.0,
    power: Literal[1, 2] = 1,
    mean_over_classes: bool = False,
    class_weight: ClassWeight = None,
    normalizer: Normalizer = "weight",
) -> Parts:
    r"""Hinges of the right class against every other,
    :math:`w_t \sum_{c \ne t} \max(0, m + x_c - x_t)^k`.

    `mean_over_classes` divides by C, which makes it `F.multi_margin_loss` (whose weighted mean is
    over items: `normalizer="count"`).

    Args:
        scores: unnormalised, float [N, C, ...].
        target: class indices, int [N, ...].
        margin: m, in units of the score.
        power: k, 1 or 2.
        mean_over_classes: divide by C, the right class included.
        class_weight: factor per class w [C].
        normalizer: see :func:`losses.cross_entropy`.
    """
    index = target.unsqueeze(1)
    lacks = F.relu(scores - scores.gather(1, index) + margin).scatter(1, index, 0)  # [N, C, ...]
    values = (lacks.square() if power == 2 else lacks).sum(1)
    values = values / scores.shape[1] if mean_over_classes else values
    return weighted(values, target, class_weight, normalizer)


@loss(
    "max_hinge",
    target="index",
    source="Crammer & Singer 2001, On the algorithmic implementation of multiclass kernel-based "
    "vector machines",
)
def max_hinge(
    scores: Tensor,
    target: Tensor,
    *,
    margin: NonNegative = 1.0,
    class_weight: ClassWeight = None,
    normalizer: Normalizer = "weight",
) -> Parts:
    r"""Hinge of the right class against its best rival,
    :math:`w_t \max(0, m + \max_{c \ne t} x_c - x_t)`.

    Its gradient touches two scores per item where :func:`multiclass_hinge` touches all that are too
    near. It is scikit-learn's multiclass `hinge_loss`. Rivals that tie share the gradient evenly.

    Args:
        scores: unnormalised, float [N, C, ...].
        target: class indices, int [N, ...].
        margin: m, in units of the score.
        class_weight: factor per class w [C].
        normalizer: see :func:`losses.cross_entropy`.
    """
    index = target.unsqueeze(1)
    rival = scores.scatter(1, index, torch.finfo(scores.dtype).min).amax(1)
    values = F.relu(rival - scores.gather(1, index).squeeze(1) + margin)
    return weighted(values, target, class_weight, normalizer)


@loss(
    "multilabel_hinge",
    target="binary",
    source="Boutell et al. 2004, Learning multi-label scene classification",
    sum_classes=True,
)
def multilabel_hinge(scores: Tensor, target: Tensor, *, margin: NonNegative = 1.0) -> Tensor:
    r"""Hinge of every label, summed over them,
    :math:`\sum_c y_c \max(0, m - x_c) + (1 - y_c) \max(0, m + x_c)`.

    One support vector machine per label ("one against all"). It is not `F.multilabel_margin_loss`,
    which compares labels that are present with labels that are not.

    Args:
        scores: positive where the label is present, float [N, C, ...].
        target: 0, 1 or between, [N, C, ...].
        margin: m, in units of the score.
    """
    return target * F.relu(margin - scores) + (1 - target) * F.relu(margin + scores)
