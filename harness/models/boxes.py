"""What a model of boxes gives: what it detects, and while it learns, what losses compare.

Called with images [N, C, H, W] it returns :class:`Detections`. Its method
`compare(images, target)` returns subjects by name for a training batch, `target` being that of
:class:`harness.data.Data` for boxes. Which there are a model says when it is registered, and how
each is given:

- `binary`: logits of yes or no, with targets of the same shape.
- `index`: logits [R, 1 + C], with the class of each row; 0 is the background.
- `boxes`: predicted and true corners [P, 4] of what was matched. Beside it stands the same as the
  model encodes it, `NAME/code`: [P, 4] real numbers.

`NAME/quality` has in place of the 1 of each positive the overlap of its predicted box with the true
one, as a constant.
"""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from harness.objective import Subject
from losses.inputs import IGNORE_INDEX

CODE, QUALITY = "code", "quality"
Subjects = dict[str, Subject]


class Detections(NamedTuple):
    """What was found in N images, best first, up to K in each.

    Attributes:
        boxes: corners x1, y1, x2, y2 in pixels, float [N, K, 4].
        scores: from 0 to 1, float [N, K]; 0 where there are fewer.
        labels: classes, int64 [N, K]; -100 where there are fewer.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor


class Detector(Protocol):
    """What every model of boxes has."""

    def __call__(self, images: Tensor) -> Detections:
        """Detect."""

    def compare(self, images: Tensor, target: Mapping[str, Tensor]) -> Subjects:
        """Subjects of a training batch."""


def boxes_subject(
    name: str, corners: tuple[Tensor, Tensor], code: tuple[Tensor, Tensor], divisor: Tensor
) -> Subjects:
    """Predicted and true boxes, and the same as they are encoded; both divide by one number."""
    return {name: Subject(corners, divisor), f"{name}/{CODE}": Subject(code, divisor)}


def scores_subject(
    logits: Tensor, cells: tuple[Tensor, Tensor], corners: tuple[Tensor, Tensor], divisor: Tensor
) -> Subjects:
    """Scores per class, logits [A, C], of which these cells (row, class) are positive."""
    wanted = torch.zeros_like(logits)
    wanted[cells] = 1
    quality = torch.zeros_like(logits)
    quality[cells] = paired_iou(*(side.detach() for side in corners)).to(quality)
    return {
        "classification": Subject((logits, wanted), divisor),
        f"classification/{QUALITY}": Subject((logits, quality), divisor),
    }


def paired_iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of boxes one by one [..., 4], 0 where there is no area."""
    low = torch.maximum(first[..., :2], second[..., :2])
    high = torch.minimum(first[..., 2:], second[..., 2:])
    inner = (high - low).clamp(min=0).prod(-1)
    areas = [(box[..., 2:] - box[..., :2]).clamp(min=0).prod(-1) for box in (first, second)]
    union = areas[0] + areas[1] - inner
    return inner / torch.where(union > 0, union, 1)


def present(target: Mapping[str, Tensor]) -> Tensor:
    """Where there is an object, bool [N, M]."""
    return target["labels"] != IGNORE_INDEX


def centre_sampled(
    points: Tensor,
    reach: Tensor,
    target: Mapping[str, Tensor],
    ranges: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Which object each point is for, int64 [N, L]; -1 for none.

    A point is for an object if it lies within its box, and within `reach` of its centre along
    either axis. Of several objects the smallest has it. After Tian et al. 2019, arXiv:1904.01355.

    Args:
        points: places x, y in pixels, [L, 2].
        reach: in pixels, [L].
        target: objects, padded.
        ranges: the farthest side of an object must lie between these two distances, [L] each.
    """
    boxes = target["boxes"].to(points)
    if boxes.shape[1] == 0:
        return torch.full((len(boxes), len(points)), -1, device=points.device)
    sides = distances(points[:, None], boxes[:, None])  # [N, L, M, 4]
    centres = (boxes[..., :2] + boxes[..., 2:]) / 2
    apart = (points[:, None] - centres[:, None]).abs().amax(-1)  # [N, L, M]
    mine = (apart < reach[:, None]) & (sides.amin(-1) > 0) & present(target)[:, None]
    if ranges is not None:
        farthest = sides.amax(-1)
        mine &= (farthest > ranges[0][:, None]) & (farthest < ranges[1][:, None])
    areas = (boxes[..., 2:] - boxes[..., :2]).prod(-1)[:, None]
    least = areas.masked_fill(~mine, torch.inf)  # [N, L, M]
    return torch.where(mine.any(-1), least.argmin(-1), -1)


def distances(points: Tensor, boxes: Tensor) -> Tensor:
    """From points [..., 2] to the left, upper, right and lower side of boxes [..., 4]."""
    return torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], -1)


def kept_best(
    boxes: Tensor, scores: Tensor, overlap: float, threshold: float, most: int
) -> Detections:
    """The detections of N images, from scores [N, L, C] of boxes [N, L, 4], without duplicates.

    Of each image, up to ten times `most` with the highest scores above the threshold are looked at;
    of those of one class that overlap by more than `overlap` (intersection over union) the best is
    kept, and of all that are kept the best `most`. A score that is no number stays, to be met.
    """
    from torchvision.ops import batched_nms  # 1.5 s

    images, classes = len(scores), scores.shape[-1]
    values, places = scores.flatten(1).topk(min(10 * most, scores[0].numel()))  # [N, K]
    labels = places % classes
    rows = (places // classes).unsqueeze(-1).expand(-1, -1, 4)
    found = boxes.gather(1, rows)
    there = ~(values <= threshold)
    groups = torch.arange(images, device=scores.device).unsqueeze(1) * classes + labels
    chosen = batched_nms(found[there].double(), values[there].double(), groups[there], overlap)
    numbers = there.flatten().nonzero().squeeze(1)[chosen]
    kept = torch.zeros_like(there).flatten().index_fill(0, numbers, True).view_as(there)
    return _packed(found, values, labels, kept, most)


def _packed(boxes: Tensor, scores: Tensor, labels: Tensor, kept: Tensor, most: int) -> Detections:
    """Those that are kept come first, in their order."""
    order = (~kept).to(torch.uint8).argsort(stable=True, dim=1)[:, :most]
    there = kept.gather(1, order)
    return Detections(
        boxes.gather(1, order.unsqueeze(-1).expand(-1, -1, 4)),
        torch.where(there, scores.gather(1, order), 0),
        torch.where(there, labels.gather(1, order), IGNORE_INDEX),
    )


def padded(found: list[dict[str, Tensor]], first_label: int = 0) -> Detections:
    """Detections per image, as torchvision gives them, whose labels begin at `first_label`."""
    most = max((len(each["scores"]) for each in found), default=0)

    def rows(key: str, filling: float) -> Tensor:
        beside = [0, 0] * (found[0][key].ndim - 1)  # axes after the first stay as they are
        return torch.stack(
            [F.pad(f[key], (*beside, 0, most - len(f[key])), value=filling) for f in found]
        )

    labels = rows("labels", IGNORE_INDEX + first_label) - first_label
    return Detections(rows("boxes", 0), rows("scores", 0), labels)
