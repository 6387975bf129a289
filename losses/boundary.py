r"""Losses of boundaries and centre lines, and the maps of distances they need.

Those maps come from a target and are made once, with its data: :func:`signed_distance` for boundary
losses, :func:`edge_distance` for :func:`hausdorff_dt`, :func:`border_weight` to multiply the
unreduced values of a cross-entropy with. They are computed on the CPU, one item after another.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from losses.arguments import Bounds, Count, Positive
from losses.core import Parts, loss
from losses.regions import flat
from losses.safe import ratio


def _maps(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@loss(
    "boundary",
    target="fields",
    fields={"logits": "float N C ...", "distance": "float N C ..."},
    example=lambda g: (_maps(g, 5, 3, 4, 4), _maps(g, 5, 3, 4, 4)),
    source="Kervadec et al. 2019, arXiv:1812.07032",
    minimum=None,
    saturating="the gradient runs through the softmax, which is flat where it is sure",
)
def boundary(logits: Tensor, distance: Tensor) -> Tensor:
    r"""Mean over elements of the softmax p times the signed distance to each class's boundary,
    :math:`\frac1L \sum_i \sum_c \phi_{ic}\, p_{ic}`.

    One value per item. On its own it may settle on predicting nothing, so add it to a region loss,
    with a weight that grows over training.

    Args:
        logits: unnormalised scores, float [N, C, ...].
        distance: :math:`\phi`, below 0 inside the class, float [N, C, ...], see
            :func:`signed_distance`; zeros leave a class (the background, say) out.
    """
    return flat((logits.softmax(1) * distance).sum(1), 1).mean(1)


@loss(
    "binary_boundary",
    target="fields",
    fields={"logits": "float N ...", "distance": "float N ..."},
    example=lambda g: (_maps(g, 5, 4, 4), _maps(g, 5, 4, 4)),
    source="Kervadec et al. 2019, arXiv:1812.07032",
    minimum=None,
    saturating="the gradient runs through the sigmoid, which is flat where it is sure",
)
def binary_boundary(logits: Tensor, distance: Tensor) -> Tensor:
    r"""Mean over elements of the sigmoid p times the signed distance to the mask's boundary,
    :math:`\frac1L \sum_i \phi_i\, p_i`.

    One value per item; see :func:`boundary`.

    Args:
        logits: log-odds, float [N, ...].
        distance: :math:`\phi`, below 0 inside the mask, float [N, ...], see
            :func:`signed_distance`.
    """
    return flat(logits.sigmoid() * distance, 1).mean(1)


@loss(
    "hausdorff_dt",
    target="fields",
    fields={
        "logits": "float N ...",
        "target": "float N ...",
        "target_distance": "float N ...",
        "output_distance": "float N ...",
    },
    limits={
        "target": Bounds(0, 1),
        "target_distance": Bounds(0),
        "output_distance": Bounds(0),
    },
    example=lambda g: (
        _maps(g, 5, 4, 4),
        _maps(g, 5, 4, 4).sigmoid(),
        _maps(g, 5, 4, 4).abs(),
        _maps(g, 5, 4, 4).abs(),
    ),
    source="Karimi & Salcudean 2019, arXiv:1904.10030",
    detached="target_distance and output_distance",
    saturating="the gradient runs through the sigmoid, which is flat where it is sure",
)
def hausdorff_dt(
    logits: Tensor,
    target: Tensor,
    target_distance: Tensor,
    output_distance: Tensor,
    *,
    alpha: Positive = 2.0,
) -> Tensor:
    r"""Squared error weighed by how far it lies from the boundaries,
    :math:`\frac1L \sum_i (p_i - y_i)^2 (d_i^\alpha + \hat d_i^\alpha)`.

    One value per item. It stands for the Hausdorff distance, which only one element decides.

    Args:
        logits: log-odds, float [N, ...].
        target: the mask y as 0.0 and 1.0, float [N, ...].
        target_distance: d, to the boundary of the mask, float [N, ...], see :func:`edge_distance`.
        output_distance: :math:`\hat d`, to the boundary of what is predicted, float [N, ...]; zeros
            give the one-sided loss, which needs no map per step.
        alpha: how much more distant errors weigh.
    """
    weight = target_distance.detach() ** alpha + output_distance.detach() ** alpha
    return flat((logits.sigmoid() - target).square() * weight, 1).mean(1)


@loss(
    "hausdorff_er",
    target="binary",
    source="Karimi & Salcudean 2019, arXiv:1904.10030, with the erosion of morphology",
    region=True,
    saturating="the gradient runs through the sigmoid, which is flat where it is sure",
)
def hausdorff_er(
    logits: Tensor,
    target: Tensor,
    *,
    kept: Tensor | None,
    alpha: Positive = 2.0,
    erosions: Count = 10,
) -> Parts:
    r"""Squared error weighed by how many erosions it outlasts,
    :math:`\frac1L \sum_{k=1}^K k^\alpha \sum_i \left[(p - y)^2 \ominus_k B\right]_i`.

    Mistakes in thick clumps lie far from where the boundary should be; those one element thick cost
    nothing, so add it to a region loss. Unlike :func:`hausdorff_dt` it needs no maps. An erosion
    :math:`\ominus B` takes the least of an element and its neighbours along the axes; a convolution
    with a threshold at 1/2, which other code puts in its place, is blind to errors below 1/2. One
    value per item [N, 1]; ignored elements are no mistakes.

    Args:
        logits: log-odds, float [N, ...].
        target: 0, 1 or between, [N, ...].
        alpha: how much more thicker clumps weigh.
        erosions: K, the half width in elements from which on a clump is thick enough.
    """
    error = (logits.sigmoid() - target).square()
    error = error if kept is None else error * kept
    total = torch.zeros_like(error)
    for k in range(1, erosions + 1):
        error = _eroded(error)
        total = total + k**alpha * error
    weight = torch.ones_like(error) if kept is None else kept.to(error.dtype)
    elements = flat(weight, 1).sum(1, keepdim=True)
    values = ratio(flat(total, 1).sum(1, keepdim=True), elements)
    return Parts(values, (elements > 0).to(error.dtype))


@loss(
    "cl_dice",
    target="binary",
    source="Shit et al. 2021, arXiv:2003.07311",
    region=True,
    saturating="the gradient runs through the sigmoid, which is flat where it is sure",
)
def cl_dice(
    logits: Tensor,
    target: Tensor,
    *,
    kept: Tensor | None,
    iterations: Count = 10,
    smooth: Positive = 1.0,
) -> Parts:
    r"""Dice of centre lines S, each within the other's mask,
    :math:`1 - 2 \frac{T_p T_s}{T_p + T_s},\ T_p = \frac{\sum S(p)\, y + s}{\sum S(p) + s},\
    T_s = \frac{\sum S(y)\, p + s}{\sum S(y) + s}`.

    For vessels, roads and other nets, whose connections matter more than their width; add it to
    :func:`losses.binary_dice`. One value per item [N, 1]. Ignored elements are background.

    Args:
        logits: log-odds, float [N, ...] with one to three axes of space.
        target: 0, 1 or between, [N, ...].
        iterations: how often the mask is thinned: at least half the largest width, in elements.
        smooth: s, in elements.
    """
    p = logits.sigmoid() if kept is None else logits.sigmoid() * kept
    line, line_true = (flat(_skeleton(mask, iterations), 1) for mask in (p, target))
    p, y = flat(p, 1), flat(target, 1)
    precision = ((line * y).sum(1) + smooth) / (line.sum(1) + smooth)
    sensitivity = ((line_true * p).sum(1) + smooth) / (line_true.sum(1) + smooth)
    values = 1 - 2 * precision * sensitivity / (precision + sensitivity)
    counts = torch.ones_like(y, dtype=torch.bool) if kept is None else flat(kept, 1)
    counted = counts.any(1, keepdim=True)
    return Parts(torch.where(counted, values.unsqueeze(1), 0), counted.to(y.dtype))


def _skeleton(mask: Tensor, iterations: int) -> Tensor:
    """What openings of ever thinner masks take away, put together as a soft union."""
    line = torch.zeros_like(mask)
    for _ in range(iterations + 1):
        thinner = _eroded(mask)
        lost = (mask - _dilated(thinner)).relu()
        line = line + (lost - line * lost).relu()
        mask = thinner
    return line


def _eroded(mask: Tensor) -> Tensor:
    """The least of each element and its neighbours along the axes."""
    least = mask
    for axis in range(1, mask.ndim):
        least = torch.minimum(least, _slid(mask, axis, torch.minimum))
    return least


def _dilated(mask: Tensor) -> Tensor:
    """The greatest of each element and all its neighbours, diagonal ones too."""
    for axis in range(1, mask.ndim):
        mask = _slid(mask, axis, torch.maximum)
    return mask


def _slid(mask: Tensor, axis: int, pick: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Each element joined with the one before and the one after it along an axis."""
    length = mask.shape[axis]
    if length < 2:
        return mask
    pairs = pick(mask.narrow(axis, 0, length - 1), mask.narrow(axis, 1, length - 1))
    first, last = pairs.narrow(axis, 0, 1), pairs.narrow(axis, length - 2, 1)
    return pick(torch.cat([first, pairs], axis), torch.cat([pairs, last], axis))


def signed_distance(mask: Tensor, *, spacing: Sequence[float] | None = None) -> Tensor:
    """Distance of each element from a mask's rim, below 0 inside, as :func:`boundary` needs it.

    An element outside has its distance to the nearest one inside; one inside has 1 less than its
    distance to the nearest outside, with the sign changed, so that the mask's rim is at 0. Without
    a rim (an empty or a full mask) all is 0.

    Args:
        mask: bool, or any number that is not 0 inside, [N, ...].
        spacing: size of an element along each axis of an item; 1 otherwise. With it distances are
            in its units, and so is the 1.

    Returns:
        float32 [N, ...], on the mask's device.
    """
    inner, outer = _distances(mask, spacing)
    return torch.where(mask != 0, 1 - inner, outer) * ((inner + outer) > 0)


def edge_distance(mask: Tensor, *, spacing: Sequence[float] | None = None) -> Tensor:
    """Distance of each element to the nearest one on the other side of a mask's boundary.

    For :func:`hausdorff_dt`; 0 everywhere where there is no boundary.

    Args:
        mask: bool, or any number that is not 0 inside, [N, ...].
        spacing: size of an element along each axis of an item; 1 otherwise.

    Returns:
        float32 [N, ...], on the mask's device.
    """
    inner, outer = _distances(mask, spacing)
    return inner + outer


def border_weight(cells: Tensor, *, strength: float = 10.0, width: float = 5.0) -> Tensor:
    r"""U-Net's weight map, :math:`1 + w_0 \exp(-(d_1 + d_2)^2 / 2 \sigma^2)` between cells.

    In the background d1 and d2 are distances to the nearest and second nearest cell, so that narrow
    gaps weigh most; within cells, and where there are fewer than two, the weight is 1. Multiply it
    with the weights of classes. After Ronneberger et al. 2015, arXiv:1505.04597, eq. 2.

    Args:
        cells: a number above 0 for each cell and 0 for the background, int [N, ...].
        strength: w0.
        width: sigma, in elements.

    Returns:
        float32 [N, ...], on the same device.
    """
    weights = torch.ones(cells.shape)
    for item, labels in enumerate(cells.cpu().numpy()):
        numbers = [number for number in np.unique(labels) if number > 0]
        if len(numbers) < 2:
            continue
        distances = np.sort([_distance(labels != number, None) for number in numbers], 0)
        bonus = strength * np.exp(-((distances[0] + distances[1]) ** 2) / (2 * width**2))
        weights[item] += torch.from_numpy(np.where(labels > 0, 0, bonus)).float()
    return weights.to(cells.device)


def _distances(mask: Tensor, spacing: Sequence[float] | None) -> tuple[Tensor, Tensor]:
    """Distance to the boundary of what is inside, and of what is outside; 0 on the other side."""
    inside = (mask != 0).cpu().numpy()
    sides = np.zeros((2, *inside.shape), np.float32)
    for item, one in enumerate(inside):
        if one.any() and not one.all():
            sides[:, item] = _distance(one, spacing), _distance(~one, spacing)
    inner, outer = torch.from_numpy(sides).to(mask.device)
    return inner, outer


def _distance(away: np.ndarray, spacing: Sequence[float] | None) -> np.ndarray:
    """Euclidean distance of each element to the nearest that is not `away`."""
    from scipy import ndimage  # a quarter of a second that only maps need

    return np.asarray(ndimage.distance_transform_edt(away, spacing), np.float64)
