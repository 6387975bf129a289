"""Losses of boundaries and centre lines against numpy and scipy; maps against loops."""

import itertools
import math

import numpy as np
import pytest
import scipy.special as sp
import torch
from scipy import ndimage

import losses
from losses.conformance import check
from tests.losses.oracle import STEP, TOLERANCE

# References take one item: scores x [C, H, W] or [H, W] and the other fields of that item.


def boundary(x, distance):
    return np.mean(np.sum(sp.softmax(x, 0) * distance, 0))


def binary_boundary(x, distance):
    return np.mean(sp.expit(x) * distance)


def hausdorff_dt(x, y, near, far, alpha=2.0):
    return np.mean((sp.expit(x) - y) ** 2 * (near**alpha + far**alpha))


def skeleton(mask, iterations):
    """Soft skeleton of the paper, with scipy's filters; beyond the rim lies the rim."""
    cross = ndimage.generate_binary_structure(mask.ndim, 1)
    line = np.zeros_like(mask)
    for _ in range(iterations + 1):
        thinner = ndimage.minimum_filter(mask, footprint=cross, mode="nearest")
        opened = ndimage.maximum_filter(thinner, size=3, mode="nearest")
        lost = np.maximum(mask - opened, 0)
        line = line + np.maximum(lost - line * lost, 0)
        mask = thinner
    return line


def cl_dice(x, y, iterations=10, smooth=1.0):
    p = sp.expit(x)
    line, line_true = skeleton(p, iterations), skeleton(y, iterations)
    precision = (np.sum(line * y) + smooth) / (np.sum(line) + smooth)
    sensitivity = (np.sum(line_true * p) + smooth) / (np.sum(line_true) + smooth)
    return 1 - 2 * precision * sensitivity / (precision + sensitivity)


REFERENCES = {
    "boundary": boundary,
    "binary_boundary": binary_boundary,
    "hausdorff_dt": hausdorff_dt,
    "cl_dice": cl_dice,
}
CASES = [
    *[(name, {}) for name in REFERENCES],
    ("hausdorff_dt", {"alpha": 0.5}),
    ("cl_dice", {"iterations": 1, "smooth": 0.1}),
    ("cl_dice", {"iterations": 3}),
]


def disks(items=4, size=12):
    """Masks [N, H, W] of a disk and a bar each, of differing sizes."""
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    radii = torch.arange(items).view(-1, 1, 1) + 1.0
    disk = (rows - 5) ** 2 + (columns - 4) ** 2 <= radii**2
    return disk | ((columns >= 9) & (columns <= 10))


def fields_of(name, seed=0):
    """Scores, and whatever else the loss takes, of four items with small maps."""
    draw, mask = np.random.default_rng(seed), disks(size=8)
    x, y = draw.normal(size=mask.shape), mask.double().numpy()
    if name == "boundary":
        return draw.normal(size=(4, 3, 8, 8)), draw.normal(size=(4, 3, 8, 8))
    others = {
        "binary_boundary": [losses.signed_distance(mask).double().numpy()],
        "hausdorff_dt": [y, *(losses.edge_distance(m).double().numpy() for m in (mask, ~mask))],
        "cl_dice": [y],
    }
    return x, *others[name]


@pytest.mark.parametrize(("name", "given"), CASES)
def test_values_and_gradients_are_the_reference(name, given):
    x, *others = fields_of(name)
    scores = torch.tensor(x, requires_grad=True)
    values = losses.build(name, reduction="none", **given)(scores, *map(torch.tensor, others))

    def referred(x):
        return np.array([REFERENCES[name](*item, **given) for item in zip(x, *others, strict=True)])

    expected = referred(x)
    np.testing.assert_allclose(values.detach().flatten(), expected, rtol=1e-9, atol=1e-12)
    (gradient,) = torch.autograd.grad(values.sum(), scores)
    for place in np.ndindex(x.shape[1:]):
        step = np.zeros_like(x)
        step[(slice(None), *place)] = STEP
        slope = (referred(x + step) - referred(x - step)) / (2 * STEP)
        ours = gradient[(slice(None), *place)]
        np.testing.assert_allclose(ours, slope, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("shape", [(3, 9), (3, 4, 5, 6), (3, 1, 7), (3,)])
def test_centre_lines_in_one_to_three_dimensions(shape):
    draw = np.random.default_rng(1)
    x, y = draw.normal(size=shape, scale=3), draw.integers(0, 2, shape)
    values = losses.cl_dice(torch.tensor(x), torch.tensor(y), iterations=2, reduction="none")
    expected = [cl_dice(a, b, iterations=2) for a, b in zip(x, y.astype(float), strict=True)]
    np.testing.assert_allclose(values.flatten(), expected, rtol=1e-9)


def test_a_thinner_line_in_the_right_place_keeps_its_connections():
    """Dice minds the width of a line, cl_dice that it is whole."""
    true = torch.zeros(1, 9, 30)
    true[:, 3:6] = 1
    thin, broken = torch.zeros(1, 9, 30), true.clone()
    thin[:, 4:5], broken[:, :, 12:18] = 1, 0
    cost = {
        name: [losses.build(name)(40 * (m - 0.5), true).item() for m in (thin, broken)]
        for name in ("binary_dice", "cl_dice")
    }
    assert cost["binary_dice"][0] > cost["binary_dice"][1]
    assert cost["cl_dice"][0] < cost["cl_dice"][1] / 2


def nearest(item, place, wanted):
    """Distance from a place of a map [H, W] to the nearest element that is as wanted."""
    where = np.argwhere(item == wanted)
    return min(math.dist(place, other) for other in where)


def test_distances_are_those_to_the_nearest_element_across():
    masks = disks()
    signed, edge = losses.signed_distance(masks), losses.edge_distance(masks)
    for n, row, column in itertools.product(*map(range, masks.shape)):
        item, inside = masks[n].numpy(), bool(masks[n, row, column])
        across = nearest(item, (row, column), not inside)
        assert edge[n, row, column].item() == pytest.approx(across)
        assert signed[n, row, column].item() == pytest.approx(1 - across if inside else across)


def test_distances_take_the_size_of_elements_and_masks_without_a_boundary():
    mask = torch.zeros(3, 4, 4, dtype=torch.uint8)
    mask[1], mask[2, 0] = 1, 1
    for function in (losses.signed_distance, losses.edge_distance):
        assert (function(mask)[:2] == 0).all()
        wide = function(mask, spacing=(5.0, 1.0))
        assert wide[2, 3].tolist() == [15.0] * 4
        assert wide.dtype == torch.float32


def test_the_boundary_loss_tells_where_a_mask_lies():
    """Of masks with one size, moved by more and more, the right one costs least, in order."""
    true = torch.zeros(1, 20, 20, dtype=torch.bool)
    true[:, 5:10, 5:10] = True
    distance = losses.signed_distance(true)
    moved = [40 * (true.roll(step, 2).float() - 0.5) for step in range(6)]
    costs = [losses.binary_boundary(m, distance).item() for m in moved]
    assert costs == sorted(costs)
    edge = losses.edge_distance(true)
    maps = [(m, true.float(), edge, losses.edge_distance(m > 0)) for m in moved]
    costs = [losses.hausdorff_dt(*fields).item() for fields in maps]
    assert costs == sorted(costs)
    assert costs[0] == pytest.approx(0, abs=1e-12)


def test_border_weights_are_the_papers_formula_between_cells():
    cells = torch.zeros(1, 10, 14, dtype=torch.int64)
    cells[0, 2:6, 1:5], cells[0, 1:8, 7:9], cells[0, 9, 12:] = 1, 7, 3
    weights = losses.border_weight(cells, strength=4.0, width=2.0)[0]
    for place in np.ndindex(10, 14):
        expected = 1.0
        if cells[0][place] == 0:
            ranked = sorted(nearest(cells[0].numpy(), place, number) for number in (1, 3, 7))
            expected += 4 * math.exp(-((ranked[0] + ranked[1]) ** 2) / 8)
        assert weights[place].item() == pytest.approx(expected)
    assert (losses.border_weight((cells == 1).long()) == 1).all()


@pytest.mark.parametrize(("name", "given"), [case for case in CASES if case[1]])
def test_other_settings_conform(name, given):
    assert [f for f in check(name, **given) if f.verdict == "fail"] == []


def test_fields_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"binary_boundary needs logits .*; got logits"):
        losses.binary_boundary(torch.zeros(2, 3), torch.zeros(2, 4))
    fields = [torch.zeros(2, 3)] * 3
    with pytest.raises(ValueError, match="hausdorff_dt needs target_distance >= 0"):
        losses.hausdorff_dt(*fields[:2], torch.full((2, 3), -1.0), fields[2])
