"""Box losses against numpy, box by box, and against torchvision where boxes have an area."""

import math

import numpy as np
import pytest
import torch
import torchvision.ops as ops

import losses
from losses.conformance import check, examine
from losses.core import Loss
from tests.losses.oracle import TOLERANCE, slopes


def overlap(box, true):
    """Intersection over union, by the sides; two boxes without area count as alike."""
    inner = area(*np.maximum(box[:2], true[:2]), *np.minimum(box[2:], true[2:]))
    union = area(*box) + area(*true) - inner
    return inner / union if union > 0 else 1.0


def area(x1, y1, x2, y2):
    return max(x2 - x1, 0) * max(y2 - y1, 0)


def hull(box, true):
    """Sides of the hull of all eight corners."""
    corners = np.concatenate([box, true]).reshape(4, 2)
    return corners.max(0) - corners.min(0)


def centre_term(box, true):
    between = (box[:2] + box[2:]) / 2 - (true[:2] + true[2:]) / 2
    across = hull(box, true)
    return (between @ between) / (across @ across) if across.any() else 0.0


def iou(box, true):
    return 1 - overlap(box, true)


def unitbox(box, true, floor=1e-6):
    return -math.log(max(overlap(box, true), floor))


def alpha_iou(box, true, alpha=3.0):
    return 1 - overlap(box, true) ** alpha


def giou(box, true):
    whole = np.prod(hull(box, true))
    union = area(*box) + area(*true)
    union -= area(*np.maximum(box[:2], true[:2]), *np.minimum(box[2:], true[2:]))
    return iou(box, true) + ((whole - union) / whole if whole > 0 else 0.0)


def diou(box, true):
    return iou(box, true) + centre_term(box, true)


def shape_term(box, true):
    sides = [np.maximum(b[2:] - b[:2], 0) for b in (box, true)]
    if not all(side.any() for side in sides):
        return 0.0
    ours, theirs = (math.atan2(*side) for side in sides)
    return 4 / math.pi**2 * (ours - theirs) ** 2


def ciou_alpha(box, true):
    v = shape_term(box, true)
    return v / (iou(box, true) + v) if v > 0 else 0.0


def ciou(box, true):
    return diou(box, true) + ciou_alpha(box, true) * shape_term(box, true)


def eiou(box, true):
    longer = (box[2:] - box[:2]) - (true[2:] - true[:2])
    across = hull(box, true)
    terms = [(d / a) ** 2 for d, a in zip(longer, across, strict=True) if a > 0]
    return diou(box, true) + sum(terms)


def siou(box, true, theta=4.0):
    """By the paper's arcsine; a side or a distance of 0 has no share in the costs."""
    between = (box[:2] + box[2:]) / 2 - (true[:2] + true[2:]) / 2
    apart = np.hypot(*between)
    angle = math.asin(abs(between[1]) / apart) if apart > 0 else 0.0
    gamma = 2 - (1 - 2 * math.sin(angle - math.pi / 4) ** 2)
    costs = []
    for axis, across in enumerate(hull(box, true)):
        side, side_true = box[axis + 2] - box[axis], true[axis + 2] - true[axis]
        longest = max(side, side_true)
        omega = abs(side - side_true) / longest if longest > 0 else 0.0
        rho = (between[axis] / across) ** 2 if across > 0 else 0.0
        costs += [1 - math.exp(-gamma * rho), (1 - math.exp(-omega)) ** theta]
    return iou(box, true) + sum(costs) / 2


def each(function):
    return lambda boxes, target, **given: np.array(
        [function(box, true, **given) for box, true in zip(boxes, target, strict=True)]
    )


REFERENCES = {
    "iou": each(iou),
    "unitbox": each(unitbox),
    "alpha_iou": each(alpha_iou),
    "giou": each(giou),
    "diou": each(diou),
    "ciou": each(ciou),
    "eiou": each(eiou),
    "siou": each(siou),
}
CASES = [
    *[(name, {}) for name in REFERENCES],
    ("unitbox", {"floor": 0.3}),
    ("alpha_iou", {"alpha": 1.0}),
    ("alpha_iou", {"alpha": 2.5}),
    ("siou", {"theta": 2.0}),
]
TORCHVISION = {
    "giou": ops.generalized_box_iou_loss,
    "diou": ops.distance_box_iou_loss,
    "ciou": ops.complete_box_iou_loss,
}


def draw(seed, items=60):
    """Boxes that overlap, lie within each other or apart, as arrays [N, 4]."""
    numbers = np.random.default_rng(seed)
    low, sides = numbers.normal(size=(2, items, 2), scale=2), numbers.gamma(2, size=(2, items, 2))
    return np.concatenate([low, low + sides], 2)


def inverted(seed):
    """The same with a third of the boxes inverted in x, a third in both."""
    boxes, target = draw(seed)
    boxes[::3] = boxes[::3][:, [2, 1, 0, 3]]
    boxes[1::3] = boxes[1::3][:, [2, 3, 0, 1]]
    return boxes, target


@pytest.mark.parametrize("made", [draw, inverted])
@pytest.mark.parametrize(("name", "given"), CASES)
def test_values_and_gradients_are_the_reference(name, given, made):
    boxes, target = made(1)
    x = torch.tensor(boxes, requires_grad=True)
    values = losses.build(name, reduction="none", **given)(x, torch.tensor(target))
    expected = REFERENCES[name](boxes, target, **given)
    np.testing.assert_allclose(values.detach().numpy(), expected, rtol=1e-9, atol=1e-12)
    (gradient,) = torch.autograd.grad(values.sum(), x)
    reference = REFERENCES[name]
    if name == "ciou":  # its factor is a constant
        factors = each(ciou_alpha)(boxes, target)
        parts = each(diou), each(shape_term)
        reference = lambda b, t: parts[0](b, t) + factors * parts[1](b, t)  # noqa: E731
    slope = slopes(reference, boxes, target, **given)
    np.testing.assert_allclose(gradient.numpy(), slope, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("name", TORCHVISION)
def test_boxes_with_an_area_cost_what_torchvision_says(name):
    boxes, target = (torch.tensor(b) for b in draw(2))
    grads = []
    for function in (losses.build(name, reduction="none"), TORCHVISION[name]):
        x = boxes.clone().requires_grad_()
        values = function(x, target)
        grads.append((values.detach(), torch.autograd.grad(values.sum(), x)[0]))
    # torchvision adds 1e-7 to every denominator, the least of which is about 0.1 here.
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_relations_between_box_losses():
    boxes, target = (torch.tensor(b) for b in draw(3))
    one = losses.iou(boxes, target, reduction="none")
    torch.testing.assert_close(losses.alpha_iou(boxes, target, alpha=1.0, reduction="none"), one)
    metric = ops.box_iou(boxes, target).diagonal()
    torch.testing.assert_close(one, 1 - metric)
    near = metric > 1e-6
    torch.testing.assert_close(
        losses.unitbox(boxes, target, reduction="none")[near], -metric[near].log()
    )
    like = torch.cat([boxes[:, :2], boxes[:, :2] + target[:, 2:] - target[:, :2]], 1)
    for name in ("ciou", "eiou"):  # of boxes with equal sides only the distance is left
        torch.testing.assert_close(losses.build(name)(like, target), losses.diou(like, target))


def test_siou_of_equal_boxes_costs_most_along_an_axis():
    """A square of side 4, moved by 1 along an axis or along both."""
    square = torch.tensor([[0.0, 0.0, 4.0, 4.0]]).double()
    for move, gamma in (([1.0, 0.0], 2), ([0.0, -1.0], 2), ([1.0, 1.0], 1), ([-1.0, 1.0], 1)):
        moved = square + torch.tensor(move * 2)
        rho = torch.tensor(move).double().square() / 25  # the hull is 5 long where it moved
        expected = losses.iou(moved, square) + (1 - torch.exp(-gamma * rho)).sum() / 2
        torch.testing.assert_close(losses.siou(moved, square), expected)


@pytest.mark.parametrize("name", REFERENCES)
def test_units_and_places_do_not_matter(name):
    boxes, target = (torch.tensor(b) for b in draw(4))
    module = losses.build(name)
    torch.testing.assert_close(module(100 * boxes + 7, 100 * target + 7), module(boxes, target))


@pytest.mark.parametrize("name", REFERENCES)
def test_degenerate_boxes(name):
    """Identical boxes cost 0, points and lines included; values and gradients are finite."""
    module = losses.build(name, reduction="none")
    rows = torch.tensor([[0, 0, 0, 0], [3, 1, 3, 5], [1, 2, 4, 2], [0, 0, 2, 1]]).double()
    assert module(rows, rows).tolist() == [0, 0, 0, 0]
    boxes, target = rows.repeat(4, 1).requires_grad_(), rows.repeat_interleave(4, 0)
    values = module(boxes, target)
    expected = REFERENCES[name](boxes.detach().numpy(), target.numpy())
    np.testing.assert_allclose(values.detach().numpy(), expected, rtol=1e-9, atol=1e-12)
    values.sum().backward()
    assert boxes.grad.isfinite().all()


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("scale", [1e-25, 1e-12, 1e9])
def test_tiny_and_huge_boxes_have_finite_gradients_in_float32(name, scale):
    boxes, target = (scale * torch.tensor(b).float() for b in draw(5))
    boxes.requires_grad_()
    value = losses.build(name)(boxes, target)
    value.backward()
    assert value.isfinite()
    assert boxes.grad.isfinite().all()


@pytest.mark.parametrize("name", ["giou", "diou", "ciou", "eiou", "siou"])
def test_steps_along_the_gradient_bring_boxes_that_lie_apart_together(name):
    """They overlap in the end; how much differs, for GIoU first grows the box and is slow."""
    """They overlap in the end; how much differs, for GIoU first grows the box and is slow."""
    boxes = torch.tensor([[6.0, 5.0, 8.0, 6.0], [-9.0, 0.0, -8.0, 1.0]], requires_grad=True)
    target = torch.tensor([[0.0, 0.0, 2.0, 2.0]]).expand(2, 4)
    module, optimiser = losses.build(name, reduction="sum"), torch.optim.Adam([boxes], lr=0.05)
    for _ in range(400):
        optimiser.zero_grad()
        module(boxes, target).backward()
        optimiser.step()
    assert (losses.iou(boxes, target, reduction="none") < 1).all()


@pytest.mark.parametrize(("name", "given"), [case for case in CASES if case[1]])
def test_other_settings_conform(name, given):
    assert [f for f in check(name, **given) if f.verdict == "fail"] == []


def test_tiny_overlaps_keep_their_digits():
    """Of unit squares whose corners float32 holds: shares of 5e-3 to 5e-6."""
    corner = 1 - torch.logspace(-1, -2.5, 5)
    sides = 1 - corner.double()
    boxes = torch.zeros(5, 4)
    boxes[:, 2:] = 1
    true = torch.cat([corner[:, None].repeat(1, 2), corner[:, None].repeat(1, 2) + 1], 1)
    expected = -(sides.square() / (2 - sides.square())).log()
    values = losses.unitbox(boxes, true, reduction="none").double()
    torch.testing.assert_close(values, expected, rtol=1e-6, atol=0)  # some roundings
    by_hand = losses.get("unitbox").derivative(boxes, true)[0].double()
    torch.testing.assert_close(by_hand, expected, rtol=1e-6, atol=0)


def test_a_floor_above_a_half_is_a_floor():
    """Overlaps of 1, .9, .8, ..., .1 with a floor of .7."""
    wide = torch.arange(10, 0, -1, dtype=torch.float64) / 10
    boxes = torch.stack([0 * wide, 0 * wide, wide, 0 * wide + 1], 1).requires_grad_()
    true = torch.tensor([0.0, 0, 1, 1], dtype=torch.float64).expand(10, 4)
    values = losses.unitbox(boxes, true, floor=0.7, reduction="none")
    torch.testing.assert_close(values, -wide.clamp(min=0.7).log())
    by_hand, slope = losses.get("unitbox").derivative(boxes.detach(), true, floor=0.7)
    torch.testing.assert_close(by_hand, values.detach())
    assert not slope[wide < 0.69].any()


def test_shapes_that_are_no_boxes_are_refused():
    for shape in ((4,), (3, 5), (2, 3, 4)):
        with pytest.raises(ValueError, match=r"giou needs boxes \[N, 4\] on both sides; got"):
            losses.giou(torch.zeros(shape), torch.zeros(shape))


def naive(boxes, target):
    """One minus intersection over union, unguarded."""
    low = torch.maximum(boxes[:, :2], target[:, :2])
    high = torch.minimum(boxes[:, 2:], target[:, 2:])
    inner = (high - low).clamp(min=0).prod(1)
    areas = [(b[:, 2:] - b[:, :2]).prod(1) for b in (boxes, target)]
    return 1 - inner / (areas[0] + areas[1] - inner)


@pytest.mark.parametrize(
    ("prop", "function"),
    [
        ("finite", naive),
        ("perfect prediction", lambda b, t: (b - t).square().sum(1).sqrt()),
        ("wrong and confident", naive),
        ("monotone", lambda b, t: 1 - naive(b, t)),
        ("reductions", lambda b, t: (b - t).square()),
        ("not below the minimum", lambda b, t: naive(b, t) - 1),
    ],
)
def test_a_property_catches_a_box_loss_that_lacks_it(prop, function):
    sound = examine(prop, losses.get("diou"))
    assert sound.verdict == "pass", sound.reason
    assert examine(prop, Loss("broken", function, "boxes", "nowhere", {})).verdict == "fail"


GIVEN = [
    ("iou", {}),
    ("unitbox", {}),
    ("unitbox", {"floor": 0.3}),
    ("alpha_iou", {}),
    ("alpha_iou", {"alpha": 1.0}),
    ("giou", {}),
    ("diou", {}),
    ("ciou", {}),
    ("eiou", {}),
]


@pytest.mark.parametrize(("name", "given"), GIVEN)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_derivatives_by_hand_split_ties_as_autograd_does(name, given, dtype):
    """Every pair of boxes with corners of 0, 1 and 2: apart, touching, containing, identical,
    inverted, without area, and as points."""
    boxes = torch.cartesian_prod(*4 * [torch.arange(3, dtype=dtype)])
    true = boxes.repeat(len(boxes), 1)
    boxes = boxes.repeat_interleave(len(boxes), 0).requires_grad_()
    entry = losses.get(name)
    plain = entry.plain(boxes, true, None, given).values
    (expected,) = torch.autograd.grad(plain.sum(), boxes)
    values, slope = entry.derivative(boxes.detach(), true, **given)
    rtol = 1e-12 if dtype == torch.float64 else 1e-5  # some ten roundings
    torch.testing.assert_close(values, plain.detach(), rtol=rtol, atol=rtol)
    torch.testing.assert_close(slope, expected, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("name", [name for name, given in GIVEN if not given])
def test_derivatives_by_hand_keep_their_digits_in_float32(name):
    """Boxes of a millionth to a million, near and far; float32 against float64 on the same boxes.

    Seed 5. What is subtracted first are corners, exact to a few roundings of the larger one: with
    sides no shorter than a tenth of their distance from 0 that is some 1e-6 of a side.
    """
    drawn = torch.Generator().manual_seed(5)
    scale = 10.0 ** (torch.rand(2000, 1, generator=drawn) * 12 - 6)
    low, low_true = (scale * torch.randn(2, 2000, 2, generator=drawn)).unbind()
    high, high_true = (
        start + scale * (0.5 + torch.rand(2000, 2, generator=drawn)) for start in (low, low_true)
    )
    boxes, true = torch.cat([low, high], 1), torch.cat([low_true, high_true], 1)
    derivative = losses.get(name).derivative
    single, double = (derivative(b, t) for b, t in ((boxes, true), (boxes.double(), true.double())))
    torch.testing.assert_close(single[0].double(), double[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(single[1].double() * scale, double[1] * scale, rtol=1e-4, atol=1e-4)
