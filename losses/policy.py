"""Losses of policies that act: clipped policy gradients, values of states, entropy.

A policy's log-probabilities carry the gradient. Those of the policy that drew the samples ("old")
and of a frozen reference are data, as are advantages, and get none. In the formulas rho is the
ratio of the policy's probability to the old one and A the advantage.
"""

import math
from typing import Annotated

import torch
from torch import Tensor

from losses.arguments import Bounds, Count, NonNegative, Positive
from losses.core import Parts, loss

Clip = Annotated[float, Bounds(0, 1, low_open=True, high_open=True)]
EXPONENTIAL = "the ratio is an exponential, which a negative advantage leaves unclipped"
DATA = "old_log_prob and advantage, which are data"
TOKENS = {
    "log_prob": "float N T",
    "old_log_prob": "float N T",
    "advantage": "float N",
    "mask": "bool N T",
}


def numbers(count: int, shape: tuple[int, ...], generator: torch.Generator) -> tuple[Tensor, ...]:
    """As many fields of a shape, in float64."""
    return tuple(torch.randn(count, *shape, generator=generator, dtype=torch.float64))


def _answers(generator: torch.Generator) -> tuple[Tensor, ...]:
    """Log-probabilities per token and mask of 7 answers of up to 4 tokens, one of them empty."""
    log_prob, old_log_prob = numbers(2, (7, 4), generator)
    (advantage,) = numbers(1, (7,), generator)
    lengths = torch.tensor([4, 2, 1, 3, 0, 4, 2])
    return -log_prob.abs(), -old_log_prob.abs(), advantage, torch.arange(4) < lengths[:, None]


def _answers_with_reference(generator: torch.Generator) -> tuple[Tensor, ...]:
    log_prob, *others = _answers(generator)
    return log_prob, log_prob + others[0] / 4, *others


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
    example=lambda generator: numbers(3, (7,), generator),
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
    action that has gained or lost more than the clip allows stops pulling. The other terms of a
    whole PPO are :func:`ppo_value` and :func:`policy_entropy`.

    Args:
        log_prob: of the actions taken, under the policy, float [N, ...].
        old_log_prob: of the same, under the policy that took them, float [N, ...].
        advantage: how much better than expected they were, float [N, ...].
        clip: c, how far the ratio may leave 1.
    """
    return _surprise(log_prob - old_log_prob.detach(), advantage.detach(), clip, clip)


@loss(
    "ppo_value",
    target="fields",
    fields=dict.fromkeys(("value", "old_value", "returns"), "float N ..."),
    example=lambda generator: numbers(3, (7,), generator),
    source="Schulman et al. 2017, arXiv:1707.06347, eq. 9; clip: Engstrom et al. 2020, "
    "Implementation matters in deep policy gradients",
    detached="old_value and returns, which are data",
)
def ppo_value(value: Tensor, old_value: Tensor, returns: Tensor, *, clip: Positive = 0.2) -> Tensor:
    r"""Squared error of a state's value, clipped,
    :math:`\max\left[(V - R)^2, (\mathrm{clip}(V, V_o - c, V_o + c) - R)^2\right]`.

    A value that has come nearer to the return R by more than the clip allows stops moving, as an
    action does in :func:`ppo_clip`; without clip it is :func:`mse`. Others halve it, which a term's
    weight can do.

    Args:
        value: of the states, V, float [N, ...].
        old_value: of the same when the samples were drawn, float [N, ...].
        returns: what followed, R, float [N, ...].
        clip: c, how far the value may leave the old one, in units of returns.
    """
    old, returns = old_value.detach(), returns.detach()
    clipped = old + (value - old).clamp(-clip, clip)
    return torch.maximum((value - returns).square(), (clipped - returns).square())


@loss(
    "policy_entropy",
    target="fields",
    fields={"logits": "float N A ..."},
    example=lambda generator: numbers(1, (7, 4), generator),
    source="Williams & Peng 1991, Function optimization using connectionist reinforcement "
    "learning algorithms; Schulman et al. 2017, arXiv:1707.06347, eq. 9",
    minimum=None,
    saturating="the gradient runs through the softmax, which is flat where it is sure",
)
def policy_entropy(logits: Tensor) -> Tensor:
    r"""Entropy of a choice among actions with its sign turned, :math:`\sum_a p_a \log p_a`.

    Here p is the softmax of the logits. A little of it, such as a term of weight 0.01 beside
    :func:`ppo_clip`, keeps a policy from settling too soon. In nats, from minus the logarithm of
    the number of actions, where all are alike, to 0. An action that is not allowed has a logit of
    minus infinity, and no gradient.

    Args:
        logits: of the actions, float [N, A, ...].
    """
    log_p = logits.log_softmax(1)
    return (log_p.exp() * log_p.clamp(min=torch.finfo(log_p.dtype).min)).sum(1)


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
