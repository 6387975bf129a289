"""Errata of squared errors and what stands between them and absolute ones."""

import torch
from torch import Tensor

from losses.errata.erratum import Erratum
from losses.module import build


def _gradient(f: Tensor, y: Tensor) -> Tensor:
    moved = f.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(((moved - y) ** 2).sum(), moved)
    return gradient


def _our_gradient(f: Tensor, y: Tensor) -> Tensor:
    moved = f.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(build("mse", reduction="sum")(moved, y), moved)
    return gradient


REGRESSION = (
    Erratum(
        name="squared_error_bracket",
        note="A",
        place="opening example of a loss",
        printed=r"\frac1M\sum_j \left(y_i - f(w_j x_{ij})^2\right)",
        right=r"\left(y_i - f(\sum_j w_j x_{ij})\right)^2",
        authority="Gauss 1809, Theoria motus; the display above it",
        example="y = 1, w = (3, 3), x = (1, 1), f the identity",
        inputs=(1.0, (3.0, 3.0), (1.0, 1.0)),
        as_printed=lambda y, w, x: (y - (w * x) ** 2).mean(),
        reference=lambda y, w, x: (y - w @ x) ** 2,
        consequence="The larger the weights, the smaller the value: it has no minimum.",
        loss="mse",
        ours=lambda y, w, x: build("mse")((w * x).sum(), y),
    ),
    Erratum(
        name="squared_error_gradient",
        note="C",
        place="regression, gradient of the squared norm",
        printed=r"\partial L_i/\partial f_j = \delta_{ij}",
        right=r"\partial L_i/\partial f_j = 2\delta_{ij}",
        authority="calculus; it is the gradient of half the squared norm",
        example="f = (3, 0), y = (1, 1), δ = f - y",
        inputs=((3.0, 0.0), (1.0, 1.0)),
        as_printed=lambda f, y: f - y,
        reference=_gradient,
        consequence="A step of size 1, which should land on the target, lands as far beyond it.",
        loss="mse",
        ours=_our_gradient,
    ),
    Erratum(
        name="difference_of_squares",
        note="A",
        place="combination of MSE and BCE",
        printed=r"\sqrt{\sum_k y_k^2 - x_k^2}",
        right=r"\sum_k (y_k - x_k)^2",
        authority="the same note's section on regression",
        example="y = (1, 2), x = (2, 1)",
        inputs=((1.0, 2.0), (2.0, 1.0)),
        as_printed=lambda y, x: (y**2 - x**2).sum().sqrt(),
        reference=lambda y, x: torch.dist(y, x) ** 2,
        consequence="A prediction as long as the target costs nothing wherever it points, and a "
        "longer one is NaN.",
        loss="mse",
        ours=lambda y, x: build("mse", reduction="sum")(x, y),
    ),
    Erratum(
        name="pseudo_huber_scale",
        note="A",
        place="approximation of the Huber loss",
        printed=r"\sqrt{1 + r^2/\delta^2} - 1",
        right=r"\delta^2\left(\sqrt{1 + r^2/\delta^2} - 1\right)",
        authority="Hartley & Zisserman 2004, appendix 6.8",
        example="r = 100, δ = 3",
        inputs=(100.0, 3.0),
        as_printed=lambda r, d: (1 + r**2 / d**2).sqrt() - 1,
        reference=lambda r, d: d * (torch.hypot(d, r) - d),
        consequence="Far out its slope is 1/δ, where Huber's is δ: a larger threshold weakens all "
        "gradients.",
        loss="pseudo_huber",
        ours=lambda r, d: build("pseudo_huber", delta=d.item())(r, torch.zeros_like(r)),
    ),
)
