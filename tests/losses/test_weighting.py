"""Class weights from counts against scikit-learn and the formulas."""

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

import losses
from losses.weighting import SCHEMES

COUNTS = [400, 30, 1, 69]


def weights(scheme, counts=COUNTS, **given):
    return losses.class_weight(scheme, counts, **given).double().numpy()


def close(left, right):
    np.testing.assert_allclose(left, right, rtol=1e-6)  # weights are float32


def test_balanced_is_scikit_learns():
    labels = np.repeat(range(4), COUNTS)
    close(weights("balanced"), compute_class_weight("balanced", classes=np.arange(4), y=labels))


def test_balanced_gives_every_class_the_same_total():
    close(weights("balanced") * COUNTS, sum(COUNTS) / 4)


def test_ratios_follow_the_formulas():
    counts = np.array(COUNTS, float)
    for scheme, factors in {
        "balanced": 1 / counts,
        "inverse_sqrt": counts**-0.5,
        "effective": (1 - 0.999) / (1 - 0.999**counts),
    }.items():
        close(weights(scheme) / weights(scheme)[0], factors / factors[0])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_item_weighs_one_on_average(scheme):
    close(np.average(weights(scheme), weights=COUNTS), 1)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_equal_counts_need_no_weights(scheme):
    close(weights(scheme, [7, 7, 7]), 1)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_absent_class_weighs_as_much_as_the_rarest(scheme):
    with_absent = weights(scheme, [*COUNTS, 0])
    close(with_absent[:4], weights(scheme))
    assert with_absent[4] == with_absent[:4].max()


def test_effective_goes_from_no_weights_to_balanced():
    close(weights("effective", beta=0), 1)
    nearly_one = weights("effective", beta=1 - 1e-12)
    close(nearly_one, weights("balanced"))


def test_weights_live_where_the_counts_do_and_take_any_counts():
    made = losses.class_weight("balanced", torch.tensor(COUNTS, dtype=torch.int32))
    assert made.dtype == torch.get_default_dtype()
    assert torch.equal(made, losses.class_weight("balanced", COUNTS))


def test_pos_weight_is_negatives_over_positives():
    assert losses.pos_weight("balanced", [90, 10]) == pytest.approx(9, rel=1e-6)
    assert losses.pos_weight("inverse_sqrt", [90, 10]) == pytest.approx(3, rel=1e-6)
    assert losses.pos_weight("balanced", [90, 0]) == 1


def test_balanced_pos_weight_centres_a_constant_answer():
    """With it, the best constant log-odds are 0 however rare positives are."""
    target = (torch.arange(100) < 10).double()
    logit = torch.zeros((), dtype=torch.float64, requires_grad=True)
    factor = losses.pos_weight("balanced", [90, 10])
    losses.bce(logit.expand(100), target, pos_weight=factor).backward()
    assert logit.grad.item() == pytest.approx(0, abs=1e-6)


def test_balanced_weights_make_cross_entropy_the_mean_of_class_means():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(100, 3, generator=generator)
    y = torch.tensor([0] * 80 + [1] * 15 + [2] * 5)
    weight = losses.class_weight("balanced", torch.bincount(y))
    values = losses.cross_entropy(x, y, reduction="none")
    class_means = torch.stack([values[y == c].mean() for c in range(3)])
    for normalizer in ("weight", "count"):  # the same, for an item weighs 1 on average
        balanced = losses.cross_entropy(x, y, class_weight=weight, normalizer=normalizer)
        torch.testing.assert_close(balanced, class_means.mean())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: weights("balnced"),
            "class_weight has no scheme 'balnced'; did you mean 'balanced",
        ),
        (lambda: weights("effective", beta=1.0), "class_weight needs beta >= 0 and < 1, got 1.0"),
        (lambda: weights("balanced", [3, -1]), "class_weight needs counts"),
        (lambda: weights("balanced", [[3, 1]]), "class_weight needs counts"),
        (lambda: weights("balanced", [0, 0]), "class_weight needs at least one count above 0"),
        (lambda: weights("balanced", []), "class_weight needs at least one count above 0"),
        (lambda: losses.pos_weight("balanced", [1, 2, 3]), "pos_weight needs counts of negatives"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
