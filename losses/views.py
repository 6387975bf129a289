"""Losses of two views of the same items, without labels: rows of one number belong together.

u and v are the unit vectors of the first and the second view of an item. Contrastive losses push
views of different items apart and need large batches for it; the last two spread the features
instead. All of them couple the items of a batch, so batches that are split over processes must be
gathered first.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from losses.arguments import NonNegative, Positive
from losses.core import Parts, loss
from losses.embedding import unit
from losses.products import log_sums

VIEWS = {"first": "float N D", "second": "float N D"}
HIGHEST = math.log(100)
"""Where CLIP caps the logarithm of its scale."""


def _views(generator: torch.Generator) -> tuple[Tensor, ...]:
    return tuple(torch.randn(2, 7, 5, generator=generator, dtype=torch.float64))


@loss(
    "nt_xent",
    target="fields",
    source="Chen et al. 2020, SimCLR, arXiv:2002.05709, eq. 1",
    fields=VIEWS,
    example=_views,
    additive=False,
    minimum=None,
)
def nt_xent(first: Tensor, second: Tensor, *, temperature: Positive = 0.1) -> Tensor:
    r"""Cross-entropy of finding an item's other view among all views of the batch, :math:`-\log
    \frac{e^{u_i \cdot v_i / \tau}}{\sum_{z \ne u_i} e^{u_i \cdot z / \tau}}`.

    z runs over both views of all items. Both directions are averaged, so an item has one value.

    Args:
        first: embeddings of one view, float [N, D]; only directions matter.
        second: embeddings of the other view, float [N, D].
        temperature: :math:`\tau`; smaller ones look at the hardest items only.
    """
    views, items = unit(torch.cat([first, second])) / math.sqrt(temperature), len(first)
    rows, _ = log_sums(views)
    return (rows[:items] + rows[items:]) / 2 - (views[:items] * views[items:]).sum(1)


@loss(
    "clip",
    target="fields",
    source="Radford et al. 2021, CLIP, arXiv:2103.00020, figure 3",
    fields=VIEWS,
    example=_views,
    additive=False,
    minimum=None,
)
def clip(first: Tensor, second: Tensor, *, temperature: Positive = 0.07) -> Tensor:
    r"""Cross-entropy of finding each other's partner, :math:`-\frac12 \log
    \frac{e^{u_i \cdot v_i / \tau}}{\sum_j e^{u_i \cdot v_j / \tau}} - \frac12 \log
    \frac{e^{u_i \cdot v_i / \tau}}{\sum_j e^{u_j \cdot v_i / \tau}}`.

    Symmetric InfoNCE. Views of one kind are not compared among themselves, as in
    :func:`losses.nt_xent`: for images with their texts, say.

    Args:
        first: embeddings of one view, float [N, D]; only directions matter.
        second: embeddings of the other view, float [N, D].
        temperature: :math:`\tau`; smaller ones look at the hardest items only.
    """
    return _clip(first, second, 1 / temperature)


def _log_scale(*, generator: torch.Generator | None) -> Tensor:
    del generator  # the same for everybody
    return torch.tensor(-math.log(0.07))


@loss(
    "learned_clip",
    target="fields",
    source="Radford et al. 2021, CLIP, arXiv:2103.00020, section 2.5",
    fields=VIEWS,
    example=_views,
    own={"log_scale": _log_scale},
    additive=False,
    minimum=None,
)
def learned_clip(first: Tensor, second: Tensor, log_scale: Tensor) -> Tensor:
    r"""CLIP's loss with a learnt scale, :math:`-\frac12 \log \frac{e^{\lambda u_i \cdot v_i}}
    {\sum_j e^{\lambda u_i \cdot v_j}} - \frac12 \log \frac{e^{\lambda u_i \cdot v_i}}
    {\sum_j e^{\lambda u_j \cdot v_i}},\ \lambda = \min(e^\ell, 100)`.

    :func:`losses.clip` with 1 over the temperature learnt. Beyond the cap the gradient is let
    through as if there were none, or a scale that has passed it could never come back.

    Args:
        first: embeddings of one view, float [N, D]; only directions matter.
        second: embeddings of the other view, float [N, D].
        log_scale: :math:`\ell`, float []; it starts at a temperature of 0.07.
    """
    capped = log_scale + (log_scale.clamp(max=HIGHEST) - log_scale).detach()
    return _clip(first, second, capped.exp())


def _clip(first: Tensor, second: Tensor, scale: Tensor | float) -> Tensor:
    u, v = unit(first) * scale, unit(second)
    rows, columns = log_sums(u, v)
    return (rows + columns) / 2 - (u * v).sum(1)


def _siglip_log_scale(*, generator: torch.Generator | None) -> Tensor:
    del generator
    return torch.tensor(math.log(10))


def _siglip_bias(*, generator: torch.Generator | None) -> Tensor:
    del generator
    return torch.tensor(-10.0)


@loss(
    "siglip",
    target="fields",
    source="Zhai et al. 2023, arXiv:2303.15343, algorithm 1",
    fields=VIEWS,
    example=_views,
    own={"log_scale": _siglip_log_scale, "bias": _siglip_bias},
    additive=False,
)
def siglip(first: Tensor, second: Tensor, log_scale: Tensor, bias: Tensor) -> Tensor:
    r"""Each pair by itself a yes or no, :math:`-\sum_j \log \sigma(z_{ij} (e^\ell u_i \cdot v_j
    + b))`.

    z is 1 for views of one item and -1 for others. No sum over the batch within a logarithm, which
    lets small batches do. Scale and bias are learnt and start at 10 and -10: without the bias the
    many negatives would take over at the start.

    Args:
        first: embeddings of one view, float [N, D]; only directions matter.
        second: embeddings of the other view, float [N, D].
        log_scale: :math:`\ell`, float [].
        bias: b, float [].
    """
    scores = (unit(first) * log_scale.exp()) @ unit(second).mT + bias
    sign = 2 * torch.eye(len(first), dtype=scores.dtype, device=scores.device) - 1
    return -F.logsigmoid(sign * scores).sum(1)


@loss(
    "vicreg",
    target="fields",
    source="Bardes, Ponce & LeCun 2022, arXiv:2105.04906; means as in algorithm 1",
    fields=VIEWS,
    example=_views,
    additive=False,
)
def vicreg(
    first: Tensor,
    second: Tensor,
    *,
    invariance: NonNegative = 25.0,
    variance: NonNegative = 25.0,
    covariance: NonNegative = 1.0,
    deviation: Positive = 1.0,
    floor: Positive = 1e-4,
) -> Parts:
    r"""Views alike, features spread and unrelated, :math:`\lambda s + \mu (v + v') + \nu (c + c')`
    with :math:`v = \frac1D \sum_j [\gamma - \sqrt{\mathrm{Var}_j + \epsilon}]_+` and
    :math:`c = \frac1D \sum_{j \ne k} \mathrm{Cov}_{jk}^2`.

    s is the squared difference of the views, averaged over items and features as in the paper's
    listing (its formula sums over features). Embeddings are taken as they are, not as directions. A
    batch has one value, [1].

    Args:
        first: embeddings of one view, float [N, D].
        second: embeddings of the other view, float [N, D].
        invariance: :math:`\lambda`, factor of the difference of views.
        variance: :math:`\mu`, factor of what standard deviations lack.
        covariance: :math:`\nu`, factor of squared covariances.
        deviation: :math:`\gamma`, the standard deviation wanted, in the embedding's units.
        floor: :math:`\epsilon`, added to variances, in squared units.
    """
    items, features = first.shape
    if not items:
        return _nothing(first, second)
    value = invariance * (first - second).square().sum() / (items * features)
    for view in (first, second):
        centred = view - view.mean(0)
        variances = centred.square().sum(0) / max(items - 1, 1)
        squares = _squared_products(centred, centred) / max(items - 1, 1) ** 2
        value = value + variance * F.relu(deviation - (variances + floor).sqrt()).mean()
        value = value + covariance * (squares - variances.square().sum()) / features
    return _batch(value)


@loss(
    "barlow_twins",
    target="fields",
    source="Zbontar et al. 2021, arXiv:2103.03230, eq. 1 and 2",
    fields=VIEWS,
    example=_views,
    additive=False,
)
def barlow_twins(first: Tensor, second: Tensor, *, off_diagonal: NonNegative = 0.005) -> Parts:
    r"""Correlations of features between views made the identity, :math:`\sum_j (1 - C_{jj})^2
    + \lambda \sum_{j \ne k} C_{jk}^2`.

    C correlates feature j of one view with feature k of the other over the batch. A feature that is
    constant in a batch correlates with nothing. A batch has one value, [1].

    Args:
        first: embeddings of one view, float [N, D].
        second: embeddings of the other view, float [N, D].
        off_diagonal: :math:`\lambda`, factor of what should not correlate.
    """
    if not len(first):
        return _nothing(first, second)
    u, v = (unit(view - view.mean(0), 0) for view in (first, second))
    diagonal = (u * v).sum(0)
    others = _squared_products(u, v) - diagonal.square().sum()
    value = (1 - diagonal).square().sum() + off_diagonal * others
    return _batch(value)


def _squared_products(first: Tensor, second: Tensor) -> Tensor:
    r"""Sum of squares of first^T second [D, D], from products of rows [N, N] where those are fewer.

    :math:`\|A^T B\|^2 = \langle A A^T, B B^T \rangle`.
    """
    if first.shape[0] >= first.shape[1]:
        return (first.mT @ second).square().sum()
    return ((first @ first.mT) * (second @ second.mT)).sum()


def _batch(value: Tensor) -> Parts:
    """One value for all items."""
    return Parts(value.reshape(1), value.new_ones(1))


def _nothing(first: Tensor, second: Tensor) -> Parts:
    """No items, whose means are not numbers."""
    value = (first.sum() + second.sum()).reshape(1)
    return Parts(value, value.new_zeros(1))
