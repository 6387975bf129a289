"""Value and gradient in one pass: what autograd, transforms and a retained graph may ask of it."""

import dataclasses

import pytest
import torch
from torch.autograd import forward_ad

import losses
from losses import fused

GAMMA = {"gamma": 2.0, "alpha": 0.25}


def batch():
    drawn = torch.Generator().manual_seed(3)
    logits = torch.randn(5, 4, generator=drawn, dtype=torch.float64) * 3
    target = (torch.rand(5, 4, generator=drawn) < 0.3).long()
    target[0, 1] = -100
    return logits.requires_grad_(), target


@pytest.fixture
def plain(monkeypatch):
    """The same loss by the plain formula."""

    def of(function):
        with monkeypatch.context() as patched:
            patched.setattr(fused, "applies", lambda *_: False)
            return function()

    return of


def test_a_retained_graph_gives_the_gradient_again():
    logits, target = batch()
    value = losses.binary_focal(logits, target, **GAMMA)
    first, second = (torch.autograd.grad(2 * value, logits, retain_graph=True) for _ in range(2))
    assert torch.equal(first[0], second[0])


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32])
def test_masks_of_any_dtype_are_numbers_a_piece_at_a_time(dtype, monkeypatch):
    logits, target = batch()
    target = target.clamp(min=0)
    entry, seen = losses.get("binary_focal"), []

    def derivative(x, y, **given):
        seen.append(y.dtype)
        return entry.derivative(x, y, **given)

    expected = losses.binary_focal(logits, target.double(), **GAMMA)
    watched = dataclasses.replace(entry, derivative=derivative)
    monkeypatch.setitem(fused.PIECE, "cpu", 8)
    ready = watched.ready((logits, target.to(dtype)), -100, GAMMA)
    assert ready[1].dtype == dtype  # not yet converted as a whole
    value = watched.divide(watched.fraction(logits, target.to(dtype), **GAMMA))
    torch.testing.assert_close(value, expected)
    assert seen == [torch.float64] * 3
    slopes = [torch.autograd.grad(v, logits)[0] for v in (value, expected)]
    torch.testing.assert_close(*slopes)


@pytest.mark.parametrize(
    ("name", "classes", "given"),
    [
        ("binary_focal", 0, GAMMA),
        ("asymmetric", 0, {"positive_gamma": 1.0}),
        ("multilabel_bce", 0, {"pos_weight": [1.0, 2.0, 3.0, 4.0]}),
        ("cross_entropy", 4, {"class_weight": [1.0, 2.0, 3.0, 4.0], "smoothing": 0.1}),
        ("focal", 4, {}),
    ],
)
def test_a_kernel_of_the_compiler_is_the_plain_formula(name, classes, given, plain):
    module, eager = losses.build(name, compiled=True, **given), losses.build(name, **given)
    for items, ignored in ((5, False), (5, True), (9, True)):  # 9 has the sizes made symbols
        drawn = torch.Generator().manual_seed(items)
        logits = 3 * torch.randn(items, 4, generator=drawn, dtype=torch.float64)
        target = torch.randint(classes or 2, (items,) if classes else (items, 4), generator=drawn)
        logits.requires_grad_()
        target[0] = -100 if ignored else 1

        def step(loss, logits=logits, target=target):
            return torch.stack([2 * loss(logits, target), *loss.fraction(logits, target)]), (
                torch.autograd.grad(2 * loss(logits, target), logits)[0]
            )

        # both in float64, in another order
        for ours, right in zip(step(module), plain(lambda: step(eager)), strict=True):
            torch.testing.assert_close(ours, right, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("logit", [-3e38, 3e38])
def test_the_largest_logits_have_a_gradient(logit):
    logits = torch.full((6,), logit, requires_grad=True)
    wrong = torch.full((6,), float(logit < 0))
    (slope,) = torch.autograd.grad(losses.binary_focal(logits, wrong, reduction="sum"), logits)
    torch.testing.assert_close(slope, torch.full((6,), 1.0 if logit > 0 else -1.0))


def test_a_loss_without_a_derivative_by_hand_has_no_kernel():
    with pytest.raises(ValueError, match=r"hinge has no derivative by hand.* binary_focal.* dice"):
        losses.build("hinge", compiled=True)


def test_second_derivatives_are_those_of_the_plain_formula(plain):
    logits, target = batch()

    def hessian():
        return torch.autograd.functional.hessian(
            lambda x: losses.binary_focal(x, target, **GAMMA), logits
        )

    torch.testing.assert_close(hessian(), plain(hessian), rtol=1e-12, atol=1e-14)
    assert hessian().abs().max() > 0.01


# torch's forward mode is itself written with what torch warns of
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:FutureWarning")
def test_transforms_of_functions_agree_with_autograd(plain):
    logits, target = batch()
    target = target.clamp(min=0)

    def value(x):
        return losses.binary_focal(x, target, **GAMMA)

    expected = torch.autograd.grad(plain(lambda: value(logits)), logits)[0]
    torch.testing.assert_close(torch.func.grad(value)(logits.detach()), expected)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(logits, torch.ones_like(logits))
        tangent = forward_ad.unpack_dual(value(dual)).tangent
    torch.testing.assert_close(tangent, expected.sum())


def test_batches_of_slopes_go_through_the_backward_pass():
    logits, target = batch()
    value = losses.binary_focal(logits, target, **GAMMA)
    slopes = torch.tensor([1.0, -2.0], dtype=torch.float64)
    (both,) = torch.autograd.grad(value, logits, slopes, is_grads_batched=True, retain_graph=True)
    (one,) = torch.autograd.grad(value, logits)
    torch.testing.assert_close(both, torch.stack([one, -2 * one]))


def test_inputs_and_learned_settings_that_want_a_gradient_get_it():
    logits, target = batch()
    soft = torch.full((5, 4), 0.3, dtype=torch.float64, requires_grad=True)
    losses.binary_focal(logits, soft).backward()
    assert soft.grad is not None
    assert soft.grad.abs().min() > 0
    assert target.grad is None


def test_maps_in_any_memory_layout_give_one_gradient():
    drawn = torch.Generator().manual_seed(4)
    maps = torch.randn(2, 3, 4, 5, generator=drawn, dtype=torch.float64)
    target = torch.rand(2, 3, 4, 5, generator=drawn, dtype=torch.float64)
    slopes = []
    for layout in (torch.contiguous_format, torch.channels_last):
        x = maps.clone(memory_format=layout).requires_grad_()
        losses.binary_focal(x, target).backward()
        slopes.append(x.grad)
    assert torch.equal(*slopes)


@pytest.mark.parametrize("name", ["cross_entropy", "focal", "binary_focal", "dice", "nt_xent"])
def test_vmap_over_slopes_gives_each_its_gradient(name):
    drawn = torch.Generator().manual_seed(0)
    shape = (40, 8) if name == "nt_xent" else (2, 8, 40, 40)
    output = torch.randn(shape, generator=drawn, dtype=torch.float64).requires_grad_()
    target = torch.randint(2, shape if name == "binary_focal" else (2, 40, 40), generator=drawn)
    target = output.detach().flip(0) if name == "nt_xent" else target
    value = losses.build(name)(output, target)

    def gradient(slope):
        return torch.autograd.grad(value, output, slope, retain_graph=True)[0]

    slopes = torch.tensor([1.0, -2.0, 0.0], dtype=torch.float64)
    several = torch.func.vmap(gradient)(slopes)
    torch.testing.assert_close(several, torch.stack([gradient(slope) for slope in slopes]))


def test_weights_written_to_after_the_value_are_noticed():
    logits = torch.randn(20_000, 5, requires_grad=True)
    weight = torch.ones(5)
    value = losses.cross_entropy(logits, torch.arange(20_000) % 5, class_weight=weight)
    weight[0] = 100
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


@pytest.mark.parametrize("items", [1, 4000], ids=["plain", "by hand"])
@pytest.mark.parametrize("name", ["focal", "binary_focal"])
def test_however_huge_a_mistake_its_slope_is_one(name, items):
    wrong = torch.tensor([[1e8, 0, 0, 0, 0]] if name == "focal" else [[1e8] * 5])
    target = torch.ones(items, dtype=torch.long) if name == "focal" else torch.zeros(items, 5)
    logits = wrong.repeat(items, 1).requires_grad_()
    (slope,) = torch.autograd.grad(getattr(losses, name)(logits, target, reduction="sum"), logits)
    assert (slope[:, 0] == 1).all()
