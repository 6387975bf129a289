"""Data sets made of composed scenes, see :mod:`harness.data.scenes`: maps of classes, and masks."""

import itertools
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

from harness.data.base import Raw, dataset
from harness.data.prepare import digest
from harness.data.scenes import LICENCE, SOURCE, Look, Scene, scenes_of, source_fingerprint
from harness.data.split import Array
from losses.arguments import Bounds, Count

Digit = Annotated[int, Bounds(0, 9)]
Whole = Annotated[int, Bounds(0)]


def look_of(
    size: Sequence[int], digit_size: Sequence[int], number: Sequence[int], grey: bool
) -> Look:
    """A look from lists as a config has them.

    Raises:
        ValueError: one has not two numbers.
    """
    pairs = {"size": size, "digit_size": digit_size, "number": number}
    for name, pair in pairs.items():
        if len(pair) != 2:
            raise ValueError(f"{name} must be two numbers, got {list(pair)}")
    first, second, third = ((int(a), int(b)) for a, b in pairs.values())
    return Look(first, second, third, grey)


def composed(
    seed: int, look: Look, numbers: Sequence[int]
) -> tuple[list[Scene], tuple[Array, Array, Array]]:
    """All scenes of three parts, one after another, and which of them each part has.

    Raises:
        ValueError: not three numbers, or digits or crops that do not fit.
    """
    if len(numbers) != 3:
        raise ValueError(f"scenes must be three numbers (train, val, test), got {list(numbers)}")
    first, second, third = (int(n) for n in numbers)
    parts = scenes_of(seed, look, (first, second, third))
    bounds = np.cumsum([0, *map(len, parts)])
    train, val, test = (np.arange(a, b) for a, b in itertools.pairwise(bounds))
    return [scene for part in parts for scene in part], (train, val, test)


def padded(values: Sequence[Array], most: int, filling: Any) -> Array:
    """Arrays of up to `most` rows each as one array [N, most, ...], filled up."""
    full = np.full((len(values), most, *values[0].shape[1:]), filling, values[0].dtype)
    for item, rows in enumerate(values):
        full[item, : len(rows)] = rows
    return full


def class_map(scene: Scene, foreground: Sequence[int]) -> Array:
    """1 + position in `foreground` where such a digit lies, 0 elsewhere, int64 [H, W]."""
    result = np.zeros(scene.image.shape[1:], np.int64)
    for label, mask in zip(scene.labels.tolist(), scene.masks, strict=True):
        if label in foreground:
            result[mask] = 1 + list(foreground).index(label)
    return result


def _raw(target: Array, names: tuple[str, ...], made: list[Scene], split: Any, most: int) -> Raw:
    inputs = np.stack([scene.image for scene in made])
    return Raw(
        inputs,
        target,
        names,
        source_fingerprint(),
        standardise=False,
        split=split,
        rows=padded([scene.rows for scene in made], most, -1),
        composed=digest(inputs, target),
    )


@dataset("digit_scenes", kind="semantic", source=SOURCE, licence=LICENCE)
def digit_scenes(
    split_seed: int,
    *,
    size: Sequence[Count] = (32, 48),
    digit_size: Sequence[Count] = (14, 20),
    number: Sequence[Whole] = (1, 3),
    foreground: Sequence[Digit] = tuple(range(10)),
    grey: bool = False,
    scenes: Sequence[Count] = (500, 150, 150),
) -> Raw:
    """Which digit does each pixel belong to, if any? Photographs with one to three digits drawn on.

    Images [3, 32, 48] and maps of 11 classes, 0 the background; 1 pixel in 9 is foreground.
    Digits are split 60/20/20 within each class and photographs by columns before composing, so that
    nothing is seen in two parts. A digit may be in several scenes of a part.

    Args:
        size: height and width, at most 427 and 104.
        digit_size: least and most side of a digit, from 8.
        number: least and most digits in a scene; one that finds no room is left out.
        foreground: digits that have a class of their own; others belong to the background.
        grey: one channel in place of three.
        scenes: how many to train, validate and test on; fewer are the first of more.
    """
    look = look_of(size, digit_size, number, grey)
    made, split = composed(split_seed, look, scenes)
    names = ("background", *(str(digit) for digit in foreground))
    return _raw(_maps(made, foreground), names, made, split, look.number[1])


@dataset("rare_digit_scenes", kind="mask", source=SOURCE, licence=LICENCE)
def rare_digit_scenes(
    split_seed: int,
    *,
    size: Sequence[Count] = (32, 48),
    digit_size: Sequence[Count] = (12, 16),
    number: Sequence[Whole] = (1, 3),
    foreground: Sequence[Digit] = (3, 8),
    grey: bool = False,
    scenes: Sequence[Count] = (400, 150, 150),
) -> Raw:
    """Which pixels belong to a three or an eight? Other digits are there to be told from them.

    Images [3, 32, 48] and masks; about 1 pixel in 60 is foreground, and two scenes of three have
    none. Composed as digit_scenes are.

    Args:
        size: height and width, at most 427 and 104.
        digit_size: least and most side of a digit, from 8.
        number: least and most digits in a scene; one that finds no room is left out.
        foreground: digits that are asked for.
        grey: one channel in place of three.
        scenes: how many to train, validate and test on; fewer are the first of more.
    """
    look = look_of(size, digit_size, number, grey)
    made, split = composed(split_seed, look, scenes)
    mask = (_maps(made, foreground) > 0).astype(np.int64)
    names = ("background", " or ".join(str(digit) for digit in foreground))
    return _raw(mask, names, made, split, look.number[1])


def _maps(made: Sequence[Scene], foreground: Sequence[int]) -> Array:
    """Maps of classes [N, H, W]; foreground must be at least one digit, each once."""
    if not foreground or len(set(foreground)) < len(foreground):
        raise ValueError(f"foreground must be different digits, got {list(foreground)}")
    return np.stack([class_map(scene, foreground) for scene in made])
