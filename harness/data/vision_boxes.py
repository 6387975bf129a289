"""Pictures with boxes around their objects, and those of Pascal VOC."""

import functools
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import numpy as np

from harness.data.base import Raw, dataset
from harness.data.held import Holding
from harness.data.pictures import Fault, Pictures, Size, files_key, fitted
from harness.data.split import Split, generator, own_test_split
from harness.data.vision_files import folder, sides
from harness.data.vision_maps import VOC, VOC_NEEDS, voc_parts
from losses.arguments import Count, Share
from losses.inputs import IGNORE_INDEX

JUTS_OUT = 1.0
"""Pixels by which a box may lie outside its picture, from rounding; it is cut."""


@dataclass
class Scene:
    """A picture's file and size, and its objects: corners in pixels, and classes."""

    file: Path
    size: Size
    boxes: list[list[float]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)


@dataclass
class Scenes:
    """The pictures of a part, and what is wrong with those and those objects that were left out."""

    items: list[Scene] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def sound(place: str, corners: Sequence[float], size: Size) -> list[float]:
    """A box cut to its picture.

    Raises:
        Fault: it has no area, or lies outside the picture.
    """
    height, width = size
    x1, y1, x2, y2 = corners
    shown = ", ".join(f"{value:g}" for value in corners)
    if not all(map(math.isfinite, corners)) or x2 <= x1 or y2 <= y1:
        raise Fault(f"{place}: the box {shown} has no area")
    if min(x1, y1) < -JUTS_OUT or x2 > width + JUTS_OUT or y2 > height + JUTS_OUT:
        raise Fault(f"{place}: the box {shown} lies outside its picture of {height}x{width} pixels")
    cut = [max(x1, 0.0), max(y1, 0.0), min(x2, width), min(y2, height)]
    if cut[2] <= cut[0] or cut[3] <= cut[1]:
        raise Fault(f"{place}: the box {shown} lies outside its picture of {height}x{width} pixels")
    return cut


def boxed(
    root: Path, parts: Sequence[Scenes], names: Sequence[str], size: Size, split: Split
) -> Raw:
    """Objects padded to the largest number of any picture, at least one."""
    import torch
    from torchvision import tv_tensors as tv

    scenes = [scene for part in parts for scene in part.items]
    files = tuple(scene.file for scene in scenes)
    plain = f"{files_key(root, files)} {[(s.boxes, s.labels) for s in scenes]} {[*names]}"
    key = hashlib.sha256(plain.encode()).hexdigest()
    pictures = Pictures(key, files, 3, size, True, sizes=[scene.size for scene in scenes])
    most = max([1, *(len(scene.labels) for scene in scenes)])
    boxes = np.zeros((len(scenes), most, 4), np.float32)
    labels = np.full((len(scenes), most), IGNORE_INDEX, np.int64)
    for item, scene in enumerate(scenes):
        if scene.labels:
            thing = tv.BoundingBoxes(
                torch.tensor(scene.boxes), format="XYXY", canvas_size=scene.size
            )
            boxes[item, : len(scene.labels)] = fitted(pictures, thing)[0].numpy()
            labels[item, : len(scene.labels)] = scene.labels
    faults = tuple(fault for part in parts for fault in part.faults)
    target = {"boxes": boxes, "labels": labels}
    return Raw(pictures, target, tuple(names), key, standardise=False, split=split, faults=faults)


def _voc_scenes(part: Any, difficult: bool) -> Scenes:
    found = Scenes()
    for picture, notes in zip(part.images, part.annotations, strict=True):
        try:
            scene = _voc_scene(Path(picture), Path(notes), difficult, found.faults)
            found.items.append(scene)
        except Fault as fault:
            found.faults.append(str(fault))
    return found


def _voc_scene(picture: Path, notes: Path, difficult: bool, faults: list[str]) -> Scene:
    """One annotation; the corners in the file are pixels counted from 1, both within the box."""
    try:
        tree = ElementTree.parse(notes).getroot()
        scene = Scene(picture, (_number(tree, "size/height"), _number(tree, "size/width")))
    except (OSError, ElementTree.ParseError, ValueError) as error:
        raise Fault(f"{notes} is no annotation that can be read: {error}") from None
    for number, thing in enumerate(tree.iter("object"), start=1):
        if not difficult and thing.findtext("difficult", "0").strip() == "1":
            continue
        place = f"{notes}, object {number}"
        try:
            name = thing.findtext("name", "").strip()
            if name not in VOC[1:]:
                raise Fault(f"{place}: there is no class '{name}'")
            x1, y1, x2, y2 = (
                float(thing.findtext(f"bndbox/{side}", ""))
                for side in ("xmin", "ymin", "xmax", "ymax")
            )
            scene.boxes.append(sound(place, [x1 - 1, y1 - 1, x2, y2], scene.size))
            scene.labels.append(VOC.index(name) - 1)
        except Fault as fault:
            faults.append(str(fault))
        except ValueError:
            faults.append(f"{place}: its box is not four numbers")
    return scene


def _number(tree: Any, path: str) -> int:
    return int(tree.findtext(path, ""))


@functools.lru_cache(maxsize=4)
def _voc(root: str, year: str, download: bool, difficult: bool) -> list[Scenes]:
    parts = voc_parts("detection", root, year, download)
    return [_voc_scenes(part, difficult) for part in parts]


@dataset(
    "voc_detection",
    kind="boxes",
    source="Everingham et al. 2010, The Pascal visual object classes challenge",
    licence="Flickr terms of use",
    needs=VOC_NEEDS["detection"],
    options=Holding,
)
def voc_detection(
    split_seed: int,
    *,
    year: Literal["2007", "2012"] = "2007",
    root: str = "data",
    download: bool = False,
    size: Sequence[Count] = (320, 320),
    difficult: bool = True,
    validation: Share = 0.1,
) -> Raw:
    """Where are which of 20 things? 5,011 photographs train, 4,952 test, with 3 objects each.

    Args:
        year: 2007, whose `trainval` trains and whose `test` tests; or 2012, 5,717 and 5,823, whose
            `train` trains and whose `val` tests.
        root: the folder that holds what is listed under needs.
        download: let torchvision fetch it into `root` if it is not there.
        size: height and width that a picture is fitted into whole; the rim is 0.
        difficult: keep objects that are marked as hard to recognise; they count as any other, while
            the challenge counts them neither found nor missed.
        validation: share of the training items that validate, drawn by the seed.
    """
    parts = _voc(folder(root), year, download, difficult)
    split = own_test(parts, split_seed, validation)
    sized = sides("voc_detection", size)
    return boxed(Path(folder(root)), parts, VOC[1:], sized, split)


def own_test(parts: Sequence[Scenes], seed: int, validation: float) -> Split:
    """The split of a part that trains and, by a share, validates, and of a part that tests."""
    strata = np.zeros(len(parts[0].items), np.int64)
    return own_test_split(strata, len(parts[1].items), validation, generator(seed, "split"))
