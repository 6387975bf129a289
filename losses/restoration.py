"""Losses of restored and generated images: pixels, smoothness, structure, features.

Images are float [N, C, H, W]. In the formulas x is the prediction and y the target.
"""

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from losses.arguments import Bounds, Count, Positive
from losses.calls import Reduction
from losses.core import loss

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of Wang et al. 2003, fine to coarse
K1, K2 = 0.01, 0.03  # of Wang et al. 2004
PAIR = {"prediction": "float N C H W", "target": "float N C H W"}
BOUNDED = "it is bounded, and nearly flat where the images have nothing in common"


def _images(height: int, width: int) -> Callable[[torch.Generator], tuple[Tensor, Tensor]]:
    """Makes 5 noisy predictions of images whose values lie in [0, 1]."""

    def make(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        draw = {"generator": generator, "dtype": torch.float64}
        target = torch.rand(5, 1, height, width, **draw)  # type: ignore[call-overload]
        noise = torch.randn(target.shape, **draw)  # type: ignore[call-overload]
        return target + noise / 4, target

    return make


def _charbonnier_derivative(
    prediction: Tensor, target: Tensor, *, eps: Positive = 1e-3
) -> tuple[Tensor, Tensor]:
    r"""With the residual r, :math:`r / \sqrt{r^2 + \epsilon^2}`."""
    residual = prediction - target
    values = torch.hypot(residual, residual.new_full((), eps))
    return values, residual.div_(values)


@loss(
    "charbonnier",
    target="real",
    source="Charbonnier et al. 1994, Two deterministic half-quadratic regularization algorithms",
    minimum=None,
    derivative=_charbonnier_derivative,
)
def charbonnier(prediction: Tensor, target: Tensor, *, eps: Positive = 1e-3) -> Tensor:
    r"""Smooth absolute error, :math:`\sqrt{(x - y)^2 + \epsilon^2}`.

    The usual pixel loss of super-resolution and denoising: robust as the absolute error, and smooth
    where it has its kink. A perfect prediction costs eps. It is :func:`pseudo_huber` with
    delta = eps, over eps, plus eps.

    Args:
        prediction: float [...].
        target: float [...], in the prediction's units.
        eps: width of the smooth part, in the prediction's units.
    """
    residual = prediction - target
    return torch.hypot(residual, residual.new_full((), eps))


@loss(
    "total_variation",
    target="fields",
    fields={"image": "float N C H W"},
    example=lambda generator: _images(4, 3)(generator)[:1],
    source="Rudin, Osher & Fatemi 1992, Nonlinear total variation based noise removal algorithms",
)
def total_variation(image: Tensor) -> Tensor:
    r"""Sum of absolute differences between neighbours,
    :math:`\sum_{c,i,j} |x_{i+1,j} - x_{i,j}| + |x_{i,j+1} - x_{i,j}|`.

    One value per image; noise is dear and edges are cheap. It knows no target, so it is a small
    term beside one that does. This is the anisotropic form; the paper's own takes the length of the
    two differences together. It grows with the image's size; its subgradient at 0 is 0.

    Args:
        image: float [N, C, H, W].
    """
    down = (image[:, :, 1:] - image[:, :, :-1]).abs()
    across = (image[:, :, :, 1:] - image[:, :, :, :-1]).abs()
    return down.sum((1, 2, 3)) + across.sum((1, 2, 3))


@loss(
    "ssim",
    target="fields",
    fields=PAIR,
    example=_images(13, 12),
    source="Wang et al. 2004, Image quality assessment: from error visibility to structural "
    "similarity",
    saturating=BOUNDED,
)
def ssim(
    prediction: Tensor,
    target: Tensor,
    *,
    data_range: Positive = 1.0,
    window: Count = 11,
    sigma: Positive = 1.5,
) -> Tensor:
    r"""One minus structural similarity,
    :math:`1 - \mathrm{mean}\, \frac{(2 \mu_x \mu_y + c_1)(2 \sigma_{xy} + c_2)}
    {(\mu_x^2 + \mu_y^2 + c_1)(\sigma_x^2 + \sigma_y^2 + c_2)}`.

    One value per image, in [0, 2]. Means and (co)variances are local, under a Gaussian window that
    lies wholly inside the image; :math:`c_1 = (0.01 L)^2, c_2 = (0.03 L)^2` for the data range L.
    It judges structure and is nearly blind to a shift of colour: pair it with an absolute error.

    Args:
        prediction: float [N, C, H, W].
        target: float [N, C, H, W].
        data_range: L, what the images' values may span: 1, or 255.
        window: side of the window in pixels.
        sigma: standard deviation of the window in pixels.

    Raises:
        ValueError: the images are smaller than the window.
    """
    _check_size("ssim", prediction, window, 1)
    luminance, structure = _similarity(prediction, target, data_range, window, sigma)
    return 1 - (luminance * structure).mean((1, 2, 3))


@loss(
    "ms_ssim",
    target="fields",
    fields=PAIR,
    example=_images(176, 176),
    source="Wang, Simoncelli & Bovik 2003, Multiscale structural similarity for image quality "
    "assessment",
    saturating=BOUNDED + "; no gradient passes a scale at which they are anticorrelated",
)
def ms_ssim(
    prediction: Tensor,
    target: Tensor,
    *,
    data_range: Positive = 1.0,
    window: Count = 11,
    sigma: Positive = 1.5,
    scales: Annotated[int, Bounds(1, len(SCALE_WEIGHTS))] = len(SCALE_WEIGHTS),
) -> Tensor:
    r"""One minus structural similarity at several scales,
    :math:`1 - s_M^{\beta_M} \prod_{j<M} c_j^{\beta_j}`.

    One value per image, in [0, 1]. :math:`s_M` is the mean similarity (see :func:`ssim`) of the
    coarsest scale and :math:`c_j` the mean of its second factor alone at a finer one; each scale
    averages 2 by 2 pixels of the last. A root of a negative mean would be NaN, so means below 1e-6
    count as 1e-6 and pass no gradient. With fewer scales the paper's five weights are cut short and
    made to sum to 1.

    Args:
        prediction: float [N, C, H, W].
        target: float [N, C, H, W].
        data_range: L, what the images' values may span: 1, or 255.
        window: side of the window in pixels.
        sigma: standard deviation of the window in pixels.
        scales: M; the sides of the images measure at least window times 2^(M - 1) pixels.

    Raises:
        ValueError: the images are smaller than the window at the coarsest scale.
    """
    _check_size("ms_ssim", prediction, window, scales)
    total = sum(SCALE_WEIGHTS[:scales])
    logarithm = prediction.new_zeros(())
    for scale, weight in enumerate(SCALE_WEIGHTS[:scales]):
        if scale:
            prediction, target = F.avg_pool2d(prediction, 2), F.avg_pool2d(target, 2)
        luminance, structure = _similarity(prediction, target, data_range, window, sigma)
        local = luminance * structure if scale == scales - 1 else structure
        logarithm = logarithm + weight / total * local.mean((1, 2, 3)).clamp(min=1e-6).log()
    return -torch.expm1(logarithm)


def _check_size(name: str, image: Tensor, window: int, scales: int) -> None:
    height, width = image.shape[2:]
    if min(height, width) >> (scales - 1) < window:
        needed = window << (scales - 1)
        raise ValueError(
            f"{name} needs images of at least {needed} x {needed} for a window of {window} at "
            f"{scales} scale(s), got {height} x {width}"
        )


def _similarity(
    x: Tensor, y: Tensor, data_range: float, window: int, sigma: float
) -> tuple[Tensor, Tensor]:
    """Maps of the luminance factor and of the contrast and structure factor, both in [-1, 1].

    Written with s = x + y and d = x - y, for 2 mu_x mu_y = (mu_s^2 - mu_d^2) / 2 and alike for the
    covariance: four windowed means instead of five, and neither rounding nor overflow of a
    difference takes a factor out of its range.
    """
    total, difference = x + y, x - y
    maps = torch.stack([total, difference, total.square(), difference.square()])
    means = _windowed(maps, window, sigma)
    squares = means[:2].square()
    variances = (means[2:] - squares).clamp(min=0)
    return (
        _contrast(squares, (K1 * data_range) ** 2),
        _contrast(variances, (K2 * data_range) ** 2),
    )


def _contrast(pair: Tensor, constant: float) -> Tensor:
    """(s - d + 2 c) / (s + d + 2 c) of s and d stacked."""
    return (pair[0] - pair[1] + 2 * constant) / (pair[0] + pair[1] + 2 * constant)


def _windowed(maps: Tensor, window: int, sigma: float) -> Tensor:
    """Gaussian mean around every pixel whose window lies inside, of maps [..., H, W]."""
    place = torch.arange(window, dtype=maps.dtype, device=maps.device) - (window - 1) / 2
    weights = torch.exp(-(place / sigma).square() / 2)
    weights = weights / weights.sum()
    # One image whose planes are its channels is the quickest for torch, by far.
    planes = maps.flatten(0, -3)
    count = len(planes)
    if count == 0:
        return maps[..., window - 1 :, window - 1 :]
    rows = weights.view(1, 1, -1, 1).expand(count, 1, window, 1)
    planes = F.conv2d(F.conv2d(planes, rows, groups=count), rows.mT, groups=count)
    return planes.view(*maps.shape[:-2], *planes.shape[-2:])


class Perceptual(nn.Module):
    r"""Squared distance of features,
    :math:`\sum_j \lambda_j \frac{1}{C_j H_j W_j} \lVert \phi_j(x) - \phi_j(y) \rVert^2`.

    For images that should look alike rather than agree pixel by pixel. The feature network is the
    caller's: it is copied, frozen and kept in eval mode; it follows `.to()`, but neither its
    parameters nor its state belong to this module, so no optimizer and no checkpoint sees them. A
    gradient flows through it to the prediction, none to the target. It is no registered loss, for
    it needs a network.

    Args:
        network: from images to one feature map [N, ...], or several of them in a sequence.
        weights: :math:`\lambda`, a factor for each feature map; all 1 by default.
        reduction: over images, "mean", "sum" or "none".

    Source: Johnson et al. 2016, arXiv:1603.08155, eq. 2
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        weights: Sequence[float] | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        if reduction not in ("mean", "sum", "none"):
            raise ValueError(f"Perceptual: reduction must be mean, sum or none, got {reduction!r}")
        # in a tuple, where torch does not look for modules
        self.frozen = (copy.deepcopy(network).eval().requires_grad_(False),)
        self.weights = None if weights is None else tuple(weights)
        self.reduction = reduction

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Take the network along when moved to a device or dtype."""
        self.frozen[0]._apply(fn, recurse)  # type: ignore[no-untyped-call]
        moved: Self = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return moved

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Compare images [N, C, H, W] of one shape.

        Raises:
            ValueError: the shapes differ, or there is not one weight per feature map.
        """
        if prediction.shape != target.shape:
            raise ValueError(
                f"Perceptual needs prediction and target of one shape; "
                f"got {list(prediction.shape)} and {list(target.shape)}"
            )
        ours = _listed(self.frozen[0](prediction))
        with torch.no_grad():
            theirs = _listed(self.frozen[0](target))
        weights = (1.0,) * len(ours) if self.weights is None else self.weights
        if len(weights) != len(ours):
            raise ValueError(
                f"Perceptual needs one weight per feature map, {len(ours)} of them; "
                f"got {len(weights)}"
            )
        distances = (
            weight * _squares(x, y) for weight, x, y in zip(weights, ours, theirs, strict=True)
        )
        values = torch.stack(list(distances)).sum(0)
        if self.reduction == "none":
            return values
        return values.sum() / (max(len(values), 1) if self.reduction == "mean" else 1)


def _listed(features: Any) -> list[Tensor]:
    """Feature maps as a list, whether there is one of them or several."""
    listed: Iterable[Tensor] = [features] if isinstance(features, Tensor) else features
    half = (torch.float16, torch.bfloat16)
    return [feature.float() if feature.dtype in half else feature for feature in listed]


def _squares(x: Tensor, y: Tensor) -> Tensor:
    """Mean squared difference per item."""
    return (x - y).square().flatten(1).sum(1) / max(math.prod(x.shape[1:]), 1)
