"""Data sets of a few random pictures, each in the very format in which its files come."""

import gzip
import json
import pickle
import shutil
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from scipy.io import savemat

Array = npt.NDArray[Any]
RNG = np.random.default_rng(0)  # any numbers will do: only where they end up is looked at
TRAIN, TEST = 40, 20


def trust(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torchvision take files of another md5 than those it knows for the data they stand for."""
    from torchvision.datasets import cifar, lfw, mnist, omniglot, stl10, svhn, utils

    for module in (cifar, lfw, mnist, omniglot, stl10, svhn, utils):
        monkeypatch.setattr(module, "check_integrity", lambda path, _md5=None: Path(path).is_file())


def pixels(*shape: int) -> Array:
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def save(path: Path, array: Array, mode: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    if mode == "P":
        image.putpalette(pixels(768).tobytes())
    image.save(path)
    return path


def cycle(n: int, classes: int) -> Array:
    return np.arange(n) % classes


def idx(array: Array) -> bytes:
    """The format of MNIST's files: a magic number, the sizes, the bytes."""
    return struct.pack(f">{1 + array.ndim}i", 2048 + array.ndim, *array.shape) + array.tobytes()


def mnist_like(root: Path, name: str, *, packed: bool = False) -> dict[str, Array]:
    found = {}
    for part, n in (("train", TRAIN), ("t10k", TEST)):
        images, labels = pixels(n, 28, 28), cycle(n, 10).astype(np.uint8)
        found[part] = images
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            path = root / name / "raw" / f"{part}-{kind}-ubyte"
            path.parent.mkdir(parents=True, exist_ok=True)
            if packed:
                path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(idx(array)))
            else:
                path.write_bytes(idx(array))
    return found


def _pickle(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content))


def cifar10(root: Path) -> Array:
    base, images = root / "cifar-10-batches-py", []
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        images.append(pixels(20, 3072))
        _pickle(base / name, {"data": images[-1], "labels": cycle(20, 10).tolist()})
    names = "airplane automobile bird cat deer dog frog horse ship truck".split()  # noqa: SIM905
    _pickle(base / "batches.meta", {"label_names": names})
    return np.concatenate(images)


def cifar100(root: Path) -> None:
    base = root / "cifar-100-python"
    for name, n in (("train", TRAIN), ("test", TEST)):
        _pickle(base / name, {"data": pixels(n, 3072), "fine_labels": cycle(n, 5).tolist()})
    _pickle(base / "meta", {"fine_label_names": list("abcde")})


def svhn(root: Path) -> Array:
    (root / "svhn").mkdir(parents=True)
    found = []
    for part, n in (("train", TRAIN), ("test", TEST)):
        images = pixels(32, 32, 3, n)
        labels = (cycle(n, 10) + 1).reshape(-1, 1).astype(np.uint8)  # 10 stands for the digit 0
        savemat(root / "svhn" / f"{part}_32x32.mat", {"X": images, "y": labels})
        found.append(images.transpose(3, 2, 0, 1))
    return np.concatenate(found)


def stl10(root: Path) -> Array:
    base = root / "stl10_binary"
    base.mkdir(parents=True)
    found = []
    for part, n in (("train", TRAIN), ("test", TEST)):
        images = pixels(n, 3, 96, 96)
        images.transpose(0, 1, 3, 2).tofile(base / f"{part}_X.bin")  # columns first, as in Matlab
        (cycle(n, 10) + 1).astype(np.uint8).tofile(base / f"{part}_y.bin")
        found.append(images)
    (base / "unlabeled_X.bin").write_bytes(b"")
    names = "airplane bird car cat deer dog horse monkey ship truck".split()  # noqa: SIM905
    (base / "class_names.txt").write_text("\n".join(names) + "\n")
    return np.concatenate(found)


def folder(place: Path, classes: Sequence[str] = ("cat", "dog"), n: int = 10) -> Path:
    for name in classes:
        for i in range(n):
            save(place / name / f"{i}.png", pixels(20 + i, 24, 3))
    return place


def eurosat(root: Path) -> None:
    for name in ("Forest", "River", "Highway"):
        for i in range(6):
            save(root / "eurosat" / "2750" / name / f"{name}_{i}.jpg", pixels(64, 64, 3))


def food101(root: Path) -> None:
    base = root / "food-101"
    for part, n in (("train", 6), ("test", 3)):
        listed = {}
        for name in ("apple_pie", "waffles"):
            listed[name] = [f"{name}/{part}{i}" for i in range(n)]
            for place in listed[name]:
                save(base / "images" / f"{place}.jpg", pixels(40, 60, 3))
        (base / "meta").mkdir(parents=True, exist_ok=True)
        (base / "meta" / f"{part}.json").write_text(json.dumps(listed))


def pets(root: Path) -> None:
    base = root / "oxford-iiit-pet"
    (base / "annotations").mkdir(parents=True)
    for part, n in (("trainval", 8), ("test", 4)):
        lines = []
        for label, name in enumerate(("Abyssinian", "american_bulldog", "pug"), start=1):
            for i in range(n):
                key = f"{name}_{part}{i}"
                save(base / "images" / f"{key}.jpg", pixels(30, 40, 3))
                trimap = np.full((30, 40), 2, np.uint8)
                trimap[5:20, 10:30] = 3
                trimap[7:18, 12:28] = 1
                save(base / "annotations" / "trimaps" / f"{key}.png", trimap)
                lines.append(f"{key} {label} {1 + (label > 1)} {label}")
        (base / "annotations" / f"{part}.txt").write_text("\n".join(lines) + "\n")


def omniglot(root: Path) -> None:
    for part, characters in (("background", 6), ("evaluation", 3)):
        base = root / "omniglot-py" / f"images_{part}"
        for character in range(characters):
            for i in range(6):
                drawn = np.where(pixels(105, 105) > 40, 255, 0).astype(np.uint8)
                place = base / f"{part}_alphabet" / f"character{character + 1:02}"
                place.mkdir(parents=True, exist_ok=True)
                Image.fromarray(drawn).convert("1").save(place / f"{character:04}_{i:02}.png")
        shutil.make_archive(str(base), "zip", base.parent, base.name)


def lfw_people(root: Path) -> None:
    base = root / "lfw-py"
    names = []
    for part, people in (("Train", 6), ("Test", 3)):
        lines = [str(people)]
        for person in range(people):
            name = f"{part}_Person{person}"
            names.append(f"{name}\t6")
            lines.append(f"{name}\t6")
            for i in range(6):
                save(base / "lfw_funneled" / name / f"{name}_{i + 1:04}.jpg", pixels(25, 25, 3))
        (base / f"peopleDev{part}.txt").write_text("\n".join(lines) + "\n")
    (base / "lfw-names.txt").write_text("\n".join(sorted(names)) + "\n")
    (base / "lfw-funneled.tgz").write_bytes(b"packed")


OBJECT = """<object><name>{}</name><difficult>{}</difficult><bndbox><xmin>{}</xmin><ymin>{}</ymin>\
<xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"""


def voc_notes(size: tuple[int, int], objects: Sequence[tuple[Any, ...]]) -> str:
    """An annotation; an object is a name, whether it is difficult, and its corners."""
    height, width = size
    inner = "".join(OBJECT.format(*thing) for thing in objects)
    shape = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation><filename>x.jpg</filename>{shape}{inner}</annotation>"


def voc(root: Path, n: int = 10) -> Path:
    """Both years, of which 2007 has a public test part."""
    for year, parts in (("2007", ("trainval", "test")), ("2012", ("train", "val"))):
        base = root / "VOCdevkit" / f"VOC{year}"
        for part in parts:
            keys = [f"{year}_{part}_{i:03}" for i in range(n)]
            for i, key in enumerate(keys):
                save(base / "JPEGImages" / f"{key}.jpg", pixels(48, 64, 3))
                classes = np.zeros((48, 64), np.uint8)
                classes[10:30, 10:40] = 255
                classes[12:28, 12:38] = 1 + i % 20
                save(base / "SegmentationClass" / f"{key}.png", classes, "P")
                objects = [("cat", 0, 13, 13, 38, 28), ("dog", 1, 1, 1, 64, 48)][: 1 + i % 2]
                (base / "Annotations").mkdir(exist_ok=True)
                notes = voc_notes((48, 64), [] if i == 3 else objects)
                (base / "Annotations" / f"{key}.xml").write_text(notes)
            for kind in ("Main", "Segmentation"):
                (base / "ImageSets" / kind).mkdir(parents=True, exist_ok=True)
                (base / "ImageSets" / kind / f"{part}.txt").write_text("\n".join(keys) + "\n")
    return root / "VOCdevkit"


def cityscapes(root: Path) -> None:
    base = root / "cityscapes"
    for part, n in (("train", 6), ("val", 3)):
        for i in range(n):
            key = f"aachen_{i:06}_000019"
            save(
                base / "leftImg8bit" / part / "aachen" / f"{key}_leftImg8bit.png", pixels(32, 64, 3)
            )
            ids = np.full((32, 64), 7, np.uint8)  # road, class 0
            ids[:8], ids[8:12], ids[12:16] = 23, 33, 4  # sky 10, bicycle 18, static: not asked
            place = base / "gtFine" / part / "aachen"
            save(place / f"{key}_gtFine_labelIds.png", ids)
            save(place / f"{key}_gtFine_instanceIds.png", ids)
            save(place / f"{key}_gtFine_color.png", pixels(32, 64, 3))
            (place / f"{key}_gtFine_polygons.json").write_text("{}")


def coco_file(notes: Path, images: Path, n: int = 10) -> dict[str, Any]:
    """A file of annotations and its pictures; the last picture has no objects."""
    read: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 3, "name": "car"}, {"id": 1, "name": "person"}],
    }
    for i in range(n):
        save(images / f"{i:04}.jpg", pixels(40, 60, 3))
        entry = {"id": 100 + i, "file_name": f"{i:04}.jpg", "height": 40, "width": 60}
        read["images"].append(entry)
        for j in range(i % 3 if i < n - 1 else 0):
            box = [5.0 + j, 6.0, 20.0, 12.0]
            kind = (1, 3)[j % 2]
            made = {"id": 10 * i + j, "image_id": 100 + i, "category_id": kind, "bbox": box}
            read["annotations"].append(made | {"iscrowd": 0, "area": 240.0})
    crowd = {"id": 999, "image_id": 101, "category_id": 1, "bbox": [0, 0, 60, 40], "iscrowd": 1}
    read["annotations"].append(crowd)
    write_coco(notes, read)
    return read


def write_coco(notes: Path, read: dict[str, Any]) -> None:
    notes.parent.mkdir(parents=True, exist_ok=True)
    notes.write_text(json.dumps(read))


def coco(root: Path) -> None:
    for part in ("train2017", "val2017"):
        base = root / "coco"
        coco_file(base / "annotations" / f"instances_{part}.json", base / part)


def masks(place: Path, n: int = 10, size: tuple[int, int] = (20, 30)) -> Path:
    for i in range(n):
        save(place / "images" / f"{i:02}.png", pixels(*size, 3))
        mask = np.zeros(size, np.uint8)
        mask[2 : 4 + i, 3:12] = 255
        save(place / "masks" / f"{i:02}.png", mask)
    return place


WRITERS: dict[str, Callable[[Path], Any]] = {
    "mnist": lambda root: mnist_like(root, "MNIST"),
    "fashion_mnist": lambda root: mnist_like(root, "FashionMNIST"),
    "kmnist": lambda root: mnist_like(root, "KMNIST"),
    "cifar10": cifar10,
    "cifar100": cifar100,
    "svhn": svhn,
    "stl10": stl10,
    "eurosat": eurosat,
    "food101": food101,
    "pets": pets,
    "omniglot": omniglot,
    "lfw_people": lfw_people,
    "voc_segmentation": voc,
    "voc_detection": voc,
    "cityscapes": cityscapes,
    "coco": coco,
}
"""What writes the files of each data set that lies in `data.root`."""


def write(name: str, root: Path) -> dict[str, Any]:
    """The files of a data set that needs some, and the parameters that find them."""
    if name in WRITERS:
        WRITERS[name](root)
        return {"root": str(root)}
    if name == "image_folder":
        return {"path": str(folder(root / "pictures"))}
    if name == "image_masks":
        return {"path": str(masks(root / "own"))}
    if name == "coco_json":
        coco_file(root / "notes.json", root / "images")
        return {"path": str(root / "notes.json"), "images": str(root / "images")}
    assert name == "csv"
    path = root / "table.csv"
    path.write_text("\n".join(["a,b,wanted", *(f"{i},{i % 7},{i % 3}" for i in range(60))]))
    return {"path": str(path), "target": "wanted", "kind": "multiclass"}
