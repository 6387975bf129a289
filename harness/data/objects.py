"""Objects in images: boxes and labels, padded to the same number in every image."""

from collections.abc import Mapping

import numpy as np

from harness.data.split import Array
from losses.inputs import IGNORE_INDEX


def check_objects(target: Mapping[str, Array], inputs: Array, classes: int) -> None:
    """Raise ValueError unless images [N, C, H, W] have objects as :class:`harness.data.Data` says.

    An image without objects is an item like others; what stands in the place of no object does not
    matter.
    """
    boxes, labels = target["boxes"], target["labels"]
    if inputs.ndim != 4 or labels.ndim != 2 or boxes.shape != (*labels.shape, 4):
        raise ValueError(
            f"boxes must be [N, M, 4] and labels [N, M] for images [N, C, H, W], got "
            f"{list(boxes.shape)}, {list(labels.shape)} and {list(inputs.shape)}"
        )
    wanted = (*labels.shape, *inputs.shape[2:])
    if len(labels) != len(inputs) or ("masks" in target and target["masks"].shape != wanted):
        shapes = {name: list(array.shape) for name, array in target.items()}
        raise ValueError(f"objects {shapes} are not of images {list(inputs.shape)}")
    there = labels != IGNORE_INDEX
    height, width = inputs.shape[2:]
    low, high = boxes[..., :2], boxes[..., 2:]
    outside = (low < 0).any(-1) | (high > (width, height)).any(-1) | ~np.isfinite(boxes).all(-1)
    flat = (high <= low).any(-1)
    unknown = (labels < 0) | (labels >= classes)
    reasons = (
        (outside, f"lies outside the image, which is {width} wide and {height} high"),
        (flat, "has no area"),
        (unknown, f"has a label that must be below {classes}"),
    )
    for wrong, reason in reasons:
        for image, number in np.argwhere(wrong & there)[:1]:
            shown = [round(float(x), 3) for x in boxes[image, number]]
            raise ValueError(
                f"image {image}, object {number}: box {shown} of class {labels[image, number]} "
                f"{reason}; {(wrong & there).sum()} such objects in "
                f"{(wrong & there).any(1).sum()} images"
            )
