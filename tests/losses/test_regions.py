"""Sums of regions by hand against autograd through the plain formula."""

import contextlib
import itertools

import pytest
import torch

import losses
from losses import fused, regions
from losses.regions import class_sums, cost_sums, mask_sums

SHAPES = [(), (7,), (4, 5), (2, 3, 4)]
LOSSES = [
    ("dice", {"denominator": "squared"}),
    ("generalised_dice", {"include_background": False}),
    ("binary_dice", {"denominator": "squared"}),
    ("binary_focal_tversky", {}),
    ("combo", {}),
    ("balanced_bce", {}),
]


KINDS = [class_sums, mask_sums, cost_sums]


def in_a_row(kind):
    """The sums of a kind, those that have no gradient last."""
    if kind is not cost_sums:
        return kind

    def sums(logits, target, kept, squared=False):
        inside, outside, others = cost_sums(logits, target, kept)
        return inside, outside, *others

    return sums


def batch(kind, shape, dtype=torch.float64, scale=3.0):
    """Five items: logits, a target and, of half of the elements, that they count. Seed 8."""
    drawn = torch.Generator().manual_seed(8)
    own = (5, 3, *shape) if kind is class_sums else (5, *shape)
    x = scale * torch.randn(own, generator=drawn, dtype=dtype)
    kept = torch.rand(5, *shape, generator=drawn) < 0.5
    if kind is class_sums:
        y = torch.randint(3, (5, *shape), generator=drawn)
    else:
        y = torch.rand(5, *shape, generator=drawn, dtype=dtype)
    return x.requires_grad_(), torch.where(kept, y, 0), kept


def gradient(sums, x):
    """Of all but the true elements, each with slopes of its own, and a look at retaining."""
    moved = sums[:-2]
    slopes = [torch.linspace(-1, 2, s.numel()).to(s).view_as(s) / k for k, s in enumerate(moved, 1)]
    first, again = (torch.autograd.grad(moved, x, slopes, retain_graph=True) for _ in range(2))
    assert torch.equal(first[0], again[0])
    return first[0]


@pytest.fixture
def plain(monkeypatch):
    def of(function):
        with monkeypatch.context() as patched:
            patched.setattr(fused, "by_hand", lambda *_: False)
            return function()

    return of


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_sums_and_gradients_are_those_of_the_plain_formula(kind, shape, plain, monkeypatch):
    x, y, half = batch(kind, shape)
    background = [{}, {"include_background": False}] if kind is class_sums else [{}]
    for kept, squared, given in itertools.product((None, half), (False, True), background):

        def sums(kept=kept, squared=squared, given=given):
            return in_a_row(kind)(x, y, kept, squared=squared, **given)

        expected = plain(sums)
        for piece in (1, 4, 1 << 15):
            monkeypatch.setitem(fused.PIECE, "cpu", piece)
            ours = sums()
            assert "ByHand" in repr([ours[0].grad_fn, ours[0].grad_fn.next_functions])
            for one, other in zip(ours, expected, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-13, atol=1e-13)
            torch.testing.assert_close(
                gradient(ours, x), gradient(expected, x), rtol=1e-12, atol=1e-14
            )


@pytest.mark.parametrize(
    ("kind", "squared"),
    [(class_sums, False), (class_sums, True), (mask_sums, True), (cost_sums, False)],
)
def test_kernels_of_the_compiler_are_the_plain_formula(kind, squared, plain):
    """Rows of 20 numbers, and of 300 with some ignored: longer than the runs they are added in."""
    for shape, ignored in (((4, 5), False), ((300,), True)):
        x, y, half = batch(kind, shape)

        def sums(x=x, y=y, kept=half if ignored else None):
            return in_a_row(kind)(x, y, kept, squared=squared)

        with fused.compiling():
            ours = sums()
        assert "ByHand" in repr([ours[0].grad_fn, ours[0].grad_fn.next_functions])
        expected = plain(sums)
        for one, other in zip(ours, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(gradient(ours, x), gradient(expected, x), rtol=1e-11, atol=1e-13)


def test_a_module_of_kernels_makes_them(monkeypatch):
    made = []
    monkeypatch.setattr(fused, "kernel", lambda function, name: made.append(name) or function)
    regions._kernel.cache_clear()
    x, y, _ = batch(class_sums, (4, 5))
    plain, module = losses.build("dice"), losses.build("dice", compiled=True)
    (expected,), (ours,) = (torch.autograd.grad(loss(x, y), x) for loss in (plain, module))
    regions._kernel.cache_clear()
    assert made == ["_of_piece__of_one_hot__False", "_gradient__of_one_hot__False"]
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [3.0, 60.0, 1e4])
def test_float32_gradients_keep_their_digits(kind, scale, plain):
    """Confident and saturated logits; against the plain formula in float64, seed 8.

    p - p^2 has the rounding of p, 6e-8, at most a few times.
    """
    x, y, kept = batch(kind, (6, 6), torch.float32, scale)
    exact, soft = x.detach().double().requires_grad_(), y.double() if y.is_floating_point() else y
    for squared in (False, True):
        slope = gradient(in_a_row(kind)(x, y, kept, squared=squared), x)
        sums = plain(lambda sq=squared: in_a_row(kind)(exact, soft, kept, squared=sq))
        torch.testing.assert_close(slope.double(), gradient(sums, exact), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_ignored_has_no_gradient(kind):
    x, y, kept = batch(kind, (4, 5))
    slope = gradient(in_a_row(kind)(x, y, kept), x)
    over = kept.unsqueeze(1).expand_as(x) if kind is class_sums else kept
    assert (slope[~over] == 0).all()
    assert (slope[over] != 0).any()


@pytest.mark.parametrize("kind", KINDS)
def test_maps_in_any_memory_layout_have_one_gradient(kind):
    x, y, kept = batch(kind, (4, 5))
    if kind is class_sums:
        other = x.detach().clone(memory_format=torch.channels_last).requires_grad_()
    else:
        other = x.detach().mT.contiguous().mT.requires_grad_()
    assert not other.is_contiguous()
    first, second = (gradient(in_a_row(kind)(maps, y, kept), maps) for maps in (x, other))
    torch.testing.assert_close(first, second, rtol=1e-13, atol=0)


@pytest.mark.parametrize(("name", "given"), LOSSES)
def test_what_autograd_and_transforms_ask_for(name, given, plain):
    """Second derivatives, several slopes at once, and functions of functions."""
    kind = class_sums if losses.get(name).target == "index" else mask_sums
    x, y, _ = batch(kind, (3,))

    def value(x):
        return losses.build(name, **given)(x, y)

    def hessian():
        return torch.autograd.functional.hessian(value, x)

    torch.testing.assert_close(hessian(), plain(hessian), rtol=1e-10, atol=1e-14)
    (expected,) = torch.autograd.grad(value(x), x)
    torch.testing.assert_close(torch.func.grad(value)(x.detach()), expected)
    slopes = torch.tensor([1.0, -2.0], dtype=torch.float64)
    (both,) = torch.autograd.grad(value(x), x, slopes, is_grads_batched=True)
    torch.testing.assert_close(both, torch.stack([expected, -2 * expected]))
    torch.autograd.gradgradcheck(value, x)


def test_a_soft_target_that_wants_a_gradient_gets_it():
    x, y, kept = batch(mask_sums, (4, 5))
    y.requires_grad_()
    (slope,) = torch.autograd.grad(mask_sums(x, y, kept).both.sum(), y)
    torch.testing.assert_close(slope, x.detach().sigmoid() * kept)


def test_no_elements_no_items():
    for shape in ((0, 3, 4), (2, 3, 0)):
        x = torch.randn(shape, requires_grad=True)
        sums = class_sums(x, torch.zeros(shape[0], shape[2], dtype=torch.long), None)
        assert all(s.sum() == 0 for s in sums)
        assert torch.autograd.grad(sums.predicted.sum(), x)[0].shape == shape


@pytest.mark.parametrize("compiled", [False, True])
def test_counts_of_512_x_512_ones_are_exact_and_sums_right_in_float32(compiled):
    """As many ones, at p = 1/3 for three equal logits: 262144 / 3 within rounding."""
    x = torch.zeros(1, 3, 512, 512, requires_grad=True)
    y = torch.ones(1, 512, 512, dtype=torch.long)
    with fused.compiling() if compiled else contextlib.nullcontext():
        of_classes, of_mask = class_sums(x, y, None), mask_sums(x[:, 0], y.float(), None)
    assert of_classes.true.tolist() == [[0, 512 * 512, 0]]
    assert of_mask.true.tolist() == [[512 * 512]]
    third = torch.full((1, 3), 512 * 512 / 3)
    torch.testing.assert_close(of_classes.predicted, third, rtol=1e-6, atol=0)
    torch.testing.assert_close(of_classes.both, third * (of_classes.true > 0), rtol=1e-6, atol=0)
    torch.testing.assert_close(of_mask.both, torch.full((1, 1), 512 * 256.0), rtol=1e-6, atol=0)


def test_many_classes_keep_the_digits_of_float32():
    drawn = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 50_000, 3, generator=drawn) * 5
    target = torch.randint(50_000, (2, 3), generator=drawn)

    def slope(logits):
        logits = logits.clone().requires_grad_()
        return torch.autograd.grad(losses.dice(logits, target), logits)[0].double()

    exact = slope(logits.double())
    # torch's own backward pass of the softmax, which adds classes one by one, is off by 2e-4
    assert torch.linalg.vector_norm(slope(logits) - exact) < 3e-6 * torch.linalg.vector_norm(exact)
