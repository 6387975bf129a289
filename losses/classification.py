"""Losses of class scores: cross-entropy in its forms, focal, hinges."""

import torch
from torch import Tensor
from torch.nn import functional as F

from losses.arguments import ClassWeight, NonNegative, Share
from losses.core import loss


@loss("focal", target="index", source="Lin et al. 2017, arXiv:1708.02002, eq. 4")
def focal(logits: Tensor, target: Tensor, *, gamma: NonNegative = 2.0) -> Tensor:
    r"""Cross-entropy with easy items turned down: :math:`-(1 - p_t)^\gamma \log p_t`.

    Args:
        logits: unnormalised scores, float [N, C, ...].
        target: class indices, int64 [N, ...].
        gamma: focusing strength; 0 is plain cross-entropy.
    """
    log_p = F.log_softmax(logits, 1).gather(1, target.unsqueeze(1)).squeeze(1)
    return -((1 - log_p.exp()) ** gamma) * log_p


@loss("cross_entropy", target="index or probabilities", source="Good 1952, Rational decisions")
def cross_entropy(
    logits: Tensor, target: Tensor, *, class_weight: ClassWeight = None, smoothing: Share = 0.0
) -> Tensor:
    r"""Negative log-likelihood of a softmax: :math:`-\log p_t`."""
    return F.cross_entropy(logits, target, reduction="none", label_smoothing=smoothing)


@loss("bce", target="binary", source="Cox 1958")
def bce(logits: Tensor, target: Tensor) -> Tensor:
    r"""Binary cross-entropy: :math:`-y \log p - (1-y) \log (1-p)`."""
    return F.binary_cross_entropy_with_logits(logits, target, reduction="none")
