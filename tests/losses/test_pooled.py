"""Dice over a batch against numpy loops over all its elements, and against Dice per item."""

import numpy as np
import pytest
import scipy.special as sp
import torch

import losses
from losses.conformance import check
from tests.losses.oracle import STEP, TOLERANCE


def dice_of(p, y, smooth, absent):
    """Of one class, or None where it does not count."""
    if not y.any() and absent != "smooth":
        return {"skip": None, "one": 1.0}[absent]
    both = total = 0.0
    for pi, yi in zip(p, y, strict=True):
        both, total = both + pi * yi, total + pi + yi
    return 1 - (2 * both + smooth) / (total + smooth)


def batch_dice(x, y, smooth=1.0, absent="smooth", include_background=True):
    p = sp.softmax(x, 1)
    classes = range(0 if include_background else 1, x.shape[1])
    values = [dice_of(p[:, c].ravel(), (y == c).ravel(), smooth, absent) for c in classes]
    counted = [value for value in values if value is not None]
    return np.mean(counted) if counted else 0.0


def binary_batch_dice(x, y, smooth=1.0, absent="smooth"):
    return dice_of(sp.expit(x).ravel(), y.ravel(), smooth, absent) or 0.0


REFERENCES = {"batch_dice": batch_dice, "binary_batch_dice": binary_batch_dice}
CASES = [
    *[(name, {"smooth": s}) for name in REFERENCES for s in (1.0, 0.0)],
    *[(name, {"absent": how}) for name in REFERENCES for how in ("smooth", "skip", "one")],
    ("batch_dice", {"include_background": False}),
]


def data(name, empty=False):
    """Three items of 2 by 4 elements; of 4 classes the last never occurs."""
    draw = np.random.default_rng(0)
    y = draw.integers(0, 3, (3, 2, 4)) if name == "batch_dice" else draw.integers(0, 2, (3, 2, 4))
    x = draw.normal(size=(3, 4, 2, 4) if name == "batch_dice" else (3, 2, 4), scale=2)
    return x, y * (not empty)


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize(("name", "given"), CASES)
def test_value_and_gradient_are_the_reference(name, given, empty):
    x, y = data(name, empty)
    scores = torch.tensor(x, requires_grad=True)
    value = losses.build(name, **given)(scores, torch.tensor(y))
    np.testing.assert_allclose(value.item(), REFERENCES[name](x, y, **given), rtol=1e-9)
    (gradient,) = torch.autograd.grad(value, scores)
    for place in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[place] = STEP
        ends = [REFERENCES[name](x + s, y, **given) for s in (step, -step)]
        slope = (ends[0] - ends[1]) / (2 * STEP)
        assert gradient[place].item() == pytest.approx(slope, rel=TOLERANCE, abs=TOLERANCE)


@pytest.mark.parametrize(
    ("name", "single"), [("batch_dice", "dice"), ("binary_batch_dice", "binary_dice")]
)
def test_of_one_item_it_is_dice_and_of_many_that_of_their_elements_in_one(name, single):
    x, y = (torch.tensor(part) for part in data(name))
    torch.testing.assert_close(losses.build(name)(x[:1], y[:1]), losses.build(single)(x[:1], y[:1]))
    joined = x.movedim(0, -1).unsqueeze(0), y.movedim(0, -1).unsqueeze(0)
    torch.testing.assert_close(losses.build(name)(x, y), losses.build(single)(*joined))
    assert not torch.isclose(losses.build(name)(x, y), losses.build(single)(x, y), rtol=1e-3)


def test_ignored_elements_are_left_out_and_a_batch_has_one_value():
    x, y = (torch.tensor(part) for part in data("batch_dice"))
    marked = y.clone()
    marked[:, 0] = 255
    ours = losses.batch_dice(x, marked, ignore_index=255, reduction="none")
    assert ours.shape == (1,)
    torch.testing.assert_close(ours[0], losses.batch_dice(x[:, :, 1:], y[:, 1:]))


@pytest.mark.parametrize(("name", "given"), [case for case in CASES if case[1] != {"smooth": 1.0}])
def test_other_settings_conform(name, given):
    failed = {f.property for f in check(name, **given) if f.verdict == "fail"}
    assert failed == ({"names of classes"} if "include_background" in given else set())
