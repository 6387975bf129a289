"""Losses of dense detectors: a score that says how good a box is, and where its edge lies.

In the formulas p is the sigmoid of the logit and q the quality of the box in [0, 1], its overlap
with the object it is for, 0 where there is none. Detectors divide the sum by the number of
positives, or by their summed quality: that is `reduction="sum"` and a division by the caller.
"""

from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from losses import derivatives
from losses.arguments import Bounds, NonNegative
from losses.core import loss


@loss(
    "quality_focal",
    target="binary",
    source="Li et al. 2020, arXiv:2006.04388",
    quality=True,
    derivative=derivatives.quality_focal,
)
def quality_focal(
    logits: Tensor, target: Tensor, *, beta: Annotated[float, Bounds(1)] = 2.0
) -> Tensor:
    r"""Binary cross-entropy with near hits turned down,
    :math:`-|q - p|^\beta (q \log p + (1 - q) \log(1 - p))`.

    :func:`losses.binary_focal` for a score that is to equal a quality; at q = 0 and 1 they agree.
    It is 0 exactly where p is q.

    Args:
        logits: log-odds, float [...].
        target: quality q, from 0 to 1, [...].
        beta: focusing strength, at least 1; below, the gradient at the target is infinite.
    """
    values = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (target - torch.sigmoid(logits)).abs() ** beta * values


@loss(
    "varifocal",
    target="binary",
    source="Zhang et al. 2020, arXiv:2008.13367",
    quality=True,
    derivative=derivatives.varifocal,
)
def varifocal(
    logits: Tensor, target: Tensor, *, alpha: NonNegative = 0.75, gamma: NonNegative = 2.0
) -> Tensor:
    r"""Cross-entropy of positives by their quality, and negatives turned down where easy,
    :math:`-q (q \log p + (1 - q) \log(1 - p)) \text{ if } q > 0
    \text{ else } -\alpha p^\gamma \log(1 - p)`.

    Unlike :func:`quality_focal` it turns no positive down, for they are few. At q between 0 and 1
    the least value, at p = q, is above 0.

    Args:
        logits: log-odds, float [...].
        target: quality q, from 0 to 1, [...]; exactly 0 is a negative.
        alpha: factor of the negatives.
        gamma: focusing strength among negatives; 0 leaves them as they are.
    """
    easy = torch.exp(gamma * F.logsigmoid(logits))  # p^gamma, whose gradient stays finite at p = 0
    weight = torch.where(target > 0, target, alpha * easy)
    return weight * F.binary_cross_entropy_with_logits(logits, target, reduction="none")


def _expected(logits: Tensor) -> Tensor:
    """Mean place under the softmax over bins, [N, ...]."""
    places = torch.arange(logits.shape[1], device=logits.device, dtype=logits.dtype)
    return (logits.softmax(1) * places.view(-1, *[1] * (logits.ndim - 2))).sum(1)


@loss(
    "distribution_focal",
    target="place",
    source="Li et al. 2020, arXiv:2006.04388",
    point=_expected,
)
def distribution_focal(logits: Tensor, target: Tensor) -> Tensor:
    r"""Cross-entropy of a softmax over bins with the two bins next to a number,
    :math:`-(i + 1 - y) \log S_i - (y - i) \log S_{i+1},\ i = \lfloor y \rfloor`.

    It learns a distribution whose mean is the number, without forcing its form: the distance of a
    box's edge in detectors, any bounded number elsewhere. Between bins the least value is the
    entropy of the two shares.

    Args:
        logits: unnormalised scores of K bins, float [N, K, ...].
        target: places y from 0 to K - 1, in units of bins, of any dtype [N, ...].

    Raises:
        ValueError: a target below 0 or above K - 1 (checked in eager mode on the CPU).
    """
    below = target.floor()
    share = (target - below).unsqueeze(1)
    left = below.long().unsqueeze(1)
    right = (left + 1).clamp(max=logits.shape[1] - 1)  # at the last bin, where its share is 0
    log_s = F.log_softmax(logits, 1)
    return -torch.lerp(log_s.gather(1, left), log_s.gather(1, right), share).squeeze(1)
