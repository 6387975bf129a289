"""Pictures that are read one at a time, from files or an array, and all brought to one size."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.data.split import Array
from losses.inputs import IGNORE_INDEX

WRONG = -1
"""In a table of classes: no map may hold this number."""
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")
"""What is decoded, whatever a file is called: Pillow would start a program for PostScript."""
Size = tuple[int, int]


class Fault(ValueError):  # noqa: N818 - of the data, not of the program
    """What is wrong with one picture, its map or one of its objects; begins with its place."""


@dataclass(frozen=True)
class Pictures:
    """N pictures of one size, each with its map where they have maps. Equal if their keys are.

    Attributes:
        key: a hash of what is read.
        sources: a file each, or pixels uint8 [N, C, h, w].
        channels: 1 for grey, 3 for colours.
        size: the height and width they are brought to.
        whole: the picture is shown whole, its proportions kept, with a rim of 0 at the right or the
            bottom, where maps ask nothing; otherwise its middle is cut out.
        maps: a file each, 8 bits a pixel; empty where there are no maps.
        classes: which class a number in such a file stands for, int16 [256] or, where they differ,
            [N, 256]; -100 where nothing is asked, WRONG where it stands for none.
        sizes: height and width that pictures must have before; empty where any will do.
    """

    key: str
    sources: Sequence[Path] | Array = field(compare=False, repr=False)
    channels: int
    size: Size
    whole: bool = False
    maps: Sequence[Path] = field(default=(), compare=False, repr=False)
    classes: Array | None = field(default=None, compare=False, repr=False)
    sizes: Sequence[Size] = field(default=(), compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def bytes(self) -> int:
        """What all of them take as tensors."""
        height, width = self.size
        return len(self) * height * width * (self.channels + (2 if self.maps else 0))

    @property
    def pixels(self) -> Array | None:
        """All of them, where that is what they are made of."""
        plain = isinstance(self.sources, np.ndarray) and self.sources.shape[2:] == self.size
        return self.sources if plain else None  # type: ignore[return-value]

    def read(self, item: int) -> tuple[Tensor, Tensor | None]:
        """Pixels uint8 [C, H, W] of one picture, and its map int16 [H, W].

        Raises:
            Fault: a file is missing or no picture, a map has another size than its picture or a
                number that stands for no class.
        """
        from torchvision import tv_tensors as tv

        source = self.sources[item]
        plain = torch.from_numpy(np.array(source)) if not isinstance(source, Path) else None
        things = [tv.Image(_decoded(source, self.channels) if plain is None else plain)]
        found = tuple(things[0].shape[1:])
        if self.sizes and found != self.sizes[item]:
            raise Fault(
                f"{source} is {_by(found)} pixels, and its annotation says {_by(self.sizes[item])}"
            )
        if self.maps:
            things.append(tv.Mask(self._map(item, found)))
        pixels, *maps = (thing.as_subclass(Tensor) for thing in fitted(self, *things))
        return pixels.contiguous(), maps[0] if maps else None

    def _map(self, item: int, size: Sequence[int]) -> Tensor:
        """Class of each pixel, int16 [h, w]."""
        path = self.maps[item]
        assert self.classes is not None
        numbers = _decoded(path, None)[0].numpy()
        if numbers.shape != tuple(size):
            raise Fault(f"{path} is {_by(numbers.shape)} pixels, and its picture is {_by(size)}")
        table = self.classes[item] if self.classes.ndim == 2 else self.classes
        classes = table[numbers]
        wrong = np.unique(numbers[classes == WRONG])
        if len(wrong):
            shown = ", ".join(map(str, wrong[:5]))
            raise Fault(
                f"{path} holds {shown}, which no class has, in {(classes == WRONG).sum()} pixels"
            )
        return torch.from_numpy(classes)


def _by(size: Iterable[int]) -> str:
    return "x".join(map(str, size))


def _decoded(path: Path, channels: int | None) -> Tensor:
    """A file's pixels uint8 [C, h, w]; its numbers as they are where `channels` is None."""
    from PIL import Image

    try:
        with Image.open(path, formats=FORMATS) as opened:
            if channels is None and opened.mode not in ("P", "L", "1"):
                raise Fault(f"{path} is no map: it must have one channel of 8 bits")
            mode = opened.mode if channels is None else {1: "L", 3: "RGB"}[channels]
            array = np.array(opened if mode == opened.mode else opened.convert(mode), np.uint8)
    except FileNotFoundError:
        raise Fault(f"{path}: there is no such file") from None
    except Fault:
        raise
    except Exception as error:  # Pillow has no one class for what is no picture
        words = " ".join(str(error).split()).replace(str(path), "the file")
        raise Fault(f"{path} is no picture that can be read: {words}") from None
    return torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1).copy())


def fitted(pictures: Pictures, *things: Any) -> list[Any]:
    """An image and what belongs to it, as torchvision knows them, brought to size together."""
    from torchvision import tv_tensors as tv
    from torchvision.transforms.v2 import functional as v2

    sides, wanted = v2.get_size(things[0]), list(pictures.size)
    share = [to / of for to, of in zip(wanted, sides, strict=True)]
    scale = min(share) if pictures.whole else max(share)
    inner = [max(1, round(side * scale)) for side in sides]
    if inner != sides:
        things = tuple(v2.resize(thing, inner) for thing in things)
    if not pictures.whole:
        return [v2.center_crop(thing, wanted) for thing in things]
    rim = [0, 0, wanted[1] - inner[1], wanted[0] - inner[0]]
    fills = [IGNORE_INDEX if isinstance(thing, tv.Mask) else 0 for thing in things]
    return [v2.pad(thing, rim, fill=fill) for thing, fill in zip(things, fills, strict=True)]


def class_table(numbers: Sequence[int], ignored: Sequence[int] = ()) -> Array:
    """A table of 256 where `numbers[k]` stands for class k, `ignored` for nothing that is asked."""
    table = np.full(256, WRONG, np.int16)
    table[list(ignored)] = IGNORE_INDEX
    table[list(numbers)] = np.arange(len(numbers))
    return table


def file_hash(path: str) -> str:
    """sha256 of a file's bytes; of a folder, of its files' places and sizes.

    Raises:
        ValueError: there is neither, or it cannot be read.
    """
    try:
        place = Path(path).expanduser().resolve()
        if place.is_dir():
            return files_key(place, sorted(file for file in place.rglob("*") if file.is_file()))
        if not place.is_file():
            raise ValueError(f"there is no file {path!r} in {Path.cwd()}")
        with place.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, RuntimeError) as error:  # no such user, or links in a circle
        raise ValueError(f"cannot read {path!r}: {' '.join(str(error).split())}") from error


def files_key(root: Path, *lists: Sequence[Path]) -> str:
    """sha256 of files' places under a folder, their sizes, and their first and last 4096 bytes.

    Reading all of what is read as it is used would take minutes. A picture's last bytes depend on
    all before them in most formats: a check sum in some, what is left of a stream in others.
    """
    files = [path for paths in lists for path in paths]
    state = stamp(files)
    if state not in _KEYS:
        total = hashlib.sha256()
        for path in files:
            place = path.relative_to(root) if path.is_relative_to(root) else path
            total.update(f"{place.as_posix()}\0".encode())
            if path.is_file():
                total.update(_ends(path))
        _KEYS[state] = total.hexdigest()
    return _KEYS[state]


_KEYS: dict[str, str] = {}
"""Hashes of files by their stamp: a sweep asks for them again and again."""


def _ends(path: Path) -> bytes:
    with path.open("rb") as opened:
        size = opened.seek(0, os.SEEK_END)
        opened.seek(0)
        first = opened.read(4096)
        opened.seek(max(len(first), size - 4096))
        return f"{size}\0".encode() + first + opened.read()


def stamp(files: Iterable[Path]) -> str:
    """sha256 of files' full paths, sizes and times of change: equal while nothing is touched."""
    total = hashlib.sha256()
    for path in files:
        try:
            found = path.stat()
            mark = f"{found.st_size} {found.st_mtime_ns}"
        except OSError:
            mark = "missing"
        total.update(f"{path}\0{mark}\n".encode())
    return total.hexdigest()
