"""Ours against segmentation-models-pytorch."""

import pytest
import torch

import losses
from tests.peers.agreement import agree, images, labels, library, sloped

smp = library("segmentation_models_pytorch.losses")
pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

LOGITS, TARGET = images(3, 4, 6, 5), labels(4, 3, 6, 5)
MASKS = labels(2, 3, 6, 5)
OVERLAPS = [
    ("dice", smp.DiceLoss, {}, {}),
    ("jaccard", smp.JaccardLoss, {}, {}),
    ("tversky", smp.TverskyLoss, {"fp_weight": 0.3, "fn_weight": 0.7}, {"alpha": 0.3, "beta": 0.7}),
]


def one_image(values):
    """All images of a batch as one: smp sums over the batch, ours over each image."""
    if values.ndim == 4:
        return values.movedim(0, 1).flatten(1).unsqueeze(0)
    return values.flatten().unsqueeze(0)


@pytest.mark.parametrize(("name", "peer", "ours", "theirs"), OVERLAPS)
def test_overlap_of_classes(name, peer, ours, theirs):
    mine = losses.build(name, smooth=0.0, **ours)
    other = peer("multiclass", **theirs)
    agree(lambda x, y: mine(one_image(x), one_image(y)), other, LOGITS, TARGET)


@pytest.mark.parametrize(("name", "peer", "ours", "theirs"), OVERLAPS)
def test_overlap_of_a_mask(name, peer, ours, theirs):
    mine = losses.build(f"binary_{name}", smooth=0.0, **ours)
    other = peer("binary", **theirs)
    agree(lambda x, y: mine(one_image(x), one_image(y)), other, LOGITS[:, 0], MASKS)


def test_known_difference_smp_is_a_ratio_of_the_batch_and_not_of_an_image():
    ours = losses.dice(LOGITS, TARGET, smooth=0.0)
    assert abs(float(ours - smp.DiceLoss("multiclass")(LOGITS, TARGET))) > 1e-3
    agree(losses.build("batch_dice", smooth=0.0), smp.DiceLoss("multiclass"), LOGITS, TARGET)


def test_known_difference_smp_lets_an_empty_mask_cost_nothing():
    empty, wrong = torch.zeros(1, 6, 5), torch.full((1, 6, 5), 5.0)
    value, slope = sloped(smp.DiceLoss("binary"), wrong, empty)
    assert value == 0
    assert not slope.any()
    assert losses.binary_dice(wrong, empty) > 0.9


def test_focal_of_masks():
    ours = losses.build("binary_focal", gamma=2.0, alpha=0.25)
    other = smp.FocalLoss("binary", alpha=0.25, gamma=2.0)
    agree(ours, lambda x, y: other(x, y.double()), LOGITS[:, 0], MASKS, tolerance=1e-6)


def test_known_difference_smp_focal_of_classes_is_one_yes_or_no_per_class():
    rows = torch.nn.functional.one_hot(TARGET, 4).movedim(-1, 1)
    ours = losses.build("binary_focal", gamma=2.0)
    other = smp.FocalLoss("multiclass", gamma=2.0)
    agree(lambda x, y: ours(x, rows), other, LOGITS, TARGET, tolerance=1e-6)
    assert abs(float(losses.focal(LOGITS, TARGET) - other(LOGITS, TARGET))) > 0.1


def test_lovasz_of_classes():  # smp computes in float32 alone
    ours = losses.build("lovasz")
    other = smp.LovaszLoss("multiclass", per_image=True)
    agree(ours, other, LOGITS.float(), TARGET, tolerance=1e-5)


def test_lovasz_hinge():
    ours = losses.build("lovasz_hinge")
    other = smp.LovaszLoss("binary", per_image=True)
    agree(ours, lambda x, y: other(x, y.float()), LOGITS[:, 0].float(), MASKS, tolerance=1e-5)


def test_soft_cross_entropy():
    ours = losses.build("cross_entropy", smoothing=0.1)
    agree(ours, smp.SoftCrossEntropyLoss(smooth_factor=0.1), LOGITS, TARGET)
