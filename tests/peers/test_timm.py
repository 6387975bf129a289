"""Ours against timm."""

import pytest
import torch

import losses
from tests.peers.agreement import agree, images, labels, library, sloped

timm = library("timm.loss")
pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

LOGITS, TARGET = images(30, 4), labels(4, 30)


def test_label_smoothing():
    ours = losses.build("cross_entropy", smoothing=0.1)
    agree(ours, timm.LabelSmoothingCrossEntropy(0.1), LOGITS, TARGET)


def test_soft_targets():
    rows = LOGITS.flip(0).softmax(1)
    agree(losses.build("cross_entropy"), timm.SoftTargetCrossEntropy(), LOGITS, rows)


def test_asymmetric():  # timm computes in float32
    several = labels(2, 30, 4)
    ours = losses.build("asymmetric", positive_gamma=1.0)
    other = timm.AsymmetricLossMultiLabel(gamma_neg=4, gamma_pos=1, clip=0.05)
    agree(ours, lambda x, y: other(x, y.to(x)), LOGITS, several, tolerance=1e-6)


def test_known_difference_timm_cuts_the_gradient_of_sure_mistakes():
    logits = torch.tensor([[-50.0]])
    other = timm.AsymmetricLossMultiLabel(gamma_neg=4, gamma_pos=0, clip=0.05)
    _, cut = sloped(other, logits, torch.ones(1, 1))
    _, whole = sloped(losses.asymmetric, logits, torch.ones(1, 1))
    assert abs(float(cut)) < 1e-6
    torch.testing.assert_close(whole, torch.tensor([[-1.0]]))


def test_poly():
    ours = losses.build("poly1", epsilon=2.0)
    agree(ours, timm.PolyCrossEntropy(epsilon=2.0), LOGITS, TARGET, tolerance=1e-6)


def test_binary_cross_entropy():
    several = labels(2, 30, 4)
    other = timm.BinaryCrossEntropy(smoothing=0.0)
    agree(losses.build("bce"), lambda x, y: other(x, y.to(x)), LOGITS, several)


def test_jensen_shannon():
    """Timm's divergence of three views from their mean; ours is between two distributions."""
    first, second = images(2, 30, 4)
    mean = (first.softmax(1) + second.softmax(1)) / 2
    ours = losses.jensen_shannon(first, second.softmax(1))
    parts = [losses.kl(mean.log(), view.softmax(1)) for view in (first, second)]
    torch.testing.assert_close(ours, sum(parts) / 2)
    other = timm.JsdCrossEntropy(num_splits=2, alpha=2, smoothing=0.0)
    both = torch.cat([first, second])
    target = labels(4, 30).repeat(2)
    divergence = other(both, target) - losses.cross_entropy(first, target[:30])
    torch.testing.assert_close(divergence, 2 * ours)
