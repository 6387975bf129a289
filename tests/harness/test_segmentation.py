"""The task of segmentation: metrics against references, refusals, what losses are given, runs."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import ndimage
from scipy.special import log_softmax
from sklearn import metrics as sk
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models as vision

import losses
from harness import models
from harness.batches import Batches
from harness.compose import compose
from harness.config import OptimizerConfig
from harness.data import Data, Part
from harness.objective import Objective
from harness.prepare import check_fit, prepare, probe
from harness.tasks import get
from harness.tasks._maps import rim
from harness.tasks.segmentation import Segmentation
from harness.terms import parse_objective
from tests.harness.spine import on_one_and_two_devices

Array = npt.NDArray[Any]
SHAPE = (150, 11, 13)  # items, more than two batches of an evaluation; height; width
FLOAT32 = 2e-5  # the mean of negative log-likelihoods is summed in float32
RARE = "task=segmentation/rare_digits"
SCENES = "task=segmentation/digit_scenes"
SMALL = ["data.scenes=[13,6,6]", "trainer.epochs=2", "trainer.batch_size=6", "model.channels=4"]


def task_of(kind: str, loss: str, val: Part, test: Part | None = None, classes: int = 2) -> Any:
    """A task whose model answers with its inputs."""
    names = tuple(f"class {i}" for i in range(classes))
    outputs = 1 if kind == "mask" else classes
    made: Any = kind
    data = Data(made, val, val, test or val, outputs, names, None, {}, None)
    objective = Objective(parse_objective({loss: {}}))
    return Segmentation(data, nn.Identity(), objective, OptimizerConfig(), Batches(val, 10))


def part(logits: Array, target: Array) -> Part:
    return Part(torch.from_numpy(logits.astype(np.float32)), torch.from_numpy(target))


def blobs(classes: int, seed: int, share: float = 0.3) -> Array:
    """Maps [N, H, W] of smooth regions, class 0 most of them; some without any other."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=(classes - 1, *SHAPE)), (0, 0, 2, 2))
    smooth /= smooth.std()
    best = smooth.argmax(0) + 1
    target = np.where(smooth.max(0) > np.quantile(smooth.max(0), 1 - share), best, 0)
    target[::3] = 0
    return target.astype(np.int64)


def ignored(target: Array) -> Array:
    """With a tenth of the pixels, and all of one item, left out."""
    rng = np.random.default_rng(9)
    marked = np.where(rng.random(target.shape) < 0.1, -100, target)
    marked[5] = -100
    return np.asarray(marked)


def answers(target: Array, classes: int) -> dict[str, Array]:
    """Logits [N, C, H, W] (or [N, H, W] of two classes) from honest to hopeless."""
    rng = np.random.default_rng(0)
    right = np.moveaxis(np.eye(classes)[np.maximum(target, 0)], -1, 1) * 2 - 1
    noise = rng.normal(size=right.shape)
    background = np.zeros_like(right)
    background[:, 0] = 1
    given = {
        "random": noise,
        "good": noise + 1.5 * right,
        "rounded": np.round(2 * (noise + right)) / 2,  # many ties
        "perfect": 20 * right,
        "nothing": background,
    }
    if classes > 2:
        return given
    return {name: logits[:, 1] - logits[:, 0] for name, logits in given.items()}


def regions(guess: Array, target: Array, classes: int) -> dict[str, float]:
    """By scikit-learn, on the pixels that count; means over the classes that there are."""
    kept = target != -100
    y, p = target[kept], guess[kept]
    there = [c for c in range(classes) if (y == c).any() or (p == c).any()]
    options: dict[str, Any] = {"labels": range(classes), "average": None, "zero_division": 0}
    iou = sk.jaccard_score(y, p, **options)
    found = {
        "dice": sk.f1_score(y, p, **options),
        "precision": sk.precision_score(y, p, **options),
        "recall": sk.recall_score(y, p, **options),
    }
    true = [c for c in range(classes) if (y == c).any()]
    counted = {"dice": there, "precision": there, "recall": true}
    wanted = {"miou": iou[there].mean(), "accuracy": sk.accuracy_score(y, p)}
    if classes == 2:
        return wanted | {name: each[1] for name, each in found.items()} | {"iou": iou[1]}
    wanted |= {name: each[counted[name]].mean() for name, each in found.items()}
    return wanted | {f"dice_class_{c}": found["dice"][c] for c in range(classes)}


def per_image(guess: Array, target: Array, classes: int) -> dict[str, float]:
    dices, empty = [], []
    for p, y in zip(guess, target, strict=True):
        kept = y != -100
        for c in range(1, classes):
            a, b = (p == c) & kept, (y == c) & kept
            if a.any() or b.any():
                dices.append(2 * (a & b).sum() / (a.sum() + b.sum()))
            if kept.any() and not b.any():
                empty.append(not a.any())
    return {"dice_per_image": float(np.mean(dices)), "empty_kept": float(np.mean(empty))}


def boundaries(guess: Array, target: Array, classes: int) -> dict[str, float]:
    """What erosion by a square takes away, where the outside of an image is no part of it."""
    square = np.ones((3, 3), bool)  # a fiftieth of the diagonal is less than a pixel
    both, either = np.zeros(classes), np.zeros(classes)
    for p, y in zip(np.where(target == -100, -100, guess), target, strict=True):
        for c in range(1, classes):
            rims = [m & ~ndimage.binary_erosion(m, square) for m in (p == c, y == c)]
            both[c] += (rims[0] & rims[1]).sum()
            either[c] += (rims[0] | rims[1]).sum()
    there = either > 0
    return {"boundary_iou": float((both[there] / either[there]).mean())}


def nll(logits: Array, target: Array) -> dict[str, float]:
    wide = logits.astype(np.float32).astype(float)
    if logits.ndim == target.ndim:
        wide = np.stack([np.zeros_like(wide), wide], 1)
    log_p = log_softmax(wide, axis=1)
    chosen = np.take_along_axis(log_p, np.maximum(target, 0)[:, None], 1)[:, 0]
    return {"nll": float(-chosen[target != -100].mean())}


def assert_close(ours: dict[str, float], reference: dict[str, float]) -> None:
    for name, value in reference.items():
        assert ours[name] == pytest.approx(value, rel=FLOAT32, abs=FLOAT32), name


CASES = ("random", "good", "rounded", "perfect", "nothing")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("holes", [False, True])
def test_metrics_of_several_classes_are_those_of_references(case: str, holes: bool) -> None:
    clean = blobs(4, 1)
    logits, target = answers(clean, 4)[case], ignored(clean) if holes else clean
    ours = task_of("semantic", "cross_entropy", *[part(logits, target)] * 2, classes=4)
    values = ours.evaluate(ours.data.val)
    guess = logits.astype(np.float32).argmax(1)
    reference = regions(guess, target, 4) | per_image(guess, target, 4) | nll(logits, target)
    assert_close(values, reference | boundaries(guess, target, 4))
    assert values.keys() == (reference | {"boundary_iou": 0}).keys()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("holes", [False, True])
def test_metrics_of_a_mask_are_those_of_references(case: str, holes: bool) -> None:
    clean = blobs(2, 1, share=0.05)
    logits, target = answers(clean, 2)[case], ignored(clean) if holes else clean
    ours = task_of("mask", "bce", part(logits, target))
    values = ours.evaluate(ours.data.val)
    guess = (logits.astype(np.float32) > 0).astype(int)
    reference = regions(guess, target, 2) | per_image(guess, target, 2) | nll(logits, target)
    assert_close(values, reference | boundaries(guess, target, 2))
    assert values.keys() - reference.keys() == {"boundary_iou", "dice_best", "threshold"}
    assert values["dice_best"] >= values["dice"] - FLOAT32


def dice_at(logits: Array, target: Array, log_odds: float) -> float:
    kept = target != -100
    return float(sk.f1_score(target[kept], logits[kept] > log_odds, zero_division=0))


def test_the_best_threshold_is_chosen_on_validation_and_used_on_test() -> None:
    target, other = (ignored(blobs(2, seed, share=0.05)) for seed in (1, 2))
    logits, others = (answers(t, 2)["good"].astype(np.float32) - 3 for t in (target, other))
    task = task_of("mask", "bce", part(logits, target), part(others, other))
    before = task.evaluate(task.data.test)
    assert before["threshold"] == 0.5
    assert before["dice_best"] == pytest.approx(before["dice"])
    val, test = (task.evaluate(each) for each in (task.data.val, task.data.test))
    grid = np.arange(-240, 241) / 20
    scores = [dice_at(logits, target, z) for z in grid]
    best = float(grid[int(np.argmax(scores))])
    assert val["threshold"] == test["threshold"] == pytest.approx(1 / (1 + math.exp(-best)))
    assert val["dice_best"] == pytest.approx(max(scores))
    assert test["dice_best"] == pytest.approx(dice_at(others, other, best))
    assert max(dice_at(others, other, z) for z in grid) > test["dice_best"]  # not chosen there
    assert test["dice_best"] > test["dice"] + 0.2


def test_of_equally_good_thresholds_the_one_nearest_a_half_is_taken() -> None:
    target = blobs(2, 1)
    for logits, wanted in ((40.0 * target - 20, 0.0), (8.0 * target + 1.01, 1.05)):
        task = task_of("mask", "bce", part(logits, target))
        found = task.evaluate(task.data.val)
        assert found["dice_best"] == 1
        assert found["threshold"] == pytest.approx(1 / (1 + math.exp(-wanted)))


def test_an_empty_mask_that_stays_empty_is_left_out_of_the_mean() -> None:
    """Of three images: one right, one with something invented, one empty on both sides."""
    target = np.zeros((3, 4, 4), np.int64)
    target[0, :2] = 1
    logits = np.full(target.shape, -1.0)
    logits[0, :2] = 1
    logits[1, 0, 0] = 1
    task = task_of("mask", "bce", part(logits, target))
    found = task.evaluate(task.data.val)
    assert found["dice_per_image"] == 1 / 2
    assert found["empty_kept"] == 1 / 2
    assert found["dice"] == pytest.approx(16 / 17)


def test_a_class_that_is_nowhere_has_no_score_and_spoils_no_mean() -> None:
    target = blobs(3, 1)
    logits = answers(target, 3)["good"]
    without = task_of("semantic", "cross_entropy", part(logits, target), classes=3)
    wider = np.concatenate([logits, np.full_like(logits[:, :1], -50)], 1)
    more = task_of("semantic", "cross_entropy", part(wider, target), classes=4)
    few, many = (task.evaluate(task.data.val) for task in (without, more))
    assert math.isnan(many["dice_class_3"])
    for name in ("miou", "dice", "precision", "recall", "boundary_iou", "dice_per_image"):
        assert many[name] == few[name]


@pytest.mark.parametrize("reach", [1, 2, 4])
def test_a_rim_is_what_erosion_takes_away(reach: int) -> None:
    masks = torch.from_numpy(blobs(2, 4, share=0.5) > 0)
    square = np.ones((2 * reach + 1,) * 2, bool)
    wanted = [m & ~ndimage.binary_erosion(m, square) for m in masks.numpy()]
    assert np.array_equal(rim(masks, reach).numpy(), wanted)


# What losses are given, and which are refused


@pytest.mark.parametrize(
    ("kind", "loss", "words"),
    [
        ("mask", "mse", "mse compares real values"),
        ("mask", "cross_entropy", "cross_entropy is for several classes of which one is true"),
        (
            "mask",
            "dice",
            "dice is for several classes of which one is true, and the data is a mask",
        ),
        ("mask", "multilabel_bce", "multilabel_bce is for several labels of an item"),
        ("mask", "boundary", "boundary is for several classes, and the data is a mask"),
        (
            "semantic",
            "binary_dice",
            "binary_dice is for one mask, and the data has several classes",
        ),
        ("semantic", "bce", "bce is for one mask, and the data has several classes"),
        ("semantic", "nll", "nll takes log-probabilities"),
        (
            "semantic",
            "binary_boundary",
            "binary_boundary is for one mask, and the data has several",
        ),
        ("semantic", "hausdorff_dt", "hausdorff_dt is for one mask"),
        ("semantic", "triplet", "triplet needs anchor and positive and negative"),
        ("semantic", "giou", "giou compares boxes"),
        ("mask", "arcface", "arcface compares embeddings of items that belong together"),
    ],
)
def test_a_loss_that_does_not_fit_is_refused_with_a_reason(
    kind: str, loss: str, words: str
) -> None:
    reason = Segmentation.refusal(losses.get(loss), kind)
    assert reason is not None
    assert reason.startswith(words)


@pytest.mark.parametrize("kind", ["mask", "semantic"])
def test_losses_of_regions_pixels_and_boundaries_fit(kind: str) -> None:
    fits = {n for n in losses.names() if Segmentation.refusal(losses.get(n), kind) is None}
    regions = {name for name in losses.names() if losses.get(name).region}
    masks = {name for name in regions if losses.get(name).target == "binary"}
    if kind == "mask":
        assert masks | {"bce", "binary_focal", "binary_boundary", "hausdorff_dt"} <= fits
        assert not (regions - masks) & fits
    else:
        assert (regions - masks) | {"cross_entropy", "focal", "boundary", "gce"} <= fits
        assert not masks & fits


def test_other_tasks_and_models_are_kept_apart() -> None:
    assert get("segmentation") is Segmentation
    config = compose([RARE, "loss=bce", "model=cnn"])
    with pytest.raises(ValueError, match="task segmentation needs a model of map, cnn has values"):
        check_fit(config, Segmentation)
    with pytest.raises(ValueError, match="needs mask or semantic data, got multiclass"):
        check_fit(compose([RARE, "loss=bce", "data=digits"]), Segmentation)


def holed(kind: str) -> tuple[Tensor, Tensor]:
    """Logits and a target of which some pixels are ignored."""
    generator = torch.Generator().manual_seed(0)
    classes = 3 if kind == "semantic" else 2
    shape = (4, 3, 9, 8) if kind == "semantic" else (4, 9, 8)
    target = torch.from_numpy(blobs(classes, 3)[1:8:2, :9, :8].copy())
    target[torch.rand(target.shape, generator=generator) < 0.2] = -100
    return torch.randn(shape, generator=generator), target


@pytest.mark.parametrize(
    ("kind", "loss"),
    [("mask", "binary_boundary"), ("mask", "hausdorff_dt"), ("semantic", "boundary")],
)
def test_losses_of_boundaries_get_maps_of_distances(kind: str, loss: str) -> None:
    """The maps are those of the target; a pixel that is ignored changes neither value nor slope."""
    logits, target = holed(kind)
    task = task_of(kind, loss, Part(logits, target), classes=3)

    def value(of: Tensor) -> Tensor:
        return task.objective(task.compare(of, target), task.model).total  # type: ignore[no-any-return]

    kept = (target != -100).float()
    if kind == "semantic":
        masks = torch.stack([target == c for c in range(3)], 1)
        distance = losses.signed_distance(masks.flatten(0, 1)).view(4, 3, 9, 8) * kept[:, None]
        wanted = losses.boundary(logits, distance)
    elif loss == "binary_boundary":
        wanted = losses.binary_boundary(logits, losses.signed_distance(target == 1) * kept)
    else:
        true, predicted = (losses.edge_distance(m) * kept for m in (target == 1, logits > 0))
        wanted = losses.hausdorff_dt(logits, (target == 1).float(), true, predicted)
    torch.testing.assert_close(value(logits), wanted)
    leaf = logits.clone().requires_grad_()
    value(leaf).backward()
    assert leaf.grad is not None
    slopes = leaf.grad.abs().sum(1) if kind == "semantic" else leaf.grad.abs()
    assert slopes[target == -100].sum() == 0
    assert slopes.sum() > 0


def test_class_weights_are_counted_in_pixels() -> None:
    words = [SCENES, *SMALL, "loss=cross_entropy", "loss.cross_entropy.class_weight=balanced"]
    task = prepare(compose(words)).task
    counts = task.data.train.target.flatten().bincount(minlength=11)
    inputs, target = next(iter(task.batches))
    output = task(inputs)
    weight = losses.class_weight("balanced", counts)
    wanted = F.cross_entropy(output, target, weight=weight.float())
    given = task.objective(task.compare(inputs, target), task.model).total
    torch.testing.assert_close(given, wanted)


def test_terms_of_both_sorts_can_be_mixed() -> None:
    words = [RARE, *SMALL, "loss=[bce,binary_dice]", "loss.mix=convex", "loss.p=0.25"]
    task = prepare(compose(words)).task
    inputs, target = next(iter(task.batches))
    output = task(inputs)
    wanted = 0.75 * losses.bce(output, target) + 0.25 * losses.binary_dice(output, target)
    torch.testing.assert_close(
        task.objective(task.compare(inputs, target), task.model).total, wanted
    )


# Models


@pytest.mark.parametrize("shape", [(3, 32, 48), (1, 9, 8), (3, 33, 17)])
@pytest.mark.parametrize("outputs", [1, 5])
def test_a_unet_gives_a_map_of_any_size(shape: tuple[int, ...], outputs: int) -> None:
    built = models.build("unet", shape, outputs, seed=0, channels=4)
    result = built(torch.rand(2, *shape))
    assert result.shape == ((2, *shape[1:]) if outputs == 1 else (2, outputs, *shape[1:]))
    result.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in built.parameters())


def test_a_unet_looks_far_and_keeps_details() -> None:
    """What a pixel gives depends on places a coarse map away, and on its very neighbour."""
    built = models.build("unet", (1, 32, 32), 1, seed=0).eval()
    image = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    built(image)[0, 16, 16].backward()
    assert image.grad is not None
    reached = image.grad[0, 0] != 0
    assert reached[16, 17]
    assert reached[16, 2]


@pytest.mark.parametrize("name", ["fcn_resnet50", "lraspp_mobilenet_v3_large"])
@pytest.mark.parametrize("outputs", [1, 3])
def test_torchvision_models_of_segmentation_are_built_by_name(name: str, outputs: int) -> None:
    built = models.build(f"torchvision/{name}", (1, 32, 48), outputs, seed=0)
    assert models.get(f"torchvision/{name}").gives == "map"
    assert built(torch.rand(2, 1, 32, 48)).shape == (
        (2, 32, 48) if outputs == 1 else (2, 3, 32, 48)
    )
    assert not any("aux" in key for key in built.state_dict())


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("unet", (3, 7, 40), "unet of depth 3 needs inputs [C, H, W] of at least 8x8"),
        ("unet", (30,), "unet of depth 3 needs inputs [C, H, W]"),
        ("torchvision/fcn_resnet50", (3, 8, 64), "needs images of at least 16x16, got [3, 8, 64]"),
        ("torchvision/deeplabv3_resnet50", (2, 32, 32), "needs inputs [3, H, W]"),
        ("torchvision/fcn_resnet5", (3, 32, 32), "did you mean 'torchvision/fcn_resnet50'?"),
    ],
)
def test_what_no_map_can_be_made_of_is_refused(
    name: str, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]*$") as raised:
        models.build(name, shape, 2, seed=0)
    assert message in str(raised.value)


@pytest.mark.parametrize("name", ["fcn_resnet50", "lraspp_mobilenet_v3_large"])
def test_published_weights_are_a_start_for_other_classes(name: str, tmp_path: Path) -> None:
    """As torchvision keeps them: of 21 classes, and with an auxiliary head where there is one."""
    aux = {} if name.startswith("lraspp") else {"aux_loss": True}
    published = vision.get_model(name, weights=None, weights_backbone=None, num_classes=21, **aux)
    torch.save(published.state_dict(), tmp_path / "weights.pth")
    given = {"pretrained": str(tmp_path / "weights.pth")}
    built = models.build(f"torchvision/{name}", (3, 32, 32), 3, seed=0, **given)
    theirs = dict(published.named_parameters())
    for key, ours in built.named_parameters():
        there = theirs[key.removeprefix("inner.")]
        assert ours.shape != there.shape or torch.equal(ours, there)
    assert built(torch.rand(2, 3, 32, 32)).shape == (2, 3, 32, 32)


def test_a_torchvision_model_takes_a_batch_of_the_task() -> None:
    words = [SCENES, *SMALL[:-1], "loss=dice", "model=torchvision/lraspp_mobilenet_v3_large"]
    assert probe(compose(words)).gradient


def test_a_last_batch_of_one_item_is_refused_where_a_model_cannot_take_it() -> None:
    """DeepLab has a place of one pixel, whose variance is not to be had."""
    words = [SCENES, "data.scenes=[13,6,6]", "trainer.batch_size=6", "loss=dice"]
    message = "cannot train on a batch of one item, which trainer.batch_size=6 leaves of 13"
    with pytest.raises(ValueError, match=message):
        prepare(compose([*words, "model=torchvision/deeplabv3_mobilenet_v3_large"]))
    assert prepare(compose([*words, "model=torchvision/lraspp_mobilenet_v3_large"]))


# Whole runs


@pytest.mark.parametrize(
    ("task", "loss"),
    [(SCENES, "[dice,batch_dice,cross_entropy]"), (RARE, "[bce,lovasz_hinge,binary_boundary]")],
)
def test_two_processes_train_as_one(task: str, loss: str, tmp_path: Path) -> None:
    """In float64, so that sums in another order differ by 1e-12; the last batch is of one image."""
    words = [task, *SMALL, f"loss={loss}"]
    one, two = on_one_and_two_devices(words, tmp_path)
    assert len(one["curve"]) == 2
    for mine, theirs in zip(one["curve"], two["curve"], strict=True):
        assert theirs == pytest.approx(mine, rel=1e-7)
    there = [name for name, value in one["metrics"].items() if value is not None]
    assert len(there) > 20  # a class that is nowhere in so few scenes has no score
    for name, value in two["metrics"].items():
        # metrics are of float32
        assert value == (pytest.approx(one["metrics"][name], rel=1e-5) if name in there else None)
