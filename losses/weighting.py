"""Class weights: schemes that make them from counts, and the one place where losses apply them."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from losses.arguments import ClassWeight, nearest
from losses.core import Parts

Normalizer = Literal["weight", "count"]
"""What the mean of weighted values divides by.

- `weight`: the sum of the items' weights, as torch does for index targets; weights times a constant
  are the same loss.
- `count`: the number of items; the loss and its gradient grow with the weights.
"""

SCHEMES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "balanced": lambda counts, _: 1 / counts,
    "inverse_sqrt": lambda counts, _: counts.rsqrt(),
    "effective": lambda counts, beta: (1 - beta) / _one_minus_power(beta, counts),
}
"""From items per class (all above 0) and beta to weights of any common scale."""


def class_weight(scheme: str, counts: Tensor | Sequence[float], *, beta: float = 0.999) -> Tensor:
    r"""One weight per class from how often each occurs: :math:`w_c = N f(n_c) / \sum_k n_k f(n_k)`.

    All schemes are scaled alike, so that an item weighs 1 on average and no scheme is a larger
    learning rate than another. A class that does not occur gets the largest weight of those that
    do: it is at least as rare as they are, and its weight stays finite.

    - `balanced`: f = 1/n, which is :math:`w_c = N / (K n_c)` over the K classes that occur, as in
      scikit-learn; every class counts the same in total (King & Zeng 2001).
    - `inverse_sqrt`: :math:`f = 1/\sqrt n`, half-way (on a log scale) between balanced and none.
    - `effective`: :math:`f = (1-\beta) / (1-\beta^n)`, the inverse of the effective number of items
      (Cui et al. 2019, arXiv:1901.05555, who scale to a sum of K instead): no weights at
      beta = 0, balanced in the limit of 1.

    Args:
        scheme: one of the above.
        counts: items per class [C], >= 0, at least one of them above 0.
        beta: for `effective`, in [0, 1); the paper tries 0.9 to 0.9999.

    Returns:
        Weights [C] of the default float type, on the counts' device.

    Raises:
        ValueError: an unknown scheme, counts that are no counts, or beta out of bounds.
    """
    if scheme not in SCHEMES:
        raise ValueError(f"class_weight has no scheme '{scheme}'{nearest(scheme, SCHEMES)}")
    if not 0 <= beta < 1:
        raise ValueError(f"class_weight needs beta >= 0 and < 1, got {beta!r}")
    numbers = torch.as_tensor(counts, dtype=torch.float64)
    if numbers.ndim != 1 or not bool(((numbers >= 0) & numbers.isfinite()).all()):
        raise ValueError(f"class_weight needs counts [C], finite and >= 0, got {counts!r}")
    present = numbers > 0
    if not bool(present.any()):
        raise ValueError(f"class_weight needs at least one count above 0, got {counts!r}")
    weights = SCHEMES[scheme](torch.where(present, numbers, 1), beta)
    weights = torch.where(present, weights, weights[present].max())
    return (weights * numbers.sum() / (weights * numbers).sum()).to(torch.get_default_dtype())


def pos_weight(scheme: str, counts: Tensor | Sequence[float], *, beta: float = 0.999) -> float:
    r"""Factor of the positive class in a binary loss: :math:`w_1 / w_0`.

    For `balanced` that is negatives over positives; 1 if one of the classes does not occur.

    Args:
        scheme: see :func:`class_weight`.
        counts: how many negatives and how many positives there are [2].
        beta: see :func:`class_weight`.

    Raises:
        ValueError: as :func:`class_weight`, or counts that are not two.
    """
    if len(counts) != 2:
        raise ValueError(f"pos_weight needs counts of negatives and positives, got {counts!r}")
    negative, positive = class_weight(scheme, counts, beta=beta).tolist()
    return float(positive / negative)


def _one_minus_power(beta: float, counts: Tensor) -> Tensor:
    """1 - beta^n without cancellation where beta is near 1."""
    return -torch.expm1(counts * (math.log(beta) if beta else -math.inf))


def weighted(
    values: Tensor, target: Tensor, class_weight: ClassWeight, normalizer: Normalizer
) -> Parts:
    """Values [N, ...] times the weight of each item's class, and what each counts in the mean.

    Args:
        values: one per item, not yet weighted.
        target: class indices [N, ...].
        class_weight: [C] or None.
        normalizer: see :data:`Normalizer`.
    """
    if class_weight is None:
        return Parts(values, None)
    weight = weight_of(target, class_weight)
    return Parts(values * weight, weight if normalizer == "weight" else None)


def weight_of(target: Tensor, class_weight: ClassWeight) -> Tensor:
    """Weight of each item [N, ...]: its class's, or the mean over its distribution."""
    assert isinstance(class_weight, Tensor)  # the core has resolved names and lists
    if target.is_floating_point():
        return (target.movedim(1, -1) * class_weight).sum(-1)
    return class_weight[target]
