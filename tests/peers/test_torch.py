"""Ours against torch, torchvision and torchmetrics, which are always there."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision import ops

import losses
from tests.peers.agreement import agree, images, labels

pytestmark = pytest.mark.peers

WEIGHT = torch.tensor([1.0, 2.0, 0.5, 3.0], dtype=torch.float64)
REAL = [
    ("mse", nn.MSELoss(), {}),
    ("mae", nn.L1Loss(), {}),
    ("huber", nn.HuberLoss(delta=0.7), {"delta": 0.7}),
    ("smooth_l1", nn.SmoothL1Loss(beta=0.7), {"beta": 0.7}),
]


@pytest.mark.parametrize(("name", "peer", "given"), REAL, ids=[row[0] for row in REAL])
def test_real_values(name, peer, given):
    agree(losses.build(name, **given), peer, images(40), images(41)[1:])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_with_weights_and_ignored_items(smoothing):
    target = labels(4, 30)
    target[::5] = -100
    peer = nn.CrossEntropyLoss(weight=WEIGHT, label_smoothing=smoothing)
    ours = losses.build("cross_entropy", class_weight=WEIGHT, smoothing=smoothing)
    agree(ours, peer, images(30, 4), target)


def test_negative_log_likelihood():
    agree(
        losses.build("nll", class_weight=WEIGHT),
        nn.NLLLoss(weight=WEIGHT),
        images(30, 4).log_softmax(1),
        labels(4, 30),
    )


BINARY = {
    "bce": F.binary_cross_entropy_with_logits,
    "soft_margin": lambda x, y: F.soft_margin_loss(x, 2 * y - 1),
    "multilabel_soft_margin": F.multilabel_soft_margin_loss,
}


@pytest.mark.parametrize("name", BINARY)
def test_yes_or_no(name):
    agree(losses.build(name), BINARY[name], images(30, 3), labels(2, 30, 3).double())


@pytest.mark.parametrize("power", [1, 2])
def test_multiclass_hinge(power):
    ours = losses.build("multiclass_hinge", power=power, mean_over_classes=True)
    agree(ours, nn.MultiMarginLoss(p=power), images(30, 4), labels(4, 30))


def test_divergence_from_a_distribution():
    rows = images(30, 4).flip(0).softmax(1)
    peer = nn.KLDivLoss(reduction="batchmean")
    agree(losses.kl, lambda x, y: peer(x.log_softmax(1), y), images(30, 4), rows)


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides:UserWarning")
def test_known_difference_torch_divides_a_divergence_by_classes_too():
    rows = images(30, 4).flip(0).softmax(1)
    by_torch = F.kl_div(images(30, 4).log_softmax(1), rows)
    torch.testing.assert_close(4 * by_torch, losses.kl(images(30, 4), rows))


def test_sigmoid_focal():
    logits, target = images(30, 3), labels(2, 30, 3)
    ours = losses.build("binary_focal", gamma=2.0, alpha=0.25)
    peer = ops.sigmoid_focal_loss
    agree(ours, lambda x, y: peer(x, y.to(x), reduction="mean"), logits, target)


def boxes(seed):
    generator = torch.Generator().manual_seed(seed)
    corner, side = torch.rand(2, 50, 2, generator=generator, dtype=torch.float64)
    return torch.cat([corner, corner + side + 0.1], 1)


@pytest.mark.parametrize(
    ("name", "peer"),
    [
        ("giou", ops.generalized_box_iou_loss),
        ("diou", ops.distance_box_iou_loss),
        ("ciou", ops.complete_box_iou_loss),
    ],
)
def test_boxes(name, peer):
    # torchvision adds 1e-7 to areas and distances, which are about 1 here
    theirs = lambda x, y: peer(x, y, reduction="mean")  # noqa: E731
    agree(losses.build(name), theirs, boxes(0), boxes(1), tolerance=1e-5)


def test_triplets():
    anchor, positive, negative = (images(3, 30, 5)[i] for i in range(3))
    peer = nn.TripletMarginLoss(margin=0.5, eps=0)
    ours = losses.build("triplet", margin=0.5)
    agree(ours, peer, anchor, positive, negative)


def test_cosine_embedding():
    first, second = images(2, 30, 5)
    similar = labels(2, 30)
    peer = nn.CosineEmbeddingLoss(margin=0.2)
    ours = losses.build("cosine_embedding", margin=0.2)
    agree(ours, lambda x, y, z: peer(x, y, 2 * z - 1), first, second, similar)


def test_gaussian_and_poisson_likelihoods():
    heads, target = images(30, 2), images(31)[1:]
    peer = nn.GaussianNLLLoss()
    ours = losses.build("gaussian_nll", floor=1e-15)  # ours is added to, torch's is a bound
    agree(ours, lambda x, y: peer(x[:, 0], y, x[:, 1].exp()), heads, target)
    counts = labels(6, 30).double()
    agree(losses.poisson_nll, nn.PoissonNLLLoss(), images(30), counts)
