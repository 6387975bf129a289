"""Losses of policies: clipped policy gradients, and preferences between answers.

A policy's log-probabilities carry the gradient. Those of the policy that drew the samples ("old")
and of a frozen reference are data, as are advantages, and get none. In the formulas rho is the
ratio of the policy's probability to the old one and A the advantage; h is the log-ratio of policy
and reference of the chosen answer less that of the rejected one, in nats.
"""

import math
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from losses.arguments import Bounds, Count, NonNegative, Positive
from losses.core import Parts, loss

Clip = Annotated[float, Bounds(0, 1, low_open=True, high_open=True)]
EXPONENTIAL = "the ratio is an exponential, which a negative advantage leaves unclipped"
LOGARITHM = Bounds(high=1e-4)  # a mean of log-softmaxes may exceed 0 by rounding
DATA = "old_log_prob and advantage, which are data"
TOKENS = {
    "log_prob": "float N T",
    "old_log_prob": "float N T",
    "advantage": "float N",
    "mask": "bool N T",
}
PAIRS = dict.fromkeys(("chosen", "rejected", "reference_chosen", "reference_rejected"), "float N")
FROZEN = "reference_chosen and reference_rejected, which are data"


def _numbers(count: int, shape: tuple[int, ...], generator: torch.Generator) -> tuple[Tensor, ...]:
    return tuple(torch.randn(count, *shape, generator=generator, dtype=torch.float64))


def _answers(generator: torch.Generator) -> tuple[Tensor, ...]:
    """Log-probabilities per token and mask of 7 answers of up to 4 tokens, one of them empty."""
    log_prob, old_log_prob = _numbers(2, (7, 4), generator)
    (advantage,) = _numbers(1, (7,), generator)
    lengths = torch.tensor([4, 2, 1, 3, 0, 4, 2])
    return -log_prob.abs(), -old_log_prob.abs(), advantage, torch.arange(4) < lengths[:, None]


def _pairs(generator: torch.Generator) -> tuple[Tensor, ...]:
    return tuple(-10 * field.abs() for field in _numbers(4, (7,), generator))


def _answers_with_reference(generator: torch.Generator) -> tuple[Tensor, ...]:
    log_prob, *others = _answers(generator)
    return log_prob, log_prob + others[0] / 4, *others


def _short_pairs(generator: torch.Generator) -> tuple[Tensor, ...]:
    return tuple(-field.abs() for field in _numbers(2, (7,), generator))


def _rated(generator: torch.Generator) -> tuple[Tensor, ...]:
    fields = _numbers(2, (7,), generator)
    return *fields, fields[0].new_full((7,), 0.3), torch.arange(7) % 3 > 0


def _surprise(log_ratio: Tensor, advantage: Tensor, low: float, high: float) -> Tensor:
    """The clipped objective with its sign turned: -min(rho A, clip(rho, 1 - low, 1 + high) A).

    Only one side of the clip can be the smaller one, above for gains and below for losses. Clipped
    before the exponential, a ratio that overflows leaves no NaN in the gradient.
    """
    above, below = log_ratio.clamp(max=math.log1p(high)), log_ratio.clamp(min=math.log1p(-low))
    return -advantage * torch.where(advantage >= 0, above, below).exp()


@loss(
    "ppo_clip",
    target="fields",
    fields=dict.fromkeys(("log_prob", "old_log_prob", "advantage"), "float N ..."),
    example=lambda generator: _numbers(3, (7,), generator),
    source="Schulman et al. 2017, arXiv:1707.06347, eq. 7",
    minimum=None,
    unbounded=EXPONENTIAL,
    detached=DATA,
)
def ppo_clip(
    log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, *, clip: Clip = 0.2
) -> Tensor:
    r"""Clipped policy gradient, :math:`-\min(\rho A, \mathrm{clip}(\rho, 1 - c, 1 + c) A)`.

    The paper's objective with its sign turned, for it is to be maximised. One value per action. An
    action that has gained or lost more than the clip allows stops pulling. The value, entropy and
    KL terms of a whole PPO are terms of their own.

    Args:
        log_prob: of the actions taken, under the policy, float [N, ...].
        old_log_prob: of the same, under the policy that took them, float [N, ...].
        advantage: how much better than expected they were, float [N, ...].
        clip: c, how far the ratio may leave 1.
    """
    return _surprise(log_prob - old_log_prob.detach(), advantage.detach(), clip, clip)


@loss(
    "grpo",
    target="fields",
    fields={"log_prob": "float N T", "reference_log_prob": "float N T", **TOKENS},
    example=_answers_with_reference,
    source="Shao et al. 2024, DeepSeekMath, arXiv:2402.03300",
    minimum=None,
    unbounded=EXPONENTIAL,
    detached="old_log_prob, reference_log_prob and advantage, which are data",
)
def grpo(
    log_prob: Tensor,
    reference_log_prob: Tensor,
    old_log_prob: Tensor,
    advantage: Tensor,
    mask: Tensor,
    *,
    clip: Clip = 0.2,
    beta: NonNegative = 0.04,
) -> Parts:
    r"""Clipped policy gradient of answers, averaged over each one's tokens,
    :math:`\frac{1}{\lvert o \rvert} \sum_t -\min(\rho_t A, \mathrm{clip}(\rho_t) A)
    + \beta (e^{q_t} - q_t - 1)`.

    Every answer weighs the same, so a token of a long one weighs less (see :func:`dr_grpo`). q is
    the log-ratio of reference and policy, whose term estimates their divergence without bias. The
    advantage is an answer's reward less the mean of its group, over the group's deviation. Answers
    without tokens do not count.

    Args:
        log_prob: of the tokens, under the policy, float [N, T].
        reference_log_prob: under the frozen reference, float [N, T].
        old_log_prob: under the policy that wrote them, float [N, T].
        advantage: of the answers, float [N].
        mask: which tokens belong to the answer, bool [N, T].
        clip: how far the ratio may leave 1.
        beta: factor of the divergence from the reference.
    """
    q = torch.where(mask, reference_log_prob.detach() - log_prob, 0)
    values = _tokens(log_prob, old_log_prob, advantage, mask, clip, clip)
    values = values + beta * (torch.expm1(q) - q)  # [N, T], 0 where masked
    lengths = mask.sum(1)
    return Parts(values.sum(1) / lengths.clamp(min=1), (lengths > 0).to(values.dtype))


@loss(
    "dr_grpo",
    target="fields",
    fields=TOKENS,
    example=_answers,
    source="Liu et al. 2025, arXiv:2503.20783",
    minimum=None,
    unbounded=EXPONENTIAL,
    detached=DATA,
)
def dr_grpo(
    log_prob: Tensor,
    old_log_prob: Tensor,
    advantage: Tensor,
    mask: Tensor,
    *,
    clip: Clip = 0.2,
    longest: Count = 1024,
) -> Tensor:
    r"""Clipped policy gradient of answers, summed over each one's tokens,
    :math:`\frac1L \sum_t -\min(\rho_t A, \mathrm{clip}(\rho_t) A)`.

    :func:`grpo` without its preference for short right and long wrong answers: every token weighs
    the same, whatever its answer's length. The paper's advantage is the reward less the mean of its
    group, not divided by a deviation.

    Args:
        log_prob: of the tokens, under the policy, float [N, T].
        old_log_prob: under the policy that wrote them, float [N, T].
        advantage: of the answers, float [N].
        mask: which tokens belong to the answer, bool [N, T].
        clip: how far the ratio may leave 1.
        longest: L, the number of tokens an answer may have, the same for every batch.
    """
    return _tokens(log_prob, old_log_prob, advantage, mask, clip, clip).sum(1) / longest


@loss(
    "dapo",
    target="fields",
    fields=TOKENS,
    example=_answers,
    source="Yu et al. 2025, DAPO, arXiv:2503.14476",
    minimum=None,
    unbounded=EXPONENTIAL,
    detached=DATA,
)
def dapo(
    log_prob: Tensor,
    old_log_prob: Tensor,
    advantage: Tensor,
    mask: Tensor,
    *,
    clip_low: Clip = 0.2,
    clip_high: Clip = 0.28,
) -> Parts:
    r"""Clipped policy gradient of tokens,
    :math:`-\min(\rho_t A, \mathrm{clip}(\rho_t, 1 - c_l, 1 + c_h) A)`.

    One value per token, and the mean is over all tokens of the batch. The higher upper bound lets
    rare tokens become likelier, which keeps the policy from narrowing too soon.

    Args:
        log_prob: of the tokens, under the policy, float [N, T].
        old_log_prob: under the policy that wrote them, float [N, T].
        advantage: of the answers, float [N].
        mask: which tokens belong to the answer, bool [N, T].
        clip_low: how far the ratio may fall below 1.
        clip_high: how far the ratio may rise above 1.
    """
    values = _tokens(log_prob, old_log_prob, advantage, mask, clip_low, clip_high)
    return Parts(values, mask.to(values.dtype))


def _tokens(
    log_prob: Tensor, old: Tensor, advantage: Tensor, mask: Tensor, low: float, high: float
) -> Tensor:
    """Clipped objective of every token [N, T], with its sign turned; 0 where masked."""
    log_ratio = torch.where(mask, log_prob - old.detach(), 0)
    gains = advantage.detach().unsqueeze(1).expand_as(log_ratio)
    return torch.where(mask, _surprise(log_ratio, gains, low, high), 0)


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
