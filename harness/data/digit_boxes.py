"""Composed scenes as data of boxes: where are the digits?"""

from collections.abc import Sequence

import numpy as np

from harness.data.base import Raw, dataset
from harness.data.digit_scenes import Whole, composed, look_of, padded
from harness.data.prepare import digest
from harness.data.scenes import LICENCE, SOURCE, source_fingerprint
from losses.arguments import Count
from losses.inputs import IGNORE_INDEX


@dataset("digit_boxes", kind="boxes", source=SOURCE, licence=LICENCE)
def digit_boxes(
    split_seed: int,
    *,
    size: Sequence[Count] = (48, 64),
    digit_size: Sequence[Count] = (14, 24),
    number: Sequence[Whole] = (1, 3),
    which: bool = False,
    grey: bool = False,
    scenes: Sequence[Count] = (400, 120, 120),
) -> Raw:
    """Where are the digits? Photographs with one to three digits drawn on.

    Images [3, 48, 64] with a box and a mask of each digit; boxes may overlap, masks do not.
    Composed as digit_scenes are.

    Args:
        size: height and width, at most 427 and 104.
        digit_size: least and most side of a digit, from 8.
        number: least and most digits in a scene; one that finds no room is left out.
        which: tell the ten digits apart; they are one class otherwise.
        grey: one channel in place of three.
        scenes: how many to train, validate and test on; fewer are the first of more.
    """
    look = look_of(size, digit_size, number, grey)
    made, split = composed(split_seed, look, scenes)
    inputs, most = np.stack([scene.image for scene in made]), max(look.number[1], 1)
    labels = [scene.labels if which else np.zeros_like(scene.labels) for scene in made]
    target = {
        "boxes": padded([scene.boxes for scene in made], most, 0),
        "labels": padded(labels, most, IGNORE_INDEX),
        "masks": padded([scene.masks for scene in made], most, False).astype(np.uint8),
    }
    return Raw(
        inputs,
        target,
        tuple(map(str, range(10))) if which else ("digit",),
        source_fingerprint(),
        standardise=False,
        split=split,
        rows=padded([scene.rows for scene in made], most, -1),
        composed=digest(inputs, *target.values()),
    )
