"""COCO, and boxes of one's own in its format."""

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.data.base import Raw, dataset
from harness.data.held import Holding
from harness.data.pictures import Fault
from harness.data.split import generator, random_split
from harness.data.vision_boxes import Scene, Scenes, boxed, own_test, sound
from harness.data.vision_files import FOUND, folder, sides
from losses.arguments import Count, Share


@functools.lru_cache(maxsize=4)
def _coco(notes: Path, images: Path, _changed: int) -> tuple[Scenes, tuple[str, ...]]:
    """Pictures and objects of a file in COCO's format, and the names of its categories by id."""
    try:
        read = json.loads(notes.read_text(encoding="utf-8"))
        entries, things, kinds = (read[key] for key in ("images", "annotations", "categories"))
        names = {int(kind["id"]): str(kind["name"]) for kind in kinds}
        scenes = {
            int(entry["id"]): Scene(
                images / str(entry["file_name"]), (int(entry["height"]), int(entry["width"]))
            )
            for entry in entries
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{notes} is no file in COCO's format: {type(error).__name__} {error}"
        ) from error
    order = {number: place for place, number in enumerate(sorted(names))}
    faults = list(_add_objects(notes, scenes, order, things))
    return Scenes(list(scenes.values()), faults), tuple(names[number] for number in sorted(names))


def _add_objects(
    notes: Path, scenes: Mapping[int, Scene], order: Mapping[int, int], things: Sequence[Any]
) -> Iterator[str]:
    """Give each picture its objects; what is wrong with those that it is not given."""
    for position, thing in enumerate(things):
        place = f"{notes.name}, annotation {thing.get('id', f'number {position}')}"
        if thing.get("iscrowd", 0):
            continue
        if thing.get("image_id") not in scenes:
            yield f"{place}: there is no image {thing.get('image_id')!r}"
            continue
        if thing.get("category_id") not in order:
            yield f"{place}: there is no category {thing.get('category_id')!r}"
            continue
        scene = scenes[thing["image_id"]]
        try:
            x, y, width, height = map(float, thing["bbox"])
            scene.boxes.append(sound(place, [x, y, x + width, y + height], scene.size))
            scene.labels.append(order[thing["category_id"]])
        except Fault as fault:
            yield str(fault)
        except (KeyError, TypeError, ValueError):
            yield f"{place}: its bbox is not four numbers"


def _read_coco(name: str, notes: Path, images: Path, needs: str) -> tuple[Scenes, tuple[str, ...]]:
    for path, there in ((notes, notes.is_file()), (images, images.is_dir())):
        if not there:
            raise ValueError(f"{name}: there is no {path}; it needs {needs}")
    return _coco(notes, images, notes.stat().st_mtime_ns)


COCO = "coco/ with train2017/, val2017/ and annotations/instances_train2017.json, ..._val2017.json"


@dataset(
    "coco",
    kind="boxes",
    source="Lin et al. 2014, arXiv:1405.0312",
    licence="annotations CC BY 4.0, pictures Flickr terms of use",
    needs=COCO,
    options=Holding,
)
def coco(
    split_seed: int,
    *,
    root: str = "data",
    size: Sequence[Count] = (480, 480),
    validation: Share = 0.05,
) -> Raw:
    """Where are which of 80 things? 118,287 photographs train, the 5,000 of `val2017` test.

    Crowds, marked as such, are asked of nobody; a picture without objects stays. A few boxes of the
    source have no area: `data.bad=skip`. torchvision cannot fetch it.

    Args:
        root: the folder that holds what is listed under needs.
        size: height and width that a picture is fitted into whole; the rim is 0.
        validation: share of the training items that validate, drawn by the seed.
    """
    base = Path(folder(root)) / "coco"
    notes = [base / "annotations" / f"instances_{part}2017.json" for part in ("train", "val")]
    read = [
        _read_coco("coco", file, base / f"{part}2017", f"in data.root: {COCO}")
        for file, part in zip(notes, ("train", "val"), strict=True)
    ]
    parts = [scenes for scenes, _ in read]
    split = own_test(parts, split_seed, validation)
    return boxed(base, parts, read[0][1], sides("coco", size), split)


@dataset("coco_json", kind="boxes", source="the user's own", needs=FOUND, options=Holding)
def coco_json(
    split_seed: int, *, path: str, images: str, size: Sequence[Count] = (256, 256)
) -> Raw:
    """Boxes of one's own in COCO's format: a JSON file with `images`, `annotations`, `categories`.

    A box is [x, y, width, height] in pixels; one that juts out by up to a pixel is cut. Items are
    split 60/20/20 at random. Crowds are asked of nobody; a picture without objects stays.

    Args:
        path: the JSON file.
        images: the folder that holds its pictures.
        size: height and width that a picture is fitted into whole; the rim is 0.
    """
    notes, base = Path(path).expanduser().resolve(), Path(images).expanduser().resolve()
    scenes, names = _read_coco("coco_json", notes, base, "data.path and data.images")
    split = random_split(len(scenes.items), None, generator(split_seed, "split"))
    return boxed(base, [scenes], names, sides("coco_json", size), split)
