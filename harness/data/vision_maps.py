"""torchvision's data sets of pictures with a class for each pixel, and folders of one's own."""

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from harness.data.base import Raw, dataset
from harness.data.held import Holding
from harness.data.pictures import WRONG, Pictures, class_table, files_key
from harness.data.split import Array, generator, own_test_split, random_split
from harness.data.vision_files import FOUND, folder, made, pictures_in, sides
from losses.arguments import Bounds, Count, Share
from losses.inputs import IGNORE_INDEX

_VOC = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse "
    "motorbike person pottedplant sheep sofa train tvmonitor"
)
VOC = tuple(_VOC.split())
"""Classes of maps; boxes have all but the first."""
PETS = "oxford-iiit-pet/ with images/ and annotations/"
VOC_NEEDS = {
    kind: f"VOCdevkit/VOC2012/ (or VOC2007) with JPEGImages/, {notes}/ and ImageSets/{lists}/"
    for kind, notes, lists in (
        ("segmentation", "SegmentationClass", "Segmentation"),
        ("detection", "Annotations", "Main"),
    )
}
Paths = tuple[tuple[Path, ...], tuple[Path, ...]]
"""Pictures and their maps."""


def _raw(
    pictures: tuple[Path, ...], maps: tuple[Path, ...], root: Path, table: Array,
    names: Sequence[str], size: Any, split: Any, *, channels: int = 3, faults: tuple[str, ...] = (),
) -> Raw:  # fmt: skip
    plain = f"{files_key(root, pictures, maps)} {hashlib.sha256(table.tobytes()).hexdigest()}"
    key = hashlib.sha256(plain.encode()).hexdigest()
    read = Pictures(key, pictures, channels, size, True, maps, table)
    none = np.zeros((len(pictures), 0), np.int16)  # maps are read with the pictures
    return Raw(read, none, tuple(names), key, standardise=False, split=split, faults=faults)


@functools.lru_cache(maxsize=4)
def _pets(root: str, download: bool) -> tuple[Paths, Array, tuple[str, ...], int]:
    """Files, breed of each, names of breeds, and how many items train."""
    parts = [
        made("pets", "OxfordIIITPet", Path(root), PETS, download, split=split)
        for split in ("trainval", "test")
    ]
    pictures = tuple(Path(file) for part in parts for file in part._images)
    maps = tuple(Path(file) for part in parts for file in part._segs)
    breeds = np.array([breed for part in parts for breed in part._labels])
    return (pictures, maps), breeds, tuple(parts[0].classes), len(parts[0])


@dataset(
    "pets",
    kind=None,
    source="Parkhi et al. 2012, Cats and dogs",
    licence="CC BY-SA 4.0",
    needs=PETS,
    options=Holding,
)
def pets(
    split_seed: int,
    *,
    kind: Literal["multiclass", "mask", "semantic"] = "multiclass",
    root: str = "data",
    download: bool = False,
    size: Sequence[Count] = (224, 224),
    validation: Share = 0.1,
) -> Raw:
    """Which of 37 breeds, or which pixels are the pet? 3,680 and 3,669 photographs.

    Args:
        kind: multiclass, the breed; mask, the pet, whose outline in the annotation, a few pixels
            wide, is asked of nobody; semantic, the same of 38 classes, 0 the background and the
            others the breeds.
        root: the folder that holds what is listed under needs.
        download: let torchvision fetch it into `root` if it is not there.
        size: height and width: the middle is cut out in these proportions for a class; for maps the
            whole picture is fitted in, and in the rim nothing is asked.
        validation: share of each breed's training items that validate, drawn by the seed.
    """
    (pictures, maps), breeds, names, number = _pets(folder(root), download)
    rng, sized = generator(split_seed, "split"), sides("pets", size)
    split = own_test_split(breeds[:number], len(breeds) - number, validation, rng)
    base = Path(folder(root))
    if kind == "multiclass":
        key = files_key(base, pictures)
        read = Pictures(key, pictures, 3, sized)
        return Raw(read, breeds, names, key, standardise=False, split=split)
    table = class_table([2, 1], [3])  # 1 is the pet, 2 what is behind it, 3 its outline
    if kind == "mask":
        return _raw(pictures, maps, base, table, ("background", "pet"), sized, split)
    tables = np.repeat(table[None], len(breeds), 0)
    tables[:, 1] = breeds + 1
    return _raw(pictures, maps, base, tables, ("background", *names), sized, split)


def voc_parts(
    kind: Literal["segmentation", "detection"], root: str, year: str, download: bool
) -> list[Any]:
    """torchvision's data sets of what trains and of what tests."""
    of, needs = f"VOC{kind.capitalize()}", VOC_NEEDS[kind]
    return [
        made(f"voc_{kind}", of, Path(root), needs, download, year=year, image_set=image_set)
        for image_set in (("train", "val") if year == "2012" else ("trainval", "test"))
    ]


@functools.lru_cache(maxsize=4)
def _voc(root: str, year: str, download: bool) -> tuple[Paths, int]:
    parts = voc_parts("segmentation", root, year, download)
    pictures = tuple(Path(file) for part in parts for file in part.images)
    return (pictures, tuple(Path(file) for part in parts for file in part.masks)), len(parts[0])


@dataset(
    "voc_segmentation",
    kind="semantic",
    source="Everingham et al. 2010, The Pascal visual object classes challenge",
    licence="Flickr terms of use",
    needs=VOC_NEEDS["segmentation"],
    options=Holding,
)
def voc_segmentation(
    split_seed: int,
    *,
    year: Literal["2012", "2007"] = "2012",
    root: str = "data",
    download: bool = False,
    size: Sequence[Count] = (256, 256),
    validation: Share = 0.1,
) -> Raw:
    """Which of 20 things, or background, is each pixel? 1,464 photographs train, 1,449 test.

    Outlines and doubtful pixels, 255 in the files, are asked of nobody.

    Args:
        year: 2012, whose `train` trains and whose `val` tests; or 2007, 422 and 210, whose
            `trainval` trains and whose `test` tests.
        root: the folder that holds what is listed under needs.
        download: let torchvision fetch it into `root` if it is not there.
        size: height and width that a picture is fitted into whole; nothing is asked in the rim.
        validation: share of the training items that validate, drawn by the seed.
    """
    (pictures, maps), number = _voc(folder(root), year, download)
    strata, rng = np.zeros(number, np.int64), generator(split_seed, "split")
    split = own_test_split(strata, len(pictures) - number, validation, rng)
    sized = sides("voc_segmentation", size)
    table = class_table(range(len(VOC)), [255])
    return _raw(pictures, maps, Path(folder(root)), table, VOC, sized, split)


CITYSCAPES = "cityscapes/ with leftImg8bit/ and gtFine/, both with train/ and val/"


@functools.lru_cache(maxsize=4)
def _cityscapes(root: str) -> tuple[Paths, int, Array, tuple[str, ...]]:
    parts = [
        made("cityscapes", "Cityscapes", Path(root) / "cityscapes", CITYSCAPES, None,
             split=split, mode="fine", target_type="semantic")
        for split in ("train", "val")
    ]  # fmt: skip
    pictures = tuple(Path(file) for part in parts for file in part.images)
    maps = tuple(Path(files[0]) for part in parts for files in part.targets)
    known = sorted((c for c in parts[0].classes if 0 <= c.train_id < 255), key=lambda c: c.train_id)
    ignored = [c.id for c in parts[0].classes if c.id >= 0 and c.train_id == 255]
    table = class_table([c.id for c in known], ignored)
    return (pictures, maps), len(parts[0]), table, tuple(c.name for c in known)


@dataset(
    "cityscapes",
    kind="semantic",
    source="Cordts et al. 2016, arXiv:1604.01685",
    licence="non-commercial use",
    needs=CITYSCAPES,
    options=Holding,
)
def cityscapes(
    split_seed: int,
    *,
    root: str = "data",
    size: Sequence[Count] = (256, 512),
    validation: Share = 0.1,
) -> Raw:
    """Which of 19 things of a street is each pixel? 2,975 pictures train, the 500 of `val` test.

    The 15 further kinds that the annotation knows are asked of nobody. torchvision cannot fetch it.

    Args:
        root: the folder that holds what is listed under needs.
        size: height and width that a picture, of 1024x2048, is fitted into whole.
        validation: share of the training items that validate, drawn by the seed.
    """
    (pictures, maps), number, table, names = _cityscapes(folder(root))
    strata, rng = np.zeros(number, np.int64), generator(split_seed, "split")
    split = own_test_split(strata, len(pictures) - number, validation, rng)
    sized = sides("cityscapes", size)
    return _raw(pictures, maps, Path(folder(root)), table, names, sized, split)


@dataset("image_masks", kind=None, source="the user's own", needs=FOUND, options=Holding)
def image_masks(
    split_seed: int,
    *,
    path: str,
    kind: Literal["mask", "semantic"] = "mask",
    classes: Sequence[str] = ("background", "foreground"),
    ignore: Annotated[int, Bounds(0, 255)] | None = None,
    size: Sequence[Count] = (256, 256),
    grey: bool = False,
) -> Raw:
    """Pictures and maps of one's own: PATH/images/NAME.jpg and PATH/masks/NAME.png.

    A map is a file of one channel of 8 bits and of the picture's size. Items are split 60/20/20 at
    random. A picture without a map and a map without a picture are faults.

    Args:
        path: the folder with images/ and masks/.
        kind: mask, where 0 is the background and every other number the foreground; or semantic,
            where number k stands for the k-th of `classes`, counted from 0.
        classes: their names.
        ignore: the number of pixels that are asked of nobody, often 255.
        size: height and width that a picture is fitted into whole; nothing is asked in the rim.
        grey: read one channel in place of three.
    """
    base = Path(path).expanduser().resolve()
    pictures = pictures_in("image_masks", base / "images")
    maps = tuple(base / "masks" / f"{file.stem}.png" for file in pictures)
    unused = sorted(set((base / "masks").glob("*.png")) - set(maps))
    faults = tuple(f"{file} has no picture of its name in images/" for file in unused)
    if len(classes) < 2 or (kind == "mask" and len(classes) > 2):
        wanted = "two" if kind == "mask" else "two or more"
        raise ValueError(f"image_masks.classes must be {wanted} names, got {list(classes)}")
    table = np.full(256, 1 if kind == "mask" else WRONG, np.int16)
    table[: len(classes)] = np.arange(len(classes))
    if ignore is not None:
        table[ignore] = IGNORE_INDEX
    split = random_split(len(pictures), None, generator(split_seed, "split"))
    sized, channels = sides("image_masks", size), 1 if grey else 3
    return _raw(
        pictures, maps, base, table, classes, sized, split, channels=channels, faults=faults
    )
