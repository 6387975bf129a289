"""Derivatives by hand: settings against the plain formula, and float32 where digits get lost."""

import pytest
import torch

import losses
from losses import fused
from losses.inputs import IGNORE_INDEX

WEIGHTS = [0.5, 2.0, 0.0, 3.0]
GAMMAS = [0.0, 0.5, 2.0, 4.0]
COUNTS = [90.0, 9.0, 0.0, 1.0]
SETTINGS = [
    *(("binary_focal", {"gamma": gamma}) for gamma in (0.0, 0.5, 1.0, 3.0, 4.0, 2.5)),
    ("binary_focal", {"gamma": 2.0, "alpha": 0.0}),
    ("binary_focal", {"gamma": 2.0, "alpha": 0.25}),
    ("asymmetric", {"margin": 0.0, "positive_gamma": 1.0}),
    ("asymmetric", {"margin": 0.0, "negative_gamma": 0.0}),
    ("asymmetric", {"negative_gamma": 0.0}),
    ("asymmetric", {"negative_gamma": 0.3, "positive_gamma": 0.7}),
    ("asymmetric", {"margin": 0.7}),
    ("bce", {"pos_weight": 3.0}),
    ("multilabel_bce", {"pos_weight": WEIGHTS}),
    ("quality_focal", {"beta": 1.0}),
    ("quality_focal", {"beta": 1.5}),
    ("varifocal", {"gamma": 0.0}),
    ("varifocal", {"gamma": 1.5, "alpha": 0.0}),
    ("cross_entropy", {"smoothing": 0.1}),
    ("cross_entropy", {"smoothing": 1.0, "class_weight": WEIGHTS}),
    ("cross_entropy", {"smoothing": 0.1, "class_weight": WEIGHTS, "normalizer": "count"}),
    *(("focal", {"gamma": gamma, "class_weight": WEIGHTS}) for gamma in (0.0, 0.5, 3.0)),
    ("focal", {"class_weight": WEIGHTS, "normalizer": "count"}),
    ("focal", {"class_gamma": GAMMAS}),
    ("poly1", {"epsilon": -1.0, "class_weight": WEIGHTS}),
    ("poly1", {"epsilon": 0.0}),
    ("kl", {}),
    ("logit_adjusted", {"class_counts": COUNTS, "tau": 0.5}),
    ("balanced_softmax", {"class_counts": COUNTS}),
    ("ldam", {"class_counts": COUNTS, "scale": 30.0, "class_weight": WEIGHTS}),
    ("pseudo_huber", {"delta": 0.3}),
    ("quantile", {"q": 0.01}),
    ("tweedie", {"power": 1.01}),
    ("tweedie", {"power": 1.99}),
]


def batch(name):
    """Logits [6, 4, 5] with all targets the loss takes, some of which do not count."""
    entry, drawn = losses.get(name), torch.Generator().manual_seed(8)
    output = 4 * torch.randn(6, 4, 5, generator=drawn, dtype=torch.float64)
    if entry.target == "real":
        target = torch.randn(output.shape, generator=drawn, dtype=torch.float64)
        return output, [target.clamp(min=0) if entry.within else target]
    if entry.target == "binary":
        hard = torch.randint(2, output.shape, generator=drawn)
        soft = torch.rand(output.shape, generator=drawn, dtype=torch.float64)
    else:
        hard = torch.randint(4, (6, 5), generator=drawn)
        soft = torch.randn(output.shape, generator=drawn, dtype=torch.float64).softmax(1)
    some = torch.where(torch.rand(hard.shape, generator=drawn) < 0.3, IGNORE_INDEX, hard)
    return output, [hard, some] if entry.target == "index" else [hard, some, soft]


def both(name, output, target, given):
    """Value and gradient, by hand and by autograd of the plain formula."""
    found = []
    for few in (0, output.numel() + 1):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(fused, "FEW", few)
            x = output.clone().requires_grad_()
            value = losses.build(name, **given)(x, target)
            found.append((value.detach(), *torch.autograd.grad(value, x)))
    return found


@pytest.mark.parametrize(("name", "given"), SETTINGS)
def test_every_setting_agrees_with_the_plain_formula(name, given):
    output, targets = batch(name)
    for target in targets:
        hand, plain = both(name, output, target, given)
        # 1e-10: what float64 leaves of differences of powers near 1
        torch.testing.assert_close(hand, plain, rtol=1e-10, atol=1e-13)
        assert hand[1].abs().max() > 1e-4


def test_rows_too_long_for_softmax_by_hand_agree_too():
    drawn = torch.Generator().manual_seed(9)
    output = 3 * torch.randn(5, 300, generator=drawn, dtype=torch.float64)
    target = torch.randint(300, (5,), generator=drawn)
    for name, given in (("cross_entropy", {"smoothing": 0.1}), ("focal", {}), ("poly1", {})):
        hand, plain = both(name, output, target, given)
        torch.testing.assert_close(hand, plain, rtol=1e-12, atol=1e-14)


LARGE = [0.0, 1e-6, 0.1, 3.0, 17.0, 40.0, 80.0, 1e4]


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("bce", {}),
        ("bce", {"pos_weight": 3.0}),
        *(("binary_focal", {"gamma": gamma, "alpha": 0.25}) for gamma in (0.0, 0.3, 1.0, 2.0)),
        ("asymmetric", {"margin": 0.0, "positive_gamma": 0.5, "negative_gamma": 0.5}),
        ("asymmetric", {"negative_gamma": 0.3}),
        ("asymmetric", {}),
        ("quality_focal", {}),
        ("varifocal", {}),
        ("soft_margin", {}),
    ],
)
def test_float32_keeps_its_digits_at_both_ends(name, given, soft):
    x = torch.tensor([*LARGE, *(-large for large in LARGE)]).repeat(2)
    high, low = (0.9, 0.1) if soft else (1.0, 0.0)
    target = torch.tensor([high] * 16 + [low] * 16)
    shape = (-1, 1)  # one label per item
    single, double = (
        both(name, t.view(shape), target.to(t.dtype).view(shape), given | {"reduction": "sum"})[0]
        for t in (x, x.double())
    )
    torch.testing.assert_close(single[0].double(), double[0], rtol=1e-6, atol=0)
    # A focal slope is right to its own last digits (of a denormal number there are few); one made
    # of a difference of probabilities to those of 1, as torch's is.
    exact = not soft and (name == "binary_focal" or "pos_weight" in given)
    close = 1e-30 if exact else 1e-6
    torch.testing.assert_close(single[1].double(), double[1], rtol=2e-5, atol=close)
    assert single[1].isfinite().all()


def test_large_logits_of_float32_keep_the_digits_of_their_differences():
    x = torch.tensor([[1e4, 1e4 + 0.5, 1e4 - 2.0], [-1e4, -1e4 + 1.0, 1e4]])
    target = torch.tensor([0, 1])
    for name, given in (("cross_entropy", {"smoothing": 0.1}), ("focal", {}), ("poly1", {})):
        single, double = (both(name, t, target, given)[0] for t in (x, x.double()))
        torch.testing.assert_close([s.double() for s in single], [*double], rtol=1e-6, atol=1e-7)
