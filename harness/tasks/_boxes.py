"""Metrics of boxes: detections of N images against their objects, both padded.

Detections are :class:`harness.models.boxes.Detections`; truth is the target of
:class:`harness.data.Data` for boxes. Whatever is computed over a part is computed over all of its
images together, so that batches do not matter.
"""

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from harness.models.boxes import Detections, paired_iou, present
from losses.inputs import IGNORE_INDEX

OVERLAP = 0.5
OVERLAPS: list[float] = np.linspace(0.5, 0.95, 10).tolist()
RECALLS: list[float] = np.linspace(0, 1, 101).tolist()
"""As COCO has them; torchmetrics' own are rounded to float32, which moves a mean by up to .001."""


class Coco(Metric):
    """Average precision and recall as COCO defines them, by torchmetrics and faster-coco-eval.

    `map` is the mean over classes and over ten thresholds of overlap, .5 to .95; `map_50` and
    `map_75` are those of one threshold; `mar_100` the mean over classes and thresholds of the
    recall with up to 100 detections per image. Classes that are nowhere true are left out; NaN
    where no object is.
    """

    def __init__(self) -> None:
        super().__init__(sync_on_compute=False)  # every process sees every image
        self.seen: list[tuple[list[dict[str, Tensor]], list[dict[str, Tensor]]]] = []

    def update(self, found: Detections, truth: Mapping[str, Tensor]) -> None:
        """Detections and objects of a batch."""
        boxes, scores, labels = (part.cpu() for part in found)
        there = labels != IGNORE_INDEX
        guesses = [
            {"boxes": boxes[i, k].float(), "scores": scores[i, k].float(), "labels": labels[i, k]}
            for i, k in enumerate(there)
        ]
        kept = present(truth).cpu()
        objects = [
            {key: truth[key][i].cpu()[k] for key in ("boxes", "labels")} for i, k in enumerate(kept)
        ]
        self.seen.append((guesses, [{**o, "boxes": o["boxes"].float()} for o in objects]))

    def compute(self) -> dict[str, Tensor]:
        """All of them by name."""
        import faster_coco_eval  # noqa: F401 - or torchmetrics would not say which one it lacks
        from torchmetrics.detection import MeanAveragePrecision  # 2 s

        metric = MeanAveragePrecision(
            backend="faster_coco_eval",
            iou_thresholds=OVERLAPS,
            rec_thresholds=RECALLS,
            max_detection_thresholds=[1, 10, 100],
            sync_on_compute=False,
        )
        metric.warn_on_many_detections = False
        for guesses, objects in self.seen:
            metric.update(guesses, objects)
        found = metric.compute()
        names = ("map", "map_50", "map_75", "mar_100")
        return {name: torch.where(found[name] < 0, math.nan, found[name]) for name in names}

    def reset(self) -> None:
        """Forget what was seen."""
        super().reset()
        self.seen = []


class Matched(Metric):
    """How many objects are found at an overlap of .5, and how well.

    Best score first, each detection of an image takes the object of its class that it overlaps
    most, of those that are not taken yet and that it overlaps by .5 or more (intersection over
    union). `recall_50` is the share of objects that are taken; `matched_iou` the mean overlap of
    those with the detections that took them. Either is NaN where nothing is to be averaged.
    """

    objects: Tensor
    taken: Tensor
    overlap: Tensor

    def __init__(self) -> None:
        super().__init__(sync_on_compute=False)
        for name in ("objects", "taken", "overlap"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, found: Detections, truth: Mapping[str, Tensor]) -> None:
        """Detections and objects of a batch."""
        free = present(truth)  # [N, M]
        self.objects += free.sum()
        boxes, _, labels = found
        overlaps = iou(boxes.float(), truth["boxes"].float())  # [N, K, M]
        same = labels.unsqueeze(2) == truth["labels"].unsqueeze(1)
        overlaps = overlaps.masked_fill(~same, 0)
        places = torch.arange(free.shape[1], device=free.device)
        for k in range(boxes.shape[1] if free.shape[1] else 0):
            best = (overlaps[:, k] * free).max(1)  # [N]
            hit = best.values >= OVERLAP
            free = free & ~(hit.unsqueeze(1) & (places == best.indices.unsqueeze(1)))
            self.taken += hit.sum()
            self.overlap += best.values[hit].double().sum()

    def compute(self) -> dict[str, Tensor]:
        """Both by name."""
        return {
            "recall_50": self.taken / self.objects,
            "matched_iou": self.overlap / self.taken,
        }


def iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of boxes [N, K, 4] and [N, M, 4], [N, K, M]."""
    return paired_iou(first.unsqueeze(2), second.unsqueeze(1))
