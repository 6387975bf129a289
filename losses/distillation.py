"""Losses of a student that learns a teacher's scores.

No gradient reaches the teacher. In the formulas p and q are the softmax of the teacher's and the
student's scores over the temperature T, and t is the true class. The factor T^2 keeps the size of
the gradient when T changes, so that the loss can stand beside a cross-entropy at a fixed weight.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from losses.arguments import NonNegative, Positive
from losses.core import loss

PAIR = {"student": "float N C ...", "teacher": "float N C ..."}
FROZEN = "teacher, which is given"


def _scores(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    student, teacher = 3 * torch.randn(2, 7, 4, 3, generator=generator, dtype=torch.float64)
    return student, teacher


def _labelled(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    return *_scores(generator), torch.randint(4, (7, 3), generator=generator)


@loss(
    "distillation",
    target="fields",
    fields=PAIR,
    example=_scores,
    source="Hinton, Vinyals & Dean 2015, arXiv:1503.02531",
    detached=FROZEN,
)
def distillation(student: Tensor, teacher: Tensor, *, temperature: Positive = 4.0) -> Tensor:
    r"""Divergence of the student from the teacher at a temperature,
    :math:`T^2 \sum_c p_c \log(p_c / q_c)`.

    High temperatures show what the teacher holds for similar, beyond its first choice. It helps
    most where labels are few; add a cross-entropy for the labels there are.

    Args:
        student: scores, float [N, C, ...].
        teacher: scores, float [N, C, ...].
        temperature: T, what scores are divided by; 1 is :func:`kl` of the teacher's softmax.
    """
    log_q = F.log_softmax(student / temperature, 1)
    return temperature**2 * _divergence(F.log_softmax(teacher.detach() / temperature, 1), log_q)


@loss(
    "dkd",
    target="fields",
    fields={**PAIR, "target": "int<C N ..."},
    example=_labelled,
    source="Zhao et al. 2022, Decoupled knowledge distillation, arXiv:2203.08679",
    detached=FROZEN,
)
def dkd(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    *,
    temperature: Positive = 4.0,
    target_weight: NonNegative = 1.0,
    rival_weight: NonNegative = 8.0,
) -> Tensor:
    r"""Divergence on the true class against the rest, and among the rest,
    :math:`T^2 \left(\alpha\, \mathrm{KL}((p_t, 1 - p_t), (q_t, 1 - q_t))
    + \beta\, \mathrm{KL}(\hat p, \hat q)\right)`.

    :math:`\hat p` and :math:`\hat q` are the distributions over the C - 1 other classes.
    :func:`distillation` is the case :math:`\alpha = 1, \beta = 1 - p_t`: it leaves out what the
    teacher knows about the rest exactly where it is sure. Set apart, both can be weighed.

    Args:
        student: scores, float [N, C, ...], of 2 classes or more.
        teacher: scores, float [N, C, ...].
        target: class indices, int [N, ...].
        temperature: T, what scores are divided by.
        target_weight: :math:`\alpha`.
        rival_weight: :math:`\beta`.
    """
    index = target.unsqueeze(1)
    split_p = _split(teacher.detach() / temperature, index)
    split_q = _split(student / temperature, index)
    on_target, among_rivals = (
        _divergence(log_p, log_q) for log_p, log_q in zip(split_p, split_q, strict=True)
    )
    return temperature**2 * (target_weight * on_target + rival_weight * among_rivals)


def _divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Sum of p log(p / q) over axis 1."""
    return (log_p.exp() * (log_p - log_q)).sum(1)


def _split(scores: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities of true class and rest [N, 2, ...], and of each rival [N, C, ...].

    The true class is among its own rivals with a probability of 0.
    """
    rivals = scores.scatter(1, index, torch.finfo(scores.dtype).min / 4)
    best = rivals.amax(1, keepdim=True).detach()  # the sum less this keeps its digits
    among = F.log_softmax(rivals - best, 1)
    odds = scores.gather(1, index) - best - (rivals - best).logsumexp(1, keepdim=True)
    return torch.cat([F.logsigmoid(odds), F.logsigmoid(-odds)], 1), among
