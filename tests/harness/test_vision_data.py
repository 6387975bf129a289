"""Data sets of pictures, read from tiny files in the formats in which they come."""

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from harness import data
from harness.data.pictures import Pictures, fitted
from tests.harness import tiny

NEEDY = [name for name in data.names() if data.get(name).needs]
PICTURES = [name for name in NEEDY if name != "csv"]
IN_ROOT = [name for name in PICTURES if "root" in data.get(name).parameters]


@pytest.fixture(autouse=True)
def _trusted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tiny.trust(monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def loaded(name: str, seed: int = 0, **given: Any) -> data.Data:
    return data.load(name, split_seed=seed, corrupt_seed=seed, **given)


def parts(one: data.Data) -> dict[str, data.Part]:
    return {"train": one.train, "val": one.val, "test": one.test}


def everything(one: data.Data) -> tuple[torch.Tensor, Any]:
    """Inputs and targets of all parts, in the order of the source."""
    taken = [part.take(torch.arange(len(part))) for part in parts(one).values()]
    order = torch.cat([one.rows[name] for name in parts(one)]).argsort()
    inputs = torch.cat([inputs for inputs, _ in taken])[order]
    return inputs, torch.cat([target for _, target in taken])[order]


@pytest.mark.parametrize("name", PICTURES)
def test_every_set_is_read_in_its_own_format(name: str, tmp_path: Path) -> None:
    given = tiny.write(name, tmp_path)
    one = loaded(name, **given)
    kind = one.kind
    assert kind == (data.get(name).kind or data.get(name).parameters["kind"].default)
    assert one.outputs == (1 if kind == "mask" else len(one.target_names))
    rows = torch.cat(list(one.rows.values()))
    assert len(rows.unique()) == len(rows)
    for part in parts(one).values():
        inputs, target = part.take(torch.arange(len(part)))
        assert len(inputs) == len(part) > 0
        assert inputs.dtype == torch.float32
        assert inputs.shape[1:] == part.inputs.shape[1:]
        assert 0 <= float(inputs.min()) < 0.6 < 0.9 < float(inputs.max()) <= 1
        first = target["labels"] if kind == "boxes" else target
        assert first.dtype == torch.int64
        assert int(first.max()) < len(one.target_names)
        assert int(first.min()) >= (0 if kind == "multiclass" else -100)
    counts = torch.zeros(len(one.target_names), dtype=torch.int64)
    _, target = one.train.take(torch.arange(len(one.train)))
    asked = target["labels"] if kind == "boxes" else target
    counts += torch.bincount(asked[asked >= 0], minlength=len(counts))
    assert one.class_counts is not None
    assert torch.equal(one.class_counts, counts)


@pytest.mark.parametrize("name", PICTURES)
def test_the_seed_draws_the_split_and_nothing_else(name: str, tmp_path: Path) -> None:
    given = tiny.write(name, tmp_path)
    first, again, other = (loaded(name, seed, **given) for seed in (0, 0, 1))
    assert first.fingerprints == again.fingerprints
    assert first.fingerprints["data"] == other.fingerprints["data"]
    assert first.fingerprints["split"] != other.fingerprints["split"]
    if "validation" in data.get(name).parameters and name != "image_folder":
        assert set(first.rows["test"].tolist()) == set(other.rows["test"].tolist())  # its own


@pytest.mark.parametrize("name", IN_ROOT)
def test_what_is_missing_is_told_in_a_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]*$") as raised:
        loaded(name, root=str(tmp_path))
    told = str(raised.value)
    assert told.startswith(name)
    assert data.get(name).needs.split()[0] in told
    assert ("data.download=true" in told) == (
        "download" in data.get(name).parameters and name != "lfw_people"
    )


def test_pixels_are_those_of_the_files(tmp_path: Path) -> None:
    """Array sets, bit for bit and in order: training items first, then those of the test part."""
    plain = tiny.mnist_like(tmp_path, "MNIST")
    wanted = {
        "mnist": np.concatenate([plain["train"], plain["t10k"]])[:, None],
        "cifar10": tiny.cifar10(tmp_path).reshape(-1, 3, 32, 32),
        "svhn": tiny.svhn(tmp_path),
        "stl10": tiny.stl10(tmp_path),
    }
    for name, pixels in wanted.items():
        inputs, target = everything(loaded(name, root=str(tmp_path)))
        assert torch.equal((inputs * 255).round().byte(), torch.from_numpy(pixels)), name
        classes = torch.arange(len(target)) % 10
        if name == "svhn":  # the file's 1 to 10 stand for 1 to 9 and 0
            classes = torch.cat([torch.arange(n) % 10 for n in (tiny.TRAIN, tiny.TEST)])
            classes = (classes + 1) % 10
        elif name != "cifar10":
            classes = torch.cat([torch.arange(n) % 10 for n in (tiny.TRAIN, tiny.TEST)])
        assert torch.equal(target, classes), name


def test_packed_files_are_unpacked_when_torchvision_may_fetch(tmp_path: Path) -> None:
    images = tiny.mnist_like(tmp_path, "KMNIST", packed=True)
    with pytest.raises(ValueError, match=r"data\.download=true"):
        loaded("kmnist", root=str(tmp_path))
    inputs, _ = everything(loaded("kmnist", root=str(tmp_path), download=True))
    assert torch.equal(
        (inputs[: tiny.TRAIN, 0] * 255).round().byte(), torch.from_numpy(images["train"])
    )
    packed = tmp_path / "KMNIST" / "raw" / "train-images-idx3-ubyte.gz"
    assert gzip.decompress(packed.read_bytes()) == packed.with_suffix("").read_bytes()


def test_a_files_picture_is_cut_or_shown_whole() -> None:
    """A picture twice as wide as high: its middle, or all of it above a rim."""
    from torchvision import tv_tensors as tv

    image = torch.zeros(3, 10, 20, dtype=torch.uint8)
    image[:, :, 10:] = 200
    middle = fitted(Pictures("", [], 3, (10, 10)), tv.Image(image))[0]
    assert torch.equal(middle, image[:, :, 5:15])
    boxes = tv.BoundingBoxes([[0.0, 0, 20, 10]], format="XYXY", canvas_size=(10, 20))
    masked = tv.Mask(torch.ones(10, 20, dtype=torch.int16))
    whole = Pictures("", [], 3, (10, 10), True)
    shown, mask, box = fitted(whole, tv.Image(image), masked, boxes)
    assert shown.shape == (3, 10, 10)
    assert not shown[:, 5:].any()
    assert torch.equal(mask[:, 0], torch.tensor([1] * 5 + [-100] * 5, dtype=torch.int16))
    assert box.tolist() == [[0, 0, 10, 5]]


def test_trimaps_are_masks_or_maps_of_breeds(tmp_path: Path) -> None:
    given = tiny.write("pets", tmp_path)
    mask = loaded("pets", kind="mask", size=[30, 40], **given)
    _, target = mask.train.take(torch.arange(len(mask.train)))
    wanted = torch.zeros(30, 40, dtype=torch.int64)
    wanted[5:20, 10:30] = -100
    wanted[7:18, 12:28] = 1
    assert (target == wanted).all()
    maps = loaded("pets", kind="semantic", size=[30, 40], **given)
    breeds = loaded("pets", size=[30, 40], **given)
    assert maps.target_names == ("background", *breeds.target_names)
    _, classes = breeds.test.take(torch.arange(12))
    _, target = maps.test.take(torch.arange(12))
    assert torch.equal(target[:, 10, 15], classes + 1)
    assert torch.equal(target == 0, (wanted == 0).expand(12, 30, 40))


def test_maps_of_voc_and_cityscapes_are_classes_or_nothing(tmp_path: Path) -> None:
    voc = loaded("voc_segmentation", size=[48, 64], **tiny.write("voc_segmentation", tmp_path))
    _, target = voc.test.take(torch.arange(len(voc.test)))
    assert torch.equal(target[:, 15, 20], 1 + voc.rows["test"] - 10)  # 10 pictures train
    assert (target[:, 10, 10] == -100).all()
    assert (target[:, 0, 0] == 0).all()
    city = loaded("cityscapes", size=[32, 64], **tiny.write("cityscapes", tmp_path))
    _, target = city.train.take(torch.arange(len(city.train)))
    columns = [10] * 8 + [18] * 4 + [-100] * 4 + [0] * 16  # sky, bicycle, static, road
    assert (target[:, :, 0] == torch.tensor(columns)).all()
    names = [city.target_names[each] for each in (0, 10, 18)]
    assert names == ["road", "sky", "bicycle"]


def test_boxes_of_voc_are_moved_to_pixels_from_zero(tmp_path: Path) -> None:
    given = tiny.write("voc_detection", tmp_path)
    one = loaded("voc_detection", size=[48, 64], **given)
    target = one.test.target
    cat, dog = (one.target_names.index(name) for name in ("cat", "dog"))
    for item, row in enumerate((one.rows["test"] - 10).tolist()):
        wanted = [] if row == 3 else [cat, dog][: 1 + row % 2]
        assert target["labels"][item].tolist() == [*wanted, *[-100] * (2 - len(wanted))]
        if wanted:
            assert target["boxes"][item, 0].tolist() == [12, 12, 38, 28]  # 13 to 38, counted from 1
        if len(wanted) > 1:
            assert target["boxes"][item, 1].tolist() == [0, 0, 64, 48]
    easy = loaded("voc_detection", size=[96, 128], difficult=False, **given)
    assert not (easy.train.target["labels"] == dog).any()
    assert easy.test.target["boxes"][0, 0].tolist() == [24, 24, 76, 56]


def test_boxes_of_coco_and_its_categories(tmp_path: Path) -> None:
    one = loaded("coco_json", size=[40, 60], **tiny.write("coco_json", tmp_path))
    assert one.target_names == ("person", "car")  # by their ids, 1 and 3
    found = {}
    for name, part in parts(one).items():
        for row, boxes, labels in zip(
            one.rows[name].tolist(), part.target["boxes"], part.target["labels"], strict=True
        ):
            found[row] = boxes.tolist(), labels.tolist()
    for row in range(10):
        number = row % 3 if row < 9 else 0
        boxes, labels = found[row]
        assert labels == [0, 1][:number] + [-100] * (2 - number)  # the crowd of row 1 is not asked
        assert boxes[:number] == [[5 + j, 6, 25 + j, 18] for j in range(number)]


@pytest.mark.parametrize("name", ["omniglot", "lfw_people"])
def test_parts_of_unseen_classes_share_none(name: str, tmp_path: Path) -> None:
    given = tiny.write(name, tmp_path)
    one = loaded(name, **given)
    classes = [set(part.target.tolist()) for part in parts(one).values()]
    assert classes == [{0, 1, 2, 3, 4}, {5}, {6, 7, 8}]
    tests = {one.target_names[each] for each in classes[2]}
    assert all("evaluation" in each or each.startswith("Test") for each in tests)
    mixed = loaded(name, split="random", **given)
    assert set(mixed.train.target.tolist()) == set(range(9))


def test_folders_of_ones_own(tmp_path: Path) -> None:
    own = tiny.folder(tmp_path / "own", ("yes", "no"))
    test = tiny.folder(tmp_path / "test", ("yes", "no"), n=4)
    one = loaded("image_folder", path=str(own), kind="binary", test=str(test), grey=True)
    assert (one.kind, one.outputs, one.target_names) == ("binary", 1, ("no", "yes"))
    assert [len(part) for part in parts(one).values()] == [18, 2, 8]
    assert one.train.inputs.shape[1:] == (1, 64, 64)
    for given, told in (
        ({"path": str(tmp_path / "none")}, "image_folder.path: there is no folder"),
        ({"path": str(own), "test": str(tiny.folder(tmp_path / "x", ("a", "b")))}, "same names"),
        ({"path": str(own), "size": [3]}, "image_folder.size must be height and width"),
    ):
        with pytest.raises(ValueError, match=told):
            loaded("image_folder", **given)
    tiny.folder(own, ("maybe",))
    with pytest.raises(ValueError, match="must have two folders, got maybe, no, yes"):
        loaded("image_folder", path=str(own), kind="binary")


def test_masks_of_ones_own(tmp_path: Path) -> None:
    own = tiny.masks(tmp_path / "own")
    one = loaded("image_masks", path=str(own), size=[20, 30])
    _, target = one.test.take(torch.arange(len(one.test)))
    heights = [2 + row for row in one.rows["test"].tolist()]
    assert target.sum((1, 2)).tolist() == [9 * height for height in heights]
    assert not (target == -100).any()
    ignoring = loaded("image_masks", path=str(own), size=[20, 30], ignore=255)
    _, target = ignoring.test.take(torch.arange(len(one.test)))
    assert (target == -100).sum((1, 2)).tolist() == [9 * height for height in heights]


def test_pixels_can_be_normalised(tmp_path: Path) -> None:
    given = {"path": str(tiny.folder(tmp_path / "own"))}
    plain, normal = loaded("image_folder", **given), loaded("image_folder", normalise=True, **given)
    rows = torch.arange(3)
    (before, _), (after, _) = plain.train.take(rows), normal.train.take(rows)
    mean, sd = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    wanted = (before.double().numpy() - mean[:, None, None]) / sd[:, None, None]
    np.testing.assert_allclose(after, wanted, atol=1e-6)  # float32 of numbers up to 3
    with pytest.raises(ValueError, match="normalise=true needs colours"):
        loaded("image_folder", normalise=True, grey=True, **given)


def test_other_sizes_are_asked_for(tmp_path: Path) -> None:
    """An array set that is resized, and a file of a mode of its own, in grey and in colours."""
    given = tiny.write("cifar10", tmp_path)
    assert loaded("cifar10", size=[16, 16], **given).train.inputs.shape[1:] == (3, 16, 16)
    own = tiny.folder(tmp_path / "own")
    modes: Sequence[str] = ("L", "RGBA", "P", "1", "CMYK")
    for i, mode in enumerate(modes):
        file = own / "cat" / f"{i}.png"
        picture = Image.open(file).convert(mode)
        file.unlink()
        picture.save(file.with_suffix(".tiff" if mode == "CMYK" else ".png"))
    for grey, channels in ((True, 1), (False, 3)):
        one = loaded("image_folder", path=str(own), grey=grey)
        assert one.train.inputs.shape[1] == channels
        assert not one.notes
