"""Composed scenes: who shares what with whom, what is drawn where, and the pictures of them."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from sklearn.datasets import load_digits, load_sample_image
from torch import Tensor

from harness import data, pictures
from harness.cli import main
from harness.data.scenes import COLUMNS, DIMMED, PHOTOS, Look, Scene, compose, scenes_of
from harness.data.split import generator, random_split
from harness.seeds import seed_tree

NUMBERS = (60, 30, 30)
LOOK = Look()


def loaded(name: str, seed: int = 0, **given: Any) -> data.Data:
    given = {"scenes": [12, 6, 6], **given}
    return data.load(name, split_seed=seed, corrupt_seed=0, **given)


def everything(seed: int = 0) -> list[Scene]:
    return [scene for part in scenes_of(seed, LOOK, NUMBERS) for scene in part]


def test_no_digit_and_no_pixel_is_seen_in_two_parts() -> None:
    digits, columns = [], []
    for part in scenes_of(0, LOOK, NUMBERS):
        digits.append({int(row) for scene in part for row in scene.rows})
        places = {(s.crop[0], s.crop[2] + x) for s in part for x in range(LOOK.size[1])}
        columns.append(places)
    for one, other in itertools.combinations(range(3), 2):
        assert digits[one]
        assert not digits[one] & digits[other]
        assert not columns[one] & columns[other]
    gaps = [start - end for (_, end), (start, _) in itertools.pairwise(COLUMNS)]
    assert min(gaps) >= 16  # as wide as a block of a JPEG with halved colours


def test_a_scene_depends_on_seed_part_and_number_alone() -> None:
    """Not on how many there are, nor on the order in which they are composed."""
    classes = load_digits().target
    rows = random_split(len(classes), classes, generator(0, "split"))
    few = scenes_of(0, LOOK, (3, 2, 1))
    for part, made in enumerate(scenes_of(0, LOOK, NUMBERS)):
        for index in reversed(range(8)):
            alone = compose(0, part, index, LOOK, rows[part])
            assert np.array_equal(alone.image, made[index].image)
            assert np.array_equal(alone.masks, made[index].masks)
        assert all(np.array_equal(a.image, b.image) for a, b in zip(few[part], made, strict=False))
    images = [scene.image.tobytes() for scene in (*everything(0), *everything(1))]
    assert len(set(images)) == len(images)


def test_masks_boxes_and_labels_belong_together() -> None:
    digits = load_digits().target
    for scene in everything():
        assert scene.masks.sum(0).max(initial=0) <= 1
        assert scene.labels.tolist() == digits[scene.rows].tolist()
        for mask, box in zip(scene.masks, scene.boxes, strict=True):
            (rows, columns) = ndimage.find_objects(mask.astype(int))[0]
            assert box.tolist() == [columns.start, rows.start, columns.stop, rows.stop]
            least, most = LOOK.digit_size
            assert 1 < max(box[2] - box[0], box[3] - box[1]) <= most
            assert mask.sum() > least


def test_ink_is_brighter_than_any_photograph() -> None:
    """Half of it at least, for a mask ends where a digit covers less."""
    for scene in everything():
        covered = scene.masks.any(0)
        if covered.any():
            assert scene.image[:, covered].min() >= 0.8 / 2 - 1 / 255


@pytest.mark.parametrize("grey", [False, True])
def test_a_scene_without_digits_is_the_dimmed_photograph(grey: bool) -> None:
    look = Look(number=(0, 0), grey=grey)
    for scene in scenes_of(0, look, (3, 3, 3))[1]:
        photo, top, left = scene.crop
        crop = load_sample_image(PHOTOS[photo])[top : top + 32, left : left + 48] / 255 * DIMMED
        wanted = crop.mean(2)[None] if grey else crop.transpose(2, 0, 1)
        assert scene.image.dtype == np.float32
        np.testing.assert_allclose(scene.image, wanted, atol=0.5 / 255 + 1e-6)  # rounded
        assert scene.masks.shape == (0, 32, 48)
        assert scene.boxes.shape == (0, 4)


def test_numbers_and_sizes_are_those_asked_for() -> None:
    look = Look(size=(40, 64), digit_size=(9, 11), number=(2, 4))
    made = [scene for part in scenes_of(0, look, NUMBERS) for scene in part]
    assert {scene.image.shape for scene in made} == {(3, 40, 64)}
    assert {len(scene.labels) for scene in made} == {2, 3, 4}
    crowded = Look(number=(9, 9), digit_size=(18, 18))  # where some find no room
    assert any(len(scene.labels) < 9 for scene in scenes_of(0, crowded, (9, 1, 1))[0])


@pytest.mark.parametrize("name", ["digit_scenes", "rare_digit_scenes"])
def test_maps_are_the_masks_of_the_digits_asked_for(name: str) -> None:
    chosen = [3, 8] if name == "rare_digit_scenes" else list(range(10))
    one = loaded(name)
    look = Look(digit_size=(12, 16) if name == "rare_digit_scenes" else (14, 20))
    parts = scenes_of(0, look, (12, 6, 6))
    for key, part in zip(("train", "val", "test"), parts, strict=True):
        target = getattr(one, key).target
        for scene, true, rows in zip(part, target.numpy(), one.rows[key].tolist(), strict=True):
            assert [row for row in rows if row >= 0] == scene.rows.tolist()
            wanted = np.zeros(true.shape, int)
            for label, mask in zip(scene.labels.tolist(), scene.masks, strict=True):
                if label in chosen:
                    wanted += mask * (1 if one.kind == "mask" else 1 + chosen.index(label))
            assert np.array_equal(true, wanted)
    counts = np.bincount(one.train.target.flatten(), minlength=len(one.target_names))
    assert one.class_counts is not None
    assert one.class_counts.tolist() == counts.tolist()
    assert one.outputs == (1 if one.kind == "mask" else 11)


def test_fingerprints_tell_the_source_from_what_was_made_of_it() -> None:
    one, other, third = (loaded("digit_scenes", **given) for given in ({}, {"seed": 1}, {}))
    assert one.fingerprints == third.fingerprints
    assert one.fingerprints["data"] == other.fingerprints["data"]
    assert one.fingerprints["composed"] != other.fingerprints["composed"]
    smaller = loaded("digit_scenes", digit_size=[9, 9])
    assert smaller.fingerprints["composed"] != one.fingerprints["composed"]
    assert smaller.fingerprints["data"] == one.fingerprints["data"]


def test_the_foreground_is_as_rare_as_its_data_set_says() -> None:
    counts = [
        loaded(n, scenes=[400, 1, 1]).class_counts for n in ("rare_digit_scenes", "digit_scenes")
    ]
    rare, all_digits = (float(c[1:].sum() / c.sum()) for c in counts if c is not None)
    assert 1 / 75 < rare < 1 / 50
    assert 1 / 10 < all_digits < 1 / 7.5


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"size": [32]}, "size must be two numbers, got [32]"),
        ({"size": [32, 200]}, "at most [427, 104], which is what the photographs have for each"),
        ({"digit_size": [12, 40]}, "digit_size=[12, 40] exceeds size=[32, 48]"),
        ({"digit_size": [4, 12]}, "digit_size must be [least, most] of at least 8, got [4, 12]"),
        ({"number": [3, 1]}, "number must be [least, most] of at least 0, got [3, 1]"),
        ({"scenes": [10, 5]}, "scenes must be three numbers (train, val, test), got [10, 5]"),
        ({"foreground": [1, 1]}, "foreground must be different digits, got [1, 1]"),
        ({"foreground": [10]}, "digit_scenes.foreground[0] must be >= 0 and <= 9, got 10"),
        ({"train_size": 99}, "digit_scenes: train_size=99, but the training part has 12"),
    ],
)
def test_what_cannot_be_composed_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]*$") as raised:
        loaded("digit_scenes", **given)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda maps: maps[:, 1:], "maps must have the size of their images, got maps [2, 3, 4]"),
        (lambda maps: maps + 2 * (maps == 1), "item 1, row 2, column 3: class 3 must be below 2"),
        (lambda maps: maps - 1, "item 0, row 0, column 0: class -1 must be below 2, or -100"),
    ],
)
def test_maps_that_do_not_fit_are_named(change: Any, message: str) -> None:
    from harness.data.prepare import check_maps

    maps = np.zeros((2, 4, 4), int)
    maps[1, 2, 3] = 1
    maps[0, 3, 3] = -100
    check_maps(maps, np.zeros((2, 3, 4, 4)), 2)
    with pytest.raises(ValueError, match=r"^[^\n]*$") as raised:
        check_maps(change(maps), np.zeros((2, 3, 4, 4)), 2)
    assert message in str(raised.value)


# Pictures of a data set


def read(path: Path) -> Tensor:
    with Image.open(path) as opened:
        return torch.from_numpy(np.array(opened)).movedim(2, 0)


def test_data_show_writes_pictures_of_every_part(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["data", "show", "digit_scenes", "data.scenes=[9,3,2]", "data.number=[1,1]"]
    assert main([*words, "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert len(list(tmp_path.glob("train-*-marked.png"))) == pictures.SHOWN
    assert len(list(tmp_path.glob("test-?.png"))) == 2
    seed = seed_tree(0)["split"]
    one = data.load(
        "digit_scenes", split_seed=seed, corrupt_seed=0, scenes=[9, 3, 2], number=[1, 1]
    )
    image, true = one.val.inputs[1], one.val.target[1]
    plain, marked = read(tmp_path / "val-1.png"), read(tmp_path / "val-1-marked.png")
    assert torch.equal(plain[:, ::5, ::5], (image * 255).round().byte())
    changed = (plain != marked).any(0)[::5, ::5]
    assert torch.equal(changed, true > 0)
    digit = one.target_names[int(true.max())]
    assert f"val-1.png  background: {int((true == 0).sum())} pixels, {digit}: " in said
    assert read(tmp_path / "val.png").shape == (3, 2 * 160, 3 * 240)


def test_labels_are_written_beneath(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "show", "digits", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out.splitlines()
    shown = [line.split() for line in said if "/test-" in line]
    labels = [label for _, label in shown]
    marked = [read(tmp_path / f"test-{item}-marked.png") for item in range(len(labels))]
    for item, picture in enumerate(marked):
        plain = read(tmp_path / f"test-{item}.png")
        height = plain.shape[1]
        assert torch.equal(picture[:, :height], plain)
        written = [other[:, height:] for other in marked]
        same = [labels[i] for i, text in enumerate(written) if torch.equal(text, written[item])]
        assert set(same) == {labels[item]}
        assert written[item].any()
    assert read(tmp_path / "test.png").shape[1] == marked[0].shape[1]


def test_boxes_and_masks_are_drawn_where_they_are() -> None:
    masks = torch.zeros(2, 20, 30, dtype=torch.uint8)
    masks[0, 5:8, 10:20] = 1
    true = {
        "boxes": torch.tensor([[10.0, 5, 20, 8], [0, 0, 3, 3]]),
        "labels": torch.tensor([1, -100]),  # one object, and room for another
        "masks": masks,
    }
    black = torch.zeros(1, 20, 30)
    shown = pictures.marked(black, true, "boxes")
    factor = shown.shape[1] // 20
    lit = shown.any(0)
    framed = ndimage.find_objects(lit.int().numpy())[0]
    bounds = [(s.start, s.stop) for s in framed]
    assert bounds == [(5 * factor, 8 * factor), (10 * factor, 20 * factor)]
    frame = torch.tensor(pictures.colour(2), dtype=torch.uint8)
    assert torch.equal(shown[:, 5 * factor, 10 * factor], frame)
    inside = shown[:, 6 * factor + factor // 2, 15 * factor]
    assert torch.equal(inside, (frame.float() * pictures.COVER).round().byte())
    del true["masks"]
    assert not pictures.marked(black, true, "boxes")[:, 6 * factor + factor // 2, 15 * factor].any()


def test_pixels_that_are_ignored_are_grey() -> None:
    true = torch.tensor([[0, -100], [1, 2]])
    shown = pictures.marked(torch.zeros(3, 2, 2), true, "semantic")
    corners = shown[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert corners[:, 0].tolist() == [0, 0, 0]
    assert corners[:, 1].tolist() == [64, 64, 64]
    assert corners[:, 2].tolist() != corners[:, 3].tolist()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["iris"], "iris has no images [1 or 3, H, W], its items are [4]"),
        ([], "data show takes one name and data.KEY=VALUE, got ''"),
        (["digit_scene"], "did you mean 'digit_scenes'?"),
        (["digit_scenes", "data.siz=[4,4]"], "digit_scenes has no parameter 'siz'; did you mean"),
    ],
)
def test_what_cannot_be_shown_is_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "show", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").write_text("")
    assert main(["data", "show", "digits", "--out", str(tmp_path / "taken")]) == 2
    assert "taken: File exists" in capsys.readouterr().err
