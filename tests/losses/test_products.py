"""Log-sums of products in pieces: the plain formula's values and gradients, whatever is asked."""

import pytest
import torch

import losses
from losses import fused, products

# Equal but for the order of additions: float64 rounds at 1e-16, and values are of order 10.
CLOSE = {"rtol": 1e-12, "atol": 1e-13}


def vectors(*rows, seed=5):
    drawn = torch.Generator().manual_seed(seed)
    return [torch.randn(n, 4, generator=drawn, dtype=torch.float64).requires_grad_() for n in rows]


def value(first, second=None):
    """A scalar in which every sum has a slope of its own."""
    rows, columns = products.log_sums(first, second)
    weights = torch.arange(1.0, len(rows) + 1, dtype=torch.float64)
    return (weights * rows).sum() + (columns.square() / 7).sum()


@pytest.fixture(params=[1, 12, 30])
def pieces(request, monkeypatch):
    """So many scores at a time: one row, some rows that do not divide all, nearly all."""
    monkeypatch.setitem(products.SCORES, "cpu", request.param)


@pytest.fixture
def plain(monkeypatch):
    def of(function):
        with monkeypatch.context() as patched:
            patched.setattr(fused, "eager", lambda *_: False)
            return function()

    return of


def used(monkeypatch):
    """Counts how often the gradient by hand is taken."""
    calls, original = [], products._InPieces.backward
    monkeypatch.setattr(
        products._InPieces, "backward", staticmethod(lambda *xs: calls.append(1) or original(*xs))
    )
    return calls


@pytest.mark.parametrize("rows", [(7,), (7, 5), (5, 7)])
def test_value_and_gradient_are_those_of_the_plain_formula(rows, pieces, plain, monkeypatch):
    inputs, calls = vectors(*rows), used(monkeypatch)
    got = value(*inputs)
    torch.testing.assert_close(got, plain(lambda: value(*inputs)), **CLOSE)
    slopes = torch.autograd.grad(got, inputs)
    assert calls
    expected = plain(lambda: torch.autograd.grad(value(*inputs), inputs))
    torch.testing.assert_close(slopes, expected, **CLOSE)


def test_a_retained_graph_gives_the_gradient_again(pieces):
    inputs = vectors(7, 5)
    total = value(*inputs)
    first, second = (torch.autograd.grad(total, inputs, retain_graph=True) for _ in range(2))
    assert all(map(torch.equal, first, second))


@pytest.mark.parametrize("rows", [(4,), (4, 3)])
def test_second_derivatives_are_right(rows, pieces):
    inputs = vectors(*rows)
    assert torch.autograd.gradgradcheck(value, inputs)


@pytest.mark.parametrize("moved", [0, 1])
def test_one_side_may_be_fixed(moved, pieces, plain):
    inputs = vectors(6, 5)
    inputs[1 - moved] = inputs[1 - moved].detach()
    for again in (False, True):
        (slope,) = torch.autograd.grad(value(*inputs), inputs[moved], create_graph=again)
        (expected,) = plain(lambda: torch.autograd.grad(value(*inputs), inputs[moved]))
        torch.testing.assert_close(slope, expected, **CLOSE)


def test_several_slopes_at_once(pieces):
    inputs = vectors(6, 5)
    total, slopes = value(*inputs), torch.tensor([1.0, -2.0], dtype=torch.float64)
    both = torch.autograd.grad(total, inputs, slopes, is_grads_batched=True, retain_graph=True)
    for got, one in zip(both, torch.autograd.grad(total, inputs), strict=True):
        torch.testing.assert_close(got, torch.stack([one, -2 * one]), **CLOSE)


def test_transforms_of_functions_agree_with_autograd(pieces):
    first, second = vectors(6, 5)
    expected = torch.autograd.grad(value(first, second), second)[0]
    fixed = first.detach()
    torch.testing.assert_close(torch.func.grad(value, 1)(fixed, second.detach()), expected, **CLOSE)
    many = torch.func.vmap(value, (None, 0))(fixed, second.detach().expand(3, 5, 4))
    torch.testing.assert_close(many, value(first, second).detach().expand(3), **CLOSE)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:FutureWarning")
def test_forward_mode_agrees_with_autograd(pieces):
    first, second = (x.detach() for x in vectors(6, 5))
    _, tangent = torch.func.jvp(value, (first, second), (first, second))
    slopes = torch.autograd.grad(
        value(first.requires_grad_(), second.requires_grad_()), (first, second)
    )
    along = (slopes[0] * first).sum() + (slopes[1] * second).sum()
    torch.testing.assert_close(tangent, along, **CLOSE)


def test_vectors_that_score_hundreds_stay_finite(pieces, plain):
    drawn = torch.Generator().manual_seed(6)
    inputs = [(30 * torch.randn(n, 4, generator=drawn)).requires_grad_() for n in (7, 5)]
    slopes = torch.autograd.grad(value(*inputs).float(), inputs)
    exact = [x.detach().double().requires_grad_() for x in inputs]
    expected = plain(lambda: torch.autograd.grad(value(*exact), exact))
    for got, right in zip(slopes, expected, strict=True):
        # float32 rounds a score of 1e3 at 6e-5, which is a share of 6e-5 in its exponential
        torch.testing.assert_close(got.double(), right, rtol=1e-3, atol=1e-3)


def test_the_backward_pass_under_autocast_stays_in_float32(pieces):
    first, second = (x.detach().float().requires_grad_() for x in vectors(6, 6))
    expected = torch.autograd.grad(losses.clip(first, second), (first, second))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        slopes = torch.autograd.grad(losses.clip(first, second), (first, second))
    torch.testing.assert_close(slopes, expected)


@pytest.mark.parametrize("name", ["nt_xent", "clip"])
def test_losses_of_two_views_agree_with_torchs_cross_entropy(name, pieces):
    first, second = vectors(6, 6)
    n, u, v = 6, *(torch.nn.functional.normalize(x) for x in (first, second))
    cross_entropy = torch.nn.functional.cross_entropy
    if name == "clip":
        scores, own = u @ v.mT / 0.07, torch.arange(n)
        expected = (cross_entropy(scores, own) + cross_entropy(scores.mT, own)) / 2
    else:
        views = torch.cat([u, v])
        scores = (views @ views.mT / 0.1).fill_diagonal_(-torch.inf)
        expected = cross_entropy(scores, torch.arange(2 * n).roll(n))
    got = getattr(losses, name)(first, second)
    torch.testing.assert_close(got, expected, **CLOSE)
    torch.testing.assert_close(
        torch.autograd.grad(got, (first, second)),
        torch.autograd.grad(expected, (first, second)),
        **CLOSE,
    )


def test_nothing_at_all(pieces):
    empty = torch.zeros(0, 4, requires_grad=True)
    for name in ("nt_xent", "clip"):
        (slope,) = torch.autograd.grad(getattr(losses, name)(empty, empty), empty)
        assert slope.shape == (0, 4)
