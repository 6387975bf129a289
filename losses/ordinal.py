"""Losses of ordered classes (grades, stages), as C - 1 questions: is it above the first, ...?

The output holds one logit x per question [N, C - 1, ...], the target a class index t of C, and s is
the sigmoid. What a model predicts is read off the questions: both losses declare how, as scores of
the C classes whose softmax is their distribution.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from losses.core import Parts, loss


def _chained(logits: Tensor) -> Tensor:
    """Log-probabilities of C classes: yes to each question below, then no."""
    none = torch.zeros_like(logits[:, :1])
    yes = torch.cat([none, F.logsigmoid(logits).cumsum(1)], 1)
    return yes + torch.cat([F.logsigmoid(-logits), none], 1)


def _independent(logits: Tensor) -> Tensor:
    """Log-probabilities of C classes if every question is answered without the others."""
    none = torch.zeros_like(logits[:, :1])
    return torch.cat([none, logits.cumsum(1)], 1).log_softmax(1)


class Thresholds(nn.Module):
    r"""From one score per item to a question per step, :math:`x_k = s + b_k` with falling b.

    The last layer for :func:`coral`: all questions share one score s, so whoever answers a question
    with yes answers all before it with yes. The paper's biases are free and ordered only where its
    loss is least; here :math:`b_k = b_{k-1} - \log(1 + e^{d_k})`, ordered at every step. At the
    start a score of 0 makes all classes equally probable. It has C - 1 parameters.

    Args:
        classes: C, at least 2.

    Raises:
        ValueError: fewer than two classes; scores of a wrong shape.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        if classes < 2:
            raise ValueError(f"Thresholds needs at least 2 classes, got {classes}")
        above = torch.arange(1, classes, dtype=torch.float64) / classes
        biases = above.logit().flip(0)
        falls = (biases[:-1] - biases[1:]).expm1().log()  # what softplus makes them of
        self.first = nn.Parameter(biases[:1].float())
        self.falls = nn.Parameter(falls.float())

    def forward(self, score: Tensor) -> Tensor:
        """Scores, float [N, 1, ...], as logits [N, C - 1, ...]."""
        if score.ndim < 2 or score.shape[1] != 1:
            raise ValueError(f"Thresholds needs scores [N, 1, ...], got {list(score.shape)}")
        steps = torch.cat([self.first, -F.softplus(self.falls)]).cumsum(0)
        return score + steps.view(-1, *[1] * (score.ndim - 2))


@loss(
    "corn",
    target="ordinal",
    source="Shi, Cao & Raschka 2021, arXiv:2111.08851",
    point=_chained,
)
def corn(logits: Tensor, target: Tensor) -> Parts:
    r"""Binary cross-entropy of each question that arises,
    :math:`-\sum_{k < t} \log s(x_k) - [t < C - 1] \log(1 - s(x_t))`.

    Question k asks whether a class above k - 1 is above k too, so :math:`\prod_{j \le k} s(x_j)` is
    the probability of a class above k, which falls with k whatever the logits are. The value is the
    negative log-likelihood of the class; the mean divides by the number of questions that arose.

    Args:
        logits: one per question, float [N, C - 1, ...].
        target: class indices, 0 to C - 1, int [N, ...].
    """
    above, asked = _answers(logits, target)
    values = F.binary_cross_entropy_with_logits(logits, above, reduction="none")
    return Parts((values * asked).sum(1), asked.sum(1))


@loss(
    "coral",
    target="ordinal",
    source="Cao, Mirjalili & Raschka 2019, arXiv:1901.07884",
    point=_independent,
)
def coral(logits: Tensor, target: Tensor) -> Tensor:
    r"""Binary cross-entropy of all questions,
    :math:`-\sum_{k < t} \log s(x_k) - \sum_{k \ge t} \log(1 - s(x_k))`.

    Question k asks whether the class is above k. The paper's model ends in one score plus a bias
    per question, see :class:`losses.Thresholds`, and then the answers cannot contradict each other;
    with a weight matrix of C - 1 rows they can, and :func:`corn` suits better. The predicted class
    is the number of questions answered with yes.

    Args:
        logits: one per question, float [N, C - 1, ...].
        target: class indices, 0 to C - 1, int [N, ...].
    """
    above, _ = _answers(logits, target)
    return F.binary_cross_entropy_with_logits(logits, above, reduction="none").sum(1)


def _answers(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """For each question, as 0 or 1: whether the class is above it, and whether it arises."""
    questions = torch.arange(logits.shape[1], device=logits.device)
    ranks = questions.view(-1, *[1] * (logits.ndim - 2))
    above, asked = target.unsqueeze(1) > ranks, target.unsqueeze(1) >= ranks
    return above.to(logits.dtype), asked.to(logits.dtype)
