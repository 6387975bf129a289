"""Losses of real values: squared, absolute, everything between, and likelihoods.

Targets of any shape work, elementwise: [N] for one value per item, [N, K] for K of them. In the
formulas f is the prediction, y the target and r = f - y.
"""

import math
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from losses import derivatives
from losses.arguments import Bounds, NonNegative, Positive, Share
from losses.core import loss

Inside = Annotated[float, Bounds(0, 1, low_open=True, high_open=True)]
"""A share strictly between nothing and all."""


def _root(mean: Tensor) -> Tensor:
    """Square root whose gradient at 0 is 0; the root of 0 proper has none."""
    positive = mean > 0
    return torch.where(positive, mean, 1).sqrt() * positive


@loss(
    "mse",
    target="real",
    source="Gauss 1809, Theoria motus corporum coelestium",
    total=F.mse_loss,
)
def mse(prediction: Tensor, target: Tensor) -> Tensor:
    r"""Squared error: :math:`(f - y)^2`; its optimum is the mean.

    Args:
        prediction: float [...].
        target: float [...], in the prediction's units.
    """
    return F.mse_loss(prediction, target, reduction="none")


@loss(
    "mae",
    target="real",
    source="Laplace 1774, Probabilité des causes par les événements",
    derivative=derivatives.mae,
)
def mae(prediction: Tensor, target: Tensor) -> Tensor:
    r"""Absolute error: :math:`|f - y|`, with subgradient 0 at 0; its optimum is the median.

    Args:
        prediction: float [...].
        target: float [...], in the prediction's units.
    """
    return F.l1_loss(prediction, target, reduction="none")


@loss(
    "rmse",
    target="real",
    source="Hyndman & Koehler 2006, section 2.1",
    finish=_root,
    total=F.mse_loss,
)
def rmse(prediction: Tensor, target: Tensor) -> Tensor:
    r"""Root of the mean squared error: :math:`\sqrt{\frac1n \sum_i (f_i - y_i)^2}`.

    The values are squares and the root is taken after the one division, so that parts of a batch
    give the root over the whole and not a mean of roots. There is no sum and no value per item.
    The gradient never exceeds :math:`1/\sqrt n` and is 0 where every residual is 0.

    Args:
        prediction: float [...].
        target: float [...], in the prediction's units, which are the units of the loss too.
    """
    return F.mse_loss(prediction, target, reduction="none")


@loss(
    "msle",
    target="real",
    source="scikit-learn, mean_squared_log_error",
    within=Bounds(-1, low_open=True),
)
def msle(
    prediction: Tensor,
    target: Tensor,
    *,
    floor: Annotated[float, Bounds(-1, 0, low_open=True)] = -0.9,
) -> Tensor:
    r"""Squared difference of logarithms: :math:`(\log(1 + f) - \log(1 + y))^2`.

    The logarithm ends at -1 and a network's output does not, so below `floor` it goes on along its
    tangent: a prediction there costs more the lower it is and its gradient leads back.

    Args:
        prediction: float [...].
        target: float [...] above -1, in the prediction's units.
        floor: where the tangent starts, above -1 and at most 0; nearer to -1 it is steeper.

    Raises:
        ValueError: a target of -1 or less.
    """
    return (_log1p(prediction, floor) - _log1p(target, floor)).square()


def _log1p(x: Tensor, floor: float) -> Tensor:
    inside = x.clamp(min=floor)
    return torch.log1p(inside) + (x - inside) / (1 + floor)


@loss(
    "huber",
    target="real",
    source="Huber 1964, Robust estimation of a location parameter",
    total=F.huber_loss,
)
def huber(prediction: Tensor, target: Tensor, *, delta: Positive = 1.0) -> Tensor:
    r"""Squared near 0, absolute far out:
    :math:`\frac12 r^2 \text{ if } |r| \le \delta \text{ else } \delta(|r| - \frac12\delta)`.

    Args:
        prediction: float [...].
        target: float [...], in the prediction's units.
        delta: where the square ends, in the prediction's units; it is the largest gradient too.
    """
    return F.huber_loss(prediction, target, reduction="none", delta=delta)


@loss(
    "smooth_l1",
    target="real",
    source="Girshick 2015, arXiv:1504.08083, eq. 3",
    total=F.smooth_l1_loss,
)
def smooth_l1(prediction: Tensor, target: Tensor, *, beta: NonNegative = 1.0) -> Tensor:
    r"""Huber loss over its threshold, so that the slope far out is 1:
    :math:`\frac{r^2}{2\beta} \text{ if } |r| < \beta \text{ else } |r| - \frac12\beta`.

    Args:
        prediction: float [...].
        target: float [...], in the prediction's units.
        beta: where the square ends, in the prediction's units; 0 is the absolute error.
    """
    return F.smooth_l1_loss(prediction, target, reduction="none", beta=beta)


@loss(
    "log_cosh",
    target="real",
    source="Green 1990, IEEE Trans. Med. Imaging 9(1)",
    derivative=derivatives.log_cosh,
)
def log_cosh(prediction: Tensor, target: Tensor) -> Tensor:
    r"""Half the square near 0, absolute far out, smooth: :math:`\log \cosh r`.

    Args:
        prediction: float [...].
        target: float [...], in units where a residual of 1 is neither small nor large.
    """
    # cosh r = e^|r| (1 + e^-2|r|) / 2: nothing overflows, and near 0 nothing of size 1 cancels.
    size = (prediction - target).abs()
    return size + torch.log1p(torch.expm1(-2 * size) / 2)


@loss(
    "pseudo_huber",
    target="real",
    source="Hartley & Zisserman 2004, appendix 6.8",
    derivative=derivatives.pseudo_huber,
)
def pseudo_huber(prediction: Tensor, target: Tensor, *, delta: Positive = 1.0) -> Tensor:
    r"""Smooth stand-in for Huber: :math:`\delta^2 \left(\sqrt{1 + (r/\delta)^2} - 1\right)`.

    Half the square near 0; far out it has Huber's slope :math:`\delta` and lies at most
    :math:`\frac12\delta^2` below it.

    Args:
        prediction: float [...].
        target: float [...], in the prediction's units.
        delta: where the square gives way, in the prediction's units; the gradient stays below it.
    """
    residual = prediction - target
    # Multiplied by its conjugate, the root minus 1 loses no digits at small residuals; no square of
    # a residual is taken, which would overflow.
    root = torch.hypot(residual / delta, residual.new_ones(()))
    return residual / (1 + root) * residual


@loss(
    "quantile",
    target="real",
    source="Koenker & Bassett 1978, Regression quantiles",
    derivative=derivatives.quantile,
)
def quantile(prediction: Tensor, target: Tensor, *, q: Inside = 0.5) -> Tensor:
    r"""Pinball loss: :math:`q\,(y - f)_+ + (1 - q)\,(f - y)_+`; its optimum is the q-quantile.

    The subgradient at 0 is 0. At q = 0.5 it is half the absolute error.

    Args:
        prediction: float [...].
        target: float [...], in the prediction's units.
        q: share of the targets that should lie below the prediction, between 0 and 1.
    """
    above = target - prediction
    return q * F.relu(above) + (1 - q) * F.relu(-above)


@loss(
    "poisson_nll",
    target="real",
    source="Nelder & Wedderburn 1972, Generalized linear models",
    derivative=derivatives.poisson_nll,
    within=Bounds(0),
    point=torch.exp,
    minimum=None,
    unbounded="the rate is the exponential of the output and overflows float32 above 88",
)
def poisson_nll(log_rate: Tensor, target: Tensor) -> Tensor:
    r"""Negative log-likelihood of a count, :math:`e^f - y f`, without the constant log y!.

    Args:
        log_rate: logarithm of the expected count, float [...].
        target: counts, >= 0, of any dtype [...].

    Raises:
        ValueError: a negative target.
    """
    return F.poisson_nll_loss(log_rate, target, log_input=True, reduction="none")


@loss(
    "gaussian_nll",
    target="real",
    source="Nix & Weigend 1994, Estimating the mean and variance of the target distribution",
    heads=2,
    point=lambda output: output[:, 0],
    minimum=None,
)
def gaussian_nll(heads: Tensor, target: Tensor, *, floor: Positive = 1e-6) -> Tensor:
    r"""Negative log-likelihood of a normal law,
    :math:`\frac12 \left(\log v + (\mu - y)^2 / v\right),\ v = \epsilon + e^s`.

    The constant :math:`\frac12 \log 2\pi` is left out. Mean and variance are learnt together, so an
    item the model holds for noisy pulls less on its mean.

    Args:
        heads: mean :math:`\mu` at [:, 0] and log-variance s at [:, 1], float [N, 2, ...].
        target: float [N, ...], in the mean's units.
        floor: :math:`\epsilon`, the least variance, in squared units of the target; it bounds the
            loss below by half its logarithm.
    """
    return _normal_nll(heads, target, floor)[0]


def _normal_nll(heads: Tensor, target: Tensor, floor: float) -> tuple[Tensor, Tensor]:
    """The value of each item, and the logarithm of its variance."""
    mean, log_variance = heads.unbind(1)
    least = math.log(floor)
    log_v = least - F.logsigmoid(least - log_variance)  # logaddexp of the two, in half the time
    return 0.5 * (log_v + (mean - target).square() * torch.exp(-log_v)), log_v


@loss(
    "beta_nll",
    target="real",
    source="Seitzer et al. 2022, arXiv:2203.09168",
    heads=2,
    point=lambda output: output[:, 0],
    minimum=None,
    unbounded="the weight is a power of the variance, the exponential of an output",
    detached="the weight v^beta of each item",
)
def beta_nll(heads: Tensor, target: Tensor, *, beta: Share = 0.5, floor: Positive = 1e-6) -> Tensor:
    r"""Normal likelihood whose items weigh as a power of their variance,
    :math:`\lfloor v^\beta \rfloor\, \frac12 \left(\log v + (\mu - y)^2 / v\right),\
    v = \epsilon + e^s`.

    The weight in brackets carries no gradient. Under :func:`gaussian_nll` a model may call what it
    fits badly noise and stop learning it; here the mean's gradient is
    :math:`(\mu - y)\, v^{\beta - 1}`, at beta = 1 that of half the squared error.

    Args:
        heads: mean :math:`\mu` at [:, 0] and log-variance s at [:, 1], float [N, 2, ...].
        target: float [N, ...], in the mean's units.
        beta: 0 is :func:`gaussian_nll`, 1 learns the mean as by squares; the paper takes 0.5.
        floor: :math:`\epsilon`, the least variance, in squared units of the target.
    """
    values, log_v = _normal_nll(heads, target, floor)
    return torch.exp(beta * log_v.detach()) * values


def _tweedie_derivative(
    log_mean: Tensor, target: Tensor, *, power: float = 1.5
) -> tuple[Tensor, Tensor]:
    r"""It is :math:`2 \mu^{1-p} (\mu - y)`."""
    values = _tweedie(log_mean, target, power)
    slope = log_mean.exp().sub_(target)
    return values, slope.mul_((log_mean * (1 - power)).exp_()).mul_(2)


@loss(
    "tweedie",
    target="real",
    source="Jørgensen 1987, Exponential dispersion models",
    derivative=_tweedie_derivative,
    within=Bounds(0),
    point=torch.exp,
    unbounded="the mean is the exponential of the output",
)
def tweedie(
    log_mean: Tensor,
    target: Tensor,
    *,
    power: Annotated[float, Bounds(1, 2, low_open=True, high_open=True)] = 1.5,
) -> Tensor:
    r"""Deviance of a compound Poisson-gamma law,
    :math:`2 \left(\frac{y^{2-p}}{(1-p)(2-p)} - \frac{y \mu^{1-p}}{1-p}
    + \frac{\mu^{2-p}}{2-p}\right),\ \mu = e^f`.

    For amounts that are often exactly 0 and otherwise positive and skewed: rain, claims, demand. It
    is 0 where the mean is the target; its optimum is the mean. The variance it assumes grows as
    :math:`\mu^p`.

    Args:
        log_mean: logarithm of the mean, float [...].
        target: >= 0, of any dtype [...].
        power: p, between 1 (counts: twice :func:`poisson_nll`, less its least value) and 2 (gamma).

    Raises:
        ValueError: a negative target.
    """
    return _tweedie(log_mean, target, power)


def _tweedie(log_mean: Tensor, target: Tensor, power: float) -> Tensor:
    log_y = target.log()  # -inf at 0
    finite = log_y.clamp(min=math.log(torch.finfo(log_y.dtype).tiny))
    # Differences of expm1: at p near 1 or 2 the terms of the formula grow without end.
    one, two = 1 - power, 2 - power
    levels = (torch.expm1(two * log_mean) - torch.expm1(two * log_y)) / two
    slopes = target * (torch.expm1(one * log_mean) - torch.expm1(one * finite)) / one
    return 2 * (levels - slopes)
