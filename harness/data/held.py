"""Pictures as parts of a data set: kept as tensors where they fit, read as they are used if not."""

import functools
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor

from harness.data.augment import Augmentation
from harness.data.base import Part, Raw, Target
from harness.data.lazy import LazyPart
from harness.data.pictures import Fault, Pictures, stamp
from harness.data.split import Array
from harness.paths import cache_dir
from losses.arguments import Bounds

NAMED = 3
"""How many of the things that were left out are named."""


@dataclass(frozen=True)
class Holding:
    """What a config may say of all data sets of pictures.

    Attributes:
        memory: bytes that the pixels and maps of a data set may take on the device. What needs more
            is read as it is used, by `trainer.workers` processes.
        bad: what is done about a file that is no picture, a map of another size or with a number of
            no class, and a box of no area, outside its picture or of no class: refuse all, or skip
            the picture or the box, which is counted and told. Every picture is read once before
            training to find them.
        normalise: subtract each colour's mean over ImageNet and divide by its sd, as weights that
            were trained there expect; otherwise pixels lie between 0 and 1.
        augment: of the training part: nothing; flip left and right with probability 1/2; crop, by
            which the picture moves by up to an eighth of its sides; both; or zoom_flip, a quarter
            to all of the picture's area made as large as the whole, and flipped.
    """

    memory: Annotated[int, Bounds(0)] = 2_000_000_000
    bad: Literal["refuse", "skip"] = "refuse"
    normalise: bool = False
    augment: Augmentation = "none"


@dataclass(frozen=True, eq=False)
class Found:
    """What reading every picture once has shown: faults by item and, of maps, pixels per class."""

    faults: dict[int, str]
    counts: Array | None  # int64 [N, C]
    pixels: Tensor | None = None  # uint8 [N, C, H, W]
    maps: Tensor | None = None  # int16 [N, H, W]


class Held:
    """A data set of pictures: what is wrong with it left out, and parts made of the rest.

    Raises:
        ValueError: something is wrong with it, and `bad` says to refuse; the first is named.
    """

    def __init__(self, raw: Raw, holding: Holding, workers: int = 0) -> None:
        assert isinstance(raw.inputs, Pictures)
        self.pictures, self.holding, self.workers = raw.inputs, holding, workers
        if holding.normalise and self.pictures.channels != 3:
            raise ValueError("normalise=true needs colours, and these pictures are grey")
        fits = self.pictures.bytes <= holding.memory
        state = stamp(path for path in (*self._files(), *self.pictures.maps))
        self.found = (kept if fits else checked)(self.pictures, state, workers)
        faults = (*raw.faults, *self.found.faults.values())
        if faults and holding.bad == "refuse":
            more = f"; {len(faults)} such in all" if len(faults) > 1 else ""
            raise ValueError(f"{faults[0]}{more}: mend it, or leave it out with data.bad=skip")
        self.raw = replace(raw, faults=faults, split=raw.split and self._without_bad(raw.split))

    def _files(self) -> Sequence[Path]:
        sources = self.pictures.sources
        return () if isinstance(sources, np.ndarray) else sources

    def _without_bad(self, split: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        bad = list(self.found.faults)
        train, val, test = (rows[~np.isin(rows, bad)] for rows in split)
        for name, rows in (("training", train), ("validation", val), ("test", test)):
            if not len(rows):
                raise ValueError(f"no picture is left in the {name} part")
        return train, val, test

    def part(self, numbers: Array, target: Target) -> Part:
        """The items of these row numbers; `target` is theirs, unless it is read with them."""
        rows, found, normalise = torch.from_numpy(numbers), self.found, self.holding.normalise
        if found.pixels is not None:
            maps = target if found.maps is None else found.maps[rows]
            return Part(found.pixels[rows], maps, normalise)
        height, width = self.pictures.size
        shape = (len(rows), self.pictures.channels, height, width)
        return LazyPart(
            torch.empty(shape, dtype=torch.uint8, device="meta"),
            torch.empty(len(rows), height, width, device="meta") if self.pictures.maps else target,
            normalise,
            pictures=self.pictures,
            rows=rows,
            workers=self.workers,
        )

    def counts(self, numbers: Array) -> Tensor:
        """Pixels per class of the maps of these rows, int64 [C]."""
        assert self.found.counts is not None
        return torch.from_numpy(self.found.counts[numbers].sum(0))


def notes(faults: Sequence[str]) -> tuple[str, ...]:
    """What was left out, counted and the first of it named."""
    if not faults:
        return ()
    more = f"; and {len(faults) - NAMED} more" if len(faults) > NAMED else ""
    return (f"left out {len(faults)}: {'; '.join(faults[:NAMED])}{more}",)


@functools.lru_cache(maxsize=2)
def kept(pictures: Pictures, _state: str, workers: int) -> Found:
    """Every picture read once and kept, as long as its file is the same."""
    if pictures.pixels is not None:
        return Found({}, None, torch.from_numpy(pictures.pixels))
    height, width = pictures.size
    pixels = torch.zeros(len(pictures), pictures.channels, height, width, dtype=torch.uint8)
    maps = torch.zeros(len(pictures) if pictures.maps else 0, height, width, dtype=torch.int16)
    found = _read_all(pictures, workers, (pixels, maps))
    return replace(found, pixels=pixels, maps=maps if pictures.maps else None)


@functools.lru_cache(maxsize=2)
def checked(pictures: Pictures, state: str, workers: int) -> Found:
    """Every picture read once, which is remembered in the user's cache folder, and forgotten."""
    if pictures.pixels is not None:
        return Found({}, None)
    from harness.data.prepare import digest
    from harness.store import StoreError, dump_json, write_atomically

    table = np.zeros(0) if pictures.classes is None else pictures.classes
    plain = np.frombuffer(f"{pictures!r} {state}".encode(), np.uint8)
    mark = digest(plain, table, np.array(pictures.sizes))[:16]
    path = cache_dir() / f"pictures-{mark}.json"
    with suppress(OSError, ValueError, KeyError):
        read = json.loads(path.read_text(encoding="utf-8"))
        faults = {int(item): text for item, text in read["faults"].items()}
        return Found(faults, np.array(read["counts"]) if pictures.maps else None)
    found = _read_all(pictures, workers, None)
    counts = found.counts.tolist() if found.counts is not None else []
    with suppress(StoreError):  # a home that cannot be written costs time, nothing else
        write_atomically(path, dump_json({"faults": found.faults, "counts": counts}))
    return found


def _read_all(pictures: Pictures, workers: int, kept: tuple[Tensor, Tensor] | None) -> Found:
    """Read every picture in as many threads as there are to be workers, at least one."""
    faults: dict[int, str] = {}
    classes = 0 if pictures.classes is None else int(pictures.classes.max()) + 1
    counts = np.zeros((len(pictures) if pictures.maps else 0, classes), np.int64)

    def look(item: int) -> None:
        try:
            pixels, mapped = pictures.read(item)
        except Fault as fault:
            faults[item] = str(fault)
            return
        if kept:
            kept[0][item] = pixels
        if mapped is not None:
            counts[item] = np.bincount(mapped[mapped >= 0], minlength=classes)
            if kept:
                kept[1][item] = mapped

    with ThreadPoolExecutor(max(1, workers)) as threads:
        list(threads.map(look, range(len(pictures))))
    return Found(dict(sorted(faults.items())), counts if pictures.maps else None)
