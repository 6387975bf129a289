r"""Losses of boxes: how far a predicted box overlaps the true one, and what leads it there.

Boxes are [N, 4], corners x1, y1, x2, y2 in any one unit, with one value per box. In the formulas I
is the area of the intersection, U that of the union, w and h are sides, and a star marks the true
box; the hull is the smallest box that holds both, with sides W and H and the area C.

A side is 0 where a box is inverted (x2 < x1), which therefore has no area; its hull spans its
corners all the same. Two boxes without area differ in none, so I / U is 1 there; a hull without
extent adds nothing. Where two sides are equal, so that a minimum has a kink, either gets half of
the gradient.
"""

import math
from typing import Annotated, NamedTuple

import torch
from torch import Tensor

from losses.arguments import Bounds
from losses.core import loss
from losses.safe import ratio

APART = "boxes that do not touch have no gradient"
AtLeastOne = Annotated[float, Bounds(1)]


@loss(
    "iou",
    target="boxes",
    source="Jaccard 1901, Étude comparative de la distribution florale",
    saturating=APART,
)
def iou(boxes: Tensor, target: Tensor) -> Tensor:
    r"""One minus intersection over union, :math:`1 - I / U`.

    The metric itself; for boxes that overlap from the start.

    Args:
        boxes: corners, float [N, 4].
        target: corners [N, 4], in the same units.
    """
    return _pair(boxes, target).loss


@loss("unitbox", target="boxes", source="Yu et al. 2016, arXiv:1608.01471", saturating=APART)
def unitbox(
    boxes: Tensor,
    target: Tensor,
    *,
    floor: Annotated[float, Bounds(0, 1, low_open=True, high_open=True)] = 1e-6,
) -> Tensor:
    r"""Negative logarithm of intersection over union, :math:`-\log \max(\epsilon, I / U)`.

    Pulls harder than :func:`iou` the less boxes overlap.

    Args:
        boxes: corners, float [N, 4].
        target: corners [N, 4], in the same units.
        floor: :math:`\epsilon`, the least overlap; boxes with less have no gradient.
    """
    return -(1 - _pair(boxes, target).loss).clamp(min=floor).log()


@loss("alpha_iou", target="boxes", source="He et al. 2021, arXiv:2110.13675", saturating=APART)
def alpha_iou(boxes: Tensor, target: Tensor, *, alpha: AtLeastOne = 3.0) -> Tensor:
    r"""One minus a power of intersection over union, :math:`1 - (I / U)^\alpha`.

    Pulls harder than :func:`iou` the nearer boxes are, for exact localisation. Below 1 the
    gradient would have no bound where boxes hardly touch.

    Args:
        boxes: corners, float [N, 4].
        target: corners [N, 4], in the same units.
        alpha: 1 is :func:`iou`.
    """
    return 1 - (1 - _pair(boxes, target).loss) ** alpha


@loss("giou", target="boxes", source="Rezatofighi et al. 2019, arXiv:1902.09630")
def giou(boxes: Tensor, target: Tensor) -> Tensor:
    r"""Intersection over union with what the hull wastes, :math:`1 - I / U + (C - U) / C`.

    Lies in [0, 2] and has a gradient for boxes apart. It is
    `torchvision.ops.generalized_box_iou_loss` where boxes have an area.

    Args:
        boxes: corners, float [N, 4].
        target: corners [N, 4], in the same units.
    """
    pair = _pair(boxes, target)
    width, height = _hull(pair).unbind()
    area = width * height
    return pair.loss + ratio(area - pair.union, area)


@loss("diou", target="boxes", source="Zheng et al. 2020, arXiv:1911.08287")
def diou(boxes: Tensor, target: Tensor) -> Tensor:
    r"""Intersection over union with the distance of the centres c in diagonals of the hull,
    :math:`1 - I / U + \frac{|c - c^*|^2}{W^2 + H^2}`.

    Lies in [0, 2] and converges faster than :func:`giou` for boxes apart. It is
    `torchvision.ops.distance_box_iou_loss` where boxes have an area.

    Args:
        boxes: corners, float [N, 4].
        target: corners [N, 4], in the same units.
    """
    pair = _pair(boxes, target)
    return pair.loss + _centres_apart(pair, _hull(pair))


@loss(
    "ciou",
    target="boxes",
    source="Zheng et al. 2020, arXiv:1911.08287",
    detached="the factor alpha of the shapes' difference, as in the paper",
)
def ciou(boxes: Tensor, target: Tensor) -> Tensor:
    r"""As :func:`diou`, with the difference of the shapes,
    :math:`1 - \frac{I}{U} + \frac{|c - c^*|^2}{W^2 + H^2} + \alpha v`.

    Here :math:`v = \frac{4}{\pi^2} (\arctan \frac{w^*}{h^*} - \arctan \frac{w}{h})^2` and
    :math:`\alpha = v / (1 - I / U + v)`, held constant in the gradient. A box with neither side has
    no shape, and v is 0. It is `torchvision.ops.complete_box_iou_loss` where boxes have an area.

    Args:
        boxes: corners, float [N, 4].
        target: corners [N, 4], in the same units.
    """
    pair = _pair(boxes, target)
    angle, shaped = _shape(pair.low, pair.high)
    angle_true, shaped_true = _shape(pair.low_true, pair.high_true)
    v = (4 / math.pi**2) * torch.where(shaped & shaped_true, angle - angle_true, 0).square()
    alpha = ratio(v, pair.loss + v).detach()
    return pair.loss + _centres_apart(pair, _hull(pair)) + alpha * v


@loss("eiou", target="boxes", source="Zhang et al. 2021, arXiv:2101.08158")
def eiou(boxes: Tensor, target: Tensor) -> Tensor:
    r"""As :func:`diou`, with the differences of the sides,
    :math:`1 - \frac{I}{U} + \frac{|c - c^*|^2}{W^2 + H^2} + \frac{(w - w^*)^2}{W^2}
    + \frac{(h - h^*)^2}{H^2}`.

    Here w and h are negative for inverted boxes, so that their gradient turns them over.

    Args:
        boxes: corners, float [N, 4].
        target: corners [N, 4], in the same units.
    """
    pair = _pair(boxes, target)
    hull = _hull(pair)
    longer = (pair.high - pair.low) - (pair.high_true - pair.low_true)
    width, height = ratio(longer.square(), hull.square()).unbind()
    return pair.loss + _centres_apart(pair, hull) + width + height


class _Pair(NamedTuple):
    """Two boxes as columns: lower and upper corners [axis, N], and what their overlap costs."""

    low: Tensor
    high: Tensor
    low_true: Tensor
    high_true: Tensor
    union: Tensor
    loss: Tensor  # 1 - I / U, without the difference


def _pair(boxes: Tensor, target: Tensor) -> _Pair:
    # [4, N], for whole rows are much faster than columns.
    corners, corners_true = boxes.t().contiguous(), target.t().contiguous()
    low, high, low_true, high_true = (c[i : i + 2] for c in (corners, corners_true) for i in (0, 2))
    inner = _area(torch.maximum(low, low_true), torch.minimum(high, high_true))
    apart = _area(low, high) + _area(low_true, high_true) - 2 * inner
    union = apart + inner
    return _Pair(low, high, low_true, high_true, union, ratio(apart, union))


def _area(low: Tensor, high: Tensor) -> Tensor:
    width, height = (high - low).clamp(min=0).unbind()
    return width * height


def _hull(pair: _Pair) -> Tensor:
    """Sides [2, N] of the smallest box that holds all corners."""
    ends = torch.minimum(pair.low, pair.high), torch.minimum(pair.low_true, pair.high_true)
    tops = torch.maximum(pair.low, pair.high), torch.maximum(pair.low_true, pair.high_true)
    return torch.maximum(*tops) - torch.minimum(*ends)


def _centres_apart(pair: _Pair, hull: Tensor) -> Tensor:
    shift = (pair.low + pair.high - pair.low_true - pair.high_true) / 2
    return ratio(_squares(shift), _squares(hull))


def _squares(sides: Tensor) -> Tensor:
    width, height = sides.unbind()
    return width * width + height * height


def _shape(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Arctangent of width over height, and whether there is one: not of a box with neither."""
    sides = (high - low).clamp(min=0)
    width, height = sides.unbind()
    shaped = _squares(sides) > torch.finfo(sides.dtype).tiny
    return torch.atan2(width, torch.where(shaped, height, 1)), shaped
