"""The task of detection: what models compare, metrics against a reference, refusals, whole runs."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import box_iou, nms

import losses
from harness import data, models
from harness.compose import compose
from harness.data import Data
from harness.data.objects import check_objects
from harness.models.boxes import Detections, centre_sampled, kept_best, paired_iou
from harness.objective import Compared, Evaluated, Objective
from harness.prepare import check_fit, prepare, probe
from harness.tasks import _boxes as metrics
from harness.tasks.base import Diverged
from harness.tasks.detection import Detection
from harness.terms import parse_objective
from tests.harness.spine import on_one_and_two_devices

Array = npt.NDArray[Any]
TASK = "task=detection/digit_boxes"
USUAL = "loss=[binary_focal,giou]"
SMALL = ["data.scenes=[24,8,8]", "trainer.epochs=1", "trainer.batch_size=8"]
FLOAT32 = 1e-5  # sums of up to some thousand float32 numbers, taken in another order
PAPERS = {  # torchvision's model, the YAML file of its paper's losses, images per batch
    "fasterrcnn_mobilenet_v3_large_fpn": ("faster_rcnn", 3),
    "maskrcnn_resnet50_fpn": ("mask_rcnn", 2),
    "retinanet_resnet50_fpn": (
        "retinanet",
        1,
    ),  # see the test below
    "fcos_resnet50_fpn": ("fcos", 3),
    "ssdlite320_mobilenet_v3_large": ("ssd", 2),
}


@pytest.fixture(scope="module")
def digits() -> Data:
    return data.load("digit_boxes", split_seed=0, corrupt_seed=0, scenes=[8, 4, 4], which=True)


def few(digits: Data, number: int, *, empty: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
    """The first training images; without objects if empty."""
    images, target = digits.train.take(torch.arange(number))
    if empty:
        target = {**target, "labels": torch.full_like(target["labels"], -100)}
    return images, target


def objective(*names: str, seed: int = 0, **terms: Any) -> Objective:
    chosen = parse_objective({**{name: {} for name in names}, **terms})
    entries = {name: losses.get(term.loss) for name, term in chosen.losses().items()}
    reads = {name: Detection.reads(name, entry) for name, entry in entries.items()}
    return Objective(chosen, None, reads)


def vision(name: str, classes: int = 10, **given: Any) -> Any:
    return models.build(f"torchvision/{name}", (3, 48, 64), classes, seed=0, **given)


def paper(name: str) -> Objective:
    """The objective of a YAML file."""
    config = compose([TASK, f"loss={name}"]).loss
    terms = {key: value for key, value in config.items() if key not in ("mix", "p")}
    return objective(**terms)


# Torchvision's own losses


@pytest.mark.parametrize("name", PAPERS)
@pytest.mark.parametrize("empty", [False, True], ids=["objects", "no objects"])
def test_papers_losses_are_torchvisions_own(name: str, empty: bool, digits: Data) -> None:
    """Values and gradients; both sample from the same seed, and statistics of batches stay."""
    file, number = PAPERS[name]
    model = vision(name)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0
    images, target = few(digits, number, empty=empty)
    torch.manual_seed(1)
    ours = paper(file)(Compared(model.compare(images, target)), model)
    gradient = gradients(model, ours.total)
    torch.manual_seed(1)
    theirs = model.inner([*images], unpadded(target, model.first_label))
    wanted = {ALIKE.get(key, key): value for key, value in theirs.items()}
    assert ours.terms.keys() == wanted.keys()
    for key, value in wanted.items():
        torch.testing.assert_close(ours.terms[key], value, rtol=FLOAT32, atol=1e-6)
    total = torch.stack([*theirs.values()]).sum()
    torch.testing.assert_close(ours.total, total, rtol=FLOAT32, atol=1e-6)
    reference = gradients(model, total)
    # relative to the whole gradient: behind a normalisation that of a bias is noise around 0
    assert (gradient - reference).norm() <= 1e-4 * reference.norm()


ALIKE = {
    "loss_objectness": "objectness",
    "loss_rpn_box_reg": "proposal",
    "loss_classifier": "classification",
    "loss_box_reg": "box",
    "loss_mask": "mask",
    "bbox_regression": "box",
    "bbox_ctrness": "centerness",
}


def gradients(model: nn.Module, total: Tensor) -> Tensor:
    model.zero_grad()
    total.backward()  # type: ignore[no-untyped-call]
    found = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return torch.cat(found).clone()


def unpadded(target: dict[str, Tensor], first: int = 0) -> list[dict[str, Tensor]]:
    there = target["labels"] >= 0
    made = [{key: rows[i][k] for key, rows in target.items()} for i, k in enumerate(there)]
    return [{**each, "labels": each["labels"] + first} for each in made]


def test_retinanet_divides_by_the_positives_of_the_batch(digits: Data) -> None:
    """So it is the mean of what torchvision gives for each image, weighed by its positives."""
    model = vision("retinanet_resnet50_fpn", frozen_norm=True)
    images, target = few(digits, 3)
    whole = paper("retinanet")(Compared(model.compare(images, target)), model)
    alone, counts = [], []
    for i in range(3):
        row = {key: rows[i : i + 1] for key, rows in target.items()}
        subjects = model.compare(images[i : i + 1], row)
        counts.append(float(subjects["box"].divisor))
        theirs = model.inner([images[i]], unpadded(row))
        alone.append(float(sum(value.detach() for value in theirs.values())))
    assert len(set(counts)) > 1
    wanted = np.average(alone, weights=counts)
    assert float(whole.total.detach()) == pytest.approx(wanted, rel=FLOAT32)


@pytest.mark.parametrize("name", [name for name in PAPERS if "resnet50" not in name])
def test_detections_are_torchvisions_own(name: str, digits: Data) -> None:
    model = vision(name, score_threshold=0.0).eval()
    images, _ = few(digits, 2)
    with torch.no_grad():
        found, theirs = model(images), model.inner([*images])
    assert any(len(each["labels"]) for each in theirs)
    for i, each in enumerate(theirs):
        there = found.labels[i] >= 0
        assert torch.equal(found.boxes[i][there], each["boxes"])
        assert torch.equal(found.labels[i][there], each["labels"] - model.first_label)
        assert torch.equal(found.scores[i][there], each["scores"])
        assert found.scores[i][~there].eq(0).all()


def test_weights_of_other_classes_start_all_but_the_last_layers(tmp_path: Path) -> None:
    name = "torchvision/maskrcnn_resnet50_fpn"
    other = models.build(name, (3, 48, 64), 3, seed=1, frozen_norm=True)
    models.save(other, tmp_path / "m.pt")
    keys = torch.load(tmp_path / "m.pt").keys()
    assert "backbone.body.conv1.weight" in keys  # torchvision's own names
    file = str(tmp_path / "m.pt")
    loaded = models.build(name, (3, 48, 64), 5, seed=0, frozen_norm=True, pretrained=file)
    own, theirs = loaded.state_dict(), other.state_dict()
    changed = {key for key in own if own[key].shape != theirs[key].shape}
    assert len(changed) == 6  # classes, boxes and masks, each a weight and a bias
    assert all(torch.equal(own[key], theirs[key]) for key in own.keys() - changed)
    with pytest.raises(ValueError, match="is of another model"):
        models.build(name, (3, 48, 64), 5, seed=0, pretrained=file)


def test_layers_and_norms_can_be_frozen() -> None:
    model = vision("retinanet_resnet50_fpn", trainable_layers=1, frozen_norm=True)
    body = model.inner.backbone.body
    learnt = {key.partition(".")[0] for key, p in body.named_parameters() if p.requires_grad}
    assert learnt == {"layer4"}
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    with pytest.raises(ValueError, match="trainable_layers must be 5, got 2"):
        vision("fasterrcnn_mobilenet_v3_large_fpn", trainable_layers=2)


def test_sizes_of_images_and_anchors() -> None:
    plain = vision("retinanet_resnet50_fpn").inner
    model = vision("retinanet_resnet50_fpn", min_size=96, anchor_scale=0.5).inner
    sizes = [plain.anchor_generator.sizes, model.anchor_generator.sizes]
    assert sizes[1] == tuple(tuple(side / 2 for side in level) for level in sizes[0])
    for each, wanted in ((plain, (48, 64)), (model, (96, 128))):
        images, _ = each.transform([torch.zeros(3, 48, 64)])
        assert images.image_sizes == [wanted]
    with pytest.raises(ValueError, match="no anchors to scale"):
        vision("fcos_resnet50_fpn", anchor_scale=0.5)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("torchvision/keypointrcnn_resnet50_fpn", (3, 48, 64), "detects more than boxes and masks"),
        ("torchvision/fasterrcnn_resnet50_fpn", (2, 48, 64), r"needs images \[3, H, W\]"),
        ("torchvision/fasterrcn_resnet50_fpn", (3, 48, 64), "did you mean 'torchvision/fasterrcnn"),
        ("fcos_tiny", (3, 40, 64), "multiples of 16"),
    ],
)
def test_models_that_cannot_be(name: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        models.build(name, shape, 3, seed=0)


# The small detector


def tiny(classes: int = 10, **given: Any) -> Any:
    return models.build("fcos_tiny", (3, 48, 64), classes, seed=0, **given)


def test_a_place_is_for_the_smallest_object_near_whose_centre_it_lies() -> None:
    """Against three loops, on 40 random images of up to 5 objects."""
    rng = torch.Generator().manual_seed(0)
    corner = torch.rand(40, 5, 2, generator=rng) * 40
    boxes = torch.cat([corner, corner + 1 + torch.rand(40, 5, 2, generator=rng) * 20], -1)
    labels = torch.where(torch.rand(40, 5, generator=rng) < 0.3, -100, 2)
    points, reach = torch.rand(30, 2, generator=rng) * 50, torch.rand(30, generator=rng) * 9
    found = centre_sampled(points, reach, {"boxes": boxes, "labels": labels})
    assert -1 in found
    assert len(found.unique()) == 6
    for i in range(40):
        for p, (x, y) in enumerate(points.tolist()):
            fitting = []
            for m, (x1, y1, x2, y2) in enumerate(boxes[i].tolist()):
                near = max(abs(x - (x1 + x2) / 2), abs(y - (y1 + y2) / 2)) < reach[p]
                if labels[i, m] >= 0 and near and x1 < x < x2 and y1 < y < y2:
                    fitting.append(((x2 - x1) * (y2 - y1), m))
            assert found[i, p] == (min(fitting)[1] if fitting else -1)


def test_its_scores_and_boxes_are_of_the_same_places(digits: Data) -> None:
    """Every positive stands at its object's class; its encoded box decodes to the true one."""
    model = tiny()
    images, target = few(digits, 8)
    subjects = model.compare(images, target)
    logits, wanted = subjects["classification"].inputs
    assert logits.shape == wanted.shape == (8 * 12 * 16, 10)
    rows, classes = wanted.nonzero(as_tuple=True)
    _, true = subjects["box"].inputs
    _, code = subjects["box/code"].inputs
    assert len(rows) == len(true) == subjects["box"].divisor
    assert len(rows) > target["labels"].ge(0).sum()
    image, place = rows // len(model.points), rows % len(model.points)
    for i, p, c, box, sides in zip(image, place, classes, true, code, strict=True):
        point = model.points[p]
        torch.testing.assert_close(torch.cat([point - 4 * sides[:2], point + 4 * sides[2:]]), box)
        same = (target["boxes"][i] == box).all(1)
        assert target["labels"][i][same].tolist() == [c]


def test_quality_is_the_overlap_of_what_is_predicted(digits: Data) -> None:
    subjects = tiny().compare(*few(digits, 4))
    logits, wanted = subjects["classification"].inputs
    same, quality = subjects["classification/quality"].inputs
    assert same is logits
    overlap = torch.diag(box_iou(*subjects["box"].inputs)).detach()
    torch.testing.assert_close(quality[wanted == 1], overlap)
    assert quality[wanted == 0].eq(0).all()
    assert not quality.requires_grad


@pytest.mark.parametrize("loss", ["quality_focal", "varifocal"])
def test_losses_of_quality_are_given_it(loss: str, digits: Data) -> None:
    subjects = tiny().compare(*few(digits, 4))
    found = objective(loss, "giou")(Compared(subjects), nn.Identity()).terms[loss]
    logits, quality = subjects["classification/quality"].inputs
    total = getattr(losses, loss)(logits, quality, reduction="sum")
    torch.testing.assert_close(found, total / subjects["box"].divisor)


def test_alpha_mixes_the_classes_loss_with_the_boxes(digits: Data) -> None:
    """alpha L_cls + (1 - alpha) L_box, with alpha = p as the second term is that of classes."""
    config = compose([TASK, "loss=[giou,binary_focal]", "loss.mix=convex", "loss.p=0.3", *SMALL])
    task = prepare(config).task
    inputs, target = next(iter(task.batches))
    total, terms = task.objective(task.compare(inputs, target), task.model)
    torch.testing.assert_close(total, 0.3 * terms["binary_focal"] + 0.7 * terms["giou"])


def test_duplicates_are_dropped_per_image_and_class() -> None:
    """Against torchvision's nms on each image and class by itself; seed 0."""
    rng = torch.Generator().manual_seed(0)
    corner = torch.rand(5, 60, 2, generator=rng) * 30
    boxes = torch.cat([corner, corner + 8 + torch.rand(5, 60, 2, generator=rng) * 8], -1)
    scores = torch.rand(5, 60, 3, generator=rng)
    found = kept_best(boxes, scores, 0.4, 0.2, 18)  # 180 candidates are all there are
    for i in range(5):
        kept = []
        for c in range(3):
            for k in nms(boxes[i], scores[i, :, c], 0.4).tolist():
                kept += [(float(scores[i, k, c]), c, k)] if scores[i, k, c] > 0.2 else []
        kept = sorted(kept, reverse=True)[:18]
        assert len(kept) == 18
        assert found.scores[i].tolist() == [score for score, _, _ in kept]
        assert found.labels[i].tolist() == [c for _, c, _ in kept]
        assert torch.equal(found.boxes[i], boxes[i][[k for _, _, k in kept]])


def test_nothing_above_the_threshold_is_nothing_found() -> None:
    found = kept_best(torch.rand(2, 6, 4), torch.full((2, 6, 3), 0.1), 0.5, 0.5, 4)
    assert found.labels.eq(-100).all()
    assert found.scores.eq(0).all()


@pytest.mark.parametrize("box", ["giou", "smooth_l1", "rmse", "ciou"])
def test_without_objects_boxes_cost_nothing_and_scores_learn(box: str, digits: Data) -> None:
    model = tiny()
    images, target = few(digits, 4, empty=True)
    subjects = model.compare(images, target)
    logits, wanted = subjects["classification"].inputs
    assert wanted.sum() == 0
    total, terms = objective("bce", box)(Compared(subjects), model)
    assert terms[box].item() == 0
    reference = losses.bce(logits, wanted, reduction="sum")  # divided by 1, for there is no object
    torch.testing.assert_close(terms["bce"], reference)
    assert gradients(model, total).isfinite().all()


def test_one_class_and_float64(digits: Data) -> None:
    model = tiny(1).double()
    images, target = few(digits, 2)
    target = {**target, "labels": target["labels"].clamp(max=0)}
    subjects = model.compare(images.double(), target)
    assert {t.dtype for s in subjects.values() for t in s.inputs} == {torch.float64}
    found = model.eval()(images.double())
    assert found.boxes.dtype == torch.float64


# What fits


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["loss=giou"], "no term is for classification"),
        (["loss=binary_focal"], "no term is for box"),
        (["loss=[cross_entropy,giou]"], "several classes of which one is true"),
        (["loss=[binary_dice,giou]"], "compares regions of images"),
        (["loss=[bce,msle]"], "needs numbers"),
        (["loss=[bce,gaussian_nll]"], "different ways"),
        (["loss=gaussian_nll"], "reads several numbers"),
        (["loss=[triplet,giou]"], "triplet needs anchor and positive and negative"),
        (["loss=[bce,giou]", "+loss.mask={loss: bce}"], "fcos_tiny has no mask for term mask"),
        (["loss=[bce,giou]", "+loss.box={loss: bce}"], "bce compares classes, not boxes"),
        (["loss=faster_rcnn"], "fcos_tiny has no objectness"),
        (["loss=[bce,giou]", "model=faster_rcnn"], "bce is for yes or no"),
        (["loss=[cross_entropy,giou]", "model=faster_rcnn"], "no term is for objectness"),
        (["loss=[bce,giou]", "model=mlp"], "needs a model of boxes"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_data_is_loaded(
    overrides: Sequence[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check_fit(compose([TASK, *overrides]), Detection)


def test_terms_of_a_subjects_name_are_for_it() -> None:
    smooth, index = losses.get("smooth_l1"), losses.get("cross_entropy")
    assert Detection.reads("proposal", smooth) == "proposal/code"
    assert Detection.reads("smooth_l1", smooth) == "box/code"
    assert Detection.reads("proposal", losses.get("giou")) == "proposal"
    assert Detection.reads("objectness", losses.get("bce")) == "objectness"
    assert Detection.reads("anything", index) == "classification"
    assert Detection.refusal(losses.get("binary_dice"), "boxes", "mask") is None


@pytest.mark.parametrize("name", ["bce", "mse"])
def test_losses_that_compare_items_are_refused(name: str) -> None:
    coupled = dataclasses.replace(losses.get(name), additive=False)
    assert "with one another" in str(Detection.refusal(coupled, "boxes"))


def test_losses_that_know_quality_are_no_others() -> None:
    known = {name for name in losses.names() if losses.get(name).quality}
    assert known == {"quality_focal", "varifocal"}
    reason = Detection.refusal(losses.get("varifocal"), "boxes", "objectness")
    assert reason
    assert "scores of classes" in reason


@pytest.mark.parametrize("proposal", ["giou", "mae"])
def test_terms_of_a_two_stage_model_can_be_replaced(proposal: str, digits: Data) -> None:
    model = vision("maskrcnn_resnet50_fpn", samples=16, proposals=50)
    subjects = model.compare(*few(digits, 1))
    terms = {
        "objectness": {"loss": "binary_focal"},
        "proposal": {"loss": proposal},
        "classification": {"loss": "focal"},
        "box": {"loss": "diou", "weight": 2.0},
        "mask": {"loss": "binary_dice"},
    }
    found: Evaluated = objective(**terms)(Compared(subjects), model)
    assert gradients(model, found.total).isfinite().all()
    divided = losses.diou(*subjects["box"].inputs, reduction="sum") / subjects["box"].divisor
    torch.testing.assert_close(found.terms["box"], divided)
    weighed = sum(found.terms.values()) + found.terms["box"]
    torch.testing.assert_close(found.total, torch.as_tensor(weighed))


# Data


def test_scenes_have_boxes_around_their_masks(digits: Data) -> None:
    for part in (digits.train, digits.val, digits.test):
        boxes, labels, masks = (part.target[key] for key in ("boxes", "labels", "masks"))
        for image, number in (labels >= 0).nonzero().tolist():
            rows, columns = masks[image, number].nonzero(as_tuple=True)
            first, last = (columns.min(), rows.min()), (columns.max() + 1, rows.max() + 1)
            assert boxes[image, number].tolist() == [*first, *last]
        assert masks[labels < 0].eq(0).all()
    used = [set(rows[rows >= 0].tolist()) for rows in digits.rows.values()]
    assert not used[0] & used[1] | used[0] & used[2] | used[1] & used[2]
    counted = digits.train.target["labels"]
    assert digits.class_counts is not None
    assert digits.class_counts.tolist() == [(counted == c).sum() for c in range(10)]


def test_scenes_without_digits_train(digits: Data) -> None:
    config = compose([TASK, USUAL, *SMALL, "data.number=[0,1]"])
    assert probe(config).gradient
    empty = compose([TASK, USUAL, *SMALL, "data.number=[0,0]"])
    assert probe(empty).gradient


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boxes": [1, 2, 9, 2]}, r"image 1, object 1: box \[1.0, 2.0, 9.0, 2.0\].*has no area"),
        ({"boxes": [1, 2, 66, 9]}, "image 1, object 1: .*outside the image, which is 64 wide"),
        ({"boxes": [-1, 2, 6, 9]}, "image 1, object 1: .*outside the image"),
        ({"boxes": [math.nan, 2, 6, 9]}, "image 1, object 1: .*outside the image"),
        ({"labels": 3}, "image 1, object 1: .*class 3 has a label that must be below 3"),
        ({"labels": -1}, "image 1, object 1: .*class -1 has a label"),
    ],
)
def test_boxes_that_cannot_be_are_named(change: dict[str, Any], message: str) -> None:
    target: dict[str, Array] = {
        "boxes": np.tile(np.array([1, 2, 5, 9], np.float32), (4, 2, 1)),
        "labels": np.zeros((4, 2), np.int64),
    }
    images = np.zeros((4, 3, 48, 64), np.float32)
    check_objects(target, images, 3)
    for key, value in change.items():
        target[key][1, 1] = value
    with pytest.raises(ValueError, match=message):
        check_objects(target, images, 3)
    target["labels"][1, 1] = -100  # what stands in the place of no object does not matter
    check_objects(target, images, 3)


def test_shapes_that_do_not_belong_together_are_named() -> None:
    target = {"boxes": np.zeros((4, 2, 4)), "labels": np.zeros((4, 3), np.int64)}
    with pytest.raises(ValueError, match=r"boxes must be \[N, M, 4\]"):
        check_objects(target, np.zeros((4, 3, 8, 8)), 3)
    target["boxes"], target["masks"] = np.zeros((4, 3, 4)), np.zeros((4, 3, 9, 9))
    with pytest.raises(ValueError, match="not of images"):
        check_objects(target, np.zeros((4, 3, 8, 8)), 3)


# Metrics


def guesses(seed: int, images: int = 6, classes: int = 3) -> tuple[Detections, dict[str, Tensor]]:
    """Detections near objects, some of them twice, some of another class, some of nothing."""
    rng = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=rng)

    corner = draw(images, 4, 2) * 40
    boxes = torch.cat([corner, corner + 8 + draw(images, 4, 2) * 12], -1)
    labels = (draw(images, 4) * classes).long().masked_fill(draw(images, 4) < 0.3, -100)
    guessed = boxes.repeat(1, 3, 1) + 3 * (draw(images, 12, 4) - 0.5)
    named = labels.clamp(min=0).repeat(1, 3)
    other = torch.where(draw(images, 12) < 0.2, (draw(images, 12) * classes).long(), named)
    other = other.masked_fill(draw(images, 12) < 0.2, -100)
    scores = draw(images, 12).sort(1, descending=True).values
    found = Detections(guessed, torch.where(other < 0, 0, scores), other)
    return found, {"boxes": boxes, "labels": labels}


def coco_reference(found: Detections, truth: dict[str, Tensor]) -> dict[str, float]:
    """COCO's definition in loops: 101 recalls, ten overlaps, each class that is there."""
    there = [c for c in truth["labels"].unique().tolist() if c >= 0]
    thresholds = np.linspace(0.5, 0.95, 10)
    precisions, recalls = np.zeros((10, len(there))), np.zeros((10, len(there)))
    for t, threshold in enumerate(thresholds):
        for column, c in enumerate(there):
            hits = ranked_hits(found, truth, threshold, c)
            number = int((truth["labels"] == c).sum())
            recall = np.cumsum(hits) / number
            precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
            wanted = np.linspace(0, 1, 101)
            best = [max(precision[recall >= r], default=0.0) for r in wanted]
            precisions[t, column] = np.mean(best)
            recalls[t, column] = recall[-1] if len(recall) else 0.0
    means = precisions.mean(1)
    return {
        "map": float(means.mean()),
        "map_50": float(means[0]),
        "map_75": float(means[5]),
        "mar_100": float(recalls.mean()),
    }


def ranked_hits(found: Detections, truth: dict[str, Tensor], threshold: float, c: int) -> Array:
    """Whether each detection of a class is a hit, those of all images by descending score."""
    judged = []
    for i in range(len(found.scores)):
        objects = truth["boxes"][i][truth["labels"][i] == c]
        free = [True] * len(objects)
        mine = (found.labels[i] == c).nonzero().squeeze(1)
        for k in mine[found.scores[i][mine].argsort(descending=True)].tolist():
            overlaps = paired_iou(found.boxes[i, k].expand(len(objects), 4), objects).tolist()
            fitting = [(o, m) for m, o in enumerate(overlaps) if free[m] and o >= threshold]
            if fitting:
                free[max(fitting)[1]] = False
            judged.append((float(found.scores[i, k]), bool(fitting)))
    return np.array([hit for _, hit in sorted(judged, key=lambda pair: -pair[0])])


@pytest.mark.parametrize("seed", range(6))
def test_average_precision_is_cocos(seed: int) -> None:
    found, truth = guesses(seed)
    judge = metrics.Coco()
    for rows in (slice(0, 4), slice(4, 6)):  # as batches of an evaluation
        part = Detections(*(tensor[rows] for tensor in found))
        judge.update(part, {key: value[rows] for key, value in truth.items()})
    ours = {key: float(value) for key, value in judge.compute().items()}
    assert ours == pytest.approx(coco_reference(found, truth), abs=1e-6)
    assert 0.05 < ours["map"] < 0.95


@pytest.mark.parametrize("seed", range(6))
def test_matched_boxes_against_loops(seed: int) -> None:
    found, truth = guesses(seed)
    judge = metrics.Matched()
    judge.update(found, truth)
    ours = {key: float(value) for key, value in judge.compute().items()}
    overlaps, objects = [], int((truth["labels"] >= 0).sum())
    for i in range(len(found.scores)):
        free = set((truth["labels"][i] >= 0).nonzero().squeeze(1).tolist())
        for k in range(12):
            pairs = [
                (float(paired_iou(found.boxes[i, k], truth["boxes"][i, m])), m)
                for m in free
                if truth["labels"][i, m] == found.labels[i, k]
            ]
            if pairs and max(pairs)[0] >= 0.5:
                overlaps.append(max(pairs)[0])
                free.remove(max(pairs)[1])
    assert ours["recall_50"] == pytest.approx(len(overlaps) / objects)
    assert ours["matched_iou"] == pytest.approx(np.mean(overlaps), rel=FLOAT32)


def test_perfect_and_absent_detections() -> None:
    _, truth = guesses(0)
    scores = torch.where(truth["labels"] >= 0, 0.9, 0.0)
    perfect = Detections(truth["boxes"], scores, truth["labels"])
    nothing = Detections(truth["boxes"][:, :0], scores[:, :0], truth["labels"][:, :0])
    for found, wanted in ((perfect, 1.0), (nothing, 0.0)):
        coco, matched = metrics.Coco(), metrics.Matched()
        for judge in (coco, matched):
            judge.update(found, truth)
        assert {float(value) for value in coco.compute().values()} == {wanted}
        assert float(matched.compute()["recall_50"]) == wanted
    assert math.isnan(matched.compute()["matched_iou"])


def test_without_any_object_there_is_no_score() -> None:
    found, truth = guesses(0)
    empty = {**truth, "labels": torch.full_like(truth["labels"], -100)}
    for judge in (metrics.Coco(), metrics.Matched()):
        judge.update(found, empty)
        assert all(math.isnan(value) for value in judge.compute().values())
        judge.reset()
        judge.update(found, truth)
        assert not any(math.isnan(value) for value in judge.compute().values())


def test_a_model_without_numbers_is_a_divergence() -> None:
    task = prepare(compose([TASK, USUAL, *SMALL])).task
    with torch.no_grad():
        next(task.model.parameters()).fill_(math.nan)
    with pytest.raises(Diverged, match="not finite"):
        task.evaluate(task.data.val)


# Whole runs


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """In float64, so that sums in another order differ by 1e-12; the last batch is of one image."""
    words = [TASK, USUAL, "data.scenes=[17,8,8]", "trainer.epochs=2", "trainer.batch_size=8"]
    words += ["model.score_threshold=0.001"]
    one, two = on_one_and_two_devices(words, tmp_path)
    assert two["metrics"] == pytest.approx(one["metrics"], rel=1e-6)
    assert len(one["curve"]) == 2
    for mine, theirs in zip(one["curve"], two["curve"], strict=True):
        assert mine == pytest.approx(theirs, rel=1e-7)
    assert one["metrics"]["test/recall_50"] is not None
