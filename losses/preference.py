"""Losses of preferences between a policy's answers.

A policy's log-probabilities carry the gradient; those of a frozen reference are data and get none.
In the formulas h is the log-ratio of policy and reference of the chosen answer less that of the
rejected one, in nats.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from losses.arguments import Bounds, NonNegative, Positive
from losses.core import loss
from losses.policy import numbers

LOGARITHM = Bounds(high=1e-4)  # a mean of log-softmaxes may exceed 0 by rounding
PAIRS = dict.fromkeys(("chosen", "rejected", "reference_chosen", "reference_rejected"), "float N")
FROZEN = "reference_chosen and reference_rejected, which are data"


def _pairs(generator: torch.Generator) -> tuple[Tensor, ...]:
    return tuple(-10 * field.abs() for field in numbers(4, (7,), generator))


def _short_pairs(generator: torch.Generator) -> tuple[Tensor, ...]:
    return tuple(-field.abs() for field in numbers(2, (7,), generator))


def _rated(generator: torch.Generator) -> tuple[Tensor, ...]:
    fields = numbers(2, (7,), generator)
    return *fields, fields[0].new_full((7,), 0.3), torch.arange(7) % 3 > 0


@loss(
    "dpo",
    target="fields",
    fields=PAIRS,
    example=_pairs,
    source="Rafailov et al. 2023, arXiv:2305.18290, eq. 7",
    detached=FROZEN,
)
def dpo(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    beta: Positive = 0.1,
) -> Tensor:
    r"""Logistic loss of preferring the chosen answer, :math:`-\log \sigma(\beta h)`.

    Reinforcement learning from preferences without a reward model: h is the reward it implies.

    Args:
        chosen: log-probability of the whole chosen answer under the policy, float [N].
        rejected: of the whole rejected answer, float [N].
        reference_chosen: of the chosen answer under the frozen reference, float [N].
        reference_rejected: of the rejected one, float [N].
        beta: how dearly the policy pays for leaving the reference.
    """
    return F.softplus(-beta * _margin(chosen, rejected, reference_chosen, reference_rejected))


@loss(
    "ipo",
    target="fields",
    fields=PAIRS,
    example=_pairs,
    source="Azar et al. 2023, arXiv:2310.12036",
    detached=FROZEN,
)
def ipo(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    beta: Positive = 0.1,
) -> Tensor:
    r"""Squared distance of the log-ratio from its goal, :math:`(h - \frac{1}{2 \beta})^2`.

    :func:`dpo` pushes h without end where all raters agree; this one stops. Give log-probabilities
    per token (a sum over an answer's tokens divided by their number), as its authors do in
    practice: sums make h grow with length while the goal stays.

    Args:
        chosen: log-probability per token of the chosen answer under the policy, float [N].
        rejected: of the rejected answer, float [N].
        reference_chosen: of the chosen answer under the frozen reference, float [N].
        reference_rejected: of the rejected one, float [N].
        beta: the paper's tau; the goal is half its inverse.
    """
    margin = _margin(chosen, rejected, reference_chosen, reference_rejected)
    return (margin - 1 / (2 * beta)).square()


def _margin(chosen: Tensor, rejected: Tensor, *references: Tensor) -> Tensor:
    """h, the difference of the two log-ratios."""
    reference_chosen, reference_rejected = (field.detach() for field in references)
    return (chosen - reference_chosen) - (rejected - reference_rejected)


@loss(
    "kto",
    target="fields",
    fields={
        "log_prob": "float N",
        "reference_log_prob": "float N",
        "reference_point": "float N",
        "desirable": "bool N",
    },
    example=_rated,
    source="Ethayarajh et al. 2024, arXiv:2402.01306",
    saturating="losses and gains far from the reference point count as equal",
    detached="reference_log_prob and reference_point, which are data",
)
def kto(
    log_prob: Tensor,
    reference_log_prob: Tensor,
    reference_point: Tensor,
    desirable: Tensor,
    *,
    beta: Positive = 0.1,
    desirable_weight: NonNegative = 1.0,
    undesirable_weight: NonNegative = 1.0,
) -> Tensor:
    r"""How little a rater values an answer, :math:`\lambda_y \sigma(\mp \beta (r - z))`, minus
    for desirable answers.

    For answers rated one by one as good or bad, of which there may be many more of one kind (the
    weights are for that). r is the log-ratio of policy and reference. The paper's z is the larger
    of 0 and the batch's mean log-ratio of prompts with other prompts' answers; it is given here,
    the same number in every row, so that batches in parts agree on it.

    Args:
        log_prob: log-probability of the whole answer under the policy, float [N].
        reference_log_prob: under the frozen reference, float [N].
        reference_point: z, float [N].
        desirable: whether the answer was rated good, bool [N].
        beta: how soon gains and losses saturate.
        desirable_weight: :math:`\lambda` of good answers.
        undesirable_weight: :math:`\lambda` of bad answers.
    """
    gain = beta * (log_prob - reference_log_prob.detach() - reference_point.detach())
    good, bad = torch.sigmoid(-gain), torch.sigmoid(gain)
    return torch.where(desirable, desirable_weight * good, undesirable_weight * bad)


@loss(
    "simpo",
    target="fields",
    fields={"chosen": "float N", "rejected": "float N"},
    example=_short_pairs,
    source="Meng et al. 2024, arXiv:2405.14734",
)
def simpo(
    chosen: Tensor, rejected: Tensor, *, beta: Positive = 2.0, margin: NonNegative = 1.0
) -> Tensor:
    r"""Logistic loss of the difference per token with a margin,
    :math:`-\log \sigma(\beta (c - r) - \gamma)`.

    :func:`dpo` without a reference: an answer's reward is its log-probability per token, which is
    also what ranks answers in decoding.

    Args:
        chosen: c, log-probability per token of the chosen answer, float [N].
        rejected: r, of the rejected answer, float [N].
        beta: factor of the difference.
        margin: :math:`\gamma`, by how much the chosen reward should be ahead.
    """
    return F.softplus(margin - beta * (chosen - rejected))


@loss(
    "orpo",
    target="fields",
    fields={"chosen": "float N", "rejected": "float N"},
    limits={"chosen": LOGARITHM, "rejected": LOGARITHM},
    example=_short_pairs,
    source="Hong et al. 2024, arXiv:2403.07691",
)
def orpo(chosen: Tensor, rejected: Tensor, *, odds_weight: NonNegative = 0.1) -> Tensor:
    r"""Likelihood of the chosen answer and its odds against the rejected one,
    :math:`-c - \lambda \log \sigma(\operatorname{logit} e^c - \operatorname{logit} e^r)`.

    Fine-tuning and preference in one, without a reference: the odds turn the rejected style down
    while the likelihood learns the chosen one.

    Args:
        chosen: c, log-probability per token of the chosen answer, at most 0, float [N].
        rejected: r, of the rejected answer, float [N].
        odds_weight: :math:`\lambda`.

    Raises:
        ValueError: a log-probability above 0 (checked in eager mode on the CPU).
    """
    # Not clamp, which may pass no gradient at 0 itself.
    chosen, rejected = (torch.where(x > 0, 0, x) for x in (chosen, rejected))
    return -chosen + odds_weight * F.softplus(_log_odds(rejected) - _log_odds(chosen))


def _log_odds(log_prob: Tensor) -> Tensor:
    """Logarithm of p / (1 - p), finite with a gradient at p = 1 too."""
    eps = torch.finfo(log_prob.dtype).eps
    return log_prob - torch.log(-torch.expm1(log_prob - eps))
