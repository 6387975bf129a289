"""What a run answered for some test items, kept small for a person to look at. Needs no torch.

The items and their truth are the same for all arms of a seed and are stored once; every run stores
what it predicted and a score per item. Arrays are read without pickles.
"""

import contextlib
import hashlib
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from harness.store import Store, write_atomically

Array = npt.NDArray[Any]
Kind = Literal["maps", "boxes", "neighbours"]
MOST = 64
"""How many test items a run keeps, the first ones."""
FILE = "samples.npz"
LIMIT = 64 * 2**20  # bytes of a file that is read


@dataclass(frozen=True)
class Samples:
    """Some test items, what is true of them, and what a run made of them.

    Attributes:
        kind: what is drawn. maps: `labels` integer [K, H, W], below 0 where nothing is asked;
            boxes: `boxes` [K, M, 4] in pixels, `labels` [K, M], -100 for none, and predicted
            `scores` [K, M] besides; neighbours: `labels` [K], predicted `images` [K, n, H, W, 3]
            and their `labels` [K, n], nearest first.
        images: uint8 [K, H, W, 3].
        truth: arrays by name.
        predicted: likewise.
        scores: how well each item was answered, higher is better, float [K].
    """

    kind: Kind
    images: Array
    truth: dict[str, Array]
    predicted: dict[str, Array]
    scores: Array


def write(store: Store, run_id: str, samples: Samples) -> None:
    """Keep a run's samples beside its record.

    Raises:
        StoreError: a file cannot be written.
    """
    shared = {"images": samples.images, **{f"truth.{k}": v for k, v in samples.truth.items()}}
    content = _packed(shared)
    name = hashlib.sha256(content).hexdigest()[:16]
    items = store.folder / "items" / f"{name}.npz"
    if not items.exists():
        write_atomically(items, content)
    own = {f"predicted.{key}": value for key, value in samples.predicted.items()}
    own |= {"scores": samples.scores, "kind": np.array(samples.kind), "items": np.array(name)}
    write_atomically(store.run_folder(run_id) / FILE, _packed(own))


def read(store: Store, run_id: str) -> Samples | None:
    """A run's samples; None where it kept none, or what is there cannot be read."""
    own = _unpacked(store.run_folder(run_id) / FILE)
    name = str(own.get("items", ""))
    if not name.isalnum():
        return None
    shared = _unpacked(store.folder / "items" / f"{name}.npz")
    kind = str(own.get("kind"))
    if "images" not in shared or "scores" not in own or kind not in ("maps", "boxes", "neighbours"):
        return None
    made: Any = kind
    found = Samples(
        made,
        shared["images"],
        _under("truth.", shared),
        _under("predicted.", own),
        own["scores"],
    )
    return found if _fits(found) else None


def _under(prefix: str, arrays: dict[str, Array]) -> dict[str, Array]:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def _fits(samples: Samples) -> bool:
    """Whether all that is drawn is there, in shapes that belong together."""
    images, items = samples.images, len(samples.images) if samples.images.ndim else 0
    if not (_is_pictures(images) and samples.scores.shape == (items,)):
        return False
    true, said = samples.truth, samples.predicted
    numbers = [*true.values(), *said.values(), samples.scores]
    if any(array.dtype.kind not in "iuf" or array.shape[:1] != (items,) for array in numbers):
        return False
    if samples.kind == "maps":
        shape = images.shape[:3]
        return all(a.get("labels", np.empty(0)).shape == shape for a in (true, said))
    if samples.kind == "boxes":
        return _are_boxes(true) and _are_boxes(said) and _same(said, "scores", "labels")
    found = said.get("images", np.empty(0))
    several = found.ndim == 5 and _is_pictures(found[:, 0] if found.shape[1] else found)
    return several and said.get("labels", np.empty(0)).shape == found.shape[:2] and "labels" in true


def _is_pictures(images: Array) -> bool:
    shaped = images.ndim == 4 and images.shape[3] == 3 and images.dtype == np.uint8
    return bool(shaped and min(images.shape[1:3]) > 0)


def _are_boxes(arrays: dict[str, Array]) -> bool:
    boxes, labels = (arrays.get(name, np.empty(0)) for name in ("boxes", "labels"))
    return boxes.ndim == 3 and boxes.shape[2] == 4 and labels.shape == boxes.shape[:2]


def _same(arrays: dict[str, Array], first: str, second: str) -> bool:
    return first in arrays and arrays[first].shape == arrays[second].shape


def _packed(arrays: dict[str, Array]) -> bytes:
    """Arrays as a compressed file with the same bytes for the same arrays."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as file:
        for name, array in sorted(arrays.items()):
            entry = io.BytesIO()
            np.lib.format.write_array(entry, np.asarray(array, order="C"), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy")  # dated 1980
            info.compress_type = zipfile.ZIP_DEFLATED
            file.writestr(info, entry.getvalue())
    return written.getvalue()


def _unpacked(path: Path) -> dict[str, Array]:
    """The arrays of a file, none where it is missing or is no such file."""
    if not path.is_file():  # a pipe would be waited for
        return {}
    with contextlib.suppress(Exception, MemoryError):  # a damaged file can break a reader anywhere
        with zipfile.ZipFile(path) as file:
            if sum(info.file_size for info in file.infolist()) > LIMIT:
                return {}
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    return {}


HIT = 0.5
"""Overlap (IoU) from which a predicted box of the right class is a hit."""
SURE = 0.3
"""Score from which a predicted box counts as said."""


@dataclass(frozen=True)
class Matched:
    """Boxes [n, 4] that were predicted and are right, predicted and wrong, or true and missed."""

    hits: list[Array]
    false: list[Array]
    missed: list[Array]


def matched(true: dict[str, Array], said: dict[str, Array]) -> Matched:
    """Each predicted box, surest first, takes the true box of its class it overlaps most.

    Args:
        true: `boxes` [M, 4] and `labels` [M], below 0 for none, of one picture.
        said: the same and `scores` [M].
    """
    left = [(b, c) for b, c in zip(true["boxes"], true["labels"], strict=True) if c >= 0]
    found = Matched([], [], [])
    for i in np.argsort(-said["scores"], kind="stable"):
        box, label = said["boxes"][i], said["labels"][i]
        if label < 0 or said["scores"][i] < SURE:
            continue
        overlaps = [overlap(b, box) if c == label else 0.0 for b, c in left]
        best = int(np.argmax(overlaps)) if overlaps else -1
        if best >= 0 and overlaps[best] >= HIT:
            found.hits.append(box)
            left.pop(best)
        else:
            found.false.append(box)
    found.missed.extend(b for b, _ in left)
    return found


def overlap(one: Array, other: Array) -> float:
    """Intersection over union of two boxes x1, y1, x2, y2; 0 for boxes without area."""
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    both = float(np.prod(np.clip(high - low, 0, None)))
    areas = float(np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]))
    return both / (areas - both) if areas > both else 0.0


def overlap_score(found: Matched) -> float:
    """F1 of the hits of one picture; 1 where nothing is there and nothing was said."""
    total = 2 * len(found.hits) + len(found.false) + len(found.missed)
    return 2 * len(found.hits) / total if total else 1.0
