"""Scenes: real digits drawn on crops of two real photographs, composed by seed, part and number.

Source digits are split 60/20/20 within each class, and the photographs by columns with gaps, before
anything is composed, so no two parts share a digit or a pixel. Scene number i of a part depends on
the seed, the part and i alone: not on how many scenes there are, nor on who composes them in which
order. One scene serves every task: an image, and of each digit its mask, box and label.
"""

import functools
import hashlib
from dataclasses import dataclass
from importlib import resources

import numpy as np

from harness.data.sklearn_sets import CC_BY, DIGITS, digit_images
from harness.data.split import Array, generator, random_split

PHOTOS = ("china.jpg", "flower.jpg")
COLUMNS = ((0, 400), (416, 520), (536, 640))
"""Of each photograph, 640 wide: to train, validate and test on, with gaps between."""
SOURCE = f"{DIGITS}; photographs china.jpg (danielbuechele) and flower.jpg (vultilion), flickr.com"
LICENCE = f"{CC_BY} (digits), CC BY 2.0 (photographs)"
TRIES = 50
"""Places that are tried for a digit before it is left out for want of room."""
DIMMED = 0.6
"""The photographs' brightness is reduced to this share."""
INK = (0.8, 1.0)
"""Brightness of each colour of the ink."""


@dataclass(frozen=True)
class Look:
    """What scenes are like: height and width, least and most side of a digit, their number."""

    size: tuple[int, int] = (32, 48)
    digit_size: tuple[int, int] = (12, 18)
    number: tuple[int, int] = (1, 3)
    grey: bool = False


@dataclass(frozen=True, eq=False)
class Scene:
    """One composed picture of M digits; their masks never overlap.

    Attributes:
        image: float32 [3, H, W], or [1, H, W] if grey, in steps of 1/255 from 0 to 1.
        masks: which pixels each digit covers by more than half, bool [M, H, W].
        boxes: around each mask, corners x1, y1, x2, y2 in pixels, float32 [M, 4]; the right and
            lower edges lie behind the last pixel.
        labels: which digit, 0 to 9, int64 [M].
        rows: row numbers of the digits in their source, int64 [M].
        crop: which photograph, and the top and left of the piece of it that is the background.
    """

    image: Array
    masks: Array
    boxes: Array
    labels: Array
    rows: Array
    crop: tuple[int, int, int]


@functools.cache
def photographs() -> tuple[Array, str]:
    """Both photographs dimmed, float32 [2, 427, 640, 3], and the sha256 of their files.

    Files are hashed, not pixels, for decoders of JPEG differ.
    """
    from sklearn.datasets import load_sample_image  # 0.7 s

    total = hashlib.sha256()
    for name in PHOTOS:
        total.update(resources.files("sklearn.datasets.images").joinpath(name).read_bytes())
    pixels = np.stack([load_sample_image(name) for name in PHOTOS])
    pixels = (pixels * (DIMMED / 255)).astype(np.float32)
    pixels.flags.writeable = False
    return pixels, total.hexdigest()


@functools.cache
def source_fingerprint() -> str:
    """sha256 of what scenes are made of: the digits' array and the photographs' files."""
    joined = f"{digit_images()[2]} {photographs()[1]}"
    return hashlib.sha256(joined.encode()).hexdigest()


@functools.lru_cache(maxsize=4)
def scenes_of(
    seed: int, look: Look, numbers: tuple[int, int, int]
) -> tuple[tuple[Scene, ...], ...]:
    """Scenes of the training, validation and test part, so many of each.

    Raises:
        ValueError: digits or crops that do not fit.
    """
    check(look)
    _, classes, _ = digit_images()
    rows = random_split(len(classes), classes, generator(seed, "split"))
    return tuple(
        tuple(compose(seed, part, index, look, rows[part]) for index in range(number))
        for part, number in enumerate(numbers)
    )


def check(look: Look) -> None:
    """Raise ValueError unless such scenes can be composed."""
    height, width = look.size
    narrowest = min(end - start for start, end in COLUMNS)
    tallest = photographs()[0].shape[1]
    if height > tallest or width > narrowest:
        raise ValueError(
            f"size=[height, width] must be at most [{tallest}, {narrowest}], which is what the "
            f"photographs have for each part, got [{height}, {width}]"
        )
    for name, (least, most), low in (
        ("digit_size", look.digit_size, 8),
        ("number", look.number, 0),
    ):
        if not low <= least <= most:
            raise ValueError(f"{name} must be [least, most] of at least {low}, got {[least, most]}")
    if look.digit_size[1] > min(look.size):
        raise ValueError(f"digit_size={list(look.digit_size)} exceeds size={list(look.size)}")


def compose(seed: int, part: int, index: int, look: Look, rows: Array) -> Scene:
    """Scene number `index` of a part, of the source digits in these rows."""
    # numpy keeps the stream of uniform numbers across versions, that of others it may change
    rng = np.random.default_rng([seed, part, index])
    photo, top, left = crop = _crop(rng, part, look)
    height, width = look.size
    canvas = photographs()[0][photo, top : top + height, left : left + width].copy()
    masks: list[Array] = []
    labels: list[int] = []
    used: list[int] = []
    for _ in range(_between(rng, *look.number)):
        row = int(rows[_below(rng, len(rows))])
        glyph = _enlarged(row, _between(rng, *look.digit_size))
        taken = np.any(masks, axis=0) if masks else np.zeros(look.size, bool)
        place = _free_place(rng, glyph > 0.5, taken)
        if place is None:
            continue
        masks.append(_drawn(rng, canvas, glyph, place))
        labels.append(int(digit_images()[1][row]))
        used.append(row)
    return Scene(
        _image(canvas, look.grey),
        np.array(masks, bool).reshape(-1, *look.size),
        np.array([box(mask) for mask in masks], np.float32).reshape(-1, 4),
        np.array(labels, np.int64),
        np.array(used, np.int64),
        crop,
    )


def box(mask: Array) -> tuple[int, int, int, int]:
    """Corners x1, y1, x2, y2 of the smallest box that holds a mask [H, W], which has pixels."""
    ys, xs = np.nonzero(mask)
    return xs.min(), ys.min(), xs.max() + 1, ys.max() + 1


def _below(rng: np.random.Generator, number: int) -> int:
    return int(rng.random() * number)


def _between(rng: np.random.Generator, least: int, most: int) -> int:
    return least + _below(rng, most - least + 1)


def _crop(rng: np.random.Generator, part: int, look: Look) -> tuple[int, int, int]:
    (height, width), (start, end) = look.size, COLUMNS[part]
    tallest = photographs()[0].shape[1]
    photo, top = _below(rng, len(PHOTOS)), _between(rng, 0, tallest - height)
    return photo, top, _between(rng, start, end - width)


@functools.lru_cache(maxsize=4096)
def _enlarged(row: int, side: int) -> Array:
    """Ink of a digit of 8 x 8 pixels, enlarged bilinearly, float64 [side, side] in [0, 1]."""
    places = np.clip((np.arange(side) + 0.5) * 8 / side - 0.5, 0, 7)
    weights = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(8)))  # [side, 8]
    enlarged: Array = weights @ digit_images()[0][row, 0] @ weights.T
    return enlarged


def _free_place(rng: np.random.Generator, ink: Array, taken: Array) -> tuple[int, int] | None:
    """Top and left of a place where no ink meets what is taken, if one is found."""
    side = len(ink)
    for _ in range(TRIES):
        top, left = (_between(rng, 0, size - side) for size in taken.shape)
        if not (taken[top : top + side, left : left + side] & ink).any():
            return top, left
    return None


def _drawn(rng: np.random.Generator, canvas: Array, ink: Array, place: tuple[int, int]) -> Array:
    """Lay ink on the canvas [H, W, 3]; which pixels it covers by more than half [H, W]."""
    (top, left), side = place, len(ink)
    under = canvas[top : top + side, left : left + side]
    colour = INK[0] + (INK[1] - INK[0]) * rng.random(3)
    under += ink[..., None] * (colour - under)
    mask = np.zeros(canvas.shape[:2], bool)
    mask[top : top + side, left : left + side] = ink > 0.5
    return mask


def _image(canvas: Array, grey: bool) -> Array:
    """[H, W, 3] as [3, H, W] or [1, H, W] in steps of 1/255, so that last bits do not matter."""
    channels = canvas.mean(2)[None] if grey else canvas.transpose(2, 0, 1)
    image: Array = (np.round(channels * 255) / 255).astype(np.float32)
    return image
