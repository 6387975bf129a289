r"""Losses of a region's elements, each weighed by the region: rates, balanced, combined, sorted.

Notation is that of the losses of regions: p the probability of a class in an element, y the target
there, one item at a time, with ignored elements left out. Targets are class indices, or masks.
"""

from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from losses import fused
from losses.arguments import Bounds, NonNegative, Share
from losses.core import Parts, loss
from losses.regions import SIGMOID, SOFTMAX, cost_sums, counted, flat, mask_sums, tversky_error
from losses.safe import power, ratio

LONG = 1 << 15  # from here on torch sorts a row of integers in linear time, on a CPU


@loss(
    "balanced_bce",
    target="binary",
    source="Xie & Tu 2015, arXiv:1504.06375",
    region=True,
    sums=True,
)
def balanced_bce(logits: Tensor, target: Tensor, *, kept: Tensor | None) -> Parts:
    r"""Binary cross-entropy that balances each mask with its background,
    :math:`-\beta \sum y \log p - (1 - \beta) \sum (1 - y) \log(1 - p)`.

    Here :math:`\beta` is the share of the item's elements outside the mask. For thin structures
    such as edges. The value of an item is the sum over its elements [N, 1], and the mean divides by
    their number. An item without a mask, or without a background, costs nothing by definition.

    Args:
        logits: log-odds, float [N, ...].
        target: 0, 1 or between, [N, ...].
    """
    inside, outside, sums = cost_sums(logits, target, kept)
    within, elements = sums.true, sums.elements
    values = ratio((elements - within) * inside + within * outside, elements)
    return Parts(values, elements)


@loss(
    "combo",
    target="binary",
    source="Taghanaki et al. 2018, arXiv:1805.02798",
    region=True,
    sums=True,
)
def combo(
    logits: Tensor,
    target: Tensor,
    *,
    kept: Tensor | None,
    alpha: Share = 0.5,
    beta: Share = 0.5,
    smooth: NonNegative = 1.0,
) -> Parts:
    r"""Weighted cross-entropy, averaged over an item's elements, with its Dice loss,
    :math:`-\frac{\alpha}{L} \sum \left[\beta y \log p + (1 - \beta)(1 - y) \log(1 - p)\right]
    + (1 - \alpha) \left(1 - \frac{2\,TP + s}{P + G + s}\right)`.

    The paper subtracts the Dice coefficient where this adds its complement: the same up to the
    constant 1 - alpha, so that the minimum is 0. One value per item [N, 1].

    Args:
        logits: log-odds, float [N, ...].
        target: 0, 1 or between, [N, ...].
        alpha: share of the cross-entropy.
        beta: share of the positive part in it; above 1/2 it costs more to miss than to invent.
        smooth: s, in elements.
    """
    inside, outside, sums = cost_sums(logits, target, kept)
    cross_entropy = ratio(beta * inside + (1 - beta) * outside, sums.elements)
    dice = tversky_error(sums, 0.5, 0.5, smooth / 2)
    return counted(alpha * cross_entropy + (1 - alpha) * dice, sums)


Below1 = Annotated[float, Bounds(0, 1, high_open=True)]


@loss(
    "unified_focal",
    target="binary",
    source="Yeung et al. 2022, arXiv:2102.04525 (symmetric)",
    region=True,
)
def unified_focal(
    logits: Tensor,
    target: Tensor,
    *,
    kept: Tensor | None,
    share: Share = 0.5,
    delta: Share = 0.6,
    gamma: Below1 = 0.5,
    smooth: NonNegative = 1.0,
) -> Parts:
    r"""Focal loss and focal Tversky loss of a mask and of its background,
    :math:`\frac{\lambda}{L} \sum w (1 - p_t)^\gamma (-\log p_t) + \frac{1 - \lambda}{2}
    (T_1^{1 - \gamma} + T_0^{1 - \gamma})`.

    Here w is delta in the mask and 1 - delta outside it, and T is one minus the Tversky index of
    the mask (1) or of the background (0) with delta for what is missed of it. One strength serves
    both parts: it turns easy elements down and poor regions up. One value per item [N, 1].

    Args:
        logits: log-odds, float [N, ...].
        target: 0, 1 or between, [N, ...].
        share: lambda, of the focal loss.
        delta: weight of the mask in it, and of what is missed in T; above 1/2 for rare masks.
        gamma: focusing strength; at 0 they are cross-entropy and Tversky loss.
        smooth: s of the Tversky index, in elements.
    """
    focal, mask, background, counts = _unified(logits, target, kept, delta, (gamma, gamma), smooth)
    regions = (power(mask, 1 - gamma) + power(background, 1 - gamma)) / 2
    return Parts((share * focal + (1 - share) * regions) * counts, counts)


@loss(
    "asymmetric_unified_focal",
    target="binary",
    source="Yeung et al. 2022, arXiv:2102.04525 (asymmetric)",
    region=True,
)
def asymmetric_unified_focal(
    logits: Tensor,
    target: Tensor,
    *,
    kept: Tensor | None,
    share: Share = 0.5,
    delta: Share = 0.6,
    gamma: Below1 = 0.5,
    smooth: NonNegative = 1.0,
) -> Parts:
    r"""The same, focusing where a rare mask gains by it,
    :math:`\frac{\lambda}{L} \sum w (1 - p_t)^{\gamma (1 - y)} (-\log p_t)
    + \frac{1 - \lambda}{2} (T_1^{1 - \gamma} + T_0)`.

    As :func:`unified_focal`, but only easy background is turned down, and only a poor mask up.

    Args:
        logits: log-odds, float [N, ...].
        target: 0, 1 or between, [N, ...].
        share: lambda, of the focal loss.
        delta: weight of the mask in it, and of what is missed in T; above 1/2 for rare masks.
        gamma: focusing strength; at 0 they are cross-entropy and Tversky loss.
        smooth: s of the Tversky index, in elements.
    """
    focal, mask, background, counts = _unified(logits, target, kept, delta, (0, gamma), smooth)
    regions = (power(mask, 1 - gamma) + background) / 2
    return Parts((share * focal + (1 - share) * regions) * counts, counts)


def _unified(
    logits: Tensor,
    target: Tensor,
    kept: Tensor | None,
    delta: float,
    gammas: tuple[float, float],
    smooth: float,
) -> tuple[Tensor, ...]:
    """Mean focal loss, Tversky losses of mask and background, and whether an item counts [N, 1]."""
    x, y = flat(logits, 1), flat(target, 1)
    weight = torch.ones_like(y) if kept is None else flat(kept, 1).to(y.dtype)
    log_p, log_q, p = F.logsigmoid(x), F.logsigmoid(-x), x.sigmoid()
    inside = delta * y * torch.exp(gammas[0] * log_q) * -log_p
    outside = (1 - delta) * (1 - y) * torch.exp(gammas[1] * log_p) * -log_q
    rows = (inside + outside, p * y, (1 - p) * (1 - y), (1 - p) * y, p * (1 - y), weight)
    focal, found, clear, missed, invented, elements = (
        (row * weight).sum(1, keepdim=True) for row in rows
    )
    errors = (delta * missed + (1 - delta) * invented, delta * invented + (1 - delta) * missed)
    mask = ratio(errors[0], found + errors[0] + smooth)
    background = ratio(errors[1], clear + errors[1] + smooth)
    return ratio(focal, elements), mask, background, (elements > 0).to(y.dtype)


@loss(
    "sensitivity_specificity",
    target="binary",
    source="Jadon 2020, arXiv:2006.14822",
    region=True,
    sums=True,
    saturating=SIGMOID,
)
def sensitivity_specificity(
    logits: Tensor, target: Tensor, *, kept: Tensor | None, sensitivity_weight: Share = 0.5
) -> Parts:
    r"""Shares of a mask that are missed and of the rest that is falsely found,
    :math:`w \frac{FN}{G} + (1 - w) \frac{FP}{L - G}` with L elements.

    One minus the weighted sum of sensitivity and specificity, which is a score. A side without
    elements costs nothing.

    Args:
        logits: log-odds, float [N, ...].
        target: 0, 1 or between, [N, ...].
        sensitivity_weight: w, of the sensitivity.
    """
    sums = mask_sums(logits, target, kept)
    missed = ratio(sums.true - sums.both, sums.true)
    invented = ratio(sums.predicted - sums.both, sums.elements - sums.true)
    return counted(sensitivity_weight * missed + (1 - sensitivity_weight) * invented, sums)


@loss(
    "squared_sensitivity_specificity",
    target="binary",
    source="Brosch et al. 2015, Deep convolutional encoder networks for multiple sclerosis lesion "
    "segmentation",
    region=True,
    sums=True,
    saturating=SIGMOID,
)
def squared_sensitivity_specificity(
    logits: Tensor, target: Tensor, *, kept: Tensor | None, sensitivity_weight: Share = 0.5
) -> Parts:
    r"""Mean squared errors in a mask and outside it,
    :math:`w \frac{\sum y (y - p)^2}{G} + (1 - w) \frac{\sum (1 - y) (y - p)^2}{L - G}`.

    A side without elements costs nothing.

    Args:
        logits: log-odds, float [N, ...].
        target: 0, 1 or between, [N, ...].
        sensitivity_weight: w, of the error in the mask; the paper's sensitivity ratio.
    """
    y, sums = flat(target, 1), mask_sums(logits, target, kept)
    error = (flat(logits.sigmoid(), 1) - y).square()
    error = error if kept is None else error * flat(kept, 1)
    inside = (y * error).sum(1, keepdim=True)
    outside = ((1 - y) * error).sum(1, keepdim=True)
    missed, invented = ratio(inside, sums.true), ratio(outside, sums.elements - sums.true)
    return counted(sensitivity_weight * missed + (1 - sensitivity_weight) * invented, sums)


@loss(
    "lovasz",
    target="index",
    source="Berman et al. 2018, arXiv:1705.08790",
    region=True,
    saturating=SOFTMAX,
)
def lovasz(
    logits: Tensor,
    target: Tensor,
    *,
    kept: Tensor | None,
    absent: Literal["skip", "count"] = "skip",
    include_background: bool = True,
) -> Parts:
    r"""Jaccard loss of each class, made convex in the errors, :math:`\sum_i m_{(i)} \delta_i`.

    The errors are m = 1 - p in elements of the class and p in others, sorted downwards;
    :math:`\delta_i` is by how much the Jaccard loss of hard masks grows with the i-th as a mistake.
    For hard p it is that loss. One value per item and class [N, C]; it sorts every class's errors.

    Args:
        logits: unnormalised scores, float [N, C, ...].
        target: class indices, int [N, ...].
        absent: a class that an item lacks does not count ("skip"), or costs its largest error
            ("count").
        include_background: whether class 0 counts as a class.
    """
    first = 0 if include_background else 1
    p, index = flat(logits.softmax(1), 2)[:, first:], flat(target, 1).unsqueeze(1)
    true = index == torch.arange(first, logits.shape[1], device=index.device).view(-1, 1)
    there = None if kept is None else flat(kept, 1).unsqueeze(1)
    true = true if there is None else true & there
    values = _lovasz(torch.where(true, 1 - p, p), true, there)
    elements = torch.ones_like(index) if there is None else there
    counts = elements.any(-1) & (true.any(-1) | (absent == "count"))
    return Parts(torch.where(counts, values, 0), counts.to(p.dtype))


@loss(
    "lovasz_hinge",
    target="binary",
    source="Yu & Blaschko 2015, The Lovász hinge; Berman et al. 2018, arXiv:1705.08790",
    region=True,
)
def lovasz_hinge(logits: Tensor, target: Tensor, *, kept: Tensor | None) -> Parts:
    r"""Jaccard loss of a mask, made convex in scores x, :math:`\sum_i \max(0, m_{(i)}) \delta_i`.

    The margin errors m = 1 - x in the mask and 1 + x outside it are sorted downwards, and
    :math:`\delta_i` is as in :func:`lovasz`. An empty mask costs its largest error. One value per
    item [N, 1].

    Args:
        logits: scores, float [N, ...].
        target: 0 or 1, [N, ...]; between them, 1 from 1/2 on.
    """
    x, true = flat(logits, 1), flat(target, 1) >= 0.5
    there = None if kept is None else flat(kept, 1)
    values = _lovasz(1 - torch.where(true, x, -x), true, there).unsqueeze(1)
    elements = torch.ones_like(true) if there is None else there
    return Parts(values, elements.any(1, keepdim=True).to(x.dtype))


def _lovasz(errors: Tensor, true: Tensor, kept: Tensor | None) -> Tensor:
    """Sum of errors [..., L] above 0, each times what it adds to the Jaccard loss."""
    costs = (errors if kept is None else torch.where(kept, errors, 0)).relu()
    with torch.no_grad():
        long = costs.shape[-1] >= LONG and costs.numel() > 0 and costs.device.type == "cpu"
        if long and fused.eager(costs, true):
            rows = zip(costs.flatten(0, -2), true.flatten(0, -2), strict=True)
            steps = torch.stack([_jaccard_steps(*row) for row in rows]).view_as(costs)
        else:
            steps = _jaccard_steps(costs, true)
    return (costs * steps).sum(-1)


def _jaccard_steps(costs: Tensor, true: Tensor) -> Tensor:
    """By how much the Jaccard loss of hard masks grows with each mistake, the worst one first.

    With i true elements left and a union of u after a mistake, that is 1 / u for a true element and
    i / (u (u - 1)) for another; as differences of the loss these would lose most digits.
    """
    bits = torch.int32 if costs.dtype == torch.float32 else torch.int64
    order = costs.abs().view(bits).neg().argsort(-1)  # numbers from 0 on sort as their bits do
    true = true.gather(-1, order)
    found = true.cumsum(-1, dtype=torch.int32)
    left = (true.sum(-1, keepdim=True) - found).to(costs.dtype)
    union = left + torch.arange(1, true.shape[-1] + 1, device=true.device)
    grown = true | (union == 1)
    steps = torch.where(grown, 1, left) / torch.where(grown, union, union * (union - 1))
    return torch.empty_like(steps).scatter(-1, order, steps)
