"""Regression losses against scipy, scikit-learn and torch, their laws, and their optima."""

import functools
import itertools
import math

import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
import sklearn.metrics
import torch
from torch.nn import functional as F

import losses
from tests.losses.oracle import TOLERANCE, slopes


def log1p(x, floor):
    """log(1 + x), and below the floor its tangent there."""
    return np.where(
        x > floor, np.log1p(np.maximum(x, floor)), np.log1p(floor) + (x - floor) / (1 + floor)
    )


def mse(f, y):
    return (f - y) ** 2


def mae(f, y):
    return np.abs(f - y)


def msle(f, y, floor=-0.9):
    return (log1p(f, floor) - log1p(y, floor)) ** 2


def huber(f, y, delta=1.0):
    return scipy.special.huber(delta, f - y)


def smooth_l1(f, y, beta=1.0):
    return np.where(abs(f - y) < beta, (f - y) ** 2 / (2 * beta), abs(f - y) - beta / 2)


def log_cosh(f, y):
    return np.log(np.cosh(f - y))


def pseudo_huber(f, y, delta=1.0):
    return scipy.special.pseudo_huber(delta, f - y)


def quantile(f, y, q=0.5):
    return np.where(y > f, q * (y - f), (q - 1) * (y - f))


def poisson_nll(f, y):
    return np.exp(f) - y * f


def gaussian_nll(heads, y, floor=1e-6):
    deviation = np.sqrt(np.exp(heads[:, 1]) + floor)
    return -scipy.stats.norm.logpdf(y, heads[:, 0], deviation) - np.log(2 * np.pi) / 2


def beta_nll(heads, y, beta=0.5, floor=1e-6, fixed=None):
    """`fixed` are the heads that the weight is taken from, where the others move."""
    weight = (np.exp((heads if fixed is None else fixed)[:, 1]) + floor) ** beta
    return weight * gaussian_nll(heads, y, floor)


def tweedie(f, y, power=1.5):
    """The integral from the mean to y of 2 (y - u) / u^p, which is what a deviance is."""
    pairs = zip(np.exp(f), y, strict=True)
    return np.array(
        [scipy.integrate.quad(lambda u, y=y: 2 * (y - u) / u**power, mu, y)[0] for mu, y in pairs]
    )


REFERENCES = {
    "mse": mse,
    "mae": mae,
    "rmse": mse,  # one value per item; the root comes after the division
    "msle": msle,
    "huber": huber,
    "smooth_l1": smooth_l1,
    "log_cosh": log_cosh,
    "pseudo_huber": pseudo_huber,
    "quantile": quantile,
    "poisson_nll": poisson_nll,
    "gaussian_nll": gaussian_nll,
    "beta_nll": beta_nll,
    "tweedie": tweedie,
}
CASES = [
    *[(name, {}) for name in REFERENCES],
    ("msle", {"floor": -0.3}),
    ("huber", {"delta": 0.2}),
    ("smooth_l1", {"beta": 3.0}),
    ("pseudo_huber", {"delta": 3.0}),
    ("quantile", {"q": 0.9}),
    ("gaussian_nll", {"floor": 0.5}),
    ("beta_nll", {"beta": 0.0}),
    ("beta_nll", {"beta": 1.0, "floor": 0.5}),
    ("tweedie", {"power": 1.01}),
    ("tweedie", {"power": 1.99}),
]


@pytest.mark.parametrize(("name", "given"), CASES)
def test_values_and_gradients_are_the_reference(name, given):
    entry, draw = losses.get(name), np.random.default_rng(0)
    f = draw.normal(size=(40, entry.heads)) if entry.heads > 1 else draw.normal(size=40)
    y = np.abs(draw.normal(size=40))
    x = torch.tensor(f, requires_grad=True)
    values = entry.parts(x, torch.tensor(y), **given).values
    values.sum().backward()
    reference = REFERENCES[name]
    assert np.allclose(values.detach().numpy(), reference(f, y, **given), rtol=1e-9, atol=1e-12)
    moving = functools.partial(reference, fixed=f) if entry.detached else reference
    expected = slopes(moving, f, y, **given)
    assert np.allclose(x.grad.numpy(), expected, rtol=TOLERANCE, atol=TOLERANCE)


def data(*shape, seed=0):
    """Predictions and targets around 2 with a spread of 1, float64."""
    generator = torch.Generator().manual_seed(seed)
    f, y = 2 + torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    return f, y


@pytest.mark.parametrize(
    ("name", "given", "metric"),
    [
        ("mse", {}, sklearn.metrics.mean_squared_error),
        ("mae", {}, sklearn.metrics.mean_absolute_error),
        ("rmse", {}, sklearn.metrics.root_mean_squared_error),
        ("msle", {}, sklearn.metrics.mean_squared_log_error),
        ("quantile", {"q": 0.8}, lambda y, f: sklearn.metrics.mean_pinball_loss(y, f, alpha=0.8)),
    ],
)
def test_equals_scikit_learn(name, given, metric):
    f, y = (t.abs() for t in data(50))
    loss = losses.build(name, **given)(f, y).item()
    assert loss == pytest.approx(metric(y.numpy(), f.numpy()), rel=1e-12)


def test_equals_torch():
    f, y = data(50)
    spread = data(50, seed=1)[0]
    variance = spread.exp() + 0.01
    ours = losses.gaussian_nll(torch.stack([f, spread], 1), y, floor=0.01)
    assert ours.item() == pytest.approx(F.gaussian_nll_loss(f, y, variance).item(), rel=1e-12)
    counts = y.abs().round()
    theirs = F.poisson_nll_loss(f, counts)
    assert losses.poisson_nll(f, counts).item() == pytest.approx(theirs.item(), rel=1e-12)
    for beta in (0.0, 0.3, 2.0):
        theirs = F.smooth_l1_loss(f, y, beta=beta).item()
        assert losses.smooth_l1(f, y, beta=beta).item() == pytest.approx(theirs, rel=1e-12)


def test_poisson_is_a_likelihood_up_to_log_factorial():
    f, y = data(50)
    counts = y.abs().round()
    log_p = scipy.stats.poisson.logpmf(counts.numpy(), f.exp().numpy())
    constant = scipy.special.gammaln(counts.numpy() + 1)
    ours = losses.poisson_nll(f, counts, reduction="none").numpy()
    assert np.allclose(ours, -log_p - constant, rtol=1e-10)


@pytest.mark.parametrize("power", [1.05, 1.5, 1.95])
def test_tweedie_is_scikit_learns_deviance(power):
    f, y = data(50)
    y = y.abs() * (y > 1)
    assert (y == 0).any()
    ours = losses.tweedie(f, y, power=power)
    theirs = sklearn.metrics.mean_tweedie_deviance(y.numpy(), f.exp().numpy(), power=power)
    assert ours.item() == pytest.approx(theirs, rel=1e-12)


def test_tweedie_ends_at_poisson_and_gamma():
    """Between its ends the deviance is smooth in p, so 1e-9 away it is 1e-9 off, times logs."""
    f, y = data(50)
    y = y.abs()
    for power, end in ((1 + 1e-9, 1), (2 - 1e-9, 2)):
        limit = sklearn.metrics.mean_tweedie_deviance(y.numpy(), f.exp().numpy(), power=end)
        assert losses.tweedie(f, y, power=power).item() == pytest.approx(limit, rel=1e-6)
    poisson = losses.poisson_nll(f, y) - losses.poisson_nll(y.log(), y)
    ours = losses.tweedie(f, y, power=1 + 1e-9)
    assert ours.item() == pytest.approx(2 * poisson.item(), rel=1e-6)


@pytest.mark.parametrize("power", [1.01, 1.5, 1.99])
def test_tweedie_keeps_its_digits_near_its_ends_in_float32(power):
    """A few roundings of the terms; the textbook form has y / (p - 1) and 1 / (2 - p) in them."""
    y = torch.tensor([0.0, 0.1, 1.0, 20.0])
    f = torch.tensor([0.5, -2.0, 0.3, 3.2])
    exact = losses.tweedie(f.double(), y.double(), power=power, reduction="none")
    ours = losses.tweedie(f, y, power=power, reduction="none")
    size = exact + (1 + y) * (1 + f.abs()) * (f.exp() + torch.exp(-f))
    assert ((ours - exact).abs() < 8 * torch.finfo(torch.float32).eps * size).all()


def test_tweedie_refuses_negative_targets():
    with pytest.raises(ValueError, match=r"tweedie needs targets >= 0, got values from -1 to -1"):
        losses.tweedie(torch.zeros(2), -torch.ones(2))


def test_beta_nll_lies_between_the_likelihood_and_squares():
    f, y = data(50)
    spread = data(50, seed=1)[0]
    heads = torch.stack([f, spread], 1).requires_grad_()
    slopes_at = {
        beta: torch.autograd.grad(losses.beta_nll(heads, y, beta=beta, floor=0.1), heads)[0]
        for beta in (0.0, 0.3, 1.0)
    }
    (likelihood,) = torch.autograd.grad(losses.gaussian_nll(heads, y, floor=0.1), heads)
    torch.testing.assert_close(slopes_at[0.0], likelihood)
    mean = f.clone().requires_grad_()
    (squares,) = torch.autograd.grad(losses.mse(mean, y) / 2, mean)
    torch.testing.assert_close(slopes_at[1.0][:, 0], squares)
    variance = (spread.exp() + 0.1).unsqueeze(1)
    torch.testing.assert_close(slopes_at[0.3], variance**0.3 * likelihood)


# Laws


@pytest.mark.parametrize("beta", [0.2, 1.0, 5.0])
def test_smooth_l1_is_huber_over_its_threshold(beta):
    f, y = data(50)
    smooth = losses.smooth_l1(f, y, beta=beta)
    assert (smooth * beta).item() == pytest.approx(losses.huber(f, y, delta=beta).item(), rel=1e-12)


@pytest.mark.parametrize("name", ["huber", "pseudo_huber"])
def test_huber_scales_with_the_square(name):
    f, y = data(50)
    function = getattr(losses, name)
    scaled = function(3 * f, 3 * y, delta=3 * 0.7)
    assert scaled.item() == pytest.approx(9 * function(f, y, delta=0.7).item(), rel=1e-12)


def test_pseudo_huber_lies_within_half_delta_squared_below_huber():
    residual = torch.linspace(-300, 300, 4001, dtype=torch.float64)
    zero = torch.zeros_like(residual)
    for delta in (0.5, 3.0):
        gap = losses.huber(residual, zero, delta=delta, reduction="none") - losses.pseudo_huber(
            residual, zero, delta=delta, reduction="none"
        )
        assert gap.min() >= 0
        assert gap.max() <= delta**2 / 2
        assert gap[0].item() == pytest.approx(delta**2 / 2, rel=1e-2)  # both straight far out


@pytest.mark.parametrize("name", ["log_cosh", "pseudo_huber"])
def test_small_residuals_keep_their_digits(name):
    """Both are r^2 / 2 here; the textbook forms lose it in float32 against a 1 or a log 2.

    Tolerated are a few roundings of numbers of size r, so a few eps r over r^2 / 2.
    """
    residual = torch.logspace(-6, -3, 7)
    loss = getattr(losses, name)(residual, torch.zeros(7), reduction="none")
    error = (loss / (residual.square() / 2) - 1).abs()
    assert (error < 4 * torch.finfo(torch.float32).eps / residual).all()


def test_quantile_at_one_half_is_half_the_absolute_error():
    f, y = data(50)
    half = losses.quantile(f, y, q=0.5, reduction="none")
    assert torch.equal(half, losses.mae(f, y, reduction="none") / 2)


def test_gaussian_of_constant_variance_is_a_scaled_squared_error():
    f, y = data(50)
    variance = 0.25
    heads = torch.stack([f, torch.full_like(f, math.log(variance - 1e-3))], 1)
    expected = (losses.mse(f, y) / variance + math.log(variance)) / 2
    assert losses.gaussian_nll(heads, y, floor=1e-3).item() == pytest.approx(expected.item())


def test_gaussian_is_bounded_below_by_its_floor():
    y = torch.zeros(1, dtype=torch.float64)
    heads = torch.tensor([[0.0, -1e4]], dtype=torch.float64)
    assert losses.gaussian_nll(heads, y, floor=0.01).item() == pytest.approx(math.log(0.01) / 2)


# Optima: the best constant prediction of a sample is the statistic that the docstring promises.


def slope_at(name, constant, y, **given):
    f = torch.full_like(y, constant).requires_grad_()
    losses.build(name, **given)(f, y).backward()
    return f.grad.sum().item()


def test_optimum_of_squares_is_the_mean_and_of_counts_its_logarithm():
    y = data(31)[1].abs().round()
    for name in ("mse", "rmse"):
        assert slope_at(name, y.mean().item(), y) == pytest.approx(0, abs=1e-12)
    for name in ("poisson_nll", "tweedie"):
        assert slope_at(name, y.mean().log().item(), y) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("q", [0.1, 0.5, 0.9])
def test_optimum_of_quantile_is_the_quantile(q):
    y = data(31)[1]
    best = np.quantile(y.numpy(), q, method="inverted_cdf")
    assert slope_at("quantile", best - 1e-9, y, q=q) < 0 < slope_at("quantile", best + 1e-9, y, q=q)


def test_optimum_of_absolute_error_is_the_median():
    y = data(31)[1]
    best = y.median().item()
    assert slope_at("mae", best - 1e-9, y) < 0 < slope_at("mae", best + 1e-9, y)


def test_optimum_of_gaussian_is_mean_and_variance():
    y = data(31)[1]
    variance = y.var(correction=0).item()
    heads = torch.tensor([[y.mean().item(), math.log(variance - 1e-3)]], dtype=torch.float64)
    heads = heads.expand(31, 2).clone().requires_grad_()
    losses.gaussian_nll(heads, y, floor=1e-3).backward()
    assert torch.allclose(heads.grad.sum(0), torch.zeros(2, dtype=torch.float64), atol=1e-12)


# The root


def test_rmse_has_gradient_zero_at_zero_and_at_most_one_over_root_n():
    y = data(9)[1]
    f = y.clone().requires_grad_()
    losses.rmse(f, y).backward()
    assert (f.grad == 0).all()
    for size in (1e-150, 1e-3, 1e3):
        f = (y * 0 + size).requires_grad_()
        losses.rmse(f, y * 0).backward()
        assert f.grad.norm().item() == pytest.approx(1 / math.sqrt(9), rel=1e-6)


def test_rmse_of_parts_is_the_root_over_the_whole_and_not_a_mean_of_roots():
    f, y = data(9)
    rmse = losses.get("rmse")
    parts = [rmse.fraction(*part) for part in ((f[:2], y[:2]), (f[2:], y[2:]))]
    joined = losses.Fraction(*(sum(column) for column in zip(*parts, strict=True)))
    assert rmse.divide(joined).item() == pytest.approx(losses.rmse(f, y).item(), rel=1e-12)
    roots = (losses.rmse(f[:2], y[:2]) + losses.rmse(f[2:], y[2:])) / 2
    assert abs(roots - losses.rmse(f, y)) > 1e-3


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_rmse_has_only_a_mean(reduction):
    f, y = data(9)
    with pytest.raises(ValueError, match=f"rmse: reduction must be one of mean, got '{reduction}'"):
        losses.rmse(f, y, reduction=reduction)


# Squared logarithms


def test_msle_goes_on_along_a_tangent():
    """At the floor value and slope meet, and far below the gradient still leads back."""
    y = torch.zeros(3, dtype=torch.float64)
    f = torch.tensor([-0.5 - 1e-9, -0.5 + 1e-9, -7.0], dtype=torch.float64, requires_grad=True)
    values = losses.msle(f, y, floor=-0.5, reduction="none")
    values.sum().backward()
    assert values[0].item() == pytest.approx(values[1].item(), rel=1e-7)
    assert f.grad[0].item() == pytest.approx(f.grad[1].item(), rel=1e-7)
    assert f.grad[2] < f.grad[0] < 0
    assert values[2] > values[0]


def test_msle_above_the_floor_is_the_formula_whatever_the_floor():
    f, y = (t.abs() for t in data(50))
    assert torch.equal(losses.msle(f, y, floor=-0.99), losses.msle(f, y, floor=0.0))


# Shapes and errors


@pytest.mark.parametrize("name", sorted(set(REFERENCES) - {"beta_nll", "gaussian_nll", "rmse"}))
def test_several_outputs_are_elementwise(name):
    f, y = (t.abs() for t in data(5, 3))
    whole = losses.build(name, reduction="none")(f, y)
    columns = [losses.build(name, reduction="none")(f[:, k], y[:, k]) for k in range(3)]
    assert torch.equal(whole, torch.stack(columns, 1))


def test_gaussian_of_several_outputs_keeps_its_heads_at_axis_1():
    f, y = data(5, 2, 3)[0], data(5, 3)[1]
    whole = losses.gaussian_nll(f, y, reduction="none")
    columns = [losses.gaussian_nll(f[:, :, k], y[:, k], reduction="none") for k in range(3)]
    assert torch.allclose(whole, torch.stack(columns, 1), rtol=1e-14)


@pytest.mark.parametrize("shape", [(5,), (5, 1), (5, 3), (5, 2, 1), (4, 2)])
def test_gaussian_names_the_shapes_it_needs(shape):
    with pytest.raises(ValueError, match=r"gaussian_nll needs output \[N, 2, ...\].*\[5\]"):
        losses.gaussian_nll(torch.zeros(shape), torch.zeros(5))


@pytest.mark.parametrize(("name", "least"), [("msle", "> -1"), ("poisson_nll", ">= 0")])
def test_targets_outside_the_domain_are_refused(name, least):
    with pytest.raises(ValueError, match=f"{name} needs targets {least}, got values from -1 to 2"):
        losses.build(name)(torch.zeros(2), torch.tensor([-1.0, 2.0]))


@pytest.mark.parametrize(
    ("name", "parameter", "number", "bound"),
    [
        ("huber", "delta", 0, "> 0"),
        ("pseudo_huber", "delta", -1.0, "> 0"),
        ("smooth_l1", "beta", -0.1, ">= 0"),
        ("quantile", "q", 1.0, "> 0 and < 1"),
        ("msle", "floor", -1.0, "> -1 and <= 0"),
        ("gaussian_nll", "floor", 0.0, "> 0"),
    ],
)
def test_parameters_outside_their_bounds_are_refused(name, parameter, number, bound):
    with pytest.raises(ValueError, match=f"{name}.{parameter} must be {bound}, got {number}"):
        losses.build(name, **{parameter: number})


def test_pseudo_huber_without_its_factor_is_another_loss():
    """A form often printed lacks delta^2, so that its slope far out is 1/delta and not delta."""
    delta = 3.0
    residual = torch.tensor([100.0, 101.0], dtype=torch.float64)
    printed = torch.sqrt(1 + (residual / delta) ** 2) - 1
    ours = losses.pseudo_huber(residual, torch.zeros(2), delta=delta, reduction="none")
    for values, slope in ((printed, 1 / delta), (ours, delta)):
        (before, after) = next(itertools.pairwise(values.tolist()))
        assert after - before == pytest.approx(slope, rel=1e-3)


@pytest.mark.parametrize(("residual", "delta"), [(1e15, 1e-6), (3e25, 1.0), (-2e20, 0.1)])
@pytest.mark.parametrize("items", [1, 20_000])
def test_pseudo_huber_of_enormous_residuals_is_that_of_the_absolute_error(residual, delta, items):
    prediction = torch.full((items,), residual, requires_grad=True)
    value = losses.pseudo_huber(prediction, torch.zeros(items), delta=delta)
    value.backward()
    assert value.item() == pytest.approx(delta * abs(residual), rel=1e-5)
    slope = torch.full((items,), math.copysign(delta / items, residual))
    torch.testing.assert_close(prediction.grad, slope, rtol=1e-5, atol=0)
