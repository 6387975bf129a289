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
Floor = Annotated[float, Bounds(0, 1, low_open=True, high_open=True)]


def _iou_derivative(boxes: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    pair = _pair(boxes, target)
    loss, by_area, by_inner = _loss_slopes(pair)
    return loss, _to_corners(pair, by_area, by_inner)


@loss(
    "iou",
    target="boxes",
    source="Jaccard 1901, Étude comparative de la distribution florale",
    saturating=APART,
    derivative=_iou_derivative,
)
def iou(boxes: Tensor, target: Tensor) -> Tensor:
    r"""One minus intersection over union, :math:`1 - I / U`.

    The metric itself; for boxes that overlap from the start.

    Args:
        boxes: corners, float [N, 4].
        target: corners [N, 4], in the same units.
    """
    return _pair(boxes, target).loss


def _unitbox_derivative(
    boxes: Tensor, target: Tensor, *, floor: Floor = 1e-6
) -> tuple[Tensor, Tensor]:
    pair = _pair(boxes, target)
    loss, by_area, by_inner = _loss_slopes(pair)
    overlap = 1 - loss
    overlap = torch.where(loss < 0.5, overlap, pair.shared * _inverse(pair.union))
    slope = torch.where(overlap > floor, 1 / overlap.clamp(min=floor), 0)
    return _log_error(loss, overlap, floor), _to_corners(pair, slope * by_area, slope * by_inner)


@loss(
    "unitbox",
    target="boxes",
    source="Yu et al. 2016, arXiv:1608.01471",
    saturating=APART,
    derivative=_unitbox_derivative,
)
def unitbox(boxes: Tensor, target: Tensor, *, floor: Floor = 1e-6) -> Tensor:
    r"""Negative logarithm of intersection over union, :math:`-\log \max(\epsilon, I / U)`.

    Pulls harder than :func:`iou` the less boxes overlap.

    Args:
        boxes: corners, float [N, 4].
        target: corners [N, 4], in the same units.
        floor: :math:`\epsilon`, the least overlap; boxes with less have no gradient.
    """
    pair = _pair(boxes, target)
    return _log_error(pair.loss, ratio(pair.shared, pair.union), floor)


def _log_error(loss: Tensor, overlap: Tensor, floor: float) -> Tensor:
    """-log I / U with all its digits, from 1 - I / U where boxes are near and I / U elsewhere."""
    near = loss < 0.5
    close = torch.log1p(-torch.where(near, loss, 0).clamp(max=1 - floor))
    return -torch.where(near, close, torch.where(near, 1, overlap).clamp(min=floor).log())


def _alpha_iou_derivative(
    boxes: Tensor, target: Tensor, *, alpha: AtLeastOne = 3.0
) -> tuple[Tensor, Tensor]:
    pair = _pair(boxes, target)
    loss, by_area, by_inner = _loss_slopes(pair)
    slope = alpha * (1 - loss) ** (alpha - 1)
    return 1 - (1 - loss) ** alpha, _to_corners(pair, slope * by_area, slope * by_inner)


@loss(
    "alpha_iou",
    target="boxes",
    source="He et al. 2021, arXiv:2110.13675",
    saturating=APART,
    derivative=_alpha_iou_derivative,
)
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


def _giou_derivative(boxes: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    pair = _pair(boxes, target)
    loss, by_area, by_inner = _loss_slopes(pair)
    hull = _hull(pair)
    area = _area(hull.sides)
    inverse = _inverse(area)
    by_hull = hull.sides.flip(0) * (pair.union * inverse * inverse)
    values = loss + (area - pair.union) * inverse
    return values, _to_corners(pair, by_area - inverse, by_inner + inverse, hull=(hull, by_hull))


@loss(
    "giou",
    target="boxes",
    source="Rezatofighi et al. 2019, arXiv:1902.09630",
    derivative=_giou_derivative,
)
def giou(boxes: Tensor, target: Tensor) -> Tensor:
    r"""Intersection over union with what the hull wastes, :math:`1 - I / U + (C - U) / C`.

    Lies in [0, 2] and has a gradient for boxes apart. It is
    `torchvision.ops.generalized_box_iou_loss` where boxes have an area.

    Args:
        boxes: corners, float [N, 4].
        target: corners [N, 4], in the same units.
    """
    pair = _pair(boxes, target)
    width, height = _hull(pair).sides.unbind()
    area = width * height
    return pair.loss + ratio(area - pair.union, area)


def _diou_derivative(boxes: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    pair = _pair(boxes, target)
    loss, by_area, by_inner = _loss_slopes(pair)
    hull = _hull(pair)
    centres, by_centre, by_hull = _centre_slopes(pair, hull)
    return loss + centres, _to_corners(pair, by_area, by_inner, by_centre, hull=(hull, by_hull))


@loss(
    "diou",
    target="boxes",
    source="Zheng et al. 2020, arXiv:1911.08287",
    derivative=_diou_derivative,
)
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


def _ciou_derivative(boxes: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    pair = _pair(boxes, target)
    loss, by_area, by_inner = _loss_slopes(pair)
    hull = _hull(pair)
    centres, by_centre, by_hull = _centre_slopes(pair, hull)
    sides = torch.stack([pair.sides, pair.sides_true], 1).relu_()  # [axis, box, N]
    inverse = _inverse(_squares(sides))
    (angle, angle_true), (shaped, shaped_true) = torch.atan2(*sides), inverse.sign()
    turn = (2 / math.pi) * (angle - angle_true) * (shaped * shaped_true)  # v is its square
    v = turn * turn
    alpha = v * _inverse(loss + v)
    by_angle = (4 / math.pi) * alpha * turn * inverse[0]
    width, height = sides[:, 0]
    by_sides = torch.stack([height * by_angle, -width * by_angle]).mul_(sides[:, 0].sign())
    values = loss + centres + alpha * v
    return values, _to_corners(pair, by_area, by_inner, by_centre, by_sides, (hull, by_hull))


@loss(
    "ciou",
    target="boxes",
    source="Zheng et al. 2020, arXiv:1911.08287",
    derivative=_ciou_derivative,
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
    angle, shaped = _shape(pair.sides)
    angle_true, shaped_true = _shape(pair.sides_true)
    v = (4 / math.pi**2) * torch.where(shaped & shaped_true, angle - angle_true, 0).square()
    alpha = ratio(v, pair.loss + v).detach()
    return pair.loss + _centres_apart(pair, _hull(pair)) + alpha * v


def _eiou_derivative(boxes: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    pair = _pair(boxes, target)
    hull = _hull(pair)
    loss, by_area, by_inner = _loss_slopes(pair)
    centres, by_centre, by_hull = _centre_slopes(pair, hull)
    longer, inverse = pair.sides - pair.sides_true, _inverse(hull.sides.square())
    by_sides = longer * inverse
    sides = longer * by_sides
    by_hull.addcmul_(hull.sides * inverse, sides, value=-2)
    by_sides *= 2
    values = loss + centres + sides[0] + sides[1]
    return values, _to_corners(pair, by_area, by_inner, by_centre, by_sides, (hull, by_hull))


@loss(
    "eiou",
    target="boxes",
    source="Zhang et al. 2021, arXiv:2101.08158",
    derivative=_eiou_derivative,
)
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
    longer = pair.sides - pair.sides_true
    width, height = ratio(longer.square(), hull.sides.square()).unbind()
    return pair.loss + _centres_apart(pair, hull) + width + height


@loss("siou", target="boxes", source="Gevorgyan 2022, arXiv:2205.12740")
def siou(boxes: Tensor, target: Tensor, *, theta: AtLeastOne = 4.0) -> Tensor:
    r"""Intersection over union with costs of distance, by its direction, and of shape,
    :math:`1 - \frac{I}{U} + \frac{1}{2} \sum_{x, y} \left[1 - e^{-(2 - \Lambda) \rho}
    + (1 - e^{-\omega})^\theta\right]`.

    Along x :math:`\rho = (c_x - c_x^*)^2 / W^2` and :math:`\omega = |w - w^*| / \max(w, w^*)`, and
    the same along y with H and h. :math:`\Lambda = \sin 2 a`, where a is the angle at which the
    centres' line leaves an axis: along an axis a distance costs most. Sides of inverted boxes are
    negative, as in :func:`eiou`.

    Args:
        boxes: corners, float [N, 4].
        target: corners [N, 4], in the same units.
        theta: the higher, the less a small difference of sides costs; 2 to 6 in the paper.
    """
    pair = _pair(boxes, target)
    shift = _shift(pair)
    across, up = shift.abs().unbind()
    sine = ratio(2 * across * up, _squares(shift))
    distance = ratio(shift.square(), _hull(pair).sides.square())
    longest = torch.maximum(pair.sides, pair.sides_true)
    shape = ratio((pair.sides - pair.sides_true).abs(), longest)
    costs = (-torch.expm1(-shape)) ** theta - torch.expm1((sine - 2) * distance)
    return pair.loss + costs.sum(0) / 2


class _Pair(NamedTuple):
    """Two boxes as rows, lower before upper corners [end, axis, N], and how they overlap."""

    corners: Tensor
    corners_true: Tensor
    sides: Tensor  # of the box, below 0 where it is inverted, [axis, N]
    sides_true: Tensor
    inner: Tensor  # of the intersection, below 0 where there is none, [axis, N]
    shared: Tensor  # area of the intersection
    apart: Tensor  # that of the union less it
    union: Tensor

    @property
    def loss(self) -> Tensor:
        """1 - I / U, without the difference."""
        return ratio(self.apart, self.union)


def _pair(boxes: Tensor, target: Tensor) -> _Pair:
    corners, corners_true = _rows(boxes), _rows(target)
    (low, high), (low_true, high_true) = corners.unbind(), corners_true.unbind()
    sides, sides_true = high - low, high_true - low_true
    inner = torch.minimum(high, high_true) - torch.maximum(low, low_true)
    shared = _area(inner)
    apart = _area(sides) + _area(sides_true) - 2 * shared
    union = apart + shared
    return _Pair(corners, corners_true, sides, sides_true, inner, shared, apart, union)


def _rows(boxes: Tensor) -> Tensor:
    """[end, axis, N], for whole rows are much faster than columns.

    In three dimensions, as torch copies a transposed matrix in blocks, too large for four columns.
    """
    return boxes.reshape(-1, 2, 2).permute(1, 2, 0).contiguous()


def _area(sides: Tensor) -> Tensor:
    width, height = sides.relu().unbind()
    return width * height


class _Hull(NamedTuple):
    """The smallest box that holds all corners; all [axis, N]."""

    sides: Tensor
    below: Tensor  # of the lowest corners, the box's less the true one's
    above: Tensor  # of the highest


def _hull(pair: _Pair) -> _Hull:
    bottom, top = torch.minimum(*pair.corners), torch.maximum(*pair.corners)
    bottom_true, top_true = torch.minimum(*pair.corners_true), torch.maximum(*pair.corners_true)
    sides = torch.maximum(top, top_true) - torch.minimum(bottom, bottom_true)
    return _Hull(sides, bottom - bottom_true, top - top_true)


def _centres_apart(pair: _Pair, hull: _Hull) -> Tensor:
    return ratio(_squares(_shift(pair)), _squares(hull.sides))


def _shift(pair: _Pair) -> Tensor:
    (low, high), (low_true, high_true) = pair.corners.unbind(), pair.corners_true.unbind()
    return (low + high - low_true - high_true) / 2


def _squares(sides: Tensor) -> Tensor:
    width, height = sides.unbind()
    return width * width + height * height


def _shape(sides: Tensor) -> tuple[Tensor, Tensor]:
    """Arctangent of width over height, and whether there is one: not of a box with neither."""
    width, height = sides.relu().unbind()
    shaped = width * width + height * height > torch.finfo(sides.dtype).tiny
    return torch.atan2(width, torch.where(shaped, height, 1)), shaped


def _loss_slopes(pair: _Pair) -> tuple[Tensor, Tensor, Tensor]:
    """1 - I / U, and its derivatives by the box's area and by that of the intersection."""
    inverse = _inverse(pair.union)
    shared = pair.shared * inverse
    return pair.apart * inverse, shared * inverse, -(1 + shared) * inverse


def _centre_slopes(pair: _Pair, hull: _Hull) -> tuple[Tensor, Tensor, Tensor]:
    """The centres' term, and its derivatives by their shift and by the hull's sides [axis, N]."""
    shift, inverse = _shift(pair), _inverse(_squares(hull.sides))
    term, twice = _squares(shift) * inverse, 2 * inverse
    return term, twice * shift, hull.sides * (-term * twice)


def _to_corners(
    pair: _Pair,
    by_area: Tensor,
    by_inner: Tensor,
    by_centre: Tensor | float = 0.0,
    by_sides: Tensor | float = 0.0,
    hull: tuple[_Hull, Tensor] | None = None,
) -> Tensor:
    """Derivative [N, 4] from those by areas [N] and by what lies along each axis [axis, N].

    A corner that is the overlap's or the hull's, so the larger or the smaller of two, has the whole
    slope, and half of it where both are equal: (1 + s) / 2 with the sign s of their difference.
    """
    inner = _area_slope(pair.inner).mul_(by_inner / 2)
    wider = _area_slope(pair.sides).mul_(by_area).add_(inner).add_(by_sides)
    shifted = by_centre / 2
    if hull is not None:
        (_, below, above), by_hull = hull
        below, above, quarter = below.sign(), above.sign(), by_hull / 4
        shifted = (above + below).mul_(quarter).add_(shifted)
        # Of an inverted box the upper corner is the lower end.
        wider += (above - below).add_(2).mul_(quarter).mul_(pair.sides.sign())
    slope = torch.stack([shifted - wider, shifted + wider])
    slope.addcmul_(inner, (pair.corners - pair.corners_true).sign_(), value=-1)
    return slope.permute(2, 0, 1).contiguous().flatten(1)


def _area_slope(sides: Tensor) -> Tensor:
    """Derivative of :func:`_area` by each side; none by a side of 0."""
    sides = sides.relu()
    return sides.flip(0).mul_(sides.sign())


def _inverse(whole: Tensor) -> Tensor:
    """What :func:`losses.safe.ratio` multiplies a part by; 0 where it does not divide."""
    tiny = torch.finfo(whole.dtype).tiny
    sound = torch.gt(whole, tiny, out=torch.empty_like(whole))
    return whole.clamp(min=tiny).reciprocal_().mul_(sound)
