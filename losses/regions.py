"""What the losses of regions share: one pass of sums per item and class, and who counts."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from losses.core import Parts
from losses.safe import ratio

Absent = Literal["smooth", "skip", "one"]
"""What a class costs that an item lacks, see :mod:`losses.segmentation`."""
RUN = 128  # longest row of additions: float32 loses digits, and a GPU time, in long ones
SOFTMAX = "the gradient runs through the softmax, which is flat where it is sure"
SIGMOID = "the gradient runs through the sigmoid, which is flat where it is sure"


class Sums(NamedTuple):
    """What is summed over the elements of each item, per class [N, K] but for `elements`."""

    both: Tensor  # TP
    predicted: Tensor  # P, or the sum of squares
    true: Tensor  # G
    elements: Tensor  # those that count, [N, 1]


def class_sums(
    logits: Tensor,
    target: Tensor,
    kept: Tensor | None,
    *,
    squared: bool = False,
    include_background: bool = True,
) -> Sums:
    """One softmax over C and the sums of every class, without one-hot rows.

    Args:
        logits: [N, C, ...].
        target: class indices [N, ...].
        kept: which elements count [N, ...]; None for all.
        squared: whether `predicted` is the sum of squares.
        include_background: whether class 0 is among the K classes.
    """
    p, index = flat(logits.softmax(1), 2), flat(target, 1)  # [N, C, L], [N, L]
    p_true, ones = p.gather(1, index.unsqueeze(1)).squeeze(1), torch.ones_like(p[:, 0])
    if kept is not None:
        weight = flat(kept, 1).to(p.dtype)
        p, p_true, ones = p * weight.unsqueeze(1), p_true * weight, weight
    both, true = (_by_class(numbers, index, p.shape[1]) for numbers in (p_true, ones))
    first = 0 if include_background else 1
    predicted = (p.square() if squared else p).sum(-1)
    elements = true.sum(1, keepdim=True)
    return Sums(both[:, first:], predicted[:, first:], true[:, first:], elements)


def mask_sums(
    logits: Tensor, target: Tensor, kept: Tensor | None, *, squared: bool = False
) -> Sums:
    """The same for one mask per item: logits, target and kept [N, ...]."""
    p, y = flat(logits.sigmoid(), 1), flat(target, 1)
    elements = p.new_full((len(p), 1), p.shape[1])
    if kept is not None:  # the target is 0 where it does not count
        weight = flat(kept, 1).to(p.dtype)
        p, elements = p * weight, weight.sum(1, keepdim=True)
    rows = (p * y, p.square() if squared else p, y.square() if squared else y)
    both, predicted, true = (row.sum(1, keepdim=True) for row in rows)
    return Sums(both, predicted, true, elements)


def flat(tensor: Tensor, axis: int) -> Tensor:
    """Axes from `axis` on as one; a lone element where there are none."""
    return tensor.flatten(axis) if tensor.ndim > axis else tensor.unsqueeze(axis)


def _by_class(numbers: Tensor, index: Tensor, classes: int) -> Tensor:
    """Sum of each item's numbers [N, L] by class index [N, L]: [N, C]."""
    items, length = index.shape
    lanes = -(-length // RUN) or 1  # partial sums of each class
    bins = index * lanes + torch.arange(length, device=index.device) % lanes
    sums = numbers.new_zeros(items, classes * lanes).scatter_add(1, bins, numbers)
    return sums.view(items, classes, lanes).sum(-1)


def tversky_error(sums: Sums, fp_weight: float, fn_weight: float, smooth: float) -> Tensor:
    """1 - (TP + s) / (TP + a FP + b FN + s), without the difference."""
    false = fp_weight * (sums.predicted - sums.both) + fn_weight * (sums.true - sums.both)
    return ratio(false, sums.both + false + smooth)


def counted(values: Tensor, sums: Sums, absent: Absent = "smooth") -> Parts:
    """Values [N, K] of the classes that count; an item without elements has none."""
    there = (sums.true > 0) | (sums.elements == 0)
    if absent == "one":
        values = torch.where(there, values, 1)
    counts = (sums.elements > 0) & (there | (absent != "skip"))
    return Parts(torch.where(counts, values, 0), counts.expand_as(values).to(values.dtype))
