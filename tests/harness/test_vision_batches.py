"""Pictures that are read as they are used, and what is done to them: nothing decides but seeds."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision import tv_tensors as tv
from torchvision.transforms.v2 import functional as v2

from harness import data
from harness.batches import Batches
from harness.compose import compose
from harness.config import run_id
from harness.data import held
from harness.data.augment import Augment, draws
from harness.data.lazy import LazyPart
from harness.run import run
from harness.store import Store
from tests.harness import tiny
from tests.harness.spine import python, records

KINDS = {"image_folder": [32, 32], "image_masks": [20, 30], "coco_json": [40, 60]}
CHANGES = ("none", "flip", "crop", "crop_flip", "zoom_flip")


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def loaded(name: str, workers: int = 0, **given: Any) -> data.Data:
    return data.load(name, split_seed=0, corrupt_seed=0, workers=workers, **given)


def flat(target: Any) -> list[Tensor]:
    return [target[key] for key in sorted(target)] if isinstance(target, dict) else [target]


def epochs(one: data.Data, **given: Any) -> list[list[Tensor]]:
    """All tensors of every batch of two epochs."""
    batches = Batches(one.train, 3, 1, augment=Augment(one.augment, 2), **given)
    return [[inputs, *flat(target)] for _ in range(2) for inputs, target in batches]


def same(first: list[list[Tensor]], second: list[list[Tensor]]) -> bool:
    pairs = zip(first, second, strict=True)
    return all(torch.equal(a, b) for x, y in pairs for a, b in zip(x, y, strict=True))


@pytest.mark.parametrize("augment", ["none", "crop_flip", "zoom_flip"])
@pytest.mark.parametrize("name", KINDS)
def test_kept_and_read_pictures_are_the_same(name: str, augment: str, tmp_path: Path) -> None:
    """With 0 and 2 workers, to the last bit, and in the same order; of two processes too."""
    given = {**tiny.write(name, tmp_path), "size": KINDS[name], "augment": augment}
    kept = loaded(name, **given)
    assert not isinstance(kept.train, LazyPart)
    alone = epochs(kept)
    read = [loaded(name, workers, memory=0, **given) for workers in (0, 2)]
    for one in read:
        assert isinstance(one.train, LazyPart)
        assert one.fingerprints == kept.fingerprints
        assert one.class_counts is not None
        assert kept.class_counts is not None
        assert torch.equal(one.class_counts, kept.class_counts)
        assert same(epochs(one), alone)
        taken, wanted = (each.test.take(torch.tensor([1, 0, 1])) for each in (one, kept))
        assert same([[taken[0], *flat(taken[1])]], [[wanted[0], *flat(wanted[1])]])
        assert len(one.train.first(2)) == 2
    shares = [epochs(read[1], rank=rank, world=2) for rank in range(2)]
    for batch, *halves in zip(alone, *shares, strict=True):
        for whole, *pieces in zip(batch, *halves, strict=True):
            woven = [pieces[i % 2][i // 2] for i in range(len(whole))]
            assert torch.equal(torch.stack(woven), whole)


def test_each_item_is_evaluated_once_and_in_order(tmp_path: Path) -> None:
    given = tiny.write("image_folder", tmp_path)
    for workers in (0, 2):
        one = loaded("image_folder", workers, memory=0, **given)
        batches = list(Batches(one.test, 3))
        assert [len(target) for _, target in batches] == [3, 1]
        assert torch.equal(torch.cat([target for _, target in batches]), one.test.target)


def test_what_needs_more_memory_than_allowed_is_read(tmp_path: Path) -> None:
    given = {**tiny.write("image_masks", tmp_path), "size": [20, 30]}
    needed = 10 * 20 * 30 * (3 + 2)
    for memory, lazy in ((needed, False), (needed - 1, True)):
        assert isinstance(loaded("image_masks", memory=memory, **given).train, LazyPart) == lazy


def test_a_check_is_remembered_until_a_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = tiny.write("image_folder", tmp_path)
    looked = []
    plain = held._read_all
    monkeypatch.setattr(held, "_read_all", lambda *a: looked.append(1) or plain(*a))
    for _ in range(2):  # as two processes would
        held.checked.cache_clear()
        loaded("image_folder", memory=0, **given)
        assert len(looked) == 1
    file = next(Path(given["path"]).rglob("*.png"))
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match="is no picture that can be read"):
        loaded("image_folder", memory=0, **given)
    assert len(looked) == 2


def test_arms_see_the_same_and_epochs_do_not(tmp_path: Path) -> None:
    given = {**tiny.write("image_folder", tmp_path), "augment": "crop_flip"}
    one = loaded("image_folder", **given)
    torch.manual_seed(0)
    first = epochs(one)
    torch.manual_seed(1)
    assert same(first, epochs(loaded("image_folder", **given)))
    batches = Batches(one.train, len(one.train), None, augment=Augment("crop_flip", 2))
    (before, _), (after, _) = next(iter(batches)), next(iter(batches))
    assert not torch.equal(before, after)
    other, _ = next(iter(Batches(one.train, 12, None, augment=Augment("crop_flip", 3))))
    assert not torch.equal(before, other)
    size = [  # an item's change does not depend on the batch it is in
        torch.cat([x for x, _ in Batches(one.train, n, None, augment=Augment("crop_flip", 2))])
        for n in (1, 5, 12)
    ]
    assert torch.equal(size[0], size[1])
    assert torch.equal(size[0], size[2])


def test_draws_are_uniform_and_apart() -> None:
    """40,000 numbers: mean and covariances within 5 standard errors; none twice."""
    drawn = np.concatenate([draws(7, epoch, torch.arange(1000)) for epoch in range(10)])
    assert drawn.shape == (10_000, 4)
    assert len(np.unique(drawn)) == drawn.size
    assert 0 <= drawn.min() < drawn.max() < 1
    assert np.abs(drawn.mean(0) - 0.5).max() < 5 * np.sqrt(1 / 12 / 10_000)
    off = np.cov(drawn.T) - np.eye(4) / 12
    assert np.abs(off).max() < 5 * np.sqrt(1 / 144 / 10_000)


def scene(n: int = 24) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """Pictures with a filled box each, its map, and the box itself; seeded, any will do."""
    rng = np.random.default_rng(3)
    image, maps = torch.zeros(n, 3, 32, 48), torch.zeros(n, 32, 48, dtype=torch.int64)
    boxes = torch.zeros(n, 2, 4)
    for i in range(n):
        x, y = int(rng.integers(8, 20)), int(rng.integers(8, 12))
        image[i, :, y : y + 9, x : x + 14] = 1
        maps[i, y : y + 9, x : x + 14] = 1
        boxes[i, 0] = torch.tensor([x, y, x + 14, y + 9])
    labels = torch.tensor([[4, -100]]).repeat(n, 1)
    return image, {"boxes": boxes, "labels": labels, "masks": maps[:, None].byte()}, maps


@pytest.mark.parametrize("kind", CHANGES)
def test_boxes_and_maps_move_with_their_image(kind: str) -> None:
    image, objects, maps = scene()
    rows, change = torch.arange(len(image)), Augment(kind, 5)
    moved, mapped = change(image, maps, rows, 0)
    again, boxed = change(image, objects, rows, 0)
    assert torch.equal(moved, again)
    assert torch.equal(moved, image) == (kind == "none")
    assert torch.equal(boxed["labels"] == 4, objects["labels"] == 4)
    assert not boxed["boxes"][:, 1].any()
    assert (mapped == -100).any() == ("crop" in kind)
    for i in range(len(image)):
        if "zoom" not in kind:
            assert torch.equal(moved[i, 0] == 1, mapped[i] == 1)
            assert torch.equal(boxed["masks"][i, 0] == 1, mapped[i] == 1)
        inside = (moved[i, 0] > 0.5).nonzero()
        if len(inside):
            low, high = inside.min(0).values, inside.max(0).values + 1
            found = [low[1], low[0], high[1], high[0]]
            gap = (boxed["boxes"][i, 0] - torch.tensor(found)).abs().max()
            assert gap <= (1.0 if "zoom" in kind else 0.0)  # a zoomed edge lies between pixels


@pytest.mark.parametrize("kind", ["flip", "crop", "crop_flip"])
def test_changes_are_those_of_torchvision_item_by_item(kind: str) -> None:
    image, objects, _ = scene()
    rows = torch.arange(7, 7 + len(image))
    luck = draws(5, 3, rows)
    moved, target = Augment(kind, 5)(image, objects, rows, 3)
    for i, drawn in enumerate(luck):
        things: list[Any] = [
            tv.Image(image[i]),
            tv.BoundingBoxes(objects["boxes"][i, :1], format="XYXY", canvas_size=(32, 48)),
        ]
        if "crop" in kind:
            things = [v2.pad(thing, [6, 4, 6, 4]) for thing in things]
            top, left = int(drawn[1] * 9), int(drawn[2] * 13)
            things = [v2.crop(thing, top, left, 32, 48) for thing in things]
        if "flip" in kind and drawn[0] < 0.5:
            things = [v2.horizontal_flip(thing) for thing in things]
        assert torch.equal(moved[i], things[0])
        assert torch.equal(target["boxes"][i, :1], things[1])


def test_an_object_that_is_cropped_away_is_gone() -> None:
    image, objects, _ = scene(64)
    objects["boxes"][:, 0] = torch.tensor([0.0, 0.0, 3.0, 3.0])
    _, moved = Augment("crop", 0)(image, objects, torch.arange(64), 0)
    gone = moved["labels"][:, 0] == -100
    assert 0 < gone.sum() < 64
    assert not moved["boxes"][gone].any()
    sides = moved["boxes"][~gone, 0, 2:] - moved["boxes"][~gone, 0, :2]
    assert (sides >= 1).all()


RUN = (
    "task=classification/image_folder", "loss=cross_entropy", "model.channels=[4]",
    "data.size=[16,16]", "data.augment=crop_flip", "trainer.epochs=2", "trainer.batch_size=4",
)  # fmt: skip


def test_other_pictures_of_the_same_names_and_sizes_are_others(tmp_path: Path) -> None:
    """Noise cannot be packed, so these files are as long as those they replace."""
    path = tiny.folder(tmp_path / "own")
    before = loaded("image_folder", path=str(path))
    tiny.folder(path)
    after = loaded("image_folder", path=str(path))
    assert before.fingerprints["data"] != after.fingerprints["data"]
    assert not torch.equal(before.test.inputs, after.test.inputs)
    config = [*RUN, f"data.path={path}"]
    identity = run_id(compose(config), 0)
    tiny.folder(path)
    assert run_id(compose(config), 0) != identity
    tiny.folder(tmp_path / "moved")
    for file in path.rglob("*.png"):
        (tmp_path / "moved" / file.relative_to(path)).write_bytes(file.read_bytes())
    moved = compose([*RUN, f"data.path={tmp_path / 'moved'}"])
    assert run_id(compose(config), 0) == run_id(moved, 0)


@pytest.mark.parametrize("precision", ["32-true", "64-true"])
def test_a_run_is_the_same_however_its_pictures_are_had(precision: str, tmp_path: Path) -> None:
    """To the last bit, dropout included; and it is one run by its identity."""
    path = tiny.folder(tmp_path / "own")
    base = [*RUN, f"data.path={path}", f"trainer.precision={precision}", "model.dropout=0.3"]
    ways = ([], ["data.memory=0"], ["data.memory=0", "trainer.workers=2"])
    configs = [compose([*base, *way]) for way in ways]
    assert len({run_id(config, 0) for config in configs}) == 1
    records = [run(config, Store(tmp_path / str(i))) for i, config in enumerate(configs)]
    for record in records:
        assert record.status == "done", record.error
        assert record.metrics == records[0].metrics
        assert record.curve == records[0].curve
        assert record.fingerprints == records[0].fingerprints
    plain = run(compose([*base, "data.augment=none"]), Store(tmp_path / "plain"))
    assert plain.curve != records[0].curve


def test_two_processes_train_as_one_on_pictures_that_are_read(tmp_path: Path) -> None:
    """In float64, of batches that they share unequally; sums are taken in another order."""
    path = tiny.folder(tmp_path / "own", n=15)
    given = [*RUN, f"data.path={path}", "data.memory=0", "trainer.precision=64-true"]
    given += ["trainer.batch_size=5", "trainer.accelerator=cpu"]
    alone = run(compose(given), Store(tmp_path / "alone"))
    several = ["trainer.workers=1", "trainer.devices=2", "trainer.strategy=ddp"]
    done = python(["-m", "harness", "train", *given, *several, "store=both"], tmp_path)
    assert done.returncode == 0, done.stderr
    (both,) = records(tmp_path / "both").values()
    assert both["id"] == alone.id
    assert both["metrics"] == pytest.approx(alone.metrics, rel=1e-6)
