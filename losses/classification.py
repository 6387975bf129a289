"""Losses of class probabilities: cross-entropy in its forms, focal, asymmetric, Brier.

In the formulas y is the target. For C classes p is the softmax of the logits over axis 1 and t the
true class; for binary and multilabel targets p is the sigmoid of the logits. Binary targets are 0,
1, or a probability between them.
"""

from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from losses import derivatives
from losses.arguments import Bounds, ClassWeight, NonNegative, PerClass, Positive, Share
from losses.core import Parts, loss
from losses.weighting import Normalizer, weight_of, weighted


def _torch_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    reduction: str,
    class_weight: ClassWeight = None,
    smoothing: float = 0.0,
    **_: object,
) -> Tensor | None:
    if class_weight is not None or smoothing:
        return None
    return F.cross_entropy(logits, target, reduction=reduction)


def _torch_bce(
    logits: Tensor, target: Tensor, *, reduction: str, pos_weight: float | Tensor | None = None
) -> Tensor | None:
    if pos_weight is not None:
        return None
    return F.binary_cross_entropy_with_logits(logits, target, reduction=reduction)


@loss(
    "cross_entropy",
    target="index or probabilities",
    source="Good 1952, Rational decisions; smoothing: Szegedy et al. 2016, arXiv:1512.00567",
    derivative=derivatives.cross_entropy,
    total=_torch_cross_entropy,
)
def cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    class_weight: ClassWeight = None,
    smoothing: Share = 0.0,
    normalizer: Normalizer = "weight",
) -> Parts:
    r"""Negative log-likelihood of a softmax, :math:`-\sum_c w_c \tilde y_c \log p_c`.

    Here :math:`\tilde y = (1 - \epsilon) y + \epsilon / C`, with the smoothing :math:`\epsilon`
    spread over all C classes, the true one included. The standard choice for exclusive classes, and
    for maps of them. It is `F.cross_entropy`, and "categorical" or "sparse categorical"
    cross-entropy elsewhere; an index and its one-hot row give the same loss here. torch's mean over
    weighted probability targets divides by the number of items: `normalizer="count"`.

    Args:
        logits: unnormalised scores, float [N, C, ...].
        target: class indices, int [N, ...], or a distribution over classes, float [N, C, ...].
        class_weight: factor per class w [C].
        smoothing: share :math:`\epsilon` of the target that is spread evenly.
        normalizer: the weighted mean divides by the sum of :math:`\sum_c w_c y_c` ("weight") or by
            the number of items ("count").
    """
    assert class_weight is None or isinstance(class_weight, Tensor)
    values = F.cross_entropy(
        logits, target, class_weight, reduction="none", label_smoothing=smoothing
    )
    if class_weight is None or normalizer == "count":
        return Parts(values, None)
    return Parts(values, weight_of(target, class_weight))


@loss(
    "nll",
    target="index",
    source="Fisher 1922, On the mathematical foundations of theoretical statistics",
    output_within=Bounds(high=1e-4),  # log(p + eps) may exceed 0 by rounding
)
def nll(
    log_probabilities: Tensor,
    target: Tensor,
    *,
    class_weight: ClassWeight = None,
    normalizer: Normalizer = "weight",
) -> Parts:
    r"""Negative log-likelihood of log-probabilities, :math:`-w_t \log p_t`.

    For models that end in a log-softmax; those that end in logits want :func:`cross_entropy`. It is
    `F.nll_loss`.

    Args:
        log_probabilities: logarithms of probabilities, at most 0, float [N, C, ...].
        target: class indices, int [N, ...].
        class_weight: factor per class w [C].
        normalizer: see :func:`cross_entropy`.

    Raises:
        ValueError: an output above 0, so no log-probability (checked in eager mode on the CPU).
    """
    # Not F.nll_loss, whose backward needs maps that lie contiguous in memory.
    values = -log_probabilities.gather(1, target.unsqueeze(1)).squeeze(1)
    return weighted(values, target, class_weight, normalizer)


@loss(
    "bce",
    target="binary",
    source="Cox 1958, The regression analysis of binary sequences",
    derivative=derivatives.bce,
    total=_torch_bce,
)
def bce(logits: Tensor, target: Tensor, *, pos_weight: Positive | None = None) -> Tensor:
    r"""Binary cross-entropy, :math:`-w\, y \log p - (1 - y) \log(1 - p)`.

    The standard choice for yes-or-no questions and masks. It is
    `F.binary_cross_entropy_with_logits`, whose mean is over items whatever the weight.

    Args:
        logits: log-odds, float [...].
        target: 0, 1 or between, [...].
        pos_weight: factor w of the positive part; negatives over positives balances the two, see
            :func:`losses.pos_weight`.
    """
    weight = None if pos_weight is None else logits.new_full((), pos_weight)
    return F.binary_cross_entropy_with_logits(logits, target, reduction="none", pos_weight=weight)


@loss(
    "focal",
    target="index",
    source="Lin et al. 2017, arXiv:1708.02002, eq. 5",
    derivative=derivatives.focal,
)
def focal(
    logits: Tensor,
    target: Tensor,
    *,
    gamma: NonNegative = 2.0,
    class_gamma: PerClass = None,
    class_weight: ClassWeight = None,
    normalizer: Normalizer = "weight",
) -> Parts:
    r"""Cross-entropy with easy items turned down, :math:`-w_t (1 - p_t)^\gamma \log p_t`.

    For many easy items beside few hard ones; it also turns wrongly labelled items up. The weights
    are the paper's alpha, whose mean does not divide by them: `normalizer="count"`.

    Args:
        logits: unnormalised scores, float [N, C, ...].
        target: class indices, int [N, ...].
        gamma: focusing strength; 0 is plain cross-entropy.
        class_gamma: one per class in its place [C]: lower for rare classes, say, whose items
            should not be turned down.
        class_weight: factor per class w [C].
        normalizer: see :func:`cross_entropy`.
    """
    index = target.unsqueeze(1)
    rivals = logits.scatter(1, index, torch.finfo(logits.dtype).min)  # [N, C, ...]
    best = rivals.amax(1, keepdim=True).detach()  # the sum of the rivals less this keeps its digits
    log_odds = logits.gather(1, index) - best - (rivals - best).logsumexp(1, keepdim=True)
    strength = class_gamma[target] if isinstance(class_gamma, Tensor) else gamma
    return weighted(focal_term(log_odds.squeeze(1), strength), target, class_weight, normalizer)


@loss(
    "poly1",
    target="index",
    source="Leng et al. 2022, arXiv:2204.12511",
    derivative=derivatives.poly1,
)
def poly1(
    logits: Tensor,
    target: Tensor,
    *,
    epsilon: Annotated[float, Bounds(-1)] = 1.0,
    class_weight: ClassWeight = None,
    normalizer: Normalizer = "weight",
) -> Parts:
    r"""Cross-entropy with its first power changed, :math:`w_t (-\log p_t + \epsilon (1 - p_t))`.

    Cross-entropy is the sum of :math:`(1 - p_t)^j / j`; this adds to the term j = 1, which pulls
    hardest on items that are nearly right. Above 0 that makes sure predictions surer, below 0 less
    so, where cross-entropy overfits.

    Args:
        logits: unnormalised scores, float [N, C, ...].
        target: class indices, int [N, ...].
        epsilon: what is added to the first coefficient, at least -1; 0 is cross-entropy.
        class_weight: factor per class w [C].
        normalizer: see :func:`cross_entropy`.
    """
    values = F.cross_entropy(logits, target, reduction="none")
    return weighted(values - epsilon * torch.expm1(-values), target, class_weight, normalizer)


@loss(
    "binary_focal",
    target="binary",
    source="Lin et al. 2017, arXiv:1708.02002, eq. 5",
    derivative=derivatives.binary_focal,
)
def binary_focal(
    logits: Tensor, target: Tensor, *, gamma: NonNegative = 2.0, alpha: Share | None = None
) -> Tensor:
    r"""Binary cross-entropy with easy items turned down,
    :math:`-\alpha y (1-p)^\gamma \log p - (1-\alpha)(1-y) p^\gamma \log(1-p)`.

    For rare positives among many easy negatives, as in dense detection, where the sum is then
    divided by the number of positives. It is `torchvision.ops.sigmoid_focal_loss` for targets 0 and
    1, which has alpha = 0.25.

    Args:
        logits: log-odds, float [...].
        target: 0, 1 or between, [...].
        gamma: focusing strength; 0 is plain binary cross-entropy.
        alpha: share of the positive part; None leaves both factors out.
    """
    positive, negative = focal_term(logits, gamma), focal_term(-logits, gamma)
    if alpha is not None:
        positive, negative = alpha * positive, (1 - alpha) * negative
    return torch.lerp(negative, positive, target)


HUGE = 100.0  # log-odds


def focal_term(log_odds: Tensor, gamma: float | Tensor) -> Tensor:
    """(1 - p)^gamma (-log p) for p of these log-odds.

    The power is taken in log space: 1 - p loses its digits near p = 1, and its power of a gamma
    below 1 has an infinite gradient at 0. Of huge mistakes the logarithm is taken apart, since the
    slopes of log p and of the log-odds, times a cost as huge, cancel but for rounding.
    """
    log_p = F.logsigmoid(log_odds)
    if isinstance(gamma, float | int) and gamma == 0:
        return -log_p
    log_rest = torch.where(log_odds < -HUGE, F.logsigmoid(-log_odds), log_p - log_odds)
    return torch.exp(gamma * log_rest) * -log_p


@loss(
    "brier",
    target="binary",
    source="Brier 1950, Verification of forecasts expressed in terms of probability",
    derivative=derivatives.brier,
    saturating="the gradient 2 (p - y) p (1 - p) vanishes where p is sure, right or wrong",
)
def brier(logits: Tensor, target: Tensor) -> Tensor:
    r"""Squared error of the probability, :math:`(p - y)^2`.

    Proper like cross-entropy and bounded by 1, so one wrong label cannot dominate, but a confident
    mistake is hardly corrected. Brier's own score is twice this, see :func:`multiclass_brier`.

    Args:
        logits: log-odds, float [...].
        target: 0, 1 or between, [...].
    """
    return (torch.sigmoid(logits) - target).square()


@loss(
    "multiclass_brier",
    target="probabilities",
    source="Brier 1950, Verification of forecasts expressed in terms of probability",
    saturating="the gradient runs through the softmax, which is flat where it is sure",
)
def multiclass_brier(logits: Tensor, target: Tensor) -> Tensor:
    r"""Squared error of the probabilities, summed over classes, :math:`\sum_c (p_c - y_c)^2`.

    As :func:`brier`, for exclusive classes; it lies in [0, 2].

    Args:
        logits: unnormalised scores, float [N, C, ...].
        target: class indices, int [N, ...], or a distribution over classes, float [N, C, ...].
    """
    return (F.softmax(logits, 1) - target).square().sum(1)


@loss(
    "multilabel_bce",
    target="binary",
    source="Nam et al. 2014, arXiv:1312.5419",
    derivative=derivatives.bce,
    total=_torch_bce,
    sum_classes=True,
)
def multilabel_bce(logits: Tensor, target: Tensor, *, pos_weight: PerClass = None) -> Tensor:
    r"""Binary cross-entropy of every label, summed over them,
    :math:`-\sum_c w_c\, y_c \log p_c + (1 - y_c) \log(1 - p_c)`.

    For labels that may occur together. An item's value is the sum over its labels, so the mean is
    over items; :func:`bce` on the same tensors is C times smaller.

    Args:
        logits: log-odds per label, float [N, C, ...].
        target: 0, 1 or between, [N, C, ...].
        pos_weight: factor per label w [C] of its positive part.
    """
    assert pos_weight is None or isinstance(pos_weight, Tensor)
    if pos_weight is not None:
        pos_weight = pos_weight.view(-1, *[1] * (logits.ndim - 2))
    return F.binary_cross_entropy_with_logits(
        logits, target, reduction="none", pos_weight=pos_weight
    )


@loss(
    "multilabel_soft_margin",
    target="binary",
    source="torch.nn.MultiLabelSoftMarginLoss",
    derivative=derivatives.mean_bce,
    sum_classes=True,
)
def multilabel_soft_margin(logits: Tensor, target: Tensor) -> Tensor:
    r"""Binary cross-entropy of every label, averaged over them,
    :math:`-\frac1C \sum_c y_c \log p_c + (1 - y_c) \log(1 - p_c)`.

    It is `F.multilabel_soft_margin_loss`, and :func:`multilabel_bce` over C. Ignored labels add
    nothing and still count in C.

    Args:
        logits: log-odds per label, float [N, C, ...].
        target: 0, 1 or between, [N, C, ...].
    """
    values = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return values / logits.shape[1]


@loss(
    "asymmetric",
    target="binary",
    source="Ridnik et al. 2021, arXiv:2009.14119",
    derivative=derivatives.asymmetric,
    sum_classes=True,
    saturating="with a margin, a negative label costs at most -log margin, however sure the model",
)
def asymmetric(
    logits: Tensor,
    target: Tensor,
    *,
    positive_gamma: NonNegative = 0.0,
    negative_gamma: NonNegative = 4.0,
    margin: Annotated[float, Bounds(0, 1, high_open=True)] = 0.05,
) -> Tensor:
    r"""Binary cross-entropy of every label, its many negatives turned down more, summed over them,
    :math:`-\sum_c y_c (1 - p_c)^{\gamma_+} \log p_c + (1 - y_c)\, \tilde p_c^{\gamma_-}
    \log(1 - \tilde p_c),\ \tilde p = \max(p - m, 0)`.

    For many labels of which an item has few. Negatives below the margin cost nothing, and those
    that the model is sure of lose their gradient, as labels that were probably forgotten; positives
    keep theirs, however far off. Without margin, and with one gamma, it is the sum of
    :func:`binary_focal`.

    Args:
        logits: log-odds per label, float [N, C, ...].
        target: 0, 1 or between, [N, C, ...].
        positive_gamma: focusing strength of positives.
        negative_gamma: focusing strength of negatives.
        margin: m, the probability below which a negative costs nothing.
    """
    positive = focal_term(logits, positive_gamma)
    return torch.lerp(_shifted_focal_term(logits, negative_gamma, margin), positive, target)


def _shifted_focal_term(logits: Tensor, gamma: float, margin: float) -> Tensor:
    """p^gamma (-log(1 - p)) for p of these logits less the margin, 0 where that is below 0."""
    if margin == 0:
        return focal_term(-logits, gamma)
    rest = (torch.sigmoid(-logits) + margin).clamp(max=1)  # 1 - p, and above 0 at every logit
    p = (1 - rest).clamp(min=torch.finfo(rest.dtype).tiny)  # its power has a gradient even at 0
    return p**gamma * -rest.log()
