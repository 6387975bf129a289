"""Losses of regions against numpy, element by element, and against what they are known to equal."""

import itertools
import math

import numpy as np
import pytest
import scipy.special as sp
import sklearn.metrics
import torch
from torch.nn import functional as F

import losses
from losses.arguments import parameters_of
from losses.conformance import check, examine
from losses.core import Loss, Parts
from losses.regions import class_sums
from tests.losses.oracle import STEP, TOLERANCE

CLASSES, ELEMENTS = 3, 8

# A reference takes one item: probabilities p and targets y of the elements that count, as arrays
# [L] for masks and [C, L] and labels [L] for classes. It gives a value per class, None for one that
# does not count.


def tversky_of(p, y, a, b, smooth, absent, power=1):
    if not len(y):
        return None
    if not y.any() and absent != "smooth":
        return {"skip": None, "one": 1.0}[absent]
    tp = fp = fn = 0.0
    for pi, yi in zip(p, y, strict=True):
        tp, fp, fn = tp + pi * yi, fp + pi * (1 - yi), fn + (1 - pi) * yi
    return (1 - (tp + smooth) / (tp + a * fp + b * fn + smooth)) ** power


def dice_of(p, y, smooth=1.0, absent="smooth", denominator="linear"):
    if denominator == "linear" or not y.any():
        if denominator == "squared" and absent == "smooth" and len(y):
            return 1 - smooth / (sum(p**2) + smooth)
        return tversky_of(p, y, 0.5, 0.5, smooth / 2, absent)
    return 1 - (2 * sum(p * y) + smooth) / (sum(p**2) + sum(y**2) + smooth)


def binary_tversky(p, y, fp_weight=0.3, fn_weight=0.7, smooth=1.0, absent="smooth"):
    return tversky_of(p, y, fp_weight, fn_weight, smooth, absent)


def binary_jaccard(p, y, smooth=1.0, absent="smooth"):
    if not len(y) or (not y.any() and absent != "smooth"):
        return tversky_of(p, y, 1, 1, smooth, absent)
    inner = sum(p * y)
    return 1 - (inner + smooth) / (sum(p) + sum(y) - inner + smooth)


def binary_focal_tversky(
    p, y, exponent=0.75, fp_weight=0.3, fn_weight=0.7, smooth=1.0, absent="smooth"
):
    return tversky_of(p, y, fp_weight, fn_weight, smooth, absent, exponent)


def log_cosh_of(p, y, **given):
    value = dice_of(p, y, **given)
    return None if value is None else math.log(math.cosh(value))


def generalised_dice(p, y, include_background=True):
    rows = [c for c in range(len(p)) if include_background or c > 0]
    sizes = [np.sum(y == c) for c in rows]
    if not any(sizes):
        return [None]
    weights = [1 / n**2 if n else 0 for n in sizes]
    weights = [w or max(weights) for w in weights]
    both = sum(w * sum(p[c][y == c]) for w, c in zip(weights, rows, strict=True))
    total = sum(w * (sum(p[c]) + n) for w, c, n in zip(weights, rows, sizes, strict=True))
    return [1 - 2 * both / total]


def part(top, bottom):
    return top / bottom if bottom else 0.0


def sensitivity_specificity(p, y, sensitivity_weight=0.5):
    if not len(y):
        return None
    missed, invented = part(sum((1 - p) * y), sum(y)), part(sum(p * (1 - y)), sum(1 - y))
    return sensitivity_weight * missed + (1 - sensitivity_weight) * invented


def squared_sensitivity_specificity(p, y, sensitivity_weight=0.5):
    if not len(y):
        return None
    error = (y - p) ** 2
    missed, invented = part(sum(y * error), sum(y)), part(sum((1 - y) * error), sum(1 - y))
    return sensitivity_weight * missed + (1 - sensitivity_weight) * invented


def balanced_bce(p, y):
    if not len(y):
        return None
    beta = 1 - sum(y) / len(y)
    return -sum(beta * y * np.log(p) + (1 - beta) * (1 - y) * np.log(1 - p))


def combo(p, y, alpha=0.5, beta=0.5, smooth=1.0):
    if not len(y):
        return None
    entropy = -np.mean(beta * y * np.log(p) + (1 - beta) * (1 - y) * np.log(1 - p))
    coefficient = (2 * sum(p * y) + smooth) / (sum(p) + sum(y) + smooth)
    return alpha * entropy - (1 - alpha) * coefficient + (1 - alpha)


def jaccard_of_mistakes(mistakes, true):
    """The Jaccard loss of hard masks as a set function: mistakes over truth and mistakes."""
    union = mistakes | true
    return len(mistakes) / len(union) if union else 0.0


def lovasz_extension(errors, true):
    """Sum of sorted errors times the growth of the set function, straight from its definition."""
    order = sorted(range(len(errors)), key=lambda i: -errors[i])
    true, value = {i for i in range(len(errors)) if true[i]}, 0.0
    for k, i in enumerate(order):
        before, after = set(order[:k]), set(order[: k + 1])
        growth = jaccard_of_mistakes(after, true) - jaccard_of_mistakes(before, true)
        value += max(errors[i], 0) * growth
    return value


def lovasz(p, y, absent="skip", include_background=True):
    values = []
    for c in range(0 if include_background else 1, len(p)):
        true = y == c
        there = len(y) and (true.any() or absent == "count")
        errors = np.where(true, 1 - p[c], p[c])
        values.append(lovasz_extension(errors, true) if there else None)
    return values


def lovasz_hinge(p, y):
    x, true = np.log(p / (1 - p)), y >= 0.5
    return lovasz_extension(1 - np.where(true, x, -x), true) if len(y) else None


def per_class(function):
    """A reference of classes from that of a mask."""

    def reference(p, y, include_background=True, **given):
        rows = range(0 if include_background else 1, len(p))
        return [function(p[c], (y == c).astype(float), **given) for c in rows]

    return reference


def alone(function):
    return lambda p, y, **given: [function(p, y, **given)]


REFERENCES = {
    "dice": per_class(dice_of),
    "binary_dice": alone(dice_of),
    "jaccard": per_class(binary_jaccard),
    "binary_jaccard": alone(binary_jaccard),
    "tversky": per_class(binary_tversky),
    "binary_tversky": alone(binary_tversky),
    "focal_tversky": per_class(binary_focal_tversky),
    "binary_focal_tversky": alone(binary_focal_tversky),
    "log_cosh_dice": per_class(log_cosh_of),
    "generalised_dice": generalised_dice,
    "sensitivity_specificity": alone(sensitivity_specificity),
    "squared_sensitivity_specificity": alone(squared_sensitivity_specificity),
    "balanced_bce": alone(balanced_bce),
    "combo": alone(combo),
    "lovasz": lovasz,
    "lovasz_hinge": alone(lovasz_hinge),
}
POLICIES = [
    {"absent": absent, "smooth": smooth}
    for absent, smooth in itertools.product(("smooth", "skip", "one"), (0.0, 0.3))
]
OVERLAPS = [n for n in REFERENCES if "absent" in losses.get(n).parameters and n != "lovasz"]
CASES = [
    *[(name, {}) for name in REFERENCES],
    *itertools.product(OVERLAPS, POLICIES),
    ("dice", {"denominator": "squared"}),
    ("binary_dice", {"denominator": "squared", "absent": "skip"}),
    ("tversky", {"fp_weight": 2.0, "fn_weight": 0.1}),
    ("focal_tversky", {"exponent": 2.0}),
    ("sensitivity_specificity", {"sensitivity_weight": 0.05}),
    ("squared_sensitivity_specificity", {"sensitivity_weight": 0.05}),
    ("combo", {"alpha": 0.8, "beta": 0.7, "smooth": 0.0}),
    ("lovasz", {"absent": "count"}),
    *[
        (name, {"include_background": False})
        for name in REFERENCES
        if "include_background" in losses.get(name).parameters
    ],
]


def draw(name, seed):
    """Scores and targets of seven items; some are all background, some have no class 2."""
    numbers = np.random.default_rng(seed)
    if losses.get(name).target == "index":
        target = numbers.integers(0, CLASSES, (7, ELEMENTS))
        target[0], target[1] = 0, target[1] % 2
        return numbers.normal(size=(7, CLASSES, ELEMENTS)), target
    target = (numbers.random((7, ELEMENTS)) < 0.4).astype(int)
    target[0], target[1] = 0, 1
    return numbers.normal(size=(7, ELEMENTS)), target


def referred(name, output, target, ignored, **given):
    """Values [N, K] and whether each counts, by the reference, one item after another."""
    classes = losses.get(name).target == "index"
    rows = []
    for x, y in zip(output, target, strict=True):
        kept = y != ignored
        p = sp.softmax(x, 0)[:, kept] if classes else sp.expit(x)[kept]
        rows.append(REFERENCES[name](p, y[kept] if classes else y[kept].astype(float), **given))
    values = [[0.0 if value is None else value for value in row] for row in rows]
    return np.array(values), np.array([[value is not None for value in row] for row in rows])


def slopes(name, output, target, ignored, **given):
    """Derivative of the sum of values by every score, by central differences."""
    slope = np.zeros_like(output)
    for place in np.ndindex(output.shape[1:]):
        moved = []
        for step in (STEP, -STEP):
            x = output.copy()
            x[(slice(None), *place)] += step
            moved.append(referred(name, x, target, ignored, **given)[0].sum(1))
        slope[(slice(None), *place)] = (moved[0] - moved[1]) / (2 * STEP)
    return slope


@pytest.mark.parametrize("share_ignored", [0.0, 0.3])
@pytest.mark.parametrize(("name", "given"), CASES)
def test_values_and_gradients_are_the_reference(name, given, share_ignored):
    output, target = draw(name, 1)
    hidden = np.random.default_rng(2).random(target.shape) < share_ignored
    hidden[2] = share_ignored > 0  # one item has nothing that counts
    target = np.where(hidden, 255, target)
    x = torch.tensor(output, requires_grad=True)
    square = x.unflatten(-1, (2, -1)), torch.tensor(target).unflatten(-1, (2, -1))
    values, counts = losses.get(name).parts(*square, ignore_index=255, **given)
    expected, counted = referred(name, output, target, 255, **given)
    np.testing.assert_allclose(values.detach().numpy(), expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(counts.numpy() > 0, counted)
    (gradient,) = torch.autograd.grad(values.sum(), x)
    slope = slopes(name, output, target, 255, **given)
    np.testing.assert_allclose(gradient.numpy(), slope, rtol=TOLERANCE, atol=TOLERANCE)


def test_soft_masks_are_the_reference():
    numbers = np.random.default_rng(3)
    x, y = numbers.normal(size=(5, 6)), numbers.random((5, 6))
    for name in REFERENCES:
        if losses.get(name).target == "binary":
            values = losses.build(name, reduction="none")(torch.tensor(x), torch.tensor(y))
            expected = [REFERENCES[name](sp.expit(a), b) for a, b in zip(x, y, strict=True)]
            np.testing.assert_allclose(values.numpy(), expected, rtol=1e-9, err_msg=name)


def regions(seed=0, items=6):
    """Logits [N, C, 5, 7] and labels, and logits and a mask [N, 5, 7]."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(items, CLASSES, 5, 7, generator=g, dtype=torch.float64)
    m = torch.randn(items, 5, 7, generator=g, dtype=torch.float64)
    y = torch.randint(CLASSES, (items, 5, 7), generator=g)
    return x, y, m, y == 1


def agree(first, second):
    torch.testing.assert_close(first, second, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("smooth", [0.0, 1.0, 20.0])
def test_tversky_at_its_special_weights(smooth):
    x, y, m, mask = regions()
    for prefix, output, target in (("", x, y), ("binary_", m, mask)):
        build = lambda name, **given: losses.build(f"{prefix}{name}", **given)(output, target)  # noqa: B023, E731
        half = {"fp_weight": 0.5, "fn_weight": 0.5, "smooth": smooth / 2}
        whole = {"fp_weight": 1.0, "fn_weight": 1.0, "smooth": smooth}
        agree(build("tversky", **half), build("dice", smooth=smooth))
        agree(build("tversky", **whole), build("jaccard", smooth=smooth))
        agree(build("focal_tversky", exponent=1.0, **whole), build("tversky", **whole))


def test_jaccard_and_log_cosh_are_functions_of_dice():
    x, y, *_ = regions()
    dice = losses.dice(x, y, smooth=2.0, reduction="none")
    agree(losses.jaccard(x, y, smooth=1.0, reduction="none"), 2 * dice / (1 + dice))
    agree(losses.log_cosh_dice(x, y, smooth=2.0, reduction="none"), dice.cosh().log())


def test_two_classes_are_a_mask_and_its_background():
    *_, m, mask = regions()
    pair = torch.stack([torch.zeros_like(m), m], 1)
    for name in ("dice", "jaccard", "tversky", "focal_tversky"):
        classes = losses.build(name, include_background=False)(pair, mask.long())
        agree(classes, losses.build(f"binary_{name}")(m, mask))


def test_sure_predictions_cost_what_scikit_learn_scores():
    x, y, m, mask = regions()
    labels, found = x.argmax(1), m > 0
    sure = 100 * F.one_hot(labels, CLASSES).movedim(-1, 1).double()
    plain = {"smooth": 0.0, "reduction": "none"}
    for name, score in (("dice", "f1_score"), ("jaccard", "jaccard_score")):
        metric = getattr(sklearn.metrics, score)
        rows = zip(y.flatten(1), labels.flatten(1), strict=True)
        expected = [1 - metric(true, guess, average=None) for true, guess in rows]
        function = getattr(losses, name)
        np.testing.assert_allclose(function(sure, y, **plain), expected, atol=1e-12)
        rows = zip(mask.flatten(1), found.flatten(1), strict=True)
        function = getattr(losses, f"binary_{name}")
        masks = function(200 * (found.double() - 0.5), mask, **plain).squeeze(1)
        np.testing.assert_allclose(masks, [1 - metric(*row) for row in rows], atol=1e-12)
    hard = losses.lovasz(sure, y, reduction="none")
    agree(hard, losses.jaccard(sure, y, **plain))


def test_lovasz_bounds_the_jaccard_loss_of_its_signs():
    *_, m, mask = regions()
    signs = losses.binary_jaccard(200.0 * (m > 0) - 100, mask, smooth=0.0, reduction="none")
    assert (losses.lovasz_hinge(m, mask, reduction="none") >= signs - 1e-12).all()


def test_balanced_and_combined_cross_entropies():
    *_, m, mask = regions()
    half = torch.arange(35).view(1, 5, 7).expand(4, 5, 7) % 2 == 0
    even, logits = half.flatten(1)[:, :34], m[:4].flatten(1)[:, :34]  # 17 of 34
    agree(losses.balanced_bce(logits, even), losses.bce(logits, even) / 2)
    agree(losses.combo(m, mask, alpha=1.0), losses.bce(m, mask) / 2)
    agree(losses.combo(m, mask, alpha=0.0), losses.binary_dice(m, mask))


def test_soft_masks_have_their_optimum_at_the_target_with_squared_denominators():
    y = torch.rand(4, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = y.logit().requires_grad_()
    value = losses.binary_dice(x, y, denominator="squared")
    (slope,) = torch.autograd.grad(value, x)
    assert value.item() == pytest.approx(0, abs=1e-15)
    assert slope.abs().max().item() == pytest.approx(0, abs=1e-15)
    assert losses.binary_dice(x, y).item() > 0.1


@pytest.mark.parametrize("name", REFERENCES)
def test_ignored_elements_are_as_if_cut_off(name):
    """A region with an ignored margin costs what it costs without the margin."""
    x, y, m, mask = regions()
    output, target = (x, y) if losses.get(name).target == "index" else (m, mask.long())
    marked = target.clone()
    marked[..., 5:] = -100
    marked[:, 4:] = -100
    whole = losses.build(name, reduction="none")(output, marked)
    agree(whole, losses.build(name, reduction="none")(output[..., :4, :5], target[..., :4, :5]))


@pytest.mark.parametrize("name", REFERENCES)
def test_the_order_of_elements_does_not_matter(name):
    x, y, m, mask = regions()
    output, target = (x, y) if losses.get(name).target == "index" else (m, mask.long())
    module = losses.build(name, reduction="none")
    agree(module(output.flip(-1).mT, target.flip(-1).mT), module(output, target))


def test_false_positives_on_empty_images_are_unlearned():
    """Under the default policy gradient descent empties what was predicted of an empty mask."""
    for name in ("binary_dice", "binary_jaccard", "binary_tversky", "binary_focal_tversky"):
        x, mask = torch.zeros(1, 4, 4, requires_grad=True), torch.zeros(1, 4, 4)
        optimiser = torch.optim.SGD([x], lr=10.0)
        before = losses.build(name)(x, mask).item()
        for _ in range(50):
            optimiser.zero_grad()
            losses.build(name)(x, mask).backward()
            optimiser.step()
        assert losses.build(name)(x, mask).item() < before / 3, name
        skipped = losses.build(name, absent="skip").fraction(x, mask)
        assert [part.item() for part in skipped] == [0, 0]
        assert losses.build(name, absent="one")(x, mask).item() == 1


def test_nothing_predicted_of_nothing_costs_nothing_and_is_finite():
    """Probabilities that underflow to 0 leave 0 / 0 without smoothing."""
    x = torch.full((1, 6), -1e4, requires_grad=True)
    for name in (n for n in OVERLAPS if losses.get(n).target == "binary"):
        value = losses.build(name, smooth=0.0)(x, torch.zeros(1, 6))
        (slope,) = torch.autograd.grad(value, x)
        assert value.item() == 0
        assert (slope == 0).all()


def test_sums_of_many_elements_keep_their_digits_in_float32():
    """Adding 2^20 numbers in float32 one after the other is off by about 1e-2; in runs of 128 by
    128 roundings of 6e-8 at most."""
    x = torch.tensor([0.3, -0.2, 0.1]).view(1, 3, 1).expand(1, 3, 2**20)
    y = torch.zeros(1, 2**20, dtype=torch.long)
    single, double = (class_sums(scores, y, None) for scores in (x, x.double()))
    for ours, theirs in zip(single, double, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=0)


def test_a_lone_element_is_a_region():
    x, y = torch.tensor([[2.0, -1.0, 0.0]]), torch.tensor([0])
    agree(losses.dice(x, y), losses.dice(x[..., None], y[..., None]))
    agree(losses.binary_dice(x[0], y.expand(3)), losses.binary_dice(x[0, :, None], y.expand(3, 1)))


@pytest.mark.parametrize(
    ("name", "given", "lost"),
    [
        ("dice", {"denominator": "squared", "smooth": 0.0}, set()),
        ("dice", {"include_background": False}, {"names of classes"}),
        ("jaccard", {"absent": "skip"}, set()),
        ("tversky", {"absent": "one"}, {"perfect prediction"}),
        ("focal_tversky", {"exponent": 0.1, "smooth": 0.0}, set()),
        ("binary_focal_tversky", {"exponent": 3.0}, set()),
        ("generalised_dice", {"include_background": False}, {"names of classes"}),
        ("lovasz", {"absent": "count"}, set()),
        ("combo", {"alpha": 0.9, "beta": 0.1}, set()),
        ("sensitivity_specificity", {"sensitivity_weight": 0.05}, set()),
    ],
)
def test_other_settings_conform(name, given, lost):
    assert {f.property for f in check(name, **given) if f.verdict == "fail"} == lost


@pytest.mark.parametrize("name", REFERENCES)
def test_regions_without_elements_cost_nothing(name):
    shape = (2, CLASSES, 0) if losses.get(name).target == "index" else (2, 0)
    x = torch.zeros(shape, requires_grad=True)
    value = losses.build(name)(x, torch.zeros(2, 0, dtype=torch.long))
    value.backward()
    assert value.item() == 0


@pytest.mark.parametrize("name", ["binary_dice", "lovasz_hinge", "unified_focal"])
def test_a_lone_number_is_no_mask(name):
    with pytest.raises(ValueError, match=rf"{name} needs output and target \[N, ...\]; got output"):
        losses.build(name)(torch.tensor(0.5), torch.tensor(1))


def region(function, **facts):
    """A loss of masks that would be sound but for what it is made to do."""
    names = {k: v for k, v in parameters_of(function).items() if k != "kept"}
    return Loss("broken", function, "binary", "nowhere", names, region=True, **facts)


def shares(x, y, kept, weight=1.0):
    """Share of a mask that is missed [N, 1]."""
    rows = torch.ones_like(y) if kept is None else kept.to(y)
    missed = ((1 - x.sigmoid()) * y * rows * weight).flatten(1).sum(1, keepdim=True)
    counts = (rows.flatten(1).sum(1, keepdim=True) > 0).to(x)
    return Parts(missed / (y * rows).flatten(1).sum(1, keepdim=True).clamp(min=1), counts)


def halving(x, y, *, kept):
    """Sums in half precision unless scores are in double."""
    low = torch.float16 if x.dtype == torch.float32 else x.dtype
    missed = ((1 - x.sigmoid()) * y).to(low).flatten(1).sum(1, keepdim=True).to(x)
    return Parts(missed / y.flatten(1).sum(1, keepdim=True), torch.ones_like(missed))


@pytest.mark.parametrize(
    ("prop", "function"),
    [
        ("ignored items are absent", lambda x, y, *, kept: shares(x, y, None)),
        ("all ignored", lambda x, y, *, kept: shares(x, y, None)),
        ("large sums", halving),
        ("reductions", lambda x, y, *, kept: Parts(shares(x, y, kept)[0].sum(0), torch.ones(1))),
        ("additive", lambda x, y, *, kept: shares(x, y, kept, len(x))),
    ],
)
def test_a_property_catches_a_region_loss_that_lacks_it(prop, function):
    sound = examine(prop, region(lambda x, y, *, kept: shares(x, y, kept)))
    assert sound.verdict == "pass", sound.reason
    assert examine(prop, region(function)).verdict == "fail"
