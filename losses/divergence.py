"""Divergences between the target distribution p and the model's q, the softmax of its logits.

Everything is in nats (natural logarithms), with 0 log 0 = 0. An item's value is the sum over
classes, so the mean is over items (`reduction="batchmean"` of `F.kl_div`).

The reverse Kullback-Leibler and the Jeffreys divergence are infinite by definition wherever p is 0
and q is not, and q never is: with class labels they have no finite value at all. They therefore
compare q with :math:`\\tilde p = (1 - \\epsilon) p + \\epsilon / C`, with a declared `smoothing`
:math:`\\epsilon` above 0.
"""

import math
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from losses import derivatives
from losses.arguments import Bounds
from losses.core import loss

Some = Annotated[float, Bounds(0, 1, low_open=True)]
"""A share that is not nothing."""
Inside = Annotated[float, Bounds(0, 1, low_open=True, high_open=True)]
"""A share strictly between nothing and all."""


def _kl_derivative(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    values, slope = derivatives.cross_entropy(logits, target)
    return values + torch.xlogy(target, target).sum(1), slope


@loss(
    "kl",
    target="probabilities",
    source="Kullback & Leibler 1951, On information and sufficiency",
    derivative=_kl_derivative,
)
def kl(logits: Tensor, target: Tensor) -> Tensor:
    r"""Kullback-Leibler divergence of model from target, :math:`\sum_c p_c \log(p_c / q_c)`.

    Cross-entropy less the target's entropy: the same gradient, and 0 at the optimum also where
    targets are soft. It covers every class the target has. It is `F.kl_div`, "forward" KL.

    Args:
        logits: unnormalised scores, float [N, C, ...].
        target: a distribution over classes, float [N, C, ...], or class indices, int [N, ...].
    """
    # Not F.kl_div, which vmap evaluates in a loop.
    return (torch.xlogy(target, target) - target * F.log_softmax(logits, 1)).sum(1)


@loss(
    "reverse_kl",
    target="probabilities",
    source="Minka 2005, Divergence measures and message passing",
    minimum=None,
    saturating="it is bounded, and flat where the softmax is sure",
    nonmonotone="the optimum is the smoothed target, so surer predictions cost more",
)
def reverse_kl(logits: Tensor, target: Tensor, *, smoothing: Some = 0.01) -> Tensor:
    r"""Kullback-Leibler divergence of target from model,
    :math:`\sum_c q_c \log(q_c / \tilde p_c)`.

    It settles on classes the target has and may leave others of them out ("exclusive", "mode
    seeking"). With index targets pair it with cross-entropy: it corrects no confident mistake.

    Args:
        logits: unnormalised scores, float [N, C, ...].
        target: a distribution over classes, float [N, C, ...], or class indices, int [N, ...].
        smoothing: share :math:`\epsilon` of the target that is spread evenly.
    """
    log_q = F.log_softmax(logits, 1)
    return (log_q.exp() * (log_q - _smoothed(target, smoothing).log())).sum(1)


@loss(
    "jeffreys",
    target="probabilities",
    source="Jeffreys 1946, An invariant form for the prior probability in estimation problems",
    minimum=None,
    nonmonotone="the optimum is the smoothed target, so surer predictions cost more",
)
def jeffreys(logits: Tensor, target: Tensor, *, smoothing: Some = 0.01) -> Tensor:
    r"""Both Kullback-Leibler divergences, :math:`\sum_c (\tilde p_c - q_c) \log(\tilde p_c / q_c)`.

    Symmetric and unbounded; half of it is at times called Jensen-Shannon, which it is not.

    Args:
        logits: unnormalised scores, float [N, C, ...].
        target: a distribution over classes, float [N, C, ...], or class indices, int [N, ...].
        smoothing: share :math:`\epsilon` of the target that is spread evenly.
    """
    log_q, p = F.log_softmax(logits, 1), _smoothed(target, smoothing)
    return ((p - log_q.exp()) * (p.log() - log_q)).sum(1)


@loss(
    "jensen_shannon",
    target="probabilities",
    source="Lin 1991, Divergence measures based on the Shannon entropy",
    saturating="it is at most log 2, and flat where the softmax is sure",
)
def jensen_shannon(logits: Tensor, target: Tensor) -> Tensor:
    r"""Mean divergence from the mixture m of both,
    :math:`\frac12 \mathrm{KL}(p, m) + \frac12 \mathrm{KL}(q, m),\ m = \frac12 (p + q)`.

    Symmetric and in [0, log 2], so that wrong labels weigh little. Its root is
    `scipy.spatial.distance.jensenshannon`.

    Args:
        logits: unnormalised scores, float [N, C, ...].
        target: a distribution over classes, float [N, C, ...], or class indices, int [N, ...].
    """
    return _skew_js(logits, target, 0.5)


@loss(
    "skew_kl",
    target="probabilities",
    source="Lee 1999, Measures of distributional similarity",
    saturating="below alpha = 1 it is at most -log(1 - alpha), and flat where the softmax is sure",
)
def skew_kl(logits: Tensor, target: Tensor, *, alpha: Some = 0.5) -> Tensor:
    r"""Divergence of the target from its mixture with the model,
    :math:`\mathrm{KL}(p, \alpha q + (1 - \alpha) p)`.

    Bounded, so that wrong labels weigh little, and defined where q is 0.

    Args:
        logits: unnormalised scores, float [N, C, ...].
        target: a distribution over classes, float [N, C, ...], or class indices, int [N, ...].
        alpha: share of the model in the mixture; 1 is :func:`kl`, and Lee takes 0.99.
    """
    log_p = _log(target)
    mixture = _log_mixture(F.log_softmax(logits, 1), log_p, alpha)
    return (target * (log_p - mixture)).sum(1)


@loss(
    "skew_js",
    target="probabilities",
    source="Nielsen 2010, arXiv:1009.4004",
    saturating="it is at most -log(1 - alpha), and flat where the softmax is sure",
)
def skew_js(logits: Tensor, target: Tensor, *, alpha: Inside = 0.5) -> Tensor:
    r"""Mean of the skew divergences of either from the other,
    :math:`\frac12 K_\alpha(p, q) + \frac12 K_\alpha(q, p)`
    with :math:`K_\alpha(p, q) = \mathrm{KL}(p, \alpha q + (1-\alpha) p)`.

    :func:`jensen_shannon` at 1/2, and towards half of :func:`jeffreys` as alpha nears 1.

    Args:
        logits: unnormalised scores, float [N, C, ...].
        target: a distribution over classes, float [N, C, ...], or class indices, int [N, ...].
        alpha: share of the other distribution in each mixture, between 0 and 1.
    """
    return _skew_js(logits, target, alpha)


def _skew_js(logits: Tensor, target: Tensor, alpha: float) -> Tensor:
    log_q, log_p = F.log_softmax(logits, 1), _log(target)
    ours = target * (log_p - _log_mixture(log_q, log_p, alpha))
    theirs = log_q.exp() * (log_q - _log_mixture(log_p, log_q, alpha))
    return (ours + theirs).sum(1) / 2


def _smoothed(p: Tensor, share: float) -> Tensor:
    return (1 - share) * p + share / p.shape[1]


def _log(p: Tensor) -> Tensor:
    """Logarithm that is finite at 0, where it is multiplied by 0 or mixed with another."""
    return p.clamp(min=torch.finfo(p.dtype).tiny).log()


def _log_mixture(log_a: Tensor, log_b: Tensor, share: float) -> Tensor:
    """Logarithm of share a + (1 - share) b; in log space, for q underflows where log q does not."""
    if share == 1:
        return log_a
    return torch.logaddexp(log_a + math.log(share), log_b + math.log1p(-share))
