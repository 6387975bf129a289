"""Errata of losses of masks: y the true mask, p the predicted one, both as lists of pixels."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from losses.errata.erratum import Erratum
from losses.module import build


def _balanced_as_printed(y: Tensor, p: Tensor) -> Tensor:
    b = 1 - y / y.numel()  # one per pixel
    return -(b * y * p.log() - (1 - b) * (1 - y) * (1 - p).log()).sum()


def _balanced(y: Tensor, p: Tensor) -> Tensor:
    b = 1 - y.mean()  # one per image
    return -b * (y @ p.log()) - (1 - b) * ((1 - y) @ (1 - p).log())


def _dice(y: Tensor, p: Tensor, smooth: float = 0.0) -> Tensor:
    """From what is found, invented and missed, as the F1 score is."""
    found, invented, missed = (y * p).sum(), ((1 - y) * p).sum(), (y * (1 - p)).sum()
    return (invented + missed) / (2 * found + invented + missed + smooth)


def _jaccard_as_printed(y: Tensor, p: Tensor) -> Tensor:
    union = (y + p - y * p).sum()
    return 1 - union / (y.sum() + p.sum() - (y * p).sum())


def _words_as_printed(y: Tensor, p: Tensor) -> Tensor:
    both = (y * p).sum()
    iou = both / (y.sum() + p.sum() - both)
    return 1 - 2 * iou / (y.sum() + p.sum())


def _tversky_as_printed(y: Tensor, p: Tensor, beta: Tensor) -> Tensor:
    both = y * p
    return (1 - both / (both + beta * (1 - y) * p + (1 - beta) * y * (1 - p))).sum()


def _tversky(y: Tensor, p: Tensor, beta: Tensor) -> Tensor:
    false = beta * ((1 - y) @ p) + (1 - beta) * (y @ (1 - p))
    return false / (y @ p + false)


def _mean_share(y: Tensor, p: Tensor) -> Tensor:
    """Sensitivity and specificity, at b = 1/2."""
    return ((y @ p) / y.sum() + ((1 - y) @ (1 - p)) / (1 - y).sum()) / 2


def _mean_error(y: Tensor, p: Tensor) -> Tensor:
    """The paper's squared errors inside the mask and outside it, at w = 1/2."""
    error = (y - p) ** 2
    return ((y @ error) / y.sum() + ((1 - y) @ error) / (1 - y).sum()) / 2


def _hausdorff(first: Tensor, second: Tensor) -> Tensor:
    distance = torch.cdist(first, second)
    return torch.maximum(distance.amin(1).max(), distance.amin(0).max())


def _ours(name: str, y: Tensor, p: Tensor, **parameters: Any) -> Tensor:
    """The sum over the values of one image."""
    value: Tensor = build(name, reduction="sum", **parameters)(p.logit()[None], y[None])
    return value


PERFECT = ((1.0, 1.0, 1.0, 1.0), (1.0, 1.0, 1.0, 1.0))
BALANCED = r"-\sum_{wh} \left(b_{wh}y\log\hat y - (1-b_{wh})(1-y)\log(1-\hat y)\right)"
BALANCED_RIGHT = r"-\sum \left(b\,y\log p + (1-b)(1-y)\log(1-p)\right)"
XIE = "Xie & Tu 2015, arXiv:1504.06375, eq. 2"
MILLETARI = "Milletari et al. 2016, arXiv:1606.04797"

SEGMENTATION = (
    Erratum(
        name="pixel_bce_sign",
        note="A",
        place="BCE for each pixel, plain and weighted",
        printed=r"-\sum_{wh}\left(y\log\hat y - (1-y)\log(1-\hat y)\right)",
        right=r"-\sum \left(y\log p + (1-y)\log(1-p)\right)",
        authority="the same note's section on binary classification",
        example="mask (1, 0), p = (0.5, 0.9)",
        inputs=((1.0, 0.0), (0.5, 0.9)),
        as_printed=lambda y, p: -(y * p.log() - (1 - y) * (1 - p).log()).sum(),
        reference=lambda y, p: F.binary_cross_entropy(p, y, reduction="sum"),
        consequence="False alarms are rewarded, without end.",
        loss="bce",
        ours=lambda y, p: _ours("bce", y, p),
    ),
    Erratum(
        name="balanced_bce_sign",
        note="A",
        place="balanced BCE",
        printed=BALANCED,
        right=BALANCED_RIGHT,
        authority=XIE,
        example="mask (0.5, 0.5), p = (0.9, 0.9)",
        inputs=((0.5, 0.5), (0.9, 0.9)),
        as_printed=_balanced_as_printed,
        reference=_balanced,
        consequence="Where the background counts at all, in soft masks, false alarms are rewarded.",
        loss="balanced_bce",
        ours=lambda y, p: _ours("balanced_bce", y, p),
    ),
    Erratum(
        name="balanced_bce_weight",
        note="A",
        place="balanced BCE: its weight is one per pixel",
        printed=r"b_{wh} = 1 - y_{wh} / (W H)",
        right=r"b = 1 - \sum_{wh} y_{wh} / (W H)",
        authority=XIE,
        example="mask (1, 0, 0, 0), p = (0.5, 0.9, 0.9, 0.9)",
        inputs=((1.0, 0.0, 0.0, 0.0), (0.5, 0.9, 0.9, 0.9)),
        as_printed=_balanced_as_printed,
        reference=_balanced,
        consequence="Where y is 0 the weight 1 - b is 0 too: the background costs nothing and gets "
        "no gradient.",
        loss="balanced_bce",
        ours=lambda y, p: _ours("balanced_bce", y, p),
    ),
    Erratum(
        name="dice_smoothing",
        note="A",
        place="Dice loss, more efficient form",
        printed=r"1 - 2\frac{\vert y\cap\hat y\vert + 1}{\vert y\vert + \vert\hat y\vert + 1}",
        right=r"1 - \frac{2\,TP + s}{P + G + s}",
        authority=MILLETARI + ", whose coefficient s = 0 leaves as it is",
        example="an empty mask of 4 pixels, nothing predicted",
        inputs=((0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0)),
        as_printed=lambda y, p: 1 - 2 * ((y * p).sum() + 1) / (y.sum() + p.sum() + 1),
        reference=lambda y, p: _dice(y, p, smooth=1.0),
        consequence="A perfect prediction costs less than 0, and -1 where nothing is to be found.",
        loss="binary_dice",
        ours=lambda y, p: _ours("binary_dice", y, p, smooth=1.0),
    ),
    Erratum(
        name="dice_of_iou",
        note="A",
        place="Dice loss, where the intersection is called IoU",
        printed=r"1 - 2\frac{\mathrm{IoU}}{\mathrm{area}(y) + \mathrm{area}(\hat y)}",
        right=r"1 - \frac{2\,TP}{P + G}",
        authority=MILLETARI,
        example="a mask of 4 pixels, predicted perfectly, IoU meaning what it says",
        inputs=PERFECT,
        as_printed=_words_as_printed,
        reference=_dice,
        consequence="A perfect prediction costs nearly 1, and the larger the object, the more.",
        loss="binary_dice",
        ours=lambda y, p: _ours("binary_dice", y, p, smooth=0.0),
    ),
    Erratum(
        name="dice_index_factor",
        note="A",
        place="dice index and soft dice",
        printed=r"1 - \frac{y\cdot\hat y}{\vert y\vert + \vert\hat y\vert}",
        right=r"1 - \frac{2\,TP}{P + G}",
        authority=MILLETARI,
        example="a mask of 4 pixels, predicted perfectly",
        inputs=PERFECT,
        as_printed=lambda y, p: 1 - (y * p).sum() / (y.sum() + p.sum()),
        reference=_dice,
        consequence="No prediction costs less than 1/2.",
        loss="binary_dice",
        ours=lambda y, p: _ours("binary_dice", y, p, smooth=0.0),
    ),
    Erratum(
        name="jaccard_of_union",
        note="A",
        place="Jaccard coefficient, second form",
        printed=r"1 - \frac{\vert y\cup\hat y\vert}"
        r"{\vert y\vert + \vert\hat y\vert - \vert y\cap\hat y\vert}",
        right=r"1 - \frac{TP}{P + G - TP}",
        authority="Jaccard 1901; soft: Rahman & Wang 2016",
        example="mask (1, 1, 0, 0), p = (0, 0, 1, 1)",
        inputs=((1.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 1.0)),
        as_printed=_jaccard_as_printed,
        reference=lambda y, p: 1 - torch.minimum(y, p).sum() / torch.maximum(y, p).sum(),
        consequence="It is the union over the union: every prediction costs 0 and has no gradient.",
        loss="binary_jaccard",
        ours=lambda y, p: _ours("binary_jaccard", y, p, smooth=0.0),
    ),
    Erratum(
        name="tversky_per_pixel",
        note="A",
        place="Tversky loss, with the ratio inside the sum over pixels",
        printed=r"\sum_{wh}\left(1 - \frac{y\hat y}"
        r"{y\hat y + \beta(1-y)\hat y + (1-\beta)y(1-\hat y)}\right)",
        right=r"1 - \frac{TP}{TP + \beta\,FP + (1-\beta)\,FN}",
        authority="Salehi et al. 2017, arXiv:1706.05721",
        example="mask (1, 0, 0, 0), p = (0.5, 0.9, 0.9, 0.1), β = 0.3",
        inputs=((1.0, 0.0, 0.0, 0.0), (0.5, 0.9, 0.9, 0.1), 0.3),
        as_printed=_tversky_as_printed,
        reference=_tversky,
        consequence="Each background pixel costs 1 whatever is predicted and gets no gradient; "
        "where nothing is predicted it is NaN.",
        loss="binary_tversky",
        ours=lambda y, p, beta: _ours(
            "binary_tversky",
            y,
            p,
            fp_weight=beta.item(),
            fn_weight=1 - beta.item(),
            smooth=0.0,
        ),
    ),
    Erratum(
        name="sensitivity_specificity_score",
        note="A",
        place="sensitivity-specificity loss",
        printed=r"b\frac{TP}{TP+FN} + (1-b)\frac{TN}{TN+FP}",
        right=r"b\frac{FN}{TP+FN} + (1-b)\frac{FP}{TN+FP}",
        authority="Brosch et al. 2015, MICCAI, whose squared errors are this in hard masks",
        example="mask (1, 1, 0, 0), predicted perfectly, b = 0.5",
        inputs=((1.0, 1.0, 0.0, 0.0), (1.0, 1.0, 0.0, 0.0)),
        as_printed=_mean_share,
        reference=_mean_error,
        consequence="It is a score: a perfect mask has the largest value and its complement the "
        "least.",
        loss="sensitivity_specificity",
        ours=lambda y, p: _ours("sensitivity_specificity", y, p, sensitivity_weight=0.5),
    ),
    Erratum(
        name="hausdorff_one_sided",
        note="A",
        place="Hausdorff distance among the boundary losses",
        printed=r"\max_{\hat y}\min_y \Vert y - \hat y\Vert^2",
        right=r"\max\left(\max_{\hat y}\min_y \Vert y-\hat y\Vert,"
        r"\ \max_y\min_{\hat y} \Vert y-\hat y\Vert\right)",
        authority="Karimi & Salcudean 2019, arXiv:1904.10030",
        example="true points (0, 0) and (0, 10), predicted (0, 0) alone",
        inputs=(((0.0, 0.0),), ((0.0, 0.0), (0.0, 10.0))),
        as_printed=lambda predicted, true: (torch.cdist(predicted, true) ** 2).amin(1).max(),
        reference=_hausdorff,
        consequence="Whatever part of an object is missed costs nothing, and what is wrongly added "
        "costs its distance squared.",
    ),
    Erratum(
        name="region_mask_area",
        note="A",
        place="Mask R-CNN's loss of masks of m by m, divided by the region's area",
        printed=r"-\frac{1}{w_{RoI}\,h_{RoI}}\sum_{1\le i,j\le m}"
        r"\left[y_{ij}\log\hat y_{ij} + (1-y_{ij})\log(1-\hat y_{ij})\right]",
        right=r"-\frac{1}{m^2}\sum_{1\le i,j\le m}"
        r"\left[y_{ij}\log\hat y_{ij} + (1-y_{ij})\log(1-\hat y_{ij})\right]",
        authority="He et al. 2017, arXiv:1703.06870, section 3: the average binary cross-entropy",
        example="m = 2, mask ((1, 0), (1, 1)), p = 0.8 everywhere, a region of 8 by 4 pixels",
        inputs=(((1.0, 0.0), (1.0, 1.0)), ((0.8, 0.8), (0.8, 0.8)), 8.0, 4.0),
        as_printed=lambda y, p, width, height: (
            -(y * p.log() + (1 - y) * (1 - p).log()).sum() / (width * height)
        ),
        reference=lambda y, p, *_: F.binary_cross_entropy(p, y),
        consequence="Every region has as many elements whatever its size, so large objects count "
        "less the larger they are.",
        loss="bce",
        ours=lambda y, p, *_: build("bce")(p.logit(), y),
    ),
)
