"""Losses of probabilities against numpy, torch, torchvision and scikit-learn."""

import math

import numpy as np
import pytest
import scipy.special as sp
import sklearn.metrics
import torch
import torchvision
from torch.nn import functional as F

import losses
from tests.losses.oracle import WEIGHTS, assert_agrees, examples, rows

GAMMAS = [0.0, 0.5, 2.0, 3.5]


def cross_entropy(x, y, class_weight=None, smoothing=0.0):
    classes = x.shape[1]
    target = (1 - smoothing) * rows(y, classes) + smoothing / classes
    weight = np.ones(classes) if class_weight is None else np.asarray(class_weight)
    return -(weight * target * sp.log_softmax(x, 1)).sum(1)


def nll(x, y, class_weight=None):
    weight = np.ones(x.shape[1]) if class_weight is None else class_weight
    return np.array([-weight[label] * row[label] for row, label in zip(x, y, strict=True)])


def bce(x, y, pos_weight=1.0):
    return -pos_weight * y * sp.log_expit(x) - (1 - y) * sp.log_expit(-x)


def focal(x, y, gamma=2.0, class_gamma=None, class_weight=None):
    weight = np.ones(x.shape[1]) if class_weight is None else class_weight
    gammas = np.full(x.shape[1], gamma) if class_gamma is None else class_gamma
    p = sp.softmax(x, 1)
    pairs = zip(p, y, strict=True)
    return np.array([-weight[t] * (1 - row[t]) ** gammas[t] * math.log(row[t]) for row, t in pairs])


def binary_focal(x, y, gamma=2.0, alpha=None):
    positive, negative = (1, 1) if alpha is None else (alpha, 1 - alpha)
    p, q = sp.expit(x), sp.expit(-x)
    easy = negative * (1 - y) * p**gamma * sp.log_expit(-x)
    return -positive * y * q**gamma * sp.log_expit(x) - easy


def poly1(x, y, epsilon=1.0, class_weight=None):
    """The polynomial itself: cross-entropy is the sum of (1 - p)^j / j."""
    weight = np.ones(x.shape[1]) if class_weight is None else class_weight
    p = sp.softmax(x, 1)
    values = []
    for row, t in zip(p, y, strict=True):
        coefficient = 1 + epsilon  # of the first power
        values.append(weight[t] * (-math.log(row[t]) + (coefficient - 1) * (1 - row[t])))
    return np.array(values)


def asymmetric(x, y, positive_gamma=0.0, negative_gamma=4.0, margin=0.05):
    p, shifted = sp.expit(x), np.maximum(sp.expit(x) - margin, 0)
    rest = sp.expit(-x) if margin == 0 else 1 - shifted
    negative = shifted**negative_gamma * np.log(rest)
    return -(y * (1 - p) ** positive_gamma * sp.log_expit(x) + (1 - y) * negative).sum(1)


def brier(x, y):
    return (1 / (1 + np.exp(-x)) - y) ** 2


def multiclass_brier(x, y):
    return ((sp.softmax(x, 1) - rows(y, x.shape[1])) ** 2).sum(1)


def multilabel_bce(x, y, pos_weight=1.0):
    return bce(x, y, np.asarray(pos_weight)).sum(1)


def multilabel_soft_margin(x, y):
    return bce(x, y).mean(1)


REFERENCES = {
    "cross_entropy": cross_entropy,
    "nll": nll,
    "bce": bce,
    "focal": focal,
    "binary_focal": binary_focal,
    "poly1": poly1,
    "asymmetric": asymmetric,
    "brier": brier,
    "multiclass_brier": multiclass_brier,
    "multilabel_bce": multilabel_bce,
    "multilabel_soft_margin": multilabel_soft_margin,
}
CASES = [
    *[(name, {}) for name in REFERENCES],
    ("cross_entropy", {"class_weight": WEIGHTS}),
    ("cross_entropy", {"smoothing": 0.1}),
    ("cross_entropy", {"smoothing": 0.1, "class_weight": WEIGHTS}),
    ("nll", {"class_weight": WEIGHTS}),
    ("bce", {"pos_weight": 3.0}),
    ("focal", {"gamma": 0.5}),
    ("focal", {"gamma": 3.5, "class_weight": WEIGHTS}),
    ("focal", {"class_gamma": GAMMAS, "class_weight": WEIGHTS}),
    ("binary_focal", {"gamma": 0.5, "alpha": 0.25}),
    ("binary_focal", {"gamma": 1.0, "alpha": 1.0}),
    ("multilabel_bce", {"pos_weight": WEIGHTS}),
    ("poly1", {"epsilon": -1.0, "class_weight": WEIGHTS}),
    ("poly1", {"epsilon": 7.0}),
    ("asymmetric", {"margin": 0.0}),
    ("asymmetric", {"positive_gamma": 1.0, "negative_gamma": 0.5, "margin": 0.3}),
    ("asymmetric", {"positive_gamma": 0.5, "negative_gamma": 0.0}),
]


@pytest.mark.parametrize(("name", "given"), CASES)
def test_values_and_gradients_are_the_reference(name, given):
    for output, target in examples(name, seed=1):
        assert_agrees(name, REFERENCES[name], output, target, **given)


def draw(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def labels(*shape, classes=4, seed=0):
    return torch.randint(classes, shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("class_weight", [None, torch.tensor(WEIGHTS).double()])
@pytest.mark.parametrize("shape", [(9,), (3, 5, 2)])
def test_cross_entropy_is_torchs(smoothing, class_weight, shape):
    x, y = 3 * draw(shape[0], 4, *shape[1:]), labels(*shape)
    y[0] = -100
    settings = {"weight": class_weight, "label_smoothing": smoothing}
    given = {"class_weight": class_weight, "smoothing": smoothing}
    for reduction in ("mean", "sum", "none"):
        ours = losses.cross_entropy(x, y, reduction=reduction, **given)
        theirs = F.cross_entropy(x, y, reduction=reduction, **settings)
        torch.testing.assert_close(ours, theirs)
    soft = draw(*x.shape, seed=1).softmax(1)
    ours = losses.cross_entropy(x, soft, normalizer="count", **given)
    torch.testing.assert_close(ours, F.cross_entropy(x, soft, **settings))


@pytest.mark.parametrize("normalizer", ["weight", "count"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_an_index_is_its_one_hot_row(normalizer, smoothing):
    x, y = draw(6, 4, 5), labels(6, 5)
    one_hot = F.one_hot(y, 4).movedim(-1, 1).double()
    given = {"class_weight": WEIGHTS, "normalizer": normalizer, "smoothing": smoothing}
    by_index = losses.cross_entropy(x, y, **given)
    torch.testing.assert_close(by_index, losses.cross_entropy(x, one_hot, **given))


def test_nll_of_a_log_softmax_is_cross_entropy_and_torchs():
    x, y = draw(9, 4), labels(9)
    weight = torch.tensor(WEIGHTS).double()
    ours = losses.nll(x.log_softmax(1), y, class_weight=weight)
    torch.testing.assert_close(ours, losses.cross_entropy(x, y, class_weight=weight))
    torch.testing.assert_close(ours, F.nll_loss(x.log_softmax(1), y, weight))


def test_nll_refuses_logits():
    with pytest.raises(ValueError, match=r"nll needs outputs <= 0.0001, got values from .* to 2 "):
        losses.nll(torch.tensor([[2.0, -1.0]]), torch.tensor([0]))


def test_cross_entropy_is_scikit_learns_log_loss():
    x, y = draw(30, 4), labels(30)
    expected = sklearn.metrics.log_loss(y.numpy(), x.softmax(1).numpy())
    assert losses.cross_entropy(x, y).item() == pytest.approx(expected, rel=1e-12)


def test_brier_is_scikit_learns():
    x, y = draw(30), labels(30, classes=2)
    expected = sklearn.metrics.brier_score_loss(y.numpy(), x.sigmoid().numpy())
    assert losses.brier(x, y).item() == pytest.approx(expected, rel=1e-12)


def test_two_classes_cost_twice_the_binary_brier_score():
    x, y = draw(30), labels(30, classes=2)
    pair = torch.stack([torch.zeros_like(x), x], 1)
    torch.testing.assert_close(losses.multiclass_brier(pair, y), 2 * losses.brier(x, y))


def test_bce_is_torchs():
    x, y = 5 * draw(7, 3), draw(7, 3, seed=1).sigmoid()
    weight = torch.tensor(3.0, dtype=torch.float64)
    expected = F.binary_cross_entropy_with_logits(x, y, pos_weight=weight)
    torch.testing.assert_close(losses.bce(x, y, pos_weight=3.0), expected)


def test_multilabel_losses_are_torchs():
    x, y = draw(7, 4), labels(7, 4, classes=2)
    weight = torch.tensor(WEIGHTS).double()
    expected = F.binary_cross_entropy_with_logits(
        x, y.double(), pos_weight=weight, reduction="none"
    )
    torch.testing.assert_close(
        losses.multilabel_bce(x, y, pos_weight=weight), expected.sum(1).mean()
    )
    torch.testing.assert_close(
        losses.multilabel_soft_margin(x, y), F.multilabel_soft_margin_loss(x, y)
    )
    torch.testing.assert_close(4 * losses.multilabel_soft_margin(x, y), losses.multilabel_bce(x, y))


def test_multilabel_losses_need_an_axis_of_labels():
    with pytest.raises(ValueError, match=r"multilabel_bce needs output and target \[N, C, ...\]"):
        losses.multilabel_bce(torch.zeros(3), torch.zeros(3))


def test_a_partly_labelled_item_counts_once():
    x, y = draw(3, 4), labels(3, 4, classes=2)
    y[0, :2], y[1] = -100, -100
    kept = F.binary_cross_entropy_with_logits(x, y.clamp(min=0).double(), reduction="none")
    expected = (kept[0, 2:].sum() + kept[2].sum()) / 2
    torch.testing.assert_close(losses.multilabel_bce(x, y), expected)


@pytest.mark.parametrize("gamma", [1.0, 2.0, 3.5])
@pytest.mark.parametrize("alpha", [None, 0.25])
def test_binary_focal_is_torchvisions(gamma, alpha):
    x = (10 * draw(50)).requires_grad_()
    y = labels(50, classes=2)
    ours = losses.binary_focal(x, y, gamma=gamma, alpha=alpha)
    theirs = torchvision.ops.sigmoid_focal_loss(
        x, y.double(), gamma=gamma, alpha=-1 if alpha is None else alpha, reduction="mean"
    )
    torch.testing.assert_close(ours, theirs)
    (our_slope,), (their_slope,) = torch.autograd.grad(ours, x), torch.autograd.grad(theirs, x)
    torch.testing.assert_close(our_slope, their_slope)


def test_focal_without_focus_is_cross_entropy():
    x, y = 10 * draw(20, 4), labels(20)
    given = {"class_weight": WEIGHTS}
    torch.testing.assert_close(
        losses.focal(x, y, gamma=0.0, **given), losses.cross_entropy(x, y, **given)
    )
    binary = labels(20, 4, classes=2)
    torch.testing.assert_close(losses.binary_focal(x, binary, gamma=0.0), losses.bce(x, binary))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("log_odds", [1e4, 200.0, 30.0, 1e-6, 0.0, -30.0, -1e4])
def test_focal_keeps_its_digits_where_the_softmax_is_sure(gamma, log_odds):
    """Against expit, which does not round near 1; autograd of (1 - p)^gamma is NaN here."""
    expected = float(binary_focal(np.float64(log_odds), 1, gamma=gamma))
    x = torch.tensor([[0.0, log_odds]], dtype=torch.float64, requires_grad=True)
    value = losses.focal(x, torch.tensor([1]), gamma=gamma)
    assert value.item() == pytest.approx(expected, rel=1e-12, abs=0)
    value.backward()
    p, q, log_p = sp.expit(log_odds), sp.expit(-log_odds), sp.log_expit(log_odds)
    slope = q**gamma * (gamma * p * log_p - q)
    assert x.grad.tolist() == [pytest.approx([-slope, slope], rel=1e-12, abs=0)]


def test_focal_in_float32_is_finite_for_any_logits():
    for gamma in (0.0, 0.5, 2.0):
        x = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4]], requires_grad=True)
        value = losses.focal(x, torch.tensor([0, 0]), gamma=gamma, reduction="none")
        value.sum().backward()
        # Sure and right costs nothing; sure and wrong costs the distance, with its slope of 1.
        assert value.tolist() == pytest.approx([0, 2e4 + math.log(2)])
        assert x.grad.tolist() == [[0, 0, 0], pytest.approx([-1, 0.5, 0.5])]


def test_poly1_without_change_is_cross_entropy():
    x, y = 10 * draw(20, 4), labels(20)
    given = {"class_weight": WEIGHTS}
    torch.testing.assert_close(
        losses.poly1(x, y, epsilon=0.0, **given), losses.cross_entropy(x, y, **given)
    )


def test_poly1_at_minus_one_lacks_the_first_power():
    """What is left of cross-entropy is the sum of (1 - p)^j / j from 2 on; here to j = 3000."""
    x = draw(20, 4)
    powers = torch.arange(2, 3000)
    lacks = 1 - x.softmax(1)[:, :1]
    expected = (lacks**powers / powers).sum(1)
    ours = losses.poly1(x, 0 * labels(20), epsilon=-1.0, reduction="none")
    torch.testing.assert_close(ours, expected)


def test_asymmetric_without_asymmetry_is_binary_focal_and_cross_entropy():
    x, y = 5 * draw(20, 4), labels(20, 4, classes=2)
    for gamma in (0.0, 0.5, 3.0):
        given = {"positive_gamma": gamma, "negative_gamma": gamma, "margin": 0.0}
        expected = losses.binary_focal(x, y, gamma=gamma, reduction="none").sum(1).mean()
        torch.testing.assert_close(losses.asymmetric(x, y, **given), expected)
    given = {"positive_gamma": 0.0, "negative_gamma": 0.0, "margin": 0.0}
    torch.testing.assert_close(losses.asymmetric(x, y, **given), losses.multilabel_bce(x, y))


@pytest.mark.parametrize("margin", [0.0, 1e-9, 0.05])
def test_asymmetric_never_clamps_a_confident_mistake(margin):
    """Missed positives keep a slope of -1; a clamped probability has none below its limit."""
    x = torch.tensor([[-15.0], [-19.0], [-50.0], [-1e4]], requires_grad=True)
    value = losses.asymmetric(x, torch.ones(4, 1), margin=margin, reduction="sum")
    value.backward()
    assert x.grad.flatten().tolist() == pytest.approx([-1] * 4, rel=1e-6)
    negative = torch.tensor([[50.0]], requires_grad=True)
    losses.asymmetric(negative, torch.zeros(1, 1), margin=margin).backward()
    assert negative.grad.item() == pytest.approx(0 if margin else 1, abs=1e-6)


def test_asymmetric_asks_nothing_of_negatives_below_the_margin():
    x = torch.tensor([[-3.0], [-2.0]], dtype=torch.float64, requires_grad=True)  # 0.047 and 0.119
    values = losses.asymmetric(x, torch.zeros(2, 1), margin=0.05, reduction="none")
    values.sum().backward()
    assert values[0] == x.grad[0] == 0
    assert values[1] > 0 < x.grad[1]


def build(name, **given):
    """The module, with counts of four classes if it needs them."""
    counted = "class_counts" in losses.get(name).parameters
    return losses.build(name, **{"class_counts": [4, 3, 2, 1]} if counted else {}, **given)


WEIGHTED = [name for name in losses.names() if "class_weight" in losses.get(name).parameters]


@pytest.mark.parametrize("name", WEIGHTED)
def test_a_weighted_mean_divides_by_what_the_normalizer_says(name):
    """The values are their own reference: only the division is at stake here."""
    x, y = draw(9, 4, 2).log_softmax(1), labels(9, 2)
    y[0] = -100
    weight, kept = torch.tensor(WEIGHTS).double(), y != -100
    values = build(name, reduction="none")(x, y)[kept] * weight[y[kept]]
    by_weight = build(name, class_weight=weight)
    torch.testing.assert_close(by_weight(x, y), values.sum() / weight[y[kept]].sum())
    torch.testing.assert_close(by_weight.fraction(x, y).denominator, weight[y[kept]].sum())
    by_count = build(name, class_weight=weight, normalizer="count")
    torch.testing.assert_close(by_count(x, y), values.mean())
    torch.testing.assert_close(build(name)(x, y), build(name, class_weight=[1.0] * 4)(x, y))


@pytest.mark.parametrize("name", WEIGHTED)
def test_class_weights_of_another_length_are_refused(name):
    with pytest.raises(ValueError, match=rf"{name}.class_weight needs one number per class, 4 "):
        build(name, class_weight=[1.0, 2.0, 3.0])(-torch.ones(2, 4), labels(2))


def test_negative_class_weights_are_refused():
    with pytest.raises(ValueError, match=r"class_weight must be a list with one number >= 0 per"):
        losses.build("cross_entropy", class_weight=[1.0, -1.0])


def test_a_scheme_by_name_asks_for_counts():
    with pytest.raises(ValueError, match=r"pass losses.class_weight\('balanced', counts\)"):
        losses.cross_entropy(torch.zeros(2, 4), labels(2), class_weight="balanced")


def test_rows_that_are_no_distribution_are_refused():
    several = torch.tensor([[1.0, 1.0, 0.0]])
    with pytest.raises(ValueError, match=r"cross_entropy needs probabilities that sum to 1 over C"):
        losses.cross_entropy(torch.zeros(1, 3), several)


def test_a_label_of_156_in_a_byte_is_not_ignored():
    x = draw(1, 200)
    byte, whole = torch.tensor([156], dtype=torch.uint8), torch.tensor([156])
    assert losses.cross_entropy(x, byte) == losses.cross_entropy(x, whole) > 0
