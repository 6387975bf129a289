"""Errata of cross-entropies, focal losses, divergences and the softmax."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from losses.errata.erratum import Erratum
from losses.module import build

ALPHA, GAMMA = 0.25, 2.0


def _focal_as_printed(p: Tensor, y: Tensor) -> Tensor:
    positive = ALPHA * (1 - p) ** GAMMA * y * p.log()
    return positive + (1 - ALPHA) * p**GAMMA * (1 - p).log()


def _focal(p: Tensor, y: Tensor, alpha: float = ALPHA) -> Tensor:
    """In terms of the probability of what is true, as the paper has it."""
    p_t, alpha_t = (y * yes + (1 - y) * (1 - yes) for yes in (p, alpha))
    return -alpha_t * (1 - p_t) ** GAMMA * p_t.log()


def _two(p: Tensor) -> Tensor:
    """The distribution (p, 1 - p) as a row."""
    return torch.stack([p, 1 - p])[None]


def _bernoulli_kl(p: Tensor, q: Tensor) -> Tensor:
    return torch.distributions.kl_divergence(
        torch.distributions.Bernoulli(p), torch.distributions.Bernoulli(q)
    )


def _entropy_difference(p: Tensor, q: Tensor) -> Tensor:
    """H(y) less the cross-entropy, each summed over both outcomes."""
    entropy, cross = (-(_two(p) * _two(r).log()).sum() for r in (p, q))
    return entropy - cross


def _kl(p: Tensor, q: Tensor) -> Tensor:
    return (p * (p / q).log()).sum()


def _multilabel_as_printed(f: Tensor, y: Tensor, i: Tensor) -> Tensor:
    return -(y * f.sigmoid().log() + (i - y) * (1 - f.sigmoid()).log()).sum()


def _ours(name: str, scores: Tensor, target: Tensor, **parameters: Any) -> Tensor:
    """The mean over the one item there is."""
    value: Tensor = build(name, **parameters)(scores[None], target[None])
    return value


FOCAL = r"\alpha(1-\hat y)^\gamma y\log\hat y + (1-\alpha)\hat y^\gamma\log(1-\hat y)"
FOCAL_RIGHT = r"-\alpha y(1-p)^\gamma\log p - (1-\alpha)(1-y)p^\gamma\log(1-p)"
LIN = "Lin et al. 2017, arXiv:1708.02002, eq. 5"

CLASSIFICATION = (
    Erratum(
        name="bce_sign",
        note="A",
        place="binary cross-entropy, with its derivative",
        printed=r"y\log\hat y + (1-y)\log(1-\hat y)",
        right=r"-y\log p - (1-y)\log(1-p)",
        authority="Cox 1958, and the same note some lines on",
        example="p = 0.9 for a positive",
        inputs=(0.9, 1.0),
        as_printed=lambda p, y: y * p.log() + (1 - y) * (1 - p).log(),
        reference=lambda p, y: F.binary_cross_entropy(p, y),
        consequence="Minimising it lowers the probability of what is true, without end.",
        loss="bce",
        ours=lambda p, y: _ours("bce", p.logit(), y),
    ),
    Erratum(
        name="focal_sign",
        note="A",
        place="binary focal loss, twice",
        printed=FOCAL,
        right=FOCAL_RIGHT,
        authority=LIN,
        example="p = 0.9 for a negative, α = 0.25, γ = 2",
        inputs=(0.9, 0.0),
        as_printed=_focal_as_printed,
        reference=_focal,
        consequence="A false alarm is rewarded, and the more so the surer it is.",
        loss="binary_focal",
        ours=lambda p, y: _ours("binary_focal", p.logit(), y, gamma=GAMMA, alpha=ALPHA),
    ),
    Erratum(
        name="focal_without_negatives_factor",
        note="A",
        place="binary focal loss, twice: no (1 - y) in its second half",
        printed=FOCAL,
        right=FOCAL_RIGHT,
        authority=LIN,
        example="p = 0.99 for a positive, α = 0.25, γ = 2",
        inputs=(0.99, 1.0),
        as_printed=_focal_as_printed,
        reference=_focal,
        consequence="A positive takes part in the negatives' half: the surer it is rightly found, "
        "the farther its value is from 0, where it should end.",
        loss="binary_focal",
        ours=lambda p, y: _ours("binary_focal", p.logit(), y, gamma=GAMMA, alpha=ALPHA),
    ),
    Erratum(
        name="focal_positive_half",
        note="D",
        place="table of classification losses",
        printed=r"-(1-\hat y)^\gamma y\log\hat y",
        right=r"-(1-p_t)^\gamma\log p_t,\ p_t = p \text{ if } y = 1 \text{ else } 1 - p",
        authority="Lin et al. 2017, arXiv:1708.02002, eq. 4",
        example="p = 0.9 for a negative, γ = 2",
        inputs=(0.9, 0.0),
        as_printed=lambda p, y: -((1 - p) ** GAMMA) * y * p.log(),
        reference=lambda p, y: 2 * _focal(p, y, alpha=0.5),
        consequence="Negatives cost nothing, so calling everything positive is a perfect answer.",
        loss="binary_focal",
        ours=lambda p, y: _ours("binary_focal", p.logit(), y, gamma=GAMMA, alpha=None),
    ),
    Erratum(
        name="softmax_of_minus_scores",
        note="A",
        place="sparse cross-entropy with logits; so too with the maximum taken out",
        printed=r"-x_c - \log\sum_j e^{-x_j}",
        right=r"-x_c + \log\sum_j e^{x_j}",
        authority="Bridle 1990, Probabilistic interpretation of feedforward network outputs",
        example="scores (2, 1, 0), the first true",
        inputs=((2.0, 1.0, 0.0), 0),
        as_printed=lambda x, c: -x[c] - (-x).exp().sum().log(),
        reference=lambda x, c: F.cross_entropy(x, c),
        consequence="It is never above 0 and has no lower bound, and it pushes hardest at the "
        "rival that is already lowest.",
        loss="cross_entropy",
        ours=lambda x, c: _ours("cross_entropy", x, c),
    ),
    Erratum(
        name="dropped_log_sum",
        note="A",
        place="sparse cross-entropy with logits: the log of the sum only normalises",
        printed=r"-x_c + \max_j x_j",
        right=r"-x_c + \max_j x_j + \log\sum_j e^{x_j - \max_k x_k}",
        authority="what remains is the perceptron's loss, Duda & Hart 1973",
        example="scores (2, 1.9, 1.8), the first true",
        inputs=((2.0, 1.9, 1.8), 0),
        as_printed=lambda x, c: -x[c] + x.max(),
        reference=lambda x, c: F.cross_entropy(x, c),
        consequence="Every item that is already right, however narrowly, has no loss and no "
        "gradient.",
        loss="cross_entropy",
        ours=lambda x, c: _ours("cross_entropy", x, c),
    ),
    Erratum(
        name="multilabel_logistic",
        note="C",
        place="logistic regression for every attribute",
        printed=r"-\sum_j y_{ij}\log\sigma(f_j) + (i - y_{ij})\log(1-\sigma(f_j))",
        right=r"-\sum_j \left[y_{ij}\log\sigma(f_j) + (1 - y_{ij})\log(1-\sigma(f_j))\right]",
        authority="the gradient printed below it, σ(f) - y",
        example="item i = 5: scores (2, -1), labels (1, 0), the sum taken over both halves",
        inputs=((2.0, -1.0), (1.0, 0.0), 5),
        as_printed=_multilabel_as_printed,
        reference=lambda f, y, _: F.binary_cross_entropy_with_logits(f, y, reduction="sum"),
        consequence="What an item costs depends on its number: with i for 1 only the first is "
        "right.",
        loss="multilabel_bce",
        ours=lambda f, y, _: _ours("multilabel_bce", f, y),
    ),
    Erratum(
        name="multilabel_soft_margin_sign",
        note="A",
        place="multilabel soft margin",
        printed=r"-y\log\frac{1}{1+e^{-x}} + (1-y)\log\frac{e^{-x}}{1+e^{-x}}",
        right=r"-y\log\frac{1}{1+e^{-x}} - (1-y)\log\frac{e^{-x}}{1+e^{-x}}",
        authority="torch.nn.MultiLabelSoftMarginLoss",
        example="a single label: score 2, not true",
        inputs=((2.0,), (0.0,)),
        as_printed=lambda x, y: (-y * F.logsigmoid(x) + (1 - y) * F.logsigmoid(-x)).mean(),
        reference=lambda x, y: F.multilabel_soft_margin_loss(x[None], y[None]),
        consequence="Labels that do not apply are rewarded for high scores, without end.",
        loss="multilabel_soft_margin",
        ours=lambda x, y: _ours("multilabel_soft_margin", x, y),
    ),
    Erratum(
        name="kl_sign",
        note="A",
        place="Kullback-Leibler divergence for binary classification",
        printed=r"-p\log\frac pq",
        right=r"p\log\frac pq + (1-p)\log\frac{1-p}{1-q}",
        authority="Kullback & Leibler 1951, On information and sufficiency",
        example="p = 0.9, q = 0.5",
        inputs=(0.9, 0.5),
        as_printed=lambda p, q: -p * (p / q).log(),
        reference=_bernoulli_kl,
        consequence="It falls below 0 as the prediction q falls below p, and without end as q "
        "goes to 0.",
        loss="kl",
        ours=lambda p, q: build("kl")(_two(q).log(), _two(p)),
    ),
    Erratum(
        name="entropy_inequality",
        note="A",
        place="entropy and cross-entropy; sums and a minus are missing there as well",
        printed=r"H(q) - H_p(q) \ge 0",
        right=r"H_p(q) - H(q) = \mathrm{KL} \ge 0",
        authority="Gibbs' inequality",
        example="y = (0.9, 0.1), ŷ = (0.5, 0.5), with the sums",
        inputs=(0.9, 0.5),
        as_printed=_entropy_difference,
        reference=_bernoulli_kl,
        consequence="What is said to be at least 0 is at most 0, for any two distributions.",
        loss="kl",
        ours=lambda p, q: build("kl")(_two(q).log(), _two(p)),
    ),
    Erratum(
        name="jensen_shannon",
        note="A",
        place="Jensen-Shannon divergence",
        printed=r"\frac12\left(\mathrm{KL}(y, \hat y) + \mathrm{KL}(\hat y, y)\right)",
        right=r"\frac12\mathrm{KL}(p, m) + \frac12\mathrm{KL}(q, m),\ m = \frac12(p+q)",
        authority="Lin 1991, Divergence measures based on the Shannon entropy",
        example="p = (0.99, 0.01), q = (0.01, 0.99)",
        inputs=((0.99, 0.01), (0.01, 0.99)),
        as_printed=lambda p, q: (_kl(p, q) + _kl(q, p)) / 2,
        reference=lambda p, q: (_kl(p, (p + q) / 2) + _kl(q, (p + q) / 2)) / 2,
        consequence="It is half the Jeffreys divergence and grows without limit, where "
        "Jensen-Shannon's is at most log 2.",
        loss="jensen_shannon",
        ours=lambda p, q: _ours("jensen_shannon", q.log(), p),
    ),
    Erratum(
        name="softmax_index",
        note="C",
        place="softmax function",
        printed=r"f_j(z) = e^{f_{y_i}} / \sum_j e^{f_j}",
        right=r"f_j(z) = e^{z_j} / \sum_k e^{z_k}",
        authority="Bridle 1990, Probabilistic interpretation of feedforward network outputs",
        example="scores (2, 1, 0), the second true",
        inputs=((2.0, 1.0, 0.0), 1),
        as_printed=lambda x, c: torch.stack([x[c].exp() / x.exp().sum() for _ in x]),
        reference=lambda x, _: x.softmax(0),
        consequence="Every class gets the same number, and they do not add up to 1.",
        loss="cross_entropy",
        ours=lambda x, _: torch.stack(
            [(-_ours("cross_entropy", x, torch.tensor(j))).exp() for j in range(len(x))]
        ),
    ),
)
