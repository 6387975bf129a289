"""What the losses of regions share: one pass of sums per item and class, and who counts."""

import functools
import itertools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from losses import fused
from losses.core import Parts
from losses.safe import ratio

Absent = Literal["smooth", "skip", "one"]
"""What a class costs that an item lacks, see :mod:`losses.segmentation`."""
RUN = 128  # longest row of additions: float32 loses digits, and a GPU time, in long ones
PIECES = 4  # times those of losses.fused: here fewer buffers are in use
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
    both, predicted, true, elements = _sums(_CLASSES, flat(logits, 2), target, kept, squared)
    first = 0 if include_background else 1
    return Sums(both[:, first:], predicted[:, first:], true[:, first:], elements)


def mask_sums(
    logits: Tensor, target: Tensor, kept: Tensor | None, *, squared: bool = False
) -> Sums:
    """The same for one mask per item: logits, target and kept [N, ...]."""
    return Sums(*_sums(_MASK, flat(logits, 1).unsqueeze(1), target, kept, squared))


def cost_sums(logits: Tensor, target: Tensor, kept: Tensor | None) -> tuple[Tensor, Tensor, Sums]:
    """Sums [N, 1] of -y log p and of -(1 - y) log(1 - p), and those of :func:`mask_sums`."""
    sums = _sums(_COSTS, flat(logits, 1).unsqueeze(1), target, kept, False)
    return sums[0], sums[1], Sums(*sums[2:])


def flat(tensor: Tensor, axis: int) -> Tensor:
    """Axes from `axis` on as one; a lone element where there are none."""
    return tensor.flatten(axis) if tensor.ndim > axis else tensor.unsqueeze(axis)


class _Kind(NamedTuple):
    """What differs between classes and a mask; p and logits are [N, C, L], the target y [N, L].

    The last two sums, the true elements and all, have no gradient.
    """

    activation: Callable[..., Tensor]
    sums: Callable[..., tuple[Tensor, ...]]  # of p, logits, y, kept, squared
    back_: Callable[..., None]  # p becomes the gradient of the logits


def _sums(
    kind: _Kind, logits: Tensor, target: Tensor, kept: Tensor | None, squared: bool
) -> tuple[Tensor, ...]:
    """By hand where that may be: piece by piece, with one buffer of the size of the logits."""
    target, kept = flat(target, 1), None if kept is None else flat(kept, 1)
    if logits.numel() and fused.by_hand(logits, target, kept):
        sums: tuple[Tensor, ...] = _ByHand.apply(kind, logits, target, kept, squared)
        return sums
    return kind.sums(_probabilities(kind, logits, kept), logits, target, kept, squared)


def _probabilities(
    kind: _Kind, logits: Tensor, kept: Tensor | None, into: Tensor | None = None
) -> Tensor:
    """[N, C, L], 0 where an element does not count."""
    p = kind.activation(logits, out=into)
    return p if kept is None else torch.mul(p, kept.unsqueeze(1), out=into)


def _of_classes(
    p: Tensor, _: Tensor, index: Tensor, kept: Tensor | None, squared: bool
) -> tuple[Tensor, ...]:
    p_true = p.gather(1, index.unsqueeze(1)).squeeze(1)
    ones = torch.ones_like(p_true) if kept is None else kept.to(p.dtype)
    both, true = _by_class(index, p.shape[1], p_true, ones)
    return both, (p.square() if squared else p).sum(-1), true, true.sum(1, keepdim=True)


def _by_class(index: Tensor, classes: int, *numbers: Tensor) -> list[Tensor]:
    """Sums of each item's numbers [N, L] by class index [N, L]: [N, C]."""
    items, length = index.shape
    lanes = -(-length // RUN) or 1  # partial sums of each class
    bins = index * lanes + torch.arange(lanes, device=index.device).repeat(RUN)[:length]
    empty = numbers[0].new_zeros(items, classes * lanes)
    sums = (empty.scatter_add(1, bins, row) for row in numbers)
    return [rows.view(items, classes, lanes).sum(-1) for rows in sums]


def _of_mask(
    p: Tensor, _: Tensor, y: Tensor, kept: Tensor | None, squared: bool
) -> tuple[Tensor, ...]:
    p = p.squeeze(1)
    rows = (p * y, p.square() if squared else p, y.square() if squared else y)
    both, predicted, true = (row.sum(1, keepdim=True) for row in rows)  # y is 0 if it is not kept
    elements = torch.full_like(true, y.shape[1]) if kept is None else kept.sum(1, keepdim=True)
    return both, predicted, true, elements.to(p.dtype)


def _of_costs(
    p: Tensor, logits: Tensor, y: Tensor, kept: Tensor | None, squared: bool
) -> tuple[Tensor, ...]:
    x, rest = logits.squeeze(1), (1 if kept is None else kept.to(y.dtype)) - y
    inside, outside = y * F.logsigmoid(x), rest * F.logsigmoid(-x)
    costs = (-row.sum(1, keepdim=True) for row in (inside, outside))
    return *costs, *_of_mask(p, logits, y, kept, squared)


def _back_to_classes_(
    p: Tensor, index: Tensor, squared: bool, by_both: Tensor, by_predicted: Tensor
) -> None:
    r"""With the slope :math:`g_c` by each p, :math:`p_c (g_c - \sum_k p_k g_k)`."""
    at, slope = index.unsqueeze(1), by_predicted.unsqueeze(-1)
    if squared:
        slope = 2 * slope * p
    of_true = p.gather(1, at).mul_(by_both.gather(1, index).unsqueeze(1))
    mean = (p * slope).sum(1, keepdim=True).add_(of_true)
    p.mul_(slope - mean).scatter_add_(1, at, of_true)


def _back_to_mask_(
    p: Tensor, y: Tensor, squared: bool, by_both: Tensor, by_predicted: Tensor
) -> None:
    r"""With the slope g by each p, :math:`p (1 - p) g`."""
    slope = by_predicted.unsqueeze(-1)
    if squared:
        slope = 2 * slope * p
    slope = (y.unsqueeze(1) * by_both.unsqueeze(-1)).add_(slope)
    torch.ops.aten.sigmoid_backward.grad_input(slope, p, grad_input=p)


def _back_to_costs_(
    p: Tensor,
    y: Tensor,
    _: bool,
    by_inside: Tensor,
    by_outside: Tensor,
    by_both: Tensor,
    by_predicted: Tensor,
) -> None:
    r"""With those by the costs, i and o, :math:`(1 - p) (p g - y i) + p (1 - y) o`."""
    p, rest = p.squeeze(1), 1 - p.squeeze(1)
    slope = (y * by_both).add_(by_predicted).mul_(p).addcmul_(y, by_inside, value=-1)
    p.mul_(1 - y).mul_(by_outside).addcmul_(slope, rest)


_CLASSES = _Kind(functools.partial(torch.softmax, dim=1), _of_classes, _back_to_classes_)
_MASK = _Kind(torch.sigmoid, _of_mask, _back_to_mask_)
_COSTS = _Kind(torch.sigmoid, _of_costs, _back_to_costs_)


class _ByHand(torch.autograd.Function):
    """Sums and, in the place of the probabilities, the gradient of the logits [N, C, L]."""

    @staticmethod
    def forward(
        ctx: Any, kind: _Kind, logits: Tensor, y: Tensor, kept: Tensor | None, squared: bool
    ) -> tuple[Tensor, ...]:
        ctx.kind, ctx.squared = kind, squared
        ctx.save_for_backward(logits, y, kept)
        ctx.p, sums = _evaluate(kind, logits, y, kept, squared)
        ctx.mark_non_differentiable(*sums[-2:])
        return sums

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        kind, (logits, y, kept) = ctx.kind, ctx.saved_tensors
        again = torch.is_grad_enabled()  # somebody will differentiate the gradient
        if again or torch._C._functorch.is_legacy_batchedtensor(slopes[0]):
            with torch.enable_grad():
                p = _probabilities(kind, logits, kept)
                sums = kind.sums(p, logits, y, kept, ctx.squared)[:-2]
            (gradient,) = torch.autograd.grad(sums, logits, slopes[:-2], create_graph=again)
            return None, gradient, None, None, None
        p, ctx.p = ctx.p, None
        if p is None:  # the graph was retained, and the buffer given away
            p, _ = _evaluate(kind, logits, y, kept, ctx.squared)
        groups, runs = _pieces(p)
        for items, part in itertools.product(groups, runs):
            own = (slope[items] for slope in slopes[:-2])
            kind.back_(p[items, :, part], y[items, part], ctx.squared, *own)
        return None, p, None, None, None


def _evaluate(
    kind: _Kind, logits: Tensor, y: Tensor, kept: Tensor | None, squared: bool
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Probabilities [N, C, L] in one buffer, and the sums."""
    p = torch.empty_like(logits, memory_format=torch.contiguous_format)
    groups, runs = _pieces(p)
    rows = []
    for items in groups:
        sums = []
        for part in runs:
            mask = None if kept is None else kept[items, part]
            x = logits[items, :, part]
            piece = _probabilities(kind, x, mask, p[items, :, part])
            sums.append(kind.sums(piece, x, y[items, part], mask, squared))
        rows.append([torch.stack(pieces).sum(0) for pieces in zip(*sums, strict=True)])
    return p, tuple(torch.cat(groups) for groups in zip(*rows, strict=True))


def _pieces(p: Tensor) -> tuple[list[slice], list[slice]]:
    """Groups of items and runs of elements, of which any two fit the cache."""
    items, classes, length = p.shape
    most = PIECES * fused.PIECE.get(p.device.type, fused.WHOLE)
    few, short = max(1, most // (classes * length)), max(1, most // classes)
    groups = [slice(i, i + few) for i in range(0, items, few)]
    return groups, [slice(i, i + short) for i in range(0, length, short)]


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
