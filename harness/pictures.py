"""Example pictures of a data set: images, and images with their masks, boxes and labels drawn on.

A class of a mask or box has the same colour in every picture.
"""

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from harness import data
from harness.data import Data, Part
from harness.seeds import seed_tree
from losses.inputs import IGNORE_INDEX

SHOWN = 8
"""Items shown of each part, evenly spread over it."""
LEAST_SIDE = 256
"""Images whose longer side is shorter are enlarged by a whole number, pixels kept sharp."""
COVER = 0.5
"""How much of a pixel's colour is that of its mask."""
DRAWN = ("mask", "semantic", "boxes")
"""Kinds of data whose truth is drawn on the image; that of others is written beneath it."""
TITLE = 24
"""Height of what is written, in pixels."""
GREY = (128, 128, 128)
"""Of pixels at which nothing is asked."""


def show(chosen: Sequence[str], folder: str | Path | None = None) -> int:
    """Write example pictures of a data set to a folder and say what they show.

    Of some items of each part: PART-NUMBER.png, the image, PART-NUMBER-marked.png, the image
    with what is true of it drawn on or written beneath; and PART.png, all of them, drawn ones each
    above its marked copy.

    Args:
        chosen: the data set's name and, as `train` takes them, its parameters, `data.size=[48,64]`.
        folder: where to; None for results/data/NAME.

    Raises:
        ValueError: no such data set, it cannot be loaded, or its items are no images.
    """
    names = [word for word in chosen if "=" not in word]
    if len(names) != 1:
        raise ValueError(f"data show takes one name and data.KEY=VALUE, got {' '.join(chosen)!r}")
    pairs = (word.split("=", 1) for word in chosen if "=" in word)
    given = {key.removeprefix("data."): yaml.safe_load(value) for key, value in pairs}
    return _draw(names[0], given, Path(folder or Path("results") / "data" / names[0]))


def _draw(name: str, given: Mapping[str, Any], folder: Path) -> int:
    seeds = seed_tree(0)
    loaded = data.load(name, split_seed=seeds["split"], corrupt_seed=seeds["corruption"], **given)
    shape = list(loaded.train.inputs.shape[1:])
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise ValueError(f"{name} has no images [1 or 3, H, W], its items are {shape}")
    out = folder.expanduser()
    try:
        out.mkdir(parents=True, exist_ok=True)
        for part in ("train", "val", "test"):
            _show_part(loaded, part, out)
    except OSError as error:
        raise ValueError(f"--out {folder}: {error.strerror or error}") from error
    return 0


def _show_part(loaded: Data, name: str, out: Path) -> None:
    part: Part = getattr(loaded, name)
    stretches = torch.arange(len(part)).tensor_split(min(SHOWN, len(part)))
    rows = torch.stack([stretch[0] for stretch in stretches])  # a part may be in order
    images, target = replace(part, normalise=False).take(rows)
    pairs = []
    for item, image in enumerate(images):
        true = {k: v[item] for k, v in target.items()} if isinstance(target, dict) else target[item]
        plain = enlarged(pixels(image))
        drawn = loaded.kind in DRAWN
        shown = marked(image, true, loaded.kind) if drawn else titled(plain, words(true, loaded))
        write(plain, out / f"{name}-{item}.png")
        write(shown, out / f"{name}-{item}-marked.png")
        pairs.append(torch.cat([plain, shown], 1) if drawn else shown)
        print(f"{out / f'{name}-{item}.png'}  {words(true, loaded)}")
    write(torch.cat(pairs, 2), out / f"{name}.png")
    print(f"{out / f'{name}.png'}  {len(rows)} of {len(part)} items")


def titled(image: Tensor, text: str) -> Tensor:
    """uint8 [3, H, W] with words beneath it, as many as fit; [3, H + TITLE, W]."""
    from PIL import Image, ImageDraw, ImageFont

    title = Image.new("RGB", (image.shape[2], TITLE))
    font = ImageFont.load_default(TITLE * 2 / 3)
    ImageDraw.Draw(title).text((title.width // 2, TITLE // 2), text, font=font, anchor="mm")
    below = torch.from_numpy(np.array(title)).movedim(2, 0)
    return torch.cat([image, below], 1)


def pixels(image: Tensor) -> Tensor:
    """An image float [1 or 3, H, W] from 0 to 1 as colours, uint8 [3, H, W]."""
    return (image.detach().cpu().float().clamp(0, 1) * 255).round().byte().expand(3, -1, -1)


def enlarged(image: Tensor) -> Tensor:
    """[C, H, W], each pixel repeated so that the longer side is at least about LEAST_SIDE."""
    factor = max(1, LEAST_SIDE // max(image.shape[1:]))
    return image.repeat_interleave(factor, 1).repeat_interleave(factor, 2)


def marked(image: Tensor, true: Any, kind: str) -> Tensor:
    """The enlarged image with a map [H, W], or with boxes and masks, drawn on; uint8 [3, H, W].

    Args:
        image: float [1 or 3, H, W].
        true: one item's target, or what a model predicts of it, as :class:`harness.data.Data` says.
        kind: of the data; of other kinds than maps and boxes the image is left as it is.
    """
    if kind in ("mask", "semantic"):
        return enlarged(_covered(pixels(image), true.cpu()))
    if kind == "boxes":
        return _with_boxes(pixels(image), {key: tensor.cpu() for key, tensor in true.items()})
    return enlarged(pixels(image))


def _covered(image: Tensor, classes: Tensor) -> Tensor:
    """Colours laid over what belongs to each class above 0."""
    result = image.float()
    for each in torch.unique(classes).tolist():
        if each != 0:
            shade = torch.tensor(GREY if each == IGNORE_INDEX else colour(each)).view(3, 1, 1)
            mixed = (1 - COVER) * image + COVER * shade
            result = torch.where(classes == each, mixed, result)
    return result.round().byte()


def _with_boxes(image: Tensor, true: Mapping[str, Tensor]) -> Tensor:
    """Masks laid over, then one frame per object, one pixel of the enlarged image wide or more."""
    there = true["labels"] != IGNORE_INDEX
    labels = true["labels"][there].tolist()
    for mask, label in zip(true["masks"][there] if "masks" in true else (), labels, strict=False):
        image = _covered(image, mask.long() * (label + 1))
    factor = enlarged(image).shape[1] // image.shape[1]
    result = enlarged(image).clone()
    height, width = result.shape[1:]
    for corners, label in zip(true["boxes"][there], labels, strict=True):
        left, top, right, bottom = (round(float(c) * factor) for c in corners)
        inside = torch.zeros(height, width, dtype=torch.bool)
        inside[max(top, 0) : bottom, max(left, 0) : right] = True
        line = max(1, factor // 3)
        inside[max(top, 0) + line : bottom - line, max(left, 0) + line : right - line] = False
        result[:, inside] = torch.tensor(colour(label + 1), dtype=torch.uint8).unsqueeze(1)
    return result


def colour(number: int) -> tuple[int, int, int]:
    """A bright colour for a class from 1 on; hues a golden section apart, so neighbours differ."""
    red, green, blue = colorsys.hsv_to_rgb(number * 0.618034 % 1, 0.9, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def words(true: Any, loaded: Data) -> str:
    """What is true of an item, for a line of text."""
    names: Sequence[str] = loaded.target_names
    if loaded.kind in ("mask", "semantic"):
        sizes = [int((true == each).sum()) for each in range(len(names))]
        shown = [f"{name}: {n} pixels" for name, n in zip(names, sizes, strict=True) if n]
        ignored = int((true == IGNORE_INDEX).sum())
        return ", ".join([*shown, *([f"ignored: {ignored} pixels"] if ignored else [])])
    if loaded.kind == "boxes":
        return ", ".join(names[label] for label in true["labels"].tolist() if label >= 0) or "none"
    if loaded.kind == "multilabel":
        return ", ".join(name for name, there in zip(names, true, strict=True) if there) or "none"
    return names[int(true)] if loaded.kind in ("binary", "multiclass") else str(true.tolist())


def write(image: Tensor, path: Path) -> None:
    """uint8 [3, H, W] as PNG."""
    from PIL import Image

    Image.fromarray(image.movedim(0, 2).numpy()).save(path)
