"""Losses of real values: squared, absolute, and everything between."""

from torch import Tensor

from losses.core import loss


@loss("mse", target="real", source="Gauss 1809, Theoria motus")
def mse(prediction: Tensor, target: Tensor) -> Tensor:
    r"""Squared error: :math:`(f - y)^2`.

    Args:
        prediction: float [...].
        target: float [...], in the prediction's units.
    """
    return (prediction - target).square()


@loss("mae", target="real", source="Laplace 1774")
def mae(prediction: Tensor, target: Tensor) -> Tensor:
    r"""Absolute error: :math:`|f - y|`, with subgradient 0 at 0.

    Args:
        prediction: float [...].
        target: float [...], in the prediction's units.
    """
    return (prediction - target).abs()
