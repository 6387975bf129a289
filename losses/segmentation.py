r"""Losses of regions: how far what is predicted of a class differs from what is true of it.

A region is an item's elements (pixels, voxels) in which a class lies, taken softly. In the formulas
p is the probability of the class in an element, y the target there, 0 or 1, and all sums run over
the elements of one item: :math:`P = \sum p`, :math:`G = \sum y`, :math:`TP = \sum p y`,
:math:`FP = \sum p (1 - y)`, :math:`FN = \sum (1 - p) y`. There is one value per item and class,
[N, C], and the mean is over those that count; ignored elements are left out of all sums. Losses
for class indices take the softmax over axis 1; those whose names start with `binary_`, and those
that say so, take masks and the sigmoid, with one value per item [N, 1].

Smoothing s is a number of elements that counts as rightly found. It decides what a class costs that
is `absent` from an item's target, where all that is predicted of it is false:

- `smooth`: it counts, and costs P / (P + s) in the case of Dice: about 1 until nearly nothing is
  predicted of it, then 0. The smaller s, the flatter this is. Without smoothing it is `one`.
- `skip`: it does not count, so what is predicted of it costs only what other classes lose by it.
- `one`: it costs 1 whatever is predicted, and has no gradient; the formula without smoothing.

Confident mistakes have almost no gradient here. Pair these losses with a cross-entropy.
"""

from typing import Literal

import torch
from torch import Tensor

from losses.arguments import NonNegative, Positive
from losses.core import Parts, loss
from losses.regions import SIGMOID, SOFTMAX, Absent, class_sums, counted, mask_sums, tversky_error
from losses.safe import power, ratio


@loss(
    "dice",
    target="index",
    source="Milletari et al. 2016, arXiv:1606.04797 (squared denominators)",
    region=True,
    sums=True,
    saturating=SOFTMAX,
)
def dice(
    logits: Tensor,
    target: Tensor,
    *,
    kept: Tensor | None,
    denominator: Literal["linear", "squared"] = "linear",
    smooth: NonNegative = 1.0,
    absent: Absent = "smooth",
    include_background: bool = True,
) -> Parts:
    r"""One minus the Dice coefficient of each class, :math:`1 - \frac{2\,TP + s}{P + G + s}`.

    Every class weighs the same, however few elements it has. It is the soft F1 score.

    Args:
        logits: unnormalised scores, float [N, C, ...].
        target: class indices, int [N, ...].
        denominator: P is the sum of p ("linear") or of its square ("squared", as in V-Net).
        smooth: s, in elements.
        absent: what a class costs that an item lacks: what the formula says ("smooth"), nothing
            ("skip"), or 1 ("one"); see :mod:`losses.segmentation`.
        include_background: whether class 0 counts as a class.
    """
    squared = denominator == "squared"
    sums = class_sums(logits, target, kept, squared=squared, include_background=include_background)
    return counted(tversky_error(sums, 0.5, 0.5, smooth / 2), sums, absent)


@loss(
    "binary_dice",
    target="binary",
    source="Milletari et al. 2016, arXiv:1606.04797 (squared denominators)",
    region=True,
    sums=True,
    saturating=SIGMOID,
)
def binary_dice(
    logits: Tensor,
    target: Tensor,
    *,
    kept: Tensor | None,
    denominator: Literal["linear", "squared"] = "linear",
    smooth: NonNegative = 1.0,
    absent: Absent = "smooth",
) -> Parts:
    r"""One minus the Dice coefficient of a mask, :math:`1 - \frac{2\,TP + s}{P + G + s}`.

    Where the object is rare, or some items have none, training on it alone may end with nothing
    predicted: see :func:`binary_batch_dice`, or put a cross-entropy beside it. Soft masks have
    their optimum at p = y only with squared denominators.

    Args:
        logits: log-odds, float [N, ...].
        target: 0, 1 or between, [N, ...].
        denominator: P and G are sums of p and y ("linear") or of their squares ("squared").
        smooth: s, in elements.
        absent: what an empty mask costs: what the formula says ("smooth"), nothing ("skip"), or 1
            ("one"); see :mod:`losses.segmentation`.
    """
    sums = mask_sums(logits, target, kept, squared=denominator == "squared")
    return counted(tversky_error(sums, 0.5, 0.5, smooth / 2), sums, absent)


@loss(
    "jaccard",
    target="index",
    source="Rahman & Wang 2016, Optimizing intersection-over-union in deep neural networks",
    region=True,
    sums=True,
    saturating=SOFTMAX,
)
def jaccard(
    logits: Tensor,
    target: Tensor,
    *,
    kept: Tensor | None,
    smooth: NonNegative = 1.0,
    absent: Absent = "smooth",
    include_background: bool = True,
) -> Parts:
    r"""One minus soft intersection over union, :math:`1 - \frac{TP + s}{P + G - TP + s}`.

    With d the Dice loss at twice the smoothing it is 2 d / (1 + d): the same order, steeper near 0.

    Args:
        logits: unnormalised scores, float [N, C, ...].
        target: class indices, int [N, ...].
        smooth: s, in elements.
        absent: what a class costs that an item lacks: what the formula says ("smooth"), nothing
            ("skip"), or 1 ("one"); see :mod:`losses.segmentation`.
        include_background: whether class 0 counts as a class.
    """
    sums = class_sums(logits, target, kept, include_background=include_background)
    return counted(tversky_error(sums, 1, 1, smooth), sums, absent)


@loss(
    "binary_jaccard",
    target="binary",
    source="Rahman & Wang 2016, Optimizing intersection-over-union in deep neural networks",
    region=True,
    sums=True,
    saturating=SIGMOID,
)
def binary_jaccard(
    logits: Tensor,
    target: Tensor,
    *,
    kept: Tensor | None,
    smooth: NonNegative = 1.0,
    absent: Absent = "smooth",
) -> Parts:
    r"""One minus soft intersection over union of a mask, :math:`1 - \frac{TP + s}{P + G - TP + s}`.

    Args:
        logits: log-odds, float [N, ...].
        target: 0, 1 or between, [N, ...].
        smooth: s, in elements.
        absent: what an empty mask costs: what the formula says ("smooth"), nothing ("skip"), or 1
            ("one"); see :mod:`losses.segmentation`.
    """
    sums = mask_sums(logits, target, kept)
    return counted(tversky_error(sums, 1, 1, smooth), sums, absent)


@loss(
    "tversky",
    target="index",
    source="Salehi et al. 2017, arXiv:1706.05721",
    region=True,
    sums=True,
    saturating=SOFTMAX,
)
def tversky(
    logits: Tensor,
    target: Tensor,
    *,
    kept: Tensor | None,
    fp_weight: NonNegative = 0.3,
    fn_weight: NonNegative = 0.7,
    smooth: NonNegative = 1.0,
    absent: Absent = "smooth",
    include_background: bool = True,
) -> Parts:
    r"""One minus the Tversky index, :math:`1 - \frac{TP + s}{TP + a\,FP + b\,FN + s}`.

    Weighs what is missed against what is falsely found. Weights of 1/2 are :func:`dice` at twice
    the smoothing, weights of 1 :func:`jaccard`.

    Args:
        logits: unnormalised scores, float [N, C, ...].
        target: class indices, int [N, ...].
        fp_weight: a, of what is falsely found (the paper's alpha).
        fn_weight: b, of what is missed (the paper's beta).
        smooth: s, in elements.
        absent: what a class costs that an item lacks: what the formula says ("smooth"), nothing
            ("skip"), or 1 ("one"); see :mod:`losses.segmentation`.
        include_background: whether class 0 counts as a class.
    """
    sums = class_sums(logits, target, kept, include_background=include_background)
    return counted(tversky_error(sums, fp_weight, fn_weight, smooth), sums, absent)


@loss(
    "binary_tversky",
    target="binary",
    source="Salehi et al. 2017, arXiv:1706.05721",
    region=True,
    sums=True,
    saturating=SIGMOID,
)
def binary_tversky(
    logits: Tensor,
    target: Tensor,
    *,
    kept: Tensor | None,
    fp_weight: NonNegative = 0.3,
    fn_weight: NonNegative = 0.7,
    smooth: NonNegative = 1.0,
    absent: Absent = "smooth",
) -> Parts:
    r"""One minus the Tversky index of a mask, :math:`1 - \frac{TP + s}{TP + a\,FP + b\,FN + s}`.

    Args:
        logits: log-odds, float [N, ...].
        target: 0, 1 or between, [N, ...].
        fp_weight: a, of what is falsely found.
        fn_weight: b, of what is missed.
        smooth: s, in elements.
        absent: what an empty mask costs: what the formula says ("smooth"), nothing ("skip"), or 1
            ("one"); see :mod:`losses.segmentation`.
    """
    sums = mask_sums(logits, target, kept)
    return counted(tversky_error(sums, fp_weight, fn_weight, smooth), sums, absent)


@loss(
    "focal_tversky",
    target="index",
    source="Abraham & Khan 2018, arXiv:1810.07842",
    region=True,
    sums=True,
    saturating=SOFTMAX,
)
def focal_tversky(
    logits: Tensor,
    target: Tensor,
    *,
    kept: Tensor | None,
    exponent: Positive = 0.75,
    fp_weight: NonNegative = 0.3,
    fn_weight: NonNegative = 0.7,
    smooth: NonNegative = 1.0,
    absent: Absent = "smooth",
    include_background: bool = True,
) -> Parts:
    r"""Power of the Tversky loss of each class,
    :math:`\left(1 - \frac{TP + s}{TP + a\,FP + b\,FN + s}\right)^k`.

    An exponent below 1 is steeper for classes that are nearly right, one above 1 for those that are
    not. The paper's exponent is written :math:`1/\gamma` with :math:`\gamma = 4/3`.

    Args:
        logits: unnormalised scores, float [N, C, ...].
        target: class indices, int [N, ...].
        exponent: k; 1 is :func:`tversky`.
        fp_weight: a, of what is falsely found.
        fn_weight: b, of what is missed (the paper's alpha).
        smooth: s, in elements.
        absent: what a class costs that an item lacks: what the formula says ("smooth"), nothing
            ("skip"), or 1 ("one"); see :mod:`losses.segmentation`.
        include_background: whether class 0 counts as a class.
    """
    sums = class_sums(logits, target, kept, include_background=include_background)
    values = power(tversky_error(sums, fp_weight, fn_weight, smooth), exponent)
    return counted(values, sums, absent)


@loss(
    "binary_focal_tversky",
    target="binary",
    source="Abraham & Khan 2018, arXiv:1810.07842",
    region=True,
    sums=True,
    saturating=SIGMOID,
)
def binary_focal_tversky(
    logits: Tensor,
    target: Tensor,
    *,
    kept: Tensor | None,
    exponent: Positive = 0.75,
    fp_weight: NonNegative = 0.3,
    fn_weight: NonNegative = 0.7,
    smooth: NonNegative = 1.0,
    absent: Absent = "smooth",
) -> Parts:
    r"""Power of the Tversky loss of a mask,
    :math:`\left(1 - \frac{TP + s}{TP + a\,FP + b\,FN + s}\right)^k`.

    Args:
        logits: log-odds, float [N, ...].
        target: 0, 1 or between, [N, ...].
        exponent: k, see :func:`focal_tversky`.
        fp_weight: a, of what is falsely found.
        fn_weight: b, of what is missed.
        smooth: s, in elements.
        absent: what an empty mask costs: what the formula says ("smooth"), nothing ("skip"), or 1
            ("one"); see :mod:`losses.segmentation`.
    """
    sums = mask_sums(logits, target, kept)
    values = power(tversky_error(sums, fp_weight, fn_weight, smooth), exponent)
    return counted(values, sums, absent)


@loss(
    "log_cosh_dice",
    target="index",
    source="Jadon 2020, arXiv:2006.14822",
    region=True,
    sums=True,
    saturating=SOFTMAX,
)
def log_cosh_dice(
    logits: Tensor,
    target: Tensor,
    *,
    kept: Tensor | None,
    smooth: NonNegative = 1.0,
    absent: Absent = "smooth",
    include_background: bool = True,
) -> Parts:
    r"""Logarithm of the hyperbolic cosine of each class's Dice loss d, :math:`\log \cosh d`.

    About d squared over 2: classes that are nearly right pull less than they do in :func:`dice`.

    Args:
        logits: unnormalised scores, float [N, C, ...].
        target: class indices, int [N, ...].
        smooth: s, in elements.
        absent: what a class costs that an item lacks; its d, see :mod:`losses.segmentation`.
        include_background: whether class 0 counts as a class.
    """
    sums = class_sums(logits, target, kept, include_background=include_background)
    d, counts = counted(tversky_error(sums, 0.5, 0.5, smooth / 2), sums, absent)
    return Parts(d.cosh().log(), counts)


@loss(
    "generalised_dice",
    target="index",
    source="Sudre et al. 2017, arXiv:1707.03237",
    region=True,
    sums=True,
    saturating=SOFTMAX,
)
def generalised_dice(
    logits: Tensor, target: Tensor, *, kept: Tensor | None, include_background: bool = True
) -> Parts:
    r"""Dice over all classes at once, weighed by their size,
    :math:`1 - \frac{2 \sum_c w_c TP_c}{\sum_c w_c (P_c + G_c)},\ w_c = G_c^{-2}`.

    One value per item [N, 1]. A class the item lacks has the largest weight of those it has; an
    item that has none of the classes does not count.

    Args:
        logits: unnormalised scores, float [N, C, ...].
        target: class indices, int [N, ...].
        include_background: whether class 0 counts as a class.
    """
    sums = class_sums(logits, target, kept, include_background=include_background)
    there = sums.true > 0
    weight = torch.where(there, sums.true.clamp(min=1).reciprocal().square(), 0)
    weight = torch.where(there, weight, weight.amax(1, keepdim=True))
    total = sums.predicted + sums.true
    values = ratio(
        (weight * (total - 2 * sums.both)).sum(1, keepdim=True),
        (weight * total).sum(1, keepdim=True),
    )
    return Parts(values, there.any(1, keepdim=True).to(values.dtype))
