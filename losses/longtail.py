"""Losses for classes of very unequal sizes, which know how many training items each class has.

In the formulas x are the scores, t the true class of C and n the training items per class. Counts
matter only in proportion, so shares do as well; a class without items is held as rare as the rarest
that has some, for whatever is 0 or infinite there would follow a class that training never shows.
Weights by the effective number of items (Cui et al. 2019) are no loss of their own: any loss with
`class_weight` takes them as `class_weight=effective`, see :func:`losses.class_weight`.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from losses import derivatives
from losses.arguments import ClassCounts, ClassWeight, NonNegative, Positive
from losses.core import Parts, loss
from losses.weighting import Normalizer, weighted


def _logit_adjusted_derivative(
    logits: Tensor, target: Tensor, *, class_counts: ClassCounts = "data", tau: float = 1.0
) -> tuple[Tensor, ...]:
    return derivatives.cross_entropy(_raised(logits, class_counts, tau), target)


@loss(
    "logit_adjusted",
    target="index or probabilities",
    source="Menon et al. 2020, arXiv:2007.07314",
    derivative=_logit_adjusted_derivative,
)
def logit_adjusted(
    logits: Tensor,
    target: Tensor,
    *,
    class_counts: ClassCounts = "data",
    tau: NonNegative = 1.0,
) -> Tensor:
    r"""Cross-entropy of scores raised by the classes' log-shares,
    :math:`-\sum_c y_c \log \frac{e^{x_c + \tau \log \pi_c}}{\sum_k e^{x_k + \tau \log \pi_k}},\
    \pi_c = n_c / \sum_k n_k`.

    The model learns the scores that a balanced data set would give: predict by the largest plain
    score, which minimises the mean of the classes' error rates.

    Args:
        logits: unnormalised scores, float [N, C, ...].
        target: class indices, int [N, ...], or a distribution over classes, float [N, C, ...].
        class_counts: training items per class n [C].
        tau: strength of the adjustment; 0 is plain cross-entropy, 1 is balanced.
    """
    return F.cross_entropy(_raised(logits, class_counts, tau), target, reduction="none")


@loss(
    "balanced_softmax",
    target="index or probabilities",
    source="Ren et al. 2020, arXiv:2007.10740",
    derivative=_logit_adjusted_derivative,
)
def balanced_softmax(
    logits: Tensor, target: Tensor, *, class_counts: ClassCounts = "data"
) -> Tensor:
    r"""Cross-entropy of a softmax that counts,
    :math:`-\sum_c y_c \log \frac{n_c e^{x_c}}{\sum_k n_k e^{x_k}}`.

    It is :func:`logit_adjusted` at tau = 1, found from the shift between a long-tailed training
    set and a balanced test set.

    Args:
        logits: unnormalised scores, float [N, C, ...].
        target: class indices, int [N, ...], or a distribution over classes, float [N, C, ...].
        class_counts: training items per class n [C].
    """
    return F.cross_entropy(_raised(logits, class_counts, 1.0), target, reduction="none")


def _raised(logits: Tensor, counts: ClassCounts, tau: float) -> Tensor:
    counts = _occurring(counts)
    prior = tau * (counts / counts.sum()).log()  # [C]
    return logits + prior.view(-1, *[1] * (logits.ndim - 2))


def _ldam_derivative(
    logits: Tensor,
    target: Tensor,
    *,
    class_counts: ClassCounts = "data",
    max_margin: float = 0.5,
    scale: float = 1.0,
    class_weight: ClassWeight = None,
    normalizer: Normalizer = "weight",
) -> tuple[Tensor, ...]:
    lowered = _lowered(logits, target, class_counts, max_margin)
    return derivatives.ldam(lowered, target, scale, class_weight, normalizer)


@loss(
    "ldam",
    target="index",
    source="Cao et al. 2019, arXiv:1906.07413",
    derivative=_ldam_derivative,
)
def ldam(
    logits: Tensor,
    target: Tensor,
    *,
    class_counts: ClassCounts = "data",
    max_margin: NonNegative = 0.5,
    scale: Positive = 1.0,
    class_weight: ClassWeight = None,
    normalizer: Normalizer = "weight",
) -> Parts:
    r"""Cross-entropy with a margin that is wider for rare classes,
    :math:`-w_t \log \frac{e^{s (x_t - m_t)}}{e^{s (x_t - m_t)} + \sum_{c \ne t} e^{s x_c}},\
    m_c = m_{\max} (n_c / \min_k n_k)^{-1/4}`.

    The authors give it cosines for scores, with a scale of 30, and class weights for the last
    epochs only. The gradient grows with the scale.

    Args:
        logits: scores, unnormalised or cosines, float [N, C, ...].
        target: class indices, int [N, ...].
        class_counts: training items per class n [C].
        max_margin: margin of the rarest class, in units of the scores.
        scale: factor s of the scores.
        class_weight: factor per class w [C].
        normalizer: see :func:`losses.cross_entropy`.
    """
    lowered = _lowered(logits, target, class_counts, max_margin)
    values = F.cross_entropy(scale * lowered, target, reduction="none")
    return weighted(values, target, class_weight, normalizer)


def _lowered(logits: Tensor, target: Tensor, counts: ClassCounts, max_margin: float) -> Tensor:
    """Scores of the true classes less their margins."""
    counts = _occurring(counts)
    margin = max_margin * (counts.amin() / counts) ** 0.25  # [C]
    index = target.unsqueeze(1)
    return logits.scatter(1, index, logits.gather(1, index) - margin[index])


def _occurring(counts: ClassCounts) -> Tensor:
    """Counts in which a class without items has those of the rarest class with some."""
    assert isinstance(counts, Tensor)  # the core has resolved names and lists
    rarest = torch.where(counts > 0, counts, torch.inf).amin()
    return torch.maximum(counts, rarest)
