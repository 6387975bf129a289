"""Losses that wrong labels do little harm to: bounded, or nearly so, where the model is sure.

In the formulas p is the softmax of the scores over C classes and t the class that the label names,
rightly or not. A bounded loss tells a mistake of the model from a mistake of the label no better
than any other; it lets go of both, so that it learns more slowly and needs a start that is not
confidently wrong.
"""

from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from losses.arguments import Bounds, NonNegative, Positive
from losses.core import loss

NEWTON_STEPS = 12
"""Steps to the normaliser of a tempered softmax; ten were enough for every temperature and spread
of scores tried. The last one carries the gradient."""


@loss(
    "gce",
    target="index",
    source="Zhang & Sabuncu 2018, arXiv:1805.07836",
    saturating="it is at most 1/q, and flat where the softmax is sure",
)
def gce(
    logits: Tensor,
    target: Tensor,
    *,
    q: Annotated[float, Bounds(0, 1, low_open=True)] = 0.7,
) -> Tensor:
    r"""Box-Cox transform of the true class's probability, :math:`(1 - p_t^q) / q`.

    Between cross-entropy, its limit for q towards 0, and the absolute error of the probability at
    q = 1, which no symmetric label noise misleads but which hardly learns many classes.

    Args:
        logits: unnormalised scores, float [N, C, ...].
        target: class indices, int [N, ...].
        q: robustness, above 0 and at most 1; the paper takes 0.7.
    """
    log_p = -F.cross_entropy(logits, target, reduction="none")
    return -torch.expm1(q * log_p) / q


@loss("symmetric_ce", target="index", source="Wang et al. 2019, arXiv:1908.06112")
def symmetric_ce(
    logits: Tensor,
    target: Tensor,
    *,
    alpha: Positive = 0.1,
    beta: NonNegative = 1.0,
    log_zero: Annotated[float, Bounds(high=0, high_open=True)] = -4.0,
) -> Tensor:
    r"""Cross-entropy and the reverse one, with label and model exchanged,
    :math:`-\alpha \log p_t - \beta \sum_{c \ne t} p_c A = -\alpha \log p_t - \beta A (1 - p_t)`.

    The logarithm of a label's 0 is infinite and is replaced by A. The reverse part is robust, the
    other learns; together they are :func:`losses.poly1` at epsilon = -A beta / alpha, times alpha.

    Args:
        logits: unnormalised scores, float [N, C, ...].
        target: class indices, int [N, ...].
        alpha: weight of the cross-entropy, above 0; the paper has 0.1 for 10 classes and 6 for 100.
        beta: weight of the reverse cross-entropy; the paper has 1 for 10 classes and 0.1 for 100.
        log_zero: A, below 0, in nats.
    """
    forward = F.cross_entropy(logits, target, reduction="none")
    return alpha * forward + beta * log_zero * torch.expm1(-forward)


@loss("bi_tempered", target="index", source="Amid et al. 2019, arXiv:1906.03361")
def bi_tempered(
    logits: Tensor,
    target: Tensor,
    *,
    t1: Annotated[float, Bounds(0, 1)] = 0.8,
    t2: Annotated[float, Bounds(1)] = 1.2,
) -> Tensor:
    r"""Bregman divergence of a tempered logarithm from a heavy-tailed softmax,
    :math:`-\log_{t_1} q_t - \frac{1}{2 - t_1} \left(1 - \sum_c q_c^{2 - t_1}\right)`
    with :math:`q_c = \exp_{t_2}(x_c - \lambda(x))`, where
    :math:`\log_t z = (z^{1-t} - 1) / (1 - t)`, :math:`\exp_t` is its inverse and
    :math:`\lambda` makes q sum to 1.

    The lower temperature bounds what a far outlier costs, and the upper one widens the softmax's
    tail, for wrong labels near the boundary. At 1 and 1 it is cross-entropy. Above t2 = 1 the
    gradient of a confident mistake falls as a power of the scores' distance, not exponentially.

    Args:
        logits: unnormalised scores, float [N, C, ...].
        target: class indices, int [N, ...].
        t1: temperature of the logarithm, in [0, 1]; below 1 the loss is bounded by 1 / (1 - t1).
        t2: temperature of the softmax, at least 1.
    """
    log_q = _tempered_log_softmax(logits, t2)
    own = log_q.gather(1, target.unsqueeze(1)).squeeze(1)
    power = 2 - t1
    spread = torch.exp(power * log_q).sum(1)
    return (spread - 1) / power - _tempered_log(own, t1)


def _tempered_log(log_z: Tensor, t: float) -> Tensor:
    """The tempered logarithm of z, from its natural logarithm."""
    return log_z if t == 1 else torch.expm1((1 - t) * log_z) / (1 - t)


def _tempered_log_softmax(scores: Tensor, t: float) -> Tensor:
    """Natural logarithm of the tempered softmax over axis 1."""
    if t == 1:
        return F.log_softmax(scores, 1)
    gap = scores.detach().amax(1, keepdim=True) - scores  # >= 0; a shift of scores changes nothing
    fixed, shift = gap.detach(), torch.zeros_like(gap[:, :1])
    for _ in range(NEWTON_STEPS - 1):
        shift = _nearer(fixed, shift.detach(), t)
    return _log_exp(gap + _nearer(gap, shift.detach(), t), t)


def _log_exp(distance: Tensor, t: float) -> Tensor:
    """Natural logarithm of the tempered exponential of minus a distance."""
    return -torch.log1p((t - 1) * distance) / (t - 1)


def _nearer(gap: Tensor, shift: Tensor, t: float) -> Tensor:
    r"""One Newton step towards the shift at which :math:`S = \sum_c \exp_t(-g_c - s)` is 1.

    It solves :math:`S^{1-t} = 1`, which is concave in the shift, and linear for equal gaps: from 0
    the steps rise to the root and never pass it. At the root one step has the root's own gradient.
    """
    log_q = _log_exp(gap + shift, t)
    total = log_q.logsumexp(1, keepdim=True)
    slope = torch.exp(t * (log_q - total)).sum(1, keepdim=True)
    return shift - torch.expm1((1 - t) * total) / ((t - 1) * slope)
