"""Metrics of maps: true and predicted classes of pixels, int64 [N, H, W].

Pixels whose truth is -100 count nowhere. Sums run over all pixels of a part, so that its batches do
not matter. A class that neither truth nor prediction has anywhere in the part has no score (NaN,
null in a record) and is left out of means.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassConfusionMatrix

from losses.inputs import IGNORE_INDEX


class Overlap(MulticlassConfusionMatrix):
    r"""How regions agree, from counts of pixels by true and predicted class.

    With TP, FP and FN of a class over the whole part: `iou` is TP / (TP + FP + FN), `dice` is
    2 TP / (2 TP + FP + FN), `precision` TP / (TP + FP) and `recall` TP / (TP + FN); `miou` is the
    mean of iou over all classes, `accuracy` the share of pixels that are right. For a mask they are
    those of the foreground, for several classes means over classes, and `dice_NAME` is that of one.
    Precision is 0 where nothing was predicted; recall leaves out classes that are nowhere true.
    """

    confmat: Tensor

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(len(names), ignore_index=IGNORE_INDEX, validate_args=False)
        self.names = names

    def compute(self) -> dict[str, Tensor]:  # type: ignore[override]
        counts = self.confmat.double()  # rows are true classes
        both, true, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
        there = true + predicted > 0
        iou = both / (true + predicted - both)  # 0 / 0 is NaN
        dice = 2 * both / (true + predicted)
        precision = torch.where(there, both / predicted.clamp(min=1), torch.nan)
        recall = both / true
        found = {"dice": dice, "precision": precision, "recall": recall, "iou": iou}
        if len(self.names) == 2:
            judged = {name: values[1] for name, values in found.items()}
        else:
            judged = {name: values.nanmean() for name, values in found.items()}
            judged |= {key_of(name): dice[i] for i, name in enumerate(self.names)}
        return judged | {"miou": iou.nanmean(), "accuracy": both.sum() / counts.sum()}


def key_of(name: str) -> str:
    """What the Dice coefficient of a class is called."""
    return f"dice_{'_'.join(name.split())}"


class OverlapPerImage(Metric):
    """Dice of each image by itself, and what is made of images that lack a class.

    A region is one class of one image, the background apart. `dice` is the mean of the Dice
    coefficients of the regions that truth or prediction has; those that neither has are left out.
    `empty` says how often they are: of the regions that are empty in truth, the share that is empty
    in the prediction too, 1 where none is.
    """

    dices: Tensor
    regions: Tensor
    kept_empty: Tensor
    empty: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        for name in ("dices", "regions", "kept_empty", "empty"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, truth: Tensor) -> None:
        kept = truth != IGNORE_INDEX
        asked = kept.flatten(1).any(1)[:, None]  # [N, 1]
        true, predicted = (self._sizes(kept, classes) for classes in (truth, prediction))
        both = self._sizes(kept & (truth == prediction), truth)
        there, empty = true + predicted > 0, (true == 0) & asked
        self.dices += torch.where(there, 2 * both / (true + predicted).clamp(min=1), 0).sum()
        self.regions += there.sum()
        self.kept_empty += (empty & (predicted == 0)).sum()
        self.empty += empty.sum()

    def _sizes(self, counted: Tensor, classes: Tensor) -> Tensor:
        """Pixels of each image and class but the background, [N, C - 1]."""
        images = torch.arange(len(classes), device=classes.device).view(-1, 1, 1) * self.classes
        numbers = (images + classes)[counted]
        sizes = torch.bincount(numbers, minlength=len(classes) * self.classes)
        return sizes.view(len(classes), self.classes)[:, 1:].double()

    def compute(self) -> dict[str, Tensor]:
        empty = torch.where(self.empty > 0, self.kept_empty / self.empty, 1.0)
        return {"dice": self.dices / self.regions, "empty": empty}


class BoundaryIoU(Metric):
    r"""Intersection over union of the rims of regions.

    The rim of a region G is :math:`G_d`, its pixels that have a pixel outside G, or outside the
    image, within d rows and columns; it is :math:`\frac{\sum |G_d \cap P_d|}{\sum |G_d \cup P_d|}`
    for truth G and prediction P, summed over the whole part, and the mean over classes that have
    a rim, the background apart. d is `share` of the image's diagonal, at least 1 pixel. Pixels that
    are ignored belong to no region. After Cheng et al. 2021, arXiv:2103.16562, whose distance is
    found by erosion too.
    """

    both: Tensor
    either: Tensor

    def __init__(self, classes: int, share: float = 0.02) -> None:
        super().__init__()
        self.classes, self.share = classes, share
        for name in ("both", "either"):
            zeros = torch.zeros(classes - 1, dtype=torch.int64)
            self.add_state(name, zeros, dist_reduce_fx="sum")

    def update(self, prediction: Tensor, truth: Tensor) -> None:
        prediction = prediction.where(truth != IGNORE_INDEX, IGNORE_INDEX)
        height, width = truth.shape[1:]
        reach = max(1, round(self.share * (height**2 + width**2) ** 0.5))
        for each in range(1, self.classes):
            rims = [rim(classes == each, reach) for classes in (prediction, truth)]
            self.both[each - 1] += (rims[0] & rims[1]).sum()
            self.either[each - 1] += (rims[0] | rims[1]).sum()

    def compute(self) -> Tensor:
        return (self.both / self.either).nanmean()


def rim(mask: Tensor, reach: int) -> Tensor:
    """Pixels of masks [N, H, W] within `reach` rows and columns of one outside, or of the edge."""
    outside = F.pad((~mask).float(), (reach,) * 4, value=1.0).unsqueeze(1)
    return mask & (F.max_pool2d(outside, 2 * reach + 1, stride=1).squeeze(1) > 0)


class DiceAtThreshold(Metric):
    """Dice of a mask at the threshold that :meth:`choose` found best, 0.5 before it is called.

    The candidates are 481 thresholds of probability at log-odds from -12 to 12 in steps of 0.05;
    sums over the whole part are exact for each. Given log-odds, for a probability in float32 has no
    digits left near 1.
    """

    counts: Tensor
    edges: Tensor
    MIDDLE = 240

    def __init__(self) -> None:
        super().__init__()
        steps = 2 * self.MIDDLE + 1
        log_odds = torch.arange(-self.MIDDLE, self.MIDDLE + 1, dtype=torch.float64) / 20
        self.register_buffer("edges", log_odds)
        zeros = torch.zeros(2, steps + 1, dtype=torch.int64)
        self.add_state("counts", zeros, dist_reduce_fx="sum")
        self.chosen = self.MIDDLE

    def update(self, output: Tensor, truth: Tensor) -> None:
        kept = truth != IGNORE_INDEX
        places = torch.bucketize(output[kept].double(), self.edges)  # how many it lies above
        bins = self.counts.shape[1]
        flat = torch.bincount(truth[kept] * bins + places, minlength=2 * bins)
        self.counts += flat.view(2, bins)

    def choose(self) -> None:
        """Take the threshold of the best Dice on what was seen; of equal ones that nearest 0.5."""
        dices = self._dices().nan_to_num()
        best = (dices == dices.max()).nonzero().flatten()
        self.chosen = int(best[(best - self.MIDDLE).abs().argmin()])

    def _dices(self) -> Tensor:
        """At each threshold; NaN where neither truth nor prediction has a pixel."""
        above = self.counts.flip(1).cumsum(1).flip(1)[:, 1:].double()  # predicted, by truth
        return 2 * above[1] / (above.sum(0) + self.counts[1].sum())

    def compute(self) -> dict[str, Tensor]:
        return {"dice": self._dices()[self.chosen], "threshold": self.edges[self.chosen].sigmoid()}


class NegativeLogLikelihoodOfPixels(MeanMetric):
    """Mean over pixels of -log of the probability given to what is true, from logits."""

    def update(self, output: Tensor, truth: Tensor) -> None:  # type: ignore[override]
        logits, kept = output.float(), truth != IGNORE_INDEX
        if truth.ndim < logits.ndim:
            values = F.cross_entropy(logits, truth, ignore_index=IGNORE_INDEX, reduction="none")
            values = values[kept]
        else:
            wanted = truth[kept].to(logits)
            values = F.binary_cross_entropy_with_logits(logits[kept], wanted, reduction="none")
        super().update(values)
