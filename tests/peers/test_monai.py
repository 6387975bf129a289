"""Ours against MONAI."""

import pytest
import torch

import losses
from tests.peers.agreement import agree, images, labels, library

monai = library("monai.losses")
pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

LOGITS, TARGET = images(3, 4, 6, 5), labels(4, 3, 6, 5)
MASKS = labels(2, 3, 6, 5)
SMOOTH = 1e-5  # MONAI's default in numerator and denominator
OVERLAPS = {
    "dice": (monai.DiceLoss, {"smooth": SMOOTH}, {}),
    "squared dice": (
        monai.DiceLoss,
        {"smooth": SMOOTH, "denominator": "squared"},
        {"squared_pred": True},
    ),
    "jaccard": (monai.DiceLoss, {"smooth": SMOOTH / 2}, {"jaccard": True}),
    "tversky": (
        monai.TverskyLoss,
        {"smooth": SMOOTH, "fp_weight": 0.3, "fn_weight": 0.7},
        {"alpha": 0.3, "beta": 0.7},
    ),
}
PRECISION = dict.fromkeys(OVERLAPS, 1e-09) | {"squared dice": 1e-6}  # its one-hot is float32


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("name", OVERLAPS)
def test_overlap_of_classes(name, background):
    peer, ours, theirs = OVERLAPS[name]
    other = peer(softmax=True, to_onehot_y=True, include_background=background, **theirs)
    mine = losses.build(name.split()[-1], include_background=background, **ours)
    agree(mine, lambda x, y: other(x, y.unsqueeze(1)), LOGITS, TARGET, tolerance=PRECISION[name])


@pytest.mark.parametrize("name", OVERLAPS)
def test_overlap_of_a_mask(name):
    peer, ours, theirs = OVERLAPS[name]
    other = peer(sigmoid=True, **theirs)
    mine = losses.build(f"binary_{name.split()[-1]}", **ours)
    logits, masks = LOGITS[:, 0], MASKS.double()
    agree(mine, lambda x, y: other(x.unsqueeze(1), y.unsqueeze(1)), logits, masks)


def test_dice_and_cross_entropy():
    other = monai.DiceCELoss(softmax=True, to_onehot_y=True, lambda_ce=0.5)
    agree(
        lambda x, y: losses.dice(x, y, smooth=SMOOTH) + 0.5 * losses.cross_entropy(x, y),
        lambda x, y: other(x, y.unsqueeze(1)),
        LOGITS,
        TARGET,
    )


def test_focal():  # MONAI computes in float32
    other = monai.FocalLoss(use_softmax=True, to_onehot_y=True, reduction="none")
    agree(
        losses.build("focal"),
        lambda x, y: other(x, y.unsqueeze(1)).sum(1).mean(),
        LOGITS,
        TARGET,
        tolerance=1e-6,
    )


def test_known_difference_monai_means_over_classes_and_so_divides_by_them_again():
    other = monai.FocalLoss(use_softmax=True, to_onehot_y=True)
    ours = losses.focal(LOGITS, TARGET)
    theirs = other(LOGITS, TARGET.unsqueeze(1)).double()
    torch.testing.assert_close(4 * theirs, ours, rtol=1e-6, atol=0)


def test_generalised_dice():
    other = monai.GeneralizedDiceLoss(softmax=True, to_onehot_y=True, smooth_nr=0, smooth_dr=0)
    agree(losses.build("generalised_dice"), lambda x, y: other(x, y.unsqueeze(1)), LOGITS, TARGET)


def test_boxes():
    generator = torch.Generator().manual_seed(0)
    corner, side = torch.rand(2, 50, 2, generator=generator, dtype=torch.float64)
    boxes = torch.cat([corner, corner + side + 0.1], 1)
    agree(losses.giou, monai.BoxGIoULoss(), boxes, boxes.flip(0), tolerance=1e-6)


def test_known_difference_monai_sets_a_perfect_correlation_to_less_than_one():
    """It divides by N what it has scaled by a deviation over N - 1, which leaves (N - 1) / N."""
    items, features = 12, 5
    views = images(items, features)
    by_monai = monai.BarlowTwinsLoss(lambd=0.0)(views, views)
    torch.testing.assert_close(float(by_monai), features / items**2, rtol=1e-4, atol=0)
    assert losses.barlow_twins(views, views, off_diagonal=0.0) < 1e-9


def test_hausdorff_by_distance():
    other = monai.HausdorffDTLoss(sigmoid=True, include_background=True)
    logits, masks = LOGITS[:, 0], MASKS.double()
    mine, theirs = (losses.edge_distance(each).double() for each in (masks, logits > 0))
    agree(
        lambda x: losses.hausdorff_dt(x, masks, mine, theirs),
        lambda x: other(x.unsqueeze(1), masks.unsqueeze(1)),
        logits,
        tolerance=1e-6,
    )


def test_two_views():
    first, second = images(2, 12, 5)
    other = monai.ContrastiveLoss(temperature=0.5)
    agree(losses.build("nt_xent", temperature=0.5), other, first, second, tolerance=1e-6)


def test_structural_similarity():
    first, second = images(2, 2, 1, 20, 18).sigmoid()
    other = monai.SSIMLoss(spatial_dims=2)
    agree(losses.build("ssim"), other, first, second, tolerance=1e-5)
