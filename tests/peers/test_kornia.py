"""Ours against kornia."""

import pytest

import losses
from tests.peers.agreement import agree, images, labels, library

kornia = library("kornia.losses")
pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

LOGITS, TARGET = images(3, 4, 6, 5), labels(4, 3, 6, 5)
MASKS = labels(2, 3, 6, 5)


def test_dice():
    other = kornia.DiceLoss(average="macro")
    agree(losses.build("dice", smooth=0.0), other, LOGITS, TARGET, tolerance=1e-7)


def test_tversky():
    other = kornia.TverskyLoss(alpha=0.3, beta=0.7)
    ours = losses.build("tversky", fp_weight=0.3, fn_weight=0.7, smooth=0.0)
    agree(ours, other, LOGITS, TARGET, tolerance=1e-7)


def test_known_difference_kornia_leaves_absent_classes_out():
    lacking = TARGET.clamp(max=2)
    skipped = losses.build("tversky", fp_weight=0.5, fn_weight=0.5, smooth=0.0, absent="skip")
    other = kornia.TverskyLoss(alpha=0.5, beta=0.5)
    agree(skipped, other, LOGITS, lacking, tolerance=1e-7)
    counted = losses.tversky(LOGITS, lacking, fp_weight=0.5, fn_weight=0.5, smooth=0.0)
    assert counted > other(LOGITS, lacking) + 0.01


def test_focal():
    other = kornia.FocalLoss(alpha=None, gamma=2.0, reduction="none")
    agree(losses.build("focal"), lambda x, y: other(x, y).sum(1).mean(), LOGITS, TARGET)


def test_focal_of_a_mask():
    other = kornia.BinaryFocalLossWithLogits(alpha=0.25, gamma=2.0, reduction="mean")
    ours = losses.build("binary_focal", gamma=2.0, alpha=0.25)
    agree(ours, lambda x, y: other(x.unsqueeze(1), y.unsqueeze(1).to(x)), LOGITS[:, 0], MASKS)


def test_lovasz():
    agree(losses.build("lovasz"), kornia.LovaszSoftmaxLoss(), LOGITS, TARGET)


def test_lovasz_hinge():
    other = kornia.LovaszHingeLoss()
    agree(
        losses.build("lovasz_hinge"),
        lambda x, y: other(x.unsqueeze(1), y.to(x)),
        LOGITS[:, 0],
        MASKS,
    )


def test_charbonnier():
    """Kornia's has eps = 1 and 1 taken off: the pseudo-Huber loss."""
    first, second = images(2, 2, 3, 6, 5)
    other = kornia.CharbonnierLoss(reduction="mean")
    agree(losses.build("pseudo_huber"), other, first, second)
    agree(lambda x, y: losses.charbonnier(x, y, eps=1.0) - 1, other, first, second)


def test_total_variation():
    other = kornia.TotalVariation()
    agree(losses.build("total_variation"), lambda x: other(x).sum(1).mean(), images(2, 3, 6, 5))


def test_structural_similarity():
    """Kornia's is half of ours, at the borders too."""
    first, second = images(2, 2, 1, 20, 18).sigmoid()
    other = kornia.SSIMLoss(11, padding="valid")
    agree(losses.build("ssim"), lambda x, y: 2 * other(x, y), first, second, tolerance=1e-5)
