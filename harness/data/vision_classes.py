"""torchvision's data sets of pictures with a class each, and folders of one's own."""

import functools
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from harness.data.base import Raw, dataset
from harness.data.held import Holding
from harness.data.pictures import Pictures, files_key
from harness.data.split import generator, own_test_classes, own_test_split, random_split
from harness.data.vision_files import COMMON, FOUND, folder, made, sides
from harness.data.vision_table import ROWS, Listed, Row, of_folder
from losses.arguments import Count, Share


@functools.lru_cache(maxsize=4)
def _read(name: str, root: str, download: bool | None) -> tuple[Listed, ...]:
    """What torchvision has of each part."""
    row = next(row for row in ROWS if row.name == name)
    return tuple(
        row.listed(made(name, row.of, Path(root) / row.folder, row.needs, download, **part))
        for part in row.parts
    )


def _joined(parts: Sequence[Listed], unseen: bool) -> Listed:
    """The items of all parts, those that train first; parts of unseen classes number their own."""
    sources, targets, names = zip(*parts, strict=True)
    arrays = isinstance(sources[0], np.ndarray)
    joined = np.concatenate(sources) if arrays else [file for files in sources for file in files]
    if not unseen:
        return joined, np.concatenate(targets), names[0]
    starts = np.cumsum([0, *map(len, names[:-1])])
    numbered = [target + start for target, start in zip(targets, starts, strict=True)]
    return joined, np.concatenate(numbered), tuple(name for part in names for name in part)


@functools.lru_cache(maxsize=4)
def _whole(
    name: str, root: str, download: bool | None, unseen: bool
) -> tuple[Listed, tuple[int, ...], str]:
    """Every item, how many there are of each part, and a hash of what they are."""
    from harness.data.prepare import digest

    parts = _read(name, root, download)
    sources, target, names = _joined(parts, unseen)
    what = digest(sources) if isinstance(sources, np.ndarray) else files_key(Path(root), sources)
    key = hashlib.sha256(f"{name} {what} {digest(target)}".encode()).hexdigest()
    return (sources, target, names), tuple(len(part[1]) for part in parts), key


def _load(
    row: Row, seed: int, root: str, download: bool, size: Sequence[int] | None, validation: float,
    split: str = "random",
) -> Raw:  # fmt: skip
    fetching = None if row.name == "lfw_people" else download
    whole = _whole(row.name, folder(root), fetching, row.unseen)
    (sources, target, names), numbers, key = whole
    rng = generator(seed, "split")
    if split == "classes":
        tests = np.isin(np.arange(len(names)), target[numbers[0] :])
        target, names, parts = own_test_classes(target, names, tests, validation, rng)
    elif len(numbers) == 2 and not row.unseen:
        parts = own_test_split(target[: numbers[0]], numbers[1], validation, rng)
    else:
        parts = random_split(len(target), target, rng)
    own = row.size or sources.shape[2:]
    pictures = Pictures(key, sources, row.channels, sides(row.name, size or own))
    unseen = split == "classes"
    return Raw(pictures, target, names, key, standardise=False, split=parts, unseen=unseen)


def _function(row: Row) -> Callable[..., Raw]:
    """The function that is registered for a row; what it takes follows from the row."""

    def plain(
        split_seed: int,
        *,
        root: str = "data",
        download: bool = False,
        size: Sequence[Count] | None = row.size,
        validation: Share = 0.1,
    ) -> Raw:
        return _load(row, split_seed, root, download, size, validation)

    def whole(
        split_seed: int,
        *,
        root: str = "data",
        download: bool = False,
        size: Sequence[Count] | None = row.size,
    ) -> Raw:
        return _load(row, split_seed, root, download, size, 0.0)

    def unseen(
        split_seed: int,
        *,
        root: str = "data",
        download: bool = False,
        size: Sequence[Count] | None = row.size,
        validation: Share = 0.1,
        split: Literal["classes", "random"] = "classes",
    ) -> Raw:
        return _load(row, split_seed, root, download, size, validation, split)

    function: Callable[..., Raw] = unseen if row.unseen else plain if len(row.parts) == 2 else whole
    own = SPLIT_CLASSES if row.unseen else VALIDATION if len(row.parts) == 2 else ""
    function.__doc__ = f"{row.text}\n\nArgs:\n{COMMON}{own}"
    return function


VALIDATION = """\
    validation: share of each class's training items that validate, drawn by the seed; the set's own
        test part tests.
"""
SPLIT_CLASSES = """\
    validation: share of the training classes that validate, drawn by the seed; the set's own test
        part, of other classes, tests.
    split: classes, as said; or random, which divides the items of every class 60/20/20.
"""
for _row in ROWS:
    dataset(
        _row.name,
        kind="multiclass",
        source=_row.source,
        licence=_row.licence,
        needs=_row.needs,
        options=Holding,
    )(_function(_row))


@functools.lru_cache(maxsize=4)
def _folder(place: Path, _changed: int) -> Listed:
    return of_folder(made("image_folder", "ImageFolder", place, "CLASS/NAME.jpg", None))


@dataset("image_folder", kind=None, source="the user's own", needs=FOUND, options=Holding)
def image_folder(
    split_seed: int,
    *,
    path: str,
    kind: Literal["multiclass", "binary"] = "multiclass",
    test: str | None = None,
    size: Sequence[Count] = (64, 64),
    grey: bool = False,
    validation: Share = 0.1,
) -> Raw:
    """Pictures of one's own, a folder for each class: PATH/CLASS/NAME.jpg.

    Classes are numbered by name; of two the last is positive where `kind` is binary. Without
    `test`, items are split 60/20/20 within each class. Files without a picture's ending are passed
    over.

    Args:
        path: the folder of the classes' folders.
        kind: multiclass, or binary of two classes.
        test: another such folder, of the same classes, that tests.
        size: height and width to bring pictures to; their middle is cut out in these proportions.
        grey: read one channel in place of three.
        validation: share of each class's items that validate where there is a `test`.
    """
    places = [Path(each).expanduser().resolve() for each in (path, test) if each]
    for place in places:
        if not place.is_dir():
            raise ValueError(f"image_folder.path: there is no folder {place}")
    listed = [_folder(place, place.stat().st_mtime_ns) for place in places]
    names = listed[0][2]
    if len(listed) == 2 and listed[1][2] != names:
        raise ValueError(f"image_folder: {path} and {test} must have folders of the same names")
    if len(names) < 2 or (kind == "binary" and len(names) > 2):
        wanted = "two" if kind == "binary" else "two or more"
        raise ValueError(f"image_folder.path must have {wanted} folders, got {', '.join(names)}")
    sources, target, _ = _joined(listed, False)
    rng = generator(split_seed, "split")
    split = random_split(len(target), target, rng)
    if len(listed) == 2:
        split = own_test_split(listed[0][1], len(listed[1][1]), validation, rng)
    key = files_key(places[0], sources)
    pictures = Pictures(key, sources, 1 if grey else 3, sides("image_folder", size))
    return Raw(pictures, target, names, key, standardise=False, split=split)
