"""What is wrong with pictures, maps and boxes: named, counted, and refused or left out."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness import data
from harness.compose import compose
from harness.prepare import prepare
from harness.run import run
from harness.store import Store
from tests.harness import tiny


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def loaded(name: str, **given: Any) -> data.Data:
    return data.load(name, split_seed=0, corrupt_seed=0, **given)


def refused(name: str, **given: Any) -> str:
    with pytest.raises(ValueError, match=r"^[^\n]*$") as raised:
        loaded(name, **given)
    return str(raised.value)


def items(one: data.Data) -> set[int]:
    return {int(row) for rows in one.rows.values() for row in rows}


def test_colours_are_not_normalised_twice(tmp_path: Path) -> None:
    tiny.coco(tmp_path)
    words = ["task=detection/coco", f"data.root={tmp_path}", "data.size=[64,64]"]
    words += ["model=torchvision/fcos_resnet50_fpn", "loss=fcos", "data.normalise=true"]
    with pytest.raises(ValueError, match=r"normalises colours itself: set data\.normalise=false"):
        prepare(compose(words))


def truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:200])


def text(file: Path) -> None:
    file.write_text("no picture at all")


def empty(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize("memory", [0, 10**9])
@pytest.mark.parametrize("spoil", [truncated, text, empty])
def test_a_corrupt_picture(spoil: Any, memory: int, tmp_path: Path) -> None:
    own = tiny.folder(tmp_path / "own")
    for file in (own / "cat" / "3.png", own / "dog" / "5.png"):
        spoil(file)
    given = {"path": str(own), "memory": memory}
    told = refused("image_folder", **given)
    assert told.startswith(f"image_folder: {own / 'cat' / '3.png'} is no picture that can be read")
    assert "2 such in all" in told
    assert "data.bad=skip" in told
    one = loaded("image_folder", bad="skip", **given)
    assert items(one) == set(range(20)) - {3, 15}
    assert one.notes[0].startswith(f"left out 2: {own / 'cat' / '3.png'} is no picture")
    assert str(own / "dog" / "5.png") in one.notes[0]
    whole = loaded("image_folder", path=str(tiny.folder(tmp_path / "other")), memory=memory)
    assert one.fingerprints["split"] != whole.fingerprints["split"]


def test_a_picture_that_is_not_there(tmp_path: Path) -> None:
    given = tiny.write("voc_segmentation", tmp_path)
    gone = next(tmp_path.rglob("JPEGImages/2012_val_004.jpg"))
    gone.unlink()
    assert f"{gone}: there is no such file" in refused("voc_segmentation", **given)
    one = loaded("voc_segmentation", bad="skip", **given)
    assert items(one) == set(range(20)) - {14}


def test_a_map_of_another_size_or_with_numbers_of_no_class(tmp_path: Path) -> None:
    own = tiny.masks(tmp_path / "own")
    tiny.save(own / "masks" / "04.png", np.zeros((20, 29), np.uint8))
    tiny.save(own / "masks" / "05.png", np.zeros((20, 30, 3), np.uint8))
    given = {"path": str(own)}
    told = refused("image_masks", **given)
    assert "04.png is 20x29 pixels, and its picture is 20x30; 2 such in all" in told
    assert items(loaded("image_masks", bad="skip", **given)) == set(range(10)) - {4, 5}
    own = tiny.masks(tmp_path / "maps")
    for file in (own / "masks").iterdir():
        tiny.save(file, np.ones((20, 30), np.uint8))
    wrong = np.zeros((20, 30), np.uint8)
    wrong[0, :3], wrong[1, :2] = 7, 9
    tiny.save(own / "masks" / "02.png", wrong)
    given = {"path": str(own), "kind": "semantic", "classes": ["a", "b", "c"]}
    told = refused("image_masks", **given)
    assert "02.png holds 7, 9, which no class has, in 5 pixels" in told
    assert items(loaded("image_masks", bad="skip", **given)) == set(range(10)) - {2}


def test_pictures_and_masks_without_each_other(tmp_path: Path) -> None:
    own = tiny.masks(tmp_path / "own")
    (own / "masks" / "01.png").unlink()
    (own / "images" / "08.png").unlink()
    told = refused("image_masks", path=str(own))
    assert f"{own / 'masks' / '08.png'} has no picture of its name" in told
    one = loaded("image_masks", path=str(own), bad="skip")
    assert len(items(one)) == 8
    assert f"{own / 'masks' / '01.png'}: there is no such file" in one.notes[0]
    with pytest.raises(ValueError, match=r"image_masks\.path: there is no folder"):
        loaded("image_masks", path=str(tmp_path))


BAD_BOXES = {
    "no area": ([5, 5, 0, 3], "the box 5, 5, 5, 8 has no area"),
    "negative side": ([5, 5, -2, 3], "has no area"),
    "outside": ([70, 5, 10, 3], "lies outside its picture of 40x60 pixels"),
    "juts out": ([50, 5, 15, 3], "the box 50, 5, 65, 8 lies outside its picture"),
    "not numbers": (["a", 1, 2, 3], "its bbox is not four numbers"),
    "three numbers": ([1, 2, 3], "its bbox is not four numbers"),
    "not finite": ([1, 2, float("nan"), 3], "has no area"),
}


@pytest.mark.parametrize("case", BAD_BOXES)
def test_a_bad_box_is_named_by_its_annotation(case: str, tmp_path: Path) -> None:
    box, words = BAD_BOXES[case]
    given = tiny.write("coco_json", tmp_path)
    notes = Path(given["path"])
    read = json.loads(notes.read_text())
    kept = loaded("coco_json", **given)
    read["annotations"].insert(0, {"id": 777, "image_id": 104, "category_id": 3, "bbox": box})
    tiny.write_coco(notes, read)
    told = refused("coco_json", **given)
    assert told.startswith("coco_json: notes.json, annotation 777")
    assert words in told
    one = loaded("coco_json", bad="skip", **given)
    assert "left out 1: notes.json, annotation 777" in one.notes[0]
    assert items(one) == items(kept)  # the picture stays
    assert torch.equal(one.train.target["boxes"], kept.train.target["boxes"])


def test_a_box_that_juts_out_by_rounding_is_cut(tmp_path: Path) -> None:
    given = tiny.write("coco_json", tmp_path)
    notes = Path(given["path"])
    read = json.loads(notes.read_text())
    read["annotations"] = [
        {"id": i, "image_id": 100 + i, "category_id": 1, "bbox": [-0.5, 10, 61, 30.9]}
        for i in range(10)
    ]
    tiny.write_coco(notes, read)
    one = loaded("coco_json", size=[40, 60], **given)
    assert one.train.target["boxes"][:, 0].unique(dim=0).tolist() == [[0, 10, 60, 40]]


@pytest.mark.parametrize(
    ("change", "words"),
    [({"image_id": 5}, "there is no image 5"), ({"category_id": 2}, "there is no category 2")],
)
def test_an_annotation_of_nothing(change: dict[str, int], words: str, tmp_path: Path) -> None:
    given = tiny.write("coco_json", tmp_path)
    notes = Path(given["path"])
    read = json.loads(notes.read_text())
    read["annotations"][0] |= change
    tiny.write_coco(notes, read)
    assert f"notes.json, annotation {read['annotations'][0]['id']}: {words}" in refused(
        "coco_json", **given
    )
    assert words in loaded("coco_json", bad="skip", **given).notes[0]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"images": 3}', '{"images": [{"id": 1}]}'])
def test_a_file_that_is_not_cocos(content: str, tmp_path: Path) -> None:
    given = tiny.write("coco_json", tmp_path)
    Path(given["path"]).write_text(content)
    assert "notes.json is no file in COCO's format" in refused("coco_json", **given)
    Path(given["path"]).unlink()
    assert "there is no" in refused("coco_json", **given)


def test_a_picture_of_another_size_than_its_annotation_says(tmp_path: Path) -> None:
    given = tiny.write("coco_json", tmp_path)
    file = Path(given["images"]) / "0002.jpg"
    tiny.save(file, tiny.pixels(41, 60, 3))
    assert f"{file} is 41x60 pixels, and its annotation says 40x60" in refused("coco_json", **given)
    assert items(loaded("coco_json", bad="skip", **given)) == set(range(10)) - {2}


def test_annotations_of_voc(tmp_path: Path) -> None:
    given = tiny.write("voc_detection", tmp_path)
    base = tmp_path / "VOCdevkit" / "VOC2007" / "Annotations"
    bad = [("cat", 0, 9, 9, 8, 20), ("unicorn", 0, 1, 1, 9, 9), ("dog", 0, 1, 1, "x", 9)]
    bad += [("dog", 0, 1, 1, 90, 9), ("dog", 0, 2, 3, 9, 9)]
    (base / "2007_trainval_000.xml").write_text(tiny.voc_notes((48, 64), bad))
    (base / "2007_test_001.xml").write_text("<annotation><size>")
    told = refused("voc_detection", **given)
    first = base / "2007_trainval_000.xml"
    assert told.startswith(f"voc_detection: {first}, object 1: the box 8, 8, 8, 20 has no area")
    assert "5 such in all" in told
    one = loaded("voc_detection", bad="skip", size=[48, 64], **given)
    assert sum(map(len, one.rows.values())) == 19  # a picture whose annotation is unreadable goes
    assert "object 2: there is no class 'unicorn'" in one.notes[0]
    parts = {"train": one.train, "val": one.val}
    found = [
        part.target["boxes"][i][part.target["labels"][i] >= 0].tolist()
        for name, part in parts.items()
        for i, row in enumerate(one.rows[name].tolist())
        if row == 0
    ]
    assert found == [[[1, 2, 9, 9]]]  # of five objects one is sound


def test_pictures_without_objects_stay_and_train(tmp_path: Path) -> None:
    given = tiny.write("coco_json", tmp_path)
    notes = Path(given["path"])
    read = json.loads(notes.read_text())
    tiny.write_coco(notes, read | {"annotations": []})
    one = loaded("coco_json", **given)
    assert one.train.target["boxes"].shape == (6, 1, 4)
    assert (one.train.target["labels"] == -100).all()


def test_what_is_left_out_is_told_and_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tiny.folder(tmp_path / "own")
    text(own / "cat" / "0.png")
    base = ["task=classification/image_folder", "loss=cross_entropy", f"data.path={own}"]
    base += ["trainer.epochs=1", "model.channels=[4]", "data.size=[16,16]"]
    failed = run(compose(base), Store(tmp_path / "store"))
    assert failed.status == "failed"
    record = run(compose([*base, "data.bad=skip"]), Store(tmp_path / "store"))
    assert record.status == "done", record.error
    assert len(record.notes) == 1
    assert record.notes[0].startswith(f"left out 1: {own / 'cat' / '0.png'}")
    assert record.notes[0] in capsys.readouterr().err


def test_nothing_left_is_said(tmp_path: Path) -> None:
    own = tiny.folder(tmp_path / "own", n=3)
    for file in own.rglob("*.png"):
        text(file)
    with pytest.raises(ValueError, match="no picture is left in the training part"):
        loaded("image_folder", path=str(own), bad="skip")
    shutil.rmtree(own / "cat")
    (own / "cat").mkdir()
    with pytest.raises(ValueError, match=r"^[^\n]*cat[^\n]*$"):
        loaded("image_folder", path=str(own))


def test_rows_of_a_table_that_lack_a_value(tmp_path: Path) -> None:
    rows = [f"{i},{i % 7},{i % 3}" for i in range(40)]
    rows[4], rows[9] = "4,,1", "9,NA,0"
    path = tmp_path / "table.csv"
    path.write_text("\n".join(["a,b,wanted", *rows]))
    given = {"path": str(path), "target": "wanted", "kind": "multiclass"}
    told = refused("csv", **given)
    assert f"{path}, row 6, column 'b': the value is missing" in told
    assert "data.bad=skip" in told
    one = loaded("csv", bad="skip", **given)
    assert sum(map(len, one.rows.values())) == 38
    assert one.notes == (
        f"left out 2: {path}, row 6, column 'b': the value is missing; "
        f"{path}, row 11, column 'b': the value is missing",
    )
    dropped = loaded("csv", bad="skip", drop=["b"], **given)
    assert not dropped.notes  # what is not used need not be there
