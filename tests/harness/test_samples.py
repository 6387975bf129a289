"""What runs predicted: kept without pickles, chosen by rule, drawn as it is, and on the page."""

import base64
import dataclasses
import io
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from harness import samples
from harness.cli import main
from harness.report import pictures
from harness.report.answers import chosen
from harness.samples import Samples, matched, overlap, overlap_score
from harness.store import Store
from harness.tasks import _shown


def maps(items: int = 7, seed: int = 0) -> Samples:
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 3, (items, 6, 8)).astype(np.int16)
    return Samples(
        "maps",
        draw.integers(0, 256, (items, 6, 8, 3)).astype(np.uint8),
        {"labels": labels},
        {"labels": labels.copy()},
        draw.random(items),
    )


def same(one: Samples, other: Samples) -> bool:
    pairs = [(one.truth, other.truth), (one.predicted, other.predicted)]
    return (
        one.kind == other.kind
        and np.array_equal(one.images, other.images)
        and np.array_equal(one.scores, other.scores)
        and all(a.keys() == b.keys() for a, b in pairs)
        and all(np.array_equal(a[k], b[k]) for a, b in pairs for k in a)
    )


def test_what_is_written_is_read_and_pictures_are_stored_once(tmp_path: Path) -> None:
    store, first = Store(tmp_path), maps()
    other = dataclasses.replace(first, scores=first.scores[::-1].copy())
    samples.write(store, "a", first)
    samples.write(store, "b", other)
    for run, expected in (("a", first), ("b", other)):
        found = samples.read(store, run)
        assert found
        assert same(found, expected)
    assert len(list((tmp_path / "items").iterdir())) == 1
    before = (tmp_path / "runs/a/samples.npz").read_bytes()
    samples.write(store, "a", first)
    assert (tmp_path / "runs/a/samples.npz").read_bytes() == before


def npz(**arrays: np.ndarray) -> bytes:  # type: ignore[type-arg]
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=True, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def bomb() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("scores.npy", b"\0" * (samples.LIMIT + 1))
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a file",
        npz(kind=np.array([print], dtype=object)),
        npz(kind=np.array("maps"), items=np.array("../../../etc/passwd"), scores=np.zeros(1)),
        npz(kind=np.array("maps"), items=np.array("missing"), scores=np.zeros(1)),
        npz(kind=np.array("code"), items=np.array("x"), scores=np.zeros(1)),
        bomb(),
    ],
)
def test_a_file_that_is_no_samples_shows_nothing(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "runs/a/samples.npz"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert samples.read(Store(tmp_path), "a") is None


def test_arrays_of_other_lengths_show_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    samples.write(store, "a", dataclasses.replace(maps(), scores=np.zeros(3)))
    assert samples.read(store, "a") is None


def test_a_damaged_file_shows_nothing_and_breaks_nothing(tmp_path: Path) -> None:
    store, draw = Store(tmp_path), np.random.default_rng(5)
    samples.write(store, "a", maps())
    path = tmp_path / "runs/a/samples.npz"
    whole = path.read_bytes()
    for _ in range(200):
        broken = bytearray(whole)
        for place in draw.integers(0, len(whole), 4):
            broken[place] = draw.integers(0, 256)
        path.write_bytes(broken)
        samples.read(store, "a")


EMPTY = np.zeros((7, 0))


@pytest.mark.parametrize(
    "changes",
    [
        {"truth": {}},
        {"predicted": {"labels": np.zeros((7, 5, 8), np.int16)}},
        {"predicted": {"labels": np.zeros(7, np.int16)}},
        {"predicted": {"labels": np.full((7, 6, 8), "x")}},
        {"images": np.zeros((7, 0, 8, 3), np.uint8)},
        {"scores": np.array(["a"] * 7)},
        {"kind": "boxes", "truth": {"boxes": np.zeros((7, 2, 3)), "labels": np.zeros((7, 2))}},
        {"kind": "boxes", "predicted": {"boxes": np.zeros((7, 2, 4)), "labels": np.zeros((7, 2))}},
        {"kind": "neighbours", "predicted": {"labels": EMPTY}},
        {"kind": "neighbours", "predicted": {"images": np.zeros((7, 0, 6, 8, 3)), "labels": EMPTY}},
    ],
)
def test_what_could_not_be_drawn_is_not_read(tmp_path: Path, changes: dict[str, Any]) -> None:
    store = Store(tmp_path)
    samples.write(store, "a", dataclasses.replace(maps(), **changes))
    assert samples.read(store, "a") is None


def test_the_first_and_the_worst_others_are_chosen() -> None:
    assert chosen(np.array([0.0, 0.1, 0.9])) == [0, 1, 2]
    assert chosen(np.array([0.0, 0.9, 0.9, 0.5, 0.5, 0.4, 0.9])) == [0, 1, 2, 5, 3, 4]


def test_a_png_holds_the_pixels() -> None:
    drawn = np.random.default_rng(1).integers(0, 256, (5, 9, 3)).astype(np.uint8)
    with Image.open(io.BytesIO(pictures.png(drawn))) as read:
        assert np.array_equal(np.asarray(read), drawn)


def test_a_map_is_coloured_where_a_class_is_and_dark_where_nothing_is_asked() -> None:
    image = np.full((1, 96, 96, 3), 200, np.uint8)
    labels = np.zeros((1, 96, 96), np.int16)
    labels[0, :, 40:] = 1
    labels[0, 50:, :] = -1
    shown = pictures.truth(Samples("maps", image, {"labels": labels}, {}, np.ones(1)), 0)
    assert shown[0, 0].tolist() == [200] * 3
    expected = 0.35 * 200 + 0.65 * pictures.COLOURS[0].astype(float)
    assert np.abs(shown[0, 60] - expected).max() <= 0.5
    assert shown[60, 0].tolist() == [60] * 3


# Hits, worked out by hand.

BOX = np.array([[10.0, 10, 20, 20], [40, 10, 60, 30], [0, 0, 0, 0]])
TRUE = {"boxes": BOX, "labels": np.array([1, 2, -100])}


def said(*found: tuple[tuple[float, ...], float, int]) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    return {
        "boxes": np.array([box for box, _, _ in found]).reshape(-1, 4),
        "scores": np.array([score for _, score, _ in found]),
        "labels": np.array([label for _, _, label in found], int),
    }


@pytest.mark.parametrize(
    ("found", "counts"),
    [
        ([], (0, 0, 2)),
        ([((10, 10, 20, 20), 0.9, 1), ((40, 10, 60, 30), 0.9, 2)], (2, 0, 0)),
        ([((10, 10, 20, 20), 0.9, 2)], (0, 1, 2)),  # another class
        ([((10, 10, 20, 20), 0.9, 1), ((10, 10, 20, 20), 0.8, 1)], (1, 1, 1)),  # found twice
        ([((10, 10, 20, 15.1), 0.9, 1)], (1, 0, 1)),
        ([((10, 10, 20, 14.9), 0.9, 1)], (0, 1, 2)),  # IoU .49
        ([((10, 10, 20, 20), 0.2, 1)], (0, 0, 2)),  # not sure enough
        ([((10, 10, 20, 20), 0.9, -100)], (0, 0, 2)),  # padding
    ],
)
def test_boxes_are_matched_with_those_of_their_class(
    found: list[tuple[tuple[float, ...], float, int]], counts: tuple[int, int, int]
) -> None:
    result = matched(TRUE, said(*found))
    assert (len(result.hits), len(result.false), len(result.missed)) == counts
    hits, false, missed = counts
    assert overlap_score(result) == 2 * hits / (2 * hits + false + missed)


def test_overlap_of_boxes() -> None:
    one = np.array([0.0, 0, 2, 2])
    assert overlap(one, np.array([1.0, 0, 3, 2])) == pytest.approx(2 / 6)
    assert overlap(one, one) == 1
    assert overlap(one, np.array([5.0, 5, 6, 6])) == 0
    assert overlap(one[[0, 1, 0, 1]], one[[0, 1, 0, 1]]) == 0


def test_hits_are_green_and_what_is_missed_is_yellow() -> None:
    images = np.zeros((1, 96, 96, 3), np.uint8)
    truth = {key: value[None] for key, value in TRUE.items()}
    predicted = {k: v[None] for k, v in said(((10, 10, 20, 20), 0.9, 1)).items()}
    shown = pictures.answer(Samples("boxes", images, truth, predicted, np.ones(1)), 0)
    assert shown[10, 15].tolist() == list(pictures.RIGHT)
    assert {tuple(c) for c in shown[10, 40:61].tolist()} == {pictures.MISSED, (0, 0, 0)}


def test_the_score_of_a_map_is_the_dice_of_its_foreground() -> None:
    target = torch.tensor([[[0, 1, 2, -100]], [[0, 0, 0, 0]], [[1, 1, 1, 1]]])
    predicted = torch.tensor([[[1, 1, 1, 1]], [[0, 0, 0, 0]], [[0, 0, 0, 0]]])
    _, kept, scores = _shown.of_maps(predicted, target)
    assert scores.tolist() == [2 * 1 / (3 + 2), 1.0, 0.0]
    assert kept[0, 0].tolist() == [0, 1, 2, -1]


def test_nearest_leaves_out_the_item_itself() -> None:
    vectors = torch.tensor([[1.0, 0], [2, 0.1], [0, 1], [0.1, 3]])
    assert _shown.nearest(vectors, 4)[:, 0].tolist() == [1, 0, 3, 2]


# A whole sweep of each task.

SWEEPS = {
    "segmentation/rare_digits": ("binary_dice", "bce", "test/dice"),
    "detection/digit_boxes": ("[binary_focal,giou]", "[bce,iou]", "test/map_50"),
    "embedding/digits": ("triplet", "contrastive", "test/map_at_r"),
}


@pytest.mark.slow
@pytest.mark.parametrize("task", SWEEPS)
def test_the_page_shows_the_same_items_for_every_arm(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, metric = SWEEPS[task]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.yaml").write_text(
        f"task: {task}\nmetric: {metric}\nbaseline: one\nseeds: 1\n"
        "overrides: [trainer.epochs=1, +data.train_size=64]\n"
        f"arms:\n  one: ['loss={first}']\n  two: ['loss={second}']\n".replace("+data", "data")
    )
    assert main(["sweep", "s.yaml", "--jobs=1"]) == 0
    page = (tmp_path / "results/sweeps/s/report.html").read_text()
    section = page[page.index("What the runs answered") :]
    images = re.findall(r'<img src="data:image/png;base64,([^"]+)"', section)
    assert len(images) == 3 * 6  # truth and two arms, three first items and three worst
    for image in images:
        with Image.open(io.BytesIO(base64.b64decode(image))) as read:
            assert read.mode == "RGB"
