"""Answers drawn on the pictures they are about, as small PNGs. Needs numpy, no torch."""

import base64
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.samples import Samples, matched

Array = npt.NDArray[Any]
HEIGHT = 96
"""Least height of a drawn picture, in pixels; smaller ones are enlarged by a whole number."""
COLOURS = np.array(
    [
        (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178),
        (213, 94, 0), (204, 121, 167), (255, 255, 255), (150, 60, 200), (120, 200, 60),
    ],
    np.uint8,
)  # fmt: skip
"""Of classes 1, 2, ...: Okabe and Ito's, which the colour-blind tell apart, and three more."""
RIGHT, WRONG, MISSED = (0, 158, 115), (213, 94, 0), (240, 228, 66)


def png(pixels: Array) -> bytes:
    """An image uint8 [H, W, 3] as a PNG file."""
    height, width, _ = pixels.shape
    rows = np.hstack([np.zeros((height, 1), np.uint8), pixels.reshape(height, width * 3)])

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows.tobytes(), 9))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def uri(pixels: Array) -> str:
    """The PNG as the address of an image within a page."""
    return f"data:image/png;base64,{base64.b64encode(png(pixels)).decode()}"


def truth(samples: Samples, item: int) -> Array:
    """The picture with what is true of it drawn on."""
    image, given = samples.images[item], {k: v[item] for k, v in samples.truth.items()}
    if samples.kind == "maps":
        return _map(image, given["labels"], given["labels"])
    if samples.kind == "boxes":
        large, factor = _enlarged(image)
        for box, label in zip(given["boxes"], given["labels"], strict=True):
            if label >= 0:
                _frame(large, box * factor, RIGHT)
        return large
    return _enlarged(image)[0]


def answer(samples: Samples, item: int) -> Array:
    """The picture with what the run predicted: a map, boxes hit, false or missed, or neighbours."""
    image = samples.images[item]
    given = {k: v[item] for k, v in samples.truth.items()}
    said = {k: v[item] for k, v in samples.predicted.items()}
    if samples.kind == "maps":
        return _map(image, said["labels"], given["labels"])
    if samples.kind == "boxes":
        return _boxes(image, given, said)
    return _neighbours(given, said)


def _enlarged(image: Array) -> tuple[Array, int]:
    factor = max(1, -(-HEIGHT // image.shape[0]))
    return image.repeat(factor, 0).repeat(factor, 1), factor


def _map(image: Array, labels: Array, asked: Array) -> Array:
    """Classes above 0 in colour over a grey picture; dark where nothing is asked."""
    grey = image.astype(np.float64).mean(2, keepdims=True).repeat(3, 2)
    colour = COLOURS[(np.maximum(labels, 1).astype(np.int64) - 1) % len(COLOURS)]
    drawn = np.where(labels[..., None] > 0, 0.35 * grey + 0.65 * colour, grey)
    drawn = np.where(asked[..., None] < 0, 0.3 * grey, drawn)
    return _enlarged(drawn.round().astype(np.uint8))[0]


def _boxes(image: Array, given: dict[str, Array], said: dict[str, Array]) -> Array:
    large, factor = _enlarged(image)
    found = matched(given, said)
    for boxes, colour in ((found.false, WRONG), (found.hits, RIGHT)):
        for box in boxes:
            _frame(large, box * factor, colour)
    for box in found.missed:
        _frame(large, box * factor, MISSED, dashed=True)
    return large


def _frame(image: Array, box: Array, colour: tuple[int, int, int], *, dashed: bool = False) -> None:
    """Draw a box two pixels wide, in place; what lies outside the image is not drawn."""
    height, width, _ = image.shape
    limits = np.array([width - 1, height - 1] * 2)
    x1, y1, x2, y2 = np.clip(np.nan_to_num(box).round(), 0, limits).astype(int)
    inside = np.zeros((height, width), bool)
    inside[y1 : y2 + 1, x1 : x2 + 1] = True
    inside[y1 + 2 : y2 - 1, x1 + 2 : x2 - 1] = False
    if dashed:
        rows, columns = np.indices((height, width))
        inside &= (rows + columns) // 5 % 2 == 0
    image[inside] = colour


def _neighbours(given: dict[str, Array], said: dict[str, Array]) -> Array:
    """What was found, nearest first, framed by whether it is of the same class."""
    found = []
    for image, label in zip(said["images"], said["labels"], strict=True):
        large, _ = _enlarged(image)
        height, width, _ = large.shape
        colour = RIGHT if label == given["labels"] else WRONG
        _frame(large, np.array([0, 0, width - 1, height - 1]), colour)
        found += [large, np.full((height, 4, 3), 127, np.uint8)]
    return np.hstack(found[:-1])
