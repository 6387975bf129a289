"""What the losses of regions share: one pass of sums per item and class, and who counts."""

import functools
import math
from collections.abc import Callable, Iterator
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
    """One softmax over C and the sums of every class, never with one-hot rows of a whole batch.

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
    """What differs between classes and masks; p and logits are [N, C, L], the target [N, L].

    The last sum, that of the true elements, has no gradient. A spare buffer of a piece's size, if
    any, is for the rows, or where they need none for what is made of them.
    """

    activation: Callable[..., Tensor]
    sums: Callable[..., tuple[Tensor, ...]]  # of p, logits, target, kept, squared
    rows: Callable[..., Tensor]  # of p, target, kept, spare: the target [N, C, L], for what follows
    sums_: Callable[..., tuple[Tensor, ...]]  # of p, logits, rows, kept, squared, spare
    back_: Callable[..., None]  # of p, rows, squared, spare, slopes: p becomes the gradient
    size: int  # of a piece, in those of losses.fused; smaller with more buffers in use


def _sums(
    kind: _Kind, logits: Tensor, target: Tensor, kept: Tensor | None, squared: bool
) -> tuple[Tensor, ...]:
    """By hand where that may be: piece by piece, with one buffer of the size of the logits."""
    target, kept = flat(target, 1), None if kept is None else flat(kept, 1)
    if kept is None:
        elements = logits.new_full((len(logits), 1), logits.shape[-1])
    else:
        elements = kept.sum(1, keepdim=True).to(logits.dtype)
    if logits.numel() and fused.by_hand(logits, target, kept):
        return *_ByHand.apply(kind, logits, target, kept, squared), elements
    p = _probabilities(kind, logits, kept)
    return *kind.sums(p, logits, target, kept, squared), elements


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
    return both, (p.square() if squared else p).sum(-1), true


def _by_class(index: Tensor, classes: int, *numbers: Tensor) -> list[Tensor]:
    """Sums of each item's numbers [N, L] by class index [N, L]: [N, C]."""
    items, length = index.shape
    lanes = -(-length // RUN) or 1  # partial sums of each class
    bins = index * lanes + torch.arange(lanes, device=index.device).repeat(RUN)[:length]
    empty = numbers[0].new_zeros(items, classes * lanes)
    sums = (empty.scatter_add(1, bins, row) for row in numbers)
    return [rows.view(items, classes, lanes).sum(-1) for rows in sums]


def _one_hot(p: Tensor, index: Tensor, kept: Tensor | None, spare: Tensor | None) -> Tensor:
    """1 at the true class, of a piece: in the cache it is faster than adding by index."""
    number = index.to(p.dtype).unsqueeze(1)
    if kept is not None:
        number.masked_fill_(~kept.unsqueeze(1), -1)
    classes = torch.arange(p.shape[1], dtype=p.dtype, device=p.device).unsqueeze(1)
    if spare is None:  # compiling: never made
        return (number == classes).to(p.dtype)
    return torch.eq(number, classes, out=spare)


def _added(rows: Tensor) -> Tensor:
    """Sums over the last axis; the compiler would add all of a long row to one number."""
    if not torch.compiler.is_compiling():
        return rows.sum(-1)
    whole = F.pad(rows, (0, -rows.shape[-1] % RUN))
    return whole.view(*whole.shape[:-1], RUN, -1).sum(-1).sum(-1)


def _of_one_hot_(
    p: Tensor, _: Tensor, hot: Tensor, _kept: Tensor | None, squared: bool, _spare: Tensor | None
) -> tuple[Tensor, ...]:
    predicted, true = _added(p.square() if squared else p), _added(hot)
    return _added(hot.mul_(p)), predicted, true


def _one_row(p: Tensor, y: Tensor, _: Tensor | None, _spare: Tensor | None = None) -> Tensor:
    return y.unsqueeze(1).to(p.dtype)


def _of_row(
    p: Tensor,
    _: Tensor,
    y: Tensor,
    _kept: Tensor | None,
    squared: bool,
    spare: Tensor | None = None,
) -> tuple[Tensor, ...]:
    predicted, true = (_added(row.square() if squared else row) for row in (p, y))
    return _added(torch.mul(p, y, out=spare)), predicted, true  # y is 0 if it is not kept


def _of_mask(
    p: Tensor, logits: Tensor, y: Tensor, kept: Tensor | None, squared: bool
) -> tuple[Tensor, ...]:
    return _of_row(p, logits, _one_row(p, y, kept), kept, squared)


def _costs_of_row(
    p: Tensor,
    logits: Tensor,
    y: Tensor,
    kept: Tensor | None,
    squared: bool,
    spare: Tensor | None = None,
) -> tuple[Tensor, ...]:
    rest = (1 if kept is None else kept.unsqueeze(1).to(y.dtype)) - y
    inside, outside = y * F.logsigmoid(logits), rest * F.logsigmoid(-logits)
    return -_added(inside), -_added(outside), *_of_row(p, logits, y, kept, squared, spare)


def _of_costs(
    p: Tensor, logits: Tensor, y: Tensor, kept: Tensor | None, squared: bool
) -> tuple[Tensor, ...]:
    return _costs_of_row(p, logits, _one_row(p, y, kept), kept, squared)


def _back_to_classes_(
    p: Tensor,
    hot: Tensor,
    squared: bool,
    _: Tensor | None,
    by_both: Tensor,
    by_predicted: Tensor,
) -> None:
    r"""With the slope :math:`g_c` by each p, :math:`p_c (g_c - \sum_k p_k g_k)`."""
    slope = hot.mul_(by_both).add_(2 * p * by_predicted if squared else by_predicted)
    if torch.compiler.is_compiling() or p.shape[1] > RUN:  # torch's adds one by one, and copies
        p.mul_(slope.sub_((p * slope).sum(1, keepdim=True)))
        return
    into = p if p.is_contiguous() else slope  # torch writes to rows that lie together
    gradient = torch.ops.aten._softmax_backward_data.out(slope, p, 1, p.dtype, grad_input=into)
    if into is slope:
        p.copy_(gradient)


def _back_to_mask_(
    p: Tensor,
    y: Tensor,
    squared: bool,
    spare: Tensor | None,
    by_both: Tensor,
    by_predicted: Tensor,
) -> None:
    r"""With the slope g by each p, :math:`p (1 - p) g`."""
    slope = torch.mul(y, by_both, out=spare).add_(2 * p * by_predicted if squared else by_predicted)
    torch.ops.aten.sigmoid_backward.grad_input(slope, p, grad_input=p)


def _back_to_costs_(
    p: Tensor,
    y: Tensor,
    _: bool,
    spare: Tensor | None,
    by_inside: Tensor,
    by_outside: Tensor,
    by_both: Tensor,
    by_predicted: Tensor,
) -> None:
    r"""With those by the costs, i and o, :math:`(1 - p) (p g - y i) + p (1 - y) o`."""
    rest = 1 - p
    slope = torch.mul(y, by_both, out=spare).add_(by_predicted).mul_(p)
    slope.addcmul_(y, by_inside, value=-1)
    p.mul_(1 - y).mul_(by_outside).addcmul_(slope, rest)


def _softmax(logits: Tensor, out: Tensor | None) -> Tensor:
    """Over axis 1; by powers of 2, which take a quarter of exp's time where MKL's exp is slow."""
    if out is None or out.device.type != "cpu":
        rows = torch.softmax(logits, 1)
        return rows if out is None else out.copy_(rows)
    torch.sub(logits, logits.amax(1, keepdim=True), out=out).mul_(1 / math.log(2)).exp2_()
    return out.div_(out.sum(1, keepdim=True))


_CLASSES = _Kind(_softmax, _of_classes, _one_hot, _of_one_hot_, _back_to_classes_, 8)
_MASK = _Kind(torch.sigmoid, _of_mask, _one_row, _of_row, _back_to_mask_, 8)
_COSTS = _Kind(torch.sigmoid, _of_costs, _one_row, _costs_of_row, _back_to_costs_, 4)


class _ByHand(torch.autograd.Function):
    """Sums and, in the place of the probabilities, the gradient of the logits [N, C, L]."""

    @staticmethod
    def forward(
        ctx: Any, kind: _Kind, logits: Tensor, y: Tensor, kept: Tensor | None, squared: bool
    ) -> tuple[Tensor, ...]:
        ctx.kind, ctx.squared, ctx.compiled = kind, squared, fused.compiles(logits)
        ctx.save_for_backward(logits, y, kept)
        ctx.p = None
        if ctx.compiled:
            sums: tuple[Tensor, ...] = _kernel(_of_piece, kind, squared)(logits.detach(), y, kept)
        else:
            ctx.p, sums = _evaluate(kind, logits, y, kept, squared)
        ctx.mark_non_differentiable(sums[-1])
        return sums

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        kind, (logits, y, kept), slopes = ctx.kind, ctx.saved_tensors, slopes[:-1]
        again = torch.is_grad_enabled()  # somebody will differentiate the gradient
        if again or any(map(fused.several, slopes)):
            with torch.enable_grad():
                p = _probabilities(kind, logits, kept)
                sums = kind.sums(p, logits, y, kept, ctx.squared)[:-1]
            (gradient,) = torch.autograd.grad(sums, logits, slopes, create_graph=again)
            return None, gradient, None, None, None
        if ctx.compiled:
            gradient = _kernel(_gradient, kind, ctx.squared)(logits.detach(), y, kept, slopes)
            return None, gradient, None, None, None
        p, ctx.p = ctx.p, None
        if p is None:  # the graph was retained, and the buffer given away
            p, _ = _evaluate(kind, logits, y, kept, ctx.squared)
        over = (slope.unsqueeze(-1).expand_as(p) for slope in slopes)
        for piece, part, mask, *own, spare in _pieces(kind, p, y, kept, *over):
            kind.back_(piece, kind.rows(piece, part, mask, spare), ctx.squared, spare, *own)
        return None, p, None, None, None


def _evaluate(
    kind: _Kind, logits: Tensor, y: Tensor, kept: Tensor | None, squared: bool
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Probabilities [N, C, L] in one buffer, and the sums."""
    p = torch.empty_like(logits, memory_format=torch.contiguous_format)
    sums = [_of_piece(kind, squared, *piece) for piece in _pieces(kind, logits, y, kept, p)]
    # a piece has several items, or an item several pieces
    rows = (torch.cat(pieces).view(len(p), -1, p.shape[1]) for pieces in zip(*sums, strict=True))
    return p, tuple(row.sum(1) for row in rows)


def _of_piece(
    kind: _Kind,
    squared: bool,
    logits: Tensor,
    y: Tensor,
    kept: Tensor | None,
    into: Tensor | None = None,
    spare: Tensor | None = None,
) -> tuple[Tensor, ...]:
    p = _probabilities(kind, logits, kept, into)
    return kind.sums_(p, logits, kind.rows(p, y, kept, spare), kept, squared, spare)


def _gradient(
    kind: _Kind,
    squared: bool,
    logits: Tensor,
    y: Tensor,
    kept: Tensor | None,
    slopes: tuple[Tensor, ...],
) -> Tensor:
    p = _probabilities(kind, logits, kept)
    rows = kind.rows(p, y, kept, None)
    kind.back_(p, rows, squared, None, *(slope.unsqueeze(-1) for slope in slopes))
    return p


@functools.lru_cache(maxsize=64)
def _kernel(function: Callable[..., Any], kind: _Kind, squared: bool) -> Any:
    """One of the compiler's, of the whole batch and without the buffer of probabilities."""

    def kernel(*tensors: Any) -> Any:
        return function(kind, squared, *tensors)

    return fused.kernel(kernel, f"{function.__name__}_{kind.sums_.__name__}_{squared}")


def _pieces(kind: _Kind, p: Tensor, *others: Tensor | None) -> Iterator[tuple[Any, ...]]:
    """The same part of every tensor, some items or some elements of one; then a spare buffer."""
    _, classes, length = p.shape
    piece = fused.PIECE.get(p.device.type)
    most = fused.WHOLE if piece is None else kind.size * piece
    few, short = max(1, most // (classes * length)), max(1, most // classes)
    spare = p.new_empty(min(p.numel(), max(most, classes)))
    for items in fused.split((p, *others), few, 0):
        for part in fused.split(items, short, -1):
            assert part[0] is not None
            shape = part[0].shape
            yield *part, spare[: shape.numel()].view(shape)


def tversky_error(sums: Sums, fp_weight: float, fn_weight: float, smooth: float) -> Tensor:
    """1 - (TP + s) / (TP + a FP + b FN + s), without the difference."""
    false = fp_weight * (sums.predicted - sums.both) + fn_weight * (sums.true - sums.both)
    return ratio(false, sums.both + false + smooth)


def counted(values: Tensor, sums: Sums, absent: Absent = "smooth") -> Parts:
    """Values [N, K] of the classes that count; an item without elements has none."""
    counts = sums.elements > 0
    if absent == "one":
        values = torch.where(sums.true > 0, values, 1)
    if absent == "skip":
        counts = counts & (sums.true > 0)
    return Parts(torch.where(counts, values, 0), counts.expand_as(values).to(values.dtype))
