"""What the notes print differs from what is right, as the page of errata says and to the letter."""

import itertools
import math
import re

import numpy as np
import pytest
import torch
from scipy.spatial.distance import directed_hausdorff
from torch.nn import functional as F

import losses
from losses.docs import ERRATA_BEGIN, ERRATA_END, README
from losses.errata import ERRATA, HEADER, shown, table
from losses.errata.erratum import Erratum
from losses.penalty import PENALTIES

BY_NAME = {erratum.name: erratum for erratum in ERRATA}
APART = 0.1  # every example is chosen so that the two values are at least this far from each other


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def number(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def printed(name: str, *inputs) -> torch.Tensor:
    return BY_NAME[name].as_printed(*inputs)


def right(name: str, *inputs) -> torch.Tensor:
    return BY_NAME[name].reference(*inputs)


def slope(name: str, *inputs, by: int = 0) -> torch.Tensor:
    """Derivative of what is printed by one of its inputs."""
    moved = [x.clone().requires_grad_() if i == by else x for i, x in enumerate(inputs)]
    (gradient,) = torch.autograd.grad(printed(name, *moved), moved[by])
    return gradient


def falls(values: list[torch.Tensor]) -> bool:
    return all(later < earlier for earlier, later in itertools.pairwise(values))


def draws(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def hard_masks(items: int = 20, pixels: int = 12) -> torch.Tensor:
    """Random masks; the first and the last pixel make sure that none is empty or full."""
    masks = (draws((items, pixels), seed=1) < 0.3).double()
    masks[:, 0], masks[:, -1] = 1, 0
    return masks


def bce_sign():
    for p in draws((20,)):
        assert slope("bce_sign", p, number(1)) > 0 > slope("bce_sign", p, number(0))
    assert printed("bce_sign", number(1e-300), number(1)) < -600


def focal_sign():
    values = [printed("focal_sign", number(p), number(0)) for p in (0.1, 0.5, 0.9, 1 - 1e-15)]
    assert values[0] < 0
    assert falls(values)


def focal_without_negatives_factor():
    sure = [number(p) for p in (0.9, 0.99, 0.999, 1 - 1e-15)]
    values = [printed("focal_without_negatives_factor", p, number(1)) for p in sure]
    assert falls(values)  # away from 0, with either sign
    assert falls([right("focal_without_negatives_factor", p, number(1)) for p in sure])
    assert values[-1] < -20


def focal_positive_half():
    for p in draws((20,)):
        assert printed("focal_positive_half", p, number(0)) == 0
        assert slope("focal_positive_half", p, number(0)) == 0
    assert printed("focal_positive_half", number(1), number(1)) == 0


def softmax_of_minus_scores():
    for x in 4 * draws((50, 5)) - 2:
        for c in range(5):
            value = printed("softmax_of_minus_scores", x, c)
            assert value < 0
            top = x.max()
            other_line = -x[c] + top - (-x + top).exp().sum().log()
            assert value.item() == pytest.approx(other_line.item(), rel=1e-12)
            push = slope("softmax_of_minus_scores", x, c)
            rivals = [j for j in range(5) if j != c]
            assert max(rivals, key=lambda j: push[j]) == min(rivals, key=lambda j: x[j])
    assert printed("softmax_of_minus_scores", tensor(1e6, 0, 0), 0) < -9e5


def dropped_log_sum():
    scores, labels = draws((500, 10), seed=2), torch.arange(500) % 10
    none = 0
    for x, c in zip(scores, labels, strict=True):
        value, cross_entropy = printed("dropped_log_sum", x, c), right("dropped_log_sum", x, c)
        assert 0 <= cross_entropy - value <= math.log(10)
        assert value == losses.perceptron(x[None], c[None])
        is_right = bool(x.argmax() == c)
        assert is_right == (value == 0) == (slope("dropped_log_sum", x, c).abs().max() == 0)
        none += is_right
    assert none > 0


def multilabel_logistic():
    f, y, _ = BY_NAME["multilabel_logistic"].tensors()
    values = [printed("multilabel_logistic", f, y, number(i)).item() for i in (1, 2, 3, 4)]
    assert values[0] == pytest.approx(right("multilabel_logistic", f, y, None).item(), rel=1e-12)
    assert values == sorted(set(values))


def multilabel_soft_margin_sign():
    scores = [tensor(x) for x in (0.0, 1.0, 10.0, 1000.0)]
    values = [printed("multilabel_soft_margin_sign", x, tensor(0.0)) for x in scores]
    assert falls(values)
    assert values[-1] == -1000


def kl_sign():
    values = [printed("kl_sign", number(0.9), number(q)) for q in (0.9, 0.5, 0.1, 1e-300)]
    assert values[0] == 0
    assert falls(values)
    assert values[-1] < -600


def entropy_inequality():
    for y, prediction in draws((50, 2)):
        value = printed("entropy_inequality", y, prediction).item()
        assert value < 0
        assert value == pytest.approx(-right("entropy_inequality", y, prediction).item(), rel=1e-9)


def jensen_shannon():
    far = []
    for tiny in (1e-2, 1e-6, 1e-12, 1e-300):
        p, q = tensor(1 - tiny, tiny), tensor(tiny, 1 - tiny)
        far.append(-printed("jensen_shannon", p, q))
        jeffreys = ((p - q) * (p / q).log()).sum().item()
        assert -far[-1].item() == pytest.approx(jeffreys / 2, rel=1e-12)
        assert right("jensen_shannon", p, q) <= math.log(2) + 1e-15
    assert falls(far)
    assert far[-1] < -600


def softmax_index():
    x, c = BY_NAME["softmax_index"].tensors()
    values = printed("softmax_index", x, c)
    assert len(set(values.tolist())) == 1
    assert abs(values.sum() - 1) > APART


def squared_error_bracket():
    y, w, x = BY_NAME["squared_error_bracket"].tensors()
    values = [printed("squared_error_bracket", y, k * w, x) for k in (1, 2, 10, 1000)]
    assert falls(values)
    assert values[-1] < -8e6


def squared_error_gradient():
    f, y = BY_NAME["squared_error_gradient"].tensors()
    assert torch.equal(f - printed("squared_error_gradient", f, y), y)
    assert torch.equal(f - right("squared_error_gradient", f, y) - y, y - f)


def difference_of_squares():
    y = tensor(3.0, 4.0)
    for x in (tensor(4.0, 3.0), tensor(-3.0, -4.0), tensor(5.0, 0.0)):
        assert printed("difference_of_squares", y, x) == 0
        assert printed("difference_of_squares", y, 1.1 * x).isnan()


def pseudo_huber_scale():
    far = number(1e9)
    for delta in (0.5, 3.0, 10.0):
        assert slope("pseudo_huber_scale", far, number(delta)) == pytest.approx(1 / delta)
        r = far.clone().requires_grad_()
        F.huber_loss(r, torch.zeros_like(r), delta=delta).backward()
        assert r.grad == pytest.approx(delta)


def pixel_bce_sign():
    values = [printed("pixel_bce_sign", tensor(0.0), tensor(p)) for p in (0.1, 0.5, 1 - 1e-15)]
    assert values[0] < 0
    assert falls(values)
    assert values[-1] < -30


def balanced_bce_sign():
    y = tensor(0.5, 0.5)
    values = [printed("balanced_bce_sign", y, tensor(p, p)) for p in (0.9, 0.99, 1 - 1e-15)]
    assert values[0] < 0
    assert falls(values)


def balanced_bce_weight():
    for y in hard_masks():
        p = draws(tuple(y.shape), seed=3)
        gradient = slope("balanced_bce_weight", y, p, by=1)
        assert gradient[y == 0].abs().max() == 0
        assert gradient[y == 1].abs().min() > 0
        other = torch.where(y == 1, p, 1 - p)
        value, same = (printed("balanced_bce_weight", y, given) for given in (p, other))
        assert value == same


def dice_smoothing():
    for pixels in (0, 1, 4, 1000):
        mask = torch.ones(pixels, dtype=torch.float64)
        value = printed("dice_smoothing", mask, mask)
        assert value.item() == pytest.approx(-1 / (2 * pixels + 1), rel=1e-12)


def dice_of_iou():
    masks = [torch.ones(pixels, dtype=torch.float64) for pixels in (4, 10, 1000)]
    values = [printed("dice_of_iou", mask, mask).item() for mask in masks]
    assert values == pytest.approx([1 - 1 / len(mask) for mask in masks])


def dice_index_factor():
    for y, p in zip(hard_masks(), draws((20, 12)), strict=True):
        assert printed("dice_index_factor", y, p) > 0.5
        assert printed("dice_index_factor", y, y) == 0.5


def jaccard_of_union():
    for y, p in zip(hard_masks(), draws((20, 12)), strict=True):
        assert printed("jaccard_of_union", y, p).item() == pytest.approx(0, abs=1e-15)
        assert slope("jaccard_of_union", y, p, by=1).abs().max() < 1e-15


def tversky_per_pixel():
    beta = number(0.3)
    for y, p in zip(hard_masks(), draws((20, 12)), strict=True):
        gradient = slope("tversky_per_pixel", y, p, beta, by=1)
        assert gradient[y == 0].abs().max() == 0
        assert gradient[y == 1].abs().min() > 0
        of_mask = printed("tversky_per_pixel", y[y == 1], p[y == 1], beta)
        value = printed("tversky_per_pixel", y, p, beta)
        assert value.item() == pytest.approx((of_mask + (y == 0).sum()).item(), rel=1e-12)
        assert printed("tversky_per_pixel", y, p * y, beta).isnan()


def sensitivity_specificity_score():
    for y, p in zip(hard_masks(), draws((20, 12)), strict=True):
        values = [printed("sensitivity_specificity_score", y, mask) for mask in (y, p, 1 - y)]
        assert falls(values)
        assert [values[0], values[-1]] == [1, 0]


def hausdorff_one_sided():
    true = 10 * draws((8, 2))
    assert printed("hausdorff_one_sided", true[:1], true) == 0
    added = torch.cat([true, tensor(17, 10)[None]])
    distance = directed_hausdorff(added.numpy(), true.numpy())[0]
    value = printed("hausdorff_one_sided", added, true).item()
    assert value == pytest.approx(distance**2, rel=1e-12)
    both = max(distance, directed_hausdorff(true.numpy(), added.numpy())[0])
    assert right("hausdorff_one_sided", added, true).item() == pytest.approx(both, rel=1e-12)


def region_mask_area():
    y, p, width, height = BY_NAME["region_mask_area"].tensors()
    values = [printed("region_mask_area", y, p, k * width, height).item() for k in (1, 2, 10)]
    assert [values[0] / value for value in values] == pytest.approx([1, 2, 10])
    average = right("region_mask_area", y, p, width, height)
    assert printed("region_mask_area", y, p, number(2), number(2)).item() == pytest.approx(average)


def contrastive_label():
    margin = number(1)
    for near in (number(0.1), number(0.9)):
        assert slope("contrastive_label", near, torch.tensor(1), margin) < 0
        assert slope("contrastive_label", near, torch.tensor(0), margin) > 0
    assert printed("contrastive_label", number(1.5), torch.tensor(1), margin) == 0


def ppo_sign():
    for ratio in (0.5, 0.9, 1.1):  # inside the clip on the side that gains
        assert slope("ppo_sign", tensor(ratio), tensor(1.0)) > 0


def gan_value():
    real, fake = number(0.9), number(0.2)
    assert slope("gan_value", real, fake) > 0 > slope("gan_value", real, fake, by=1)
    score = number(-7.0).requires_grad_()
    printed("gan_value", real, score.sigmoid()).backward()
    other = number(-7.0).requires_grad_()
    (-F.logsigmoid(other)).backward()
    assert score.grad.abs() < 1e-3
    assert other.grad.abs() > 0.99


def decay_update():
    w, strength, rate = BY_NAME["decay_update"].tensors()
    change, should_be = (w - rule("decay_update", w, strength, rate) for rule in (printed, right))
    assert (change / should_be).tolist() == pytest.approx([1 / rate.item()] * 2, rel=1e-9)
    moved = w.clone().requires_grad_()
    (strength * moved.square().sum() / 2).backward()
    torch.optim.Adam([moved], lr=rate.item()).step()
    steps = (w - moved.detach()).tolist()
    assert steps == pytest.approx([rate.item()] * 2, rel=1e-6)  # Adam's eps is 1e-8
    decoupled = w.clone().requires_grad_()
    decoupled.grad = torch.zeros_like(w)
    torch.optim.AdamW([decoupled], lr=rate.item(), weight_decay=strength.item()).step()
    torch.testing.assert_close(decoupled.detach(), right("decay_update", w, strength, rate))


def numerical_gradients():
    x, c, h = BY_NAME["numerical_gradients"].tensors()
    assert printed("numerical_gradients", x, c, h).abs().max() == 0
    exact = right("numerical_gradients", x, c, h)
    steps = np.logspace(-8, 0, 17)
    off = [(printed("numerical_gradients", x, c, number(s)) - exact).abs().max() for s in steps]
    single = x.float().requires_grad_()
    F.cross_entropy(single, c).backward()
    assert min(off) > 10 * (single.grad - exact).abs().max()
    # in float64 and as a check they are welcome
    double = x[None].clone().requires_grad_()
    assert torch.autograd.gradcheck(losses.cross_entropy, (double, c[None]))


PROOFS = [
    bce_sign,
    focal_sign,
    focal_without_negatives_factor,
    focal_positive_half,
    softmax_of_minus_scores,
    dropped_log_sum,
    multilabel_logistic,
    multilabel_soft_margin_sign,
    kl_sign,
    entropy_inequality,
    jensen_shannon,
    softmax_index,
    squared_error_bracket,
    squared_error_gradient,
    difference_of_squares,
    pseudo_huber_scale,
    pixel_bce_sign,
    balanced_bce_sign,
    balanced_bce_weight,
    dice_smoothing,
    dice_of_iou,
    dice_index_factor,
    jaccard_of_union,
    tversky_per_pixel,
    sensitivity_specificity_score,
    hausdorff_one_sided,
    region_mask_area,
    contrastive_label,
    ppo_sign,
    gan_value,
    decay_update,
    numerical_gradients,
]


@pytest.mark.parametrize("proof", PROOFS, ids=lambda proof: proof.__name__)
def test_consequence(proof):
    proof()


def test_every_consequence_has_a_proof():
    assert [proof.__name__ for proof in PROOFS] == [erratum.name for erratum in ERRATA]


@pytest.mark.parametrize("erratum", ERRATA, ids=lambda erratum: erratum.name)
def test_printed_is_not_right(erratum: Erratum):
    tensors = erratum.tensors()
    gap = (erratum.as_printed(*tensors) - erratum.reference(*tensors)).abs().max()
    assert gap > APART


@pytest.mark.parametrize(
    "erratum", [e for e in ERRATA if e.ours is not None], ids=lambda erratum: erratum.name
)
def test_ours_is_right(erratum: Erratum):
    assert erratum.loss in {*losses.core.REGISTRY, *PENALTIES}
    tensors = erratum.tensors()
    ours, expected = erratum.ours(*tensors), erratum.reference(*tensors)
    # Logarithms of probabilities and of their logits differ by some roundings of float64.
    torch.testing.assert_close(ours.detach(), expected, rtol=1e-12, atol=1e-15, check_dtype=False)


def test_the_page_has_a_full_row_for_each():
    header, _, *rows = (re.split(r" ?\| ?", row)[1:-1] for row in table().splitlines())
    assert tuple(header) == HEADER
    assert [row[0] for row in rows] == [str(n) for n in range(1, len(ERRATA) + 1)]
    assert all(len(row) == len(HEADER) and all(row) for row in rows)


def test_the_page_in_the_readme_is_current():
    page = f"{ERRATA_BEGIN}\n\n{table()}\n\n{ERRATA_END}"
    assert page in README.read_text(encoding="utf-8"), "run: python -m losses.docs --write"


def test_values_are_shown_to_four_digits():
    assert shown(number(2 / 3)) == "0.6667"
    assert shown(number(-1e-17)) == "0"
    assert shown(tensor(1, -2.5)) == "(1, -2.5)"
    assert shown(number(math.nan)) == "nan"
