r"""Losses of regions whose sums run over a whole batch, so that its items are coupled.

Notation is that of the losses of regions: P, G and TP are sums of p, y and p y, here over all
elements of all items that count. A class that one item lacks is measured by the others, which
steadies training on small crops; a batch has one value, [1], and must not be split.
"""

import torch
from torch import Tensor

from losses.arguments import NonNegative
from losses.core import Parts, loss
from losses.regions import (
    SIGMOID,
    SOFTMAX,
    Absent,
    Sums,
    class_sums,
    counted,
    mask_sums,
    tversky_error,
)
from losses.safe import ratio


@loss(
    "batch_dice",
    target="index",
    source="Isensee et al. 2021, nnU-Net",
    region=True,
    sums=True,
    additive=False,
    saturating=SOFTMAX,
)
def batch_dice(
    logits: Tensor,
    target: Tensor,
    *,
    kept: Tensor | None,
    smooth: NonNegative = 1.0,
    absent: Absent = "smooth",
    include_background: bool = True,
) -> Parts:
    r"""One minus the Dice coefficient of each class over a batch, averaged over classes,
    :math:`\frac1C \sum_c 1 - \frac{2\,TP_c + s}{P_c + G_c + s}`.

    Args:
        logits: unnormalised scores, float [N, C, ...].
        target: class indices, int [N, ...].
        smooth: s, in elements.
        absent: what a class costs that the whole batch lacks, see :func:`losses.dice`.
        include_background: whether class 0 counts as a class.
    """
    sums = class_sums(logits, target, kept, include_background=include_background)
    return _of_batch(sums, smooth, absent)


@loss(
    "binary_batch_dice",
    target="binary",
    source="Isensee et al. 2021, nnU-Net",
    region=True,
    sums=True,
    additive=False,
    saturating=SIGMOID,
)
def binary_batch_dice(
    logits: Tensor,
    target: Tensor,
    *,
    kept: Tensor | None,
    smooth: NonNegative = 1.0,
    absent: Absent = "smooth",
) -> Parts:
    r"""One minus the Dice coefficient of all masks of a batch together,
    :math:`1 - \frac{2\,TP + s}{P + G + s}`.

    Args:
        logits: log-odds, float [N, ...].
        target: 0, 1 or between, [N, ...].
        smooth: s, in elements.
        absent: what a batch without any mask costs, see :func:`losses.binary_dice`.
    """
    return _of_batch(mask_sums(logits, target, kept), smooth, absent)


def _of_batch(sums: Sums, smooth: float, absent: Absent) -> Parts:
    """The mean over the classes [K] that count, as one value [1]."""
    whole = Sums(*(part.sum(0, keepdim=True) for part in sums))
    values, counts = counted(tversky_error(whole, 0.5, 0.5, smooth / 2), whole, absent)
    assert counts is not None
    value = ratio(values.sum(1), counts.sum(1))
    return Parts(value, torch.any(counts > 0, 1).to(value.dtype))
