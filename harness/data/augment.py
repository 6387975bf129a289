"""What is done to training items each time they are used: moves that leave their class as it is.

Every number is drawn from (seed, epoch, item) alone, so that neither batches nor workers nor arms
matter. Images, maps and boxes move together, by torchvision's transforms.
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from harness.data.split import Array
from losses.inputs import IGNORE_INDEX

Augmentation = Literal["none", "flip", "crop", "crop_flip", "zoom_flip"]
SMALLEST_AREA = 0.25
"""Share of the picture that a zoom leaves at least."""
Things = dict[str, Tensor]
"""What belongs to a batch: `image` [B, C, H, W] and, if there are any, `map` [B, H, W], `boxes`
[B, M, 4] and `masks` [B, M, H, W]."""


@dataclass(frozen=True)
class Augment:
    """Changes a batch of training items; see :class:`harness.data.held.Holding` for the kinds."""

    kind: str
    seed: int

    def __call__(self, inputs: Tensor, target: Any, rows: Tensor, epoch: int) -> tuple[Tensor, Any]:
        """The batch of these rows of the training part in this epoch."""
        if self.kind == "none" or len(rows) == 0:
            return inputs, target
        luck = draws(self.seed, epoch, rows)  # [B, 4]
        things = {"image": inputs, **_companions(target)}
        if "crop" in self.kind:
            things = _cropped(things, luck)
        if "zoom" in self.kind:
            things = _zoomed(things, luck)
        if "flip" in self.kind:
            things = _flipped(things, luck[:, 0] < 0.5)
        return things.pop("image"), _completed(target, things)


def draws(seed: int, epoch: int, rows: Tensor) -> Array:
    """Four uniform numbers in [0, 1) per item, float64 [B, 4]."""
    keys = (hashlib.sha256(f"{seed}/{epoch}/{row}".encode()).digest() for row in rows.tolist())
    words = np.frombuffer(b"".join(keys), dtype="<u8").reshape(-1, 4)
    return (words >> np.uint64(11)).astype(np.float64) / 2**53


def _companions(target: Any) -> Things:
    """What moves with the images; classes and numbers do not."""
    if isinstance(target, Tensor):
        return {"map": target} if target.ndim == 3 else {}
    return {name: target[name] for name in ("boxes", "masks") if name in target}


def _completed(target: Any, moved: Things) -> Any:
    """The target with what has moved; objects of less than a pixel's width or height are gone."""
    if isinstance(target, Tensor):
        return moved.get("map", target)
    sides = moved["boxes"][..., 2:] - moved["boxes"][..., :2]
    there = (target["labels"] != IGNORE_INDEX) & (sides >= 1).all(-1)
    moved["boxes"] = moved["boxes"] * there.unsqueeze(-1)
    return {**target, **moved, "labels": target["labels"].where(there, IGNORE_INDEX)}


def _each(things: Things, change: Callable[[Any], Any]) -> Things:
    """Things of equal size, one item's or a batch's, changed as torchvision knows them."""
    from torchvision import tv_tensors as tv

    size = things["image"].shape[-2:]
    moved = {}
    for name, tensor in things.items():
        if name == "boxes":
            flat = tensor.reshape(-1, 4)
            thing: Any = tv.BoundingBoxes(flat, format="XYXY", canvas_size=tuple(size))
        else:
            thing = tv.Image(tensor) if name == "image" else tv.Mask(tensor)
        made = change(thing).as_subclass(Tensor)
        moved[name] = made.reshape(tensor.shape) if name == "boxes" else made
    return moved


def _stacked(things: Things, change: Callable[..., Any]) -> Things:
    """The same item by item."""
    items = [
        _each({name: tensor[i] for name, tensor in things.items()}, partial(change, i=i))
        for i in range(len(things["image"]))
    ]
    return {name: torch.stack([item[name] for item in items]) for name in things}


def _flipped(things: Things, chosen: Array) -> Things:
    from torchvision.transforms.v2 import functional as v2

    rows = torch.from_numpy(np.flatnonzero(chosen)).to(things["image"].device)
    turned = _each({name: tensor[rows] for name, tensor in things.items()}, v2.horizontal_flip)
    return {name: tensor.index_copy(0, rows, turned[name]) for name, tensor in things.items()}


def _cropped(things: Things, luck: Array) -> Things:
    """Moved by up to an eighth of each side; what comes in is 0, in maps nothing that is asked.

    What torchvision's crop does to each item, without its overhead on each.
    """
    from torchvision import tv_tensors as tv
    from torchvision.transforms.v2 import functional as v2

    height, width = things["image"].shape[-2:]
    down, right = max(1, round(height / 8)), max(1, round(width / 8))
    top = (luck[:, 1] * (2 * down + 1)).astype(int)
    left = (luck[:, 2] * (2 * right + 1)).astype(int)
    corners = list(zip(top.tolist(), left.tolist(), strict=True))
    is_map = "map" in things

    def padded(thing: Any) -> Any:
        fill = IGNORE_INDEX if is_map and isinstance(thing, tv.Mask) else 0
        return v2.pad(thing, [right, down, right, down], fill=fill)

    moved = {}
    for name, tensor in _each(things, padded).items():
        if name == "boxes":
            by = torch.from_numpy(np.stack([left, top, left, top], 1)).to(tensor).unsqueeze(1)
            most = torch.tensor([width, height] * 2).to(tensor)
            moved[name] = (tensor - by).clamp(min=0).minimum(most)
        else:
            windows = zip(tensor, corners, strict=True)
            moved[name] = torch.stack(
                [x[..., t : t + height, c : c + width] for x, (t, c) in windows]
            )
    return moved


def _zoomed(things: Things, luck: Array) -> Things:
    """A part of the picture, of its own proportions, made as large as the whole was."""
    from torchvision.transforms.v2 import functional as v2

    height, width = things["image"].shape[-2:]

    def part(thing: Any, i: int) -> Any:
        side = math.sqrt(SMALLEST_AREA + luck[i, 3] * (1 - SMALLEST_AREA))
        rows, columns = max(1, round(height * side)), max(1, round(width * side))
        top, left = int(luck[i, 1] * (height - rows + 1)), int(luck[i, 2] * (width - columns + 1))
        return v2.resized_crop(thing, top, left, rows, columns, [height, width])

    return _stacked(things, part)
