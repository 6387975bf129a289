"""What some claims need beside the registered losses: formulas as the notes print them, a probe.

Nothing here is recommended; claims in this folder name the file under `plugin`.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from losses import loss, penalty

BINS, REACH = 24, 3.0  # a quarter of a standard deviation each, for standardised targets
SMALL = 1e-2


@loss("bce_of_probabilities", target="binary", source="the notes, A, Binary Classification")
def bce_of_probabilities(logits: Tensor, target: Tensor) -> Tensor:
    r"""Binary cross-entropy through probabilities: :math:`-y \log p - (1 - y) \log(1 - p)`.

    Args:
        logits: log-odds, float [...].
        target: 0, 1 or between, [...].
    """
    p = torch.sigmoid(logits)
    return -target * p.log() - (1 - target) * (1 - p).log()


@loss("one_hot_cross_entropy", target="index", source="the notes, A, Multiclass Classification")
def one_hot_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    r"""Cross-entropy of a one-hot row: :math:`-\sum_c T(y)_c \log p_c`.

    Args:
        logits: unnormalised scores, float [N, C].
        target: class indices, int [N].
    """
    row = F.one_hot(target, logits.shape[1]).to(logits)
    return -(row * logits.log_softmax(1)).sum(1)


@loss(
    "contrastive_as_printed",
    target="fields",
    source="the notes, B, 5",
    fields={"first": "float N D", "second": "float N D", "similar": "int N"},
)
def contrastive_as_printed(first: Tensor, second: Tensor, similar: Tensor) -> Tensor:
    r"""Contrastive loss, Y = 1 for similar pairs: :math:`\frac12 (1-Y) D^2 + \frac12 Y (1-D)_+^2`.

    Args:
        first: embeddings, float [N, D].
        second: embeddings, float [N, D].
        similar: Y, 1 where a pair belongs together, int [N].
    """
    squares = (first - second).square().sum(1)
    apart = F.relu(1 - (squares + 1e-12).sqrt()).square()
    return torch.where(similar == 1, apart, squares) / 2


def _centres(output: Tensor) -> Tensor:
    return (torch.arange(BINS).to(output) + 0.5) * 2 * REACH / BINS - REACH


@loss(
    "bins",
    target="real",
    source="the notes, C, Regression",
    heads=BINS,
    point=lambda output: output.softmax(1).movedim(1, -1) @ _centres(output),
)
def bins(output: Tensor, target: Tensor) -> Tensor:
    r"""Cross-entropy over 24 bins of a standardised number from -3 to 3; read as the mean of bins.

    Args:
        output: a score per bin, float [N, 24, ...].
        target: float [N, ...]; what lies beyond the bins counts to the outermost.
    """
    place = ((target + REACH) * BINS / (2 * REACH)).floor().clamp(0, BINS - 1)
    return F.cross_entropy(output, place.long(), reduction="none")


@loss("edge_weighted_bce", target="binary", source="the notes, A, Segmentation Loss")
def edge_weighted_bce(
    logits: Tensor, target: Tensor, *, pos_weight: float = 60.0, edge: float = 5.0
) -> Tensor:
    r"""Cross-entropy of pixels, those at an edge of the mask turned up: :math:`(1 + e\, E) L`.

    Args:
        logits: log-odds, float [N, H, W].
        target: 0 or 1, [N, H, W]; what is neither counts as 0 in finding edges.
        pos_weight: factor of the positive part of L, as in bce.
        edge: e, what a pixel weighs beyond 1 if its 3x3 neighbourhood E holds both classes.
    """
    mask = (target == 1).to(logits)
    inside = -F.max_pool2d(-mask, 3, stride=1, padding=1)
    rim = F.max_pool2d(mask, 3, stride=1, padding=1) - inside
    factor = torch.full((), pos_weight).to(logits)
    values = F.binary_cross_entropy_with_logits(
        logits, target.to(logits), pos_weight=factor, reduction="none"
    )
    return (1 + edge * rim) * values


@penalty("small_weights", source="our own: a probe, without a gradient")
def small_weights(parameter: Tensor) -> Tensor:
    r"""How many weights are nearer to 0 than 0.01: :math:`\sum [|w| < 0.01]`.

    Args:
        parameter: weights, float [...].
    """
    return (parameter.detach().abs() < SMALL).to(parameter)
