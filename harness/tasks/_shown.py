"""The first items of a part as pictures, for tasks that show what they made of them."""

import dataclasses
from typing import Any

import torch
from torch import Tensor

from harness.data import Part
from harness.samples import Array, matched, overlap_score

MOST_BYTES = 4 * 2**20
"""Of all pictures together; larger pictures are fewer."""
BOXES = 20
"""Detections kept per picture, the surest."""
NEAREST = 5


def pictures(part: Part, most: int) -> Array | None:
    """uint8 [K, H, W, 3] of the first items, as they were before any normalisation.

    None where items are no pictures. Values are taken to lie between 0 and 1.
    """
    shape = part.inputs.shape[1:]
    if len(part) == 0 or len(shape) != 3 or shape[0] not in (1, 3):
        return None
    fitting = max(1, MOST_BYTES // (3 * shape[1] * shape[2]))
    first = dataclasses.replace(part.first(min(most, fitting)), normalise=False)
    inputs, _ = first.take(torch.arange(len(first)))
    return as_bytes(inputs)


def as_bytes(images: Tensor) -> Array:
    """float [..., 1 or 3, H, W] from 0 to 1 as uint8 [..., H, W, 3]."""
    whole = (images.detach().cpu().float().clamp(0, 1) * 255).round().byte()
    found: Array = whole.movedim(-3, -1).expand(*whole.movedim(-3, -1).shape[:-1], 3).numpy()
    return found


def of_maps(predicted: Tensor, target: Tensor) -> tuple[Array, Array, Array]:
    """Predicted and true classes int16 [K, H, W], and the Dice of all foreground per picture.

    A picture without foreground on either side scores 1. Ignored pixels count on neither.
    """
    asked = target >= 0
    there, said = (target > 0) & asked, (predicted > 0) & asked
    both = (there & said & (target == predicted)).flatten(1).sum(1)
    either = (there.flatten(1).sum(1) + said.flatten(1).sum(1)).double()
    scores = torch.where(either > 0, 2 * both / either.clamp(min=1), 1.0)
    arrays = [
        maps.clamp(-1, 2**15 - 1).to(torch.int16).cpu().numpy() for maps in (predicted, target)
    ]
    return arrays[0], arrays[1], scores.cpu().numpy()


def of_boxes(found: Any, target: Any) -> tuple[dict[str, Array], dict[str, Array], Array]:
    """Predicted and true boxes by name, and the F1 of hits per picture, 1 where nothing is."""
    said = {
        "boxes": found.boxes[:, :BOXES].float().cpu().numpy(),
        "scores": found.scores[:, :BOXES].float().cpu().numpy(),
        "labels": found.labels[:, :BOXES].cpu().numpy(),
    }
    true = {name: target[name].cpu().numpy() for name in ("boxes", "labels")}
    scores = [
        overlap_score(
            matched({k: v[i] for k, v in true.items()}, {k: v[i] for k, v in said.items()})
        )
        for i in range(len(true["labels"]))
    ]
    return said, true, torch.tensor(scores, dtype=torch.float64).numpy()


def nearest(embeddings: Tensor, number: int) -> Tensor:
    """Rows of the nearest others by cosine of the first items, int64 [number, NEAREST]."""
    unit = torch.nn.functional.normalize(embeddings.double(), dim=1)
    cosines = unit[:number] @ unit.mT
    cosines[torch.arange(number), torch.arange(number)] = -torch.inf
    return cosines.topk(min(NEAREST, len(unit) - 1), dim=1).indices
