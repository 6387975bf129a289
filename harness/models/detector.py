"""A small detector without anchors, trained in seconds."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.models.base import Shape, model
from harness.models.boxes import (
    Detections,
    Subjects,
    boxes_subject,
    centre_sampled,
    distances,
    kept_best,
    scores_subject,
)
from losses.arguments import Count, Positive, Share

STRIDE = 4
PRIOR = 0.01
"""Score of every class everywhere before training, so that the many negatives do not rule it."""
LOG_SIDE, LARGEST = 0.8, 8.0
"""Logarithms of distances to sides, in strides: before training, and at most."""


@model("fcos_tiny", gives="boxes", subjects={"classification": "binary", "box": "boxes"})
def fcos_tiny(
    input_shape: Shape,
    outputs: int,
    *,
    channels: Count = 12,
    radius: Positive = 1.0,
    score_threshold: Share = 0.05,
    nms: Share = 0.5,
    detections: Count = 20,
) -> nn.Module:
    """A detector of one level: each place, every fourth pixel, scores classes and gives one box.

    A place learns from the object whose centre is near it; the others learn that there is none. A
    box is four distances to its sides, in units of the stride. After FCOS, Tian et al. 2019,
    arXiv:1904.01355, without its centerness.

    Args:
        input_shape: [C, H, W], H and W multiples of 16.
        outputs: classes.
        channels: on the full map; up to four times as many on smaller ones.
        radius: how near the centre, in strides along either axis.
        score_threshold: detections with a lower score are dropped.
        nms: two detections of one class that overlap more are one.
        detections: at most, per image.
    """
    if len(input_shape) != 3 or min(input_shape[1:]) < 16 or any(n % 16 for n in input_shape[1:]):
        raise ValueError(
            "fcos_tiny needs inputs [C, H, W] with H and W multiples of 16, "
            f"got {list(input_shape)}"
        )
    return FcosTiny(input_shape, outputs, channels, radius, (nms, score_threshold, detections)).to(
        memory_format=torch.channels_last
    )


class FcosTiny(nn.Module):
    """See :func:`fcos_tiny`."""

    points: Tensor

    def __init__(
        self,
        shape: Shape,
        classes: int,
        channels: int,
        radius: float,
        keeping: tuple[float, float, int],
    ) -> None:
        super().__init__()
        self.reach, self.keeping = radius * STRIDE, keeping
        self.limits = (shape[2], shape[1], shape[2], shape[1])
        c = channels
        self.down = nn.ModuleList(
            [_block(shape[0], c), _block(c, 2 * c), _block(2 * c, 2 * c), _block(2 * c, 4 * c)]
        )
        self.deep = _block(4 * c, 4 * c)
        self.join = nn.ModuleList([_block(8 * c, 4 * c), _block(6 * c, 4 * c)])
        heads = (classes, math.log(PRIOR / (1 - PRIOR))), (4, LOG_SIDE)
        self.scores, self.sides = (_head(4 * c, number, bias) for number, bias in heads)
        rows, columns = ((torch.arange(n // STRIDE) + 0.5) * STRIDE for n in shape[1:])
        grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)
        self.register_buffer("points", grid.flatten(0, 1), persistent=False)  # [L, 2], x and y

    def _raw(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [N, L, C], and distances to the sides in strides, above 0 [N, L, 4]."""
        here, maps = images, []
        for number, block in enumerate(self.down):
            here = block(here if number == 0 else F.max_pool2d(here, 2))
            maps.append(here)
        here = self.deep(F.max_pool2d(here, 2))
        for join, beside in zip(self.join, (maps[3], maps[2]), strict=True):
            here = join(torch.cat([beside, F.interpolate(here, size=beside.shape[-2:])], 1))
        logits, sides = (
            head(here).flatten(2).transpose(1, 2) for head in (self.scores, self.sides)
        )
        return logits, sides.clamp(max=LARGEST).exp()

    def _corners(self, points: Tensor, code: Tensor) -> Tensor:
        reach = code * STRIDE
        return torch.cat([points - reach[..., :2], points + reach[..., 2:]], -1)

    def forward(self, images: Tensor) -> Detections:
        """What is found in images [N, C, H, W]."""
        logits, code = self._raw(images)
        corners = self._corners(self.points, code)
        limits = corners.new_tensor(self.limits)
        inside = torch.minimum(corners.clamp(min=0), limits)
        return kept_best(inside, logits.sigmoid(), *self.keeping)

    def compare(self, images: Tensor, target: Mapping[str, Tensor]) -> Subjects:
        """Scores of all places, and boxes of those that are for an object."""
        logits, code = self._raw(images)
        reach = self.points.new_full((len(self.points),), self.reach)
        match = centre_sampled(self.points, reach, target)  # [N, L]
        image, place = (match >= 0).nonzero(as_tuple=True)
        number = match[image, place]
        points, found = self.points[place], code[image, place]
        true = target["boxes"][image, number].to(code)
        wanted = distances(points, true) / STRIDE
        positives = (match >= 0).sum()
        corners = (self._corners(points, found), true)
        rows = image * len(self.points) + place
        cells = (rows, target["labels"][image, number])
        return scores_subject(logits.flatten(0, 1), cells, corners, positives) | boxes_subject(
            "box", corners, (found, wanted), positives
        )


def _block(inputs: int, outputs: int) -> nn.Module:
    convolution = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.GroupNorm(1, outputs), nn.ReLU())


def _head(inputs: int, outputs: int, bias: float) -> nn.Module:
    """Gives nearly the bias everywhere before training."""
    last = nn.Conv2d(inputs, outputs, kernel_size=1)
    nn.init.normal_(last.weight, std=0.01)
    nn.init.constant_(last.bias, bias)  # type: ignore[arg-type]
    return nn.Sequential(_block(inputs, inputs), last)
