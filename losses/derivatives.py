"""Derivatives by hand, see :mod:`losses.fused`, of the losses of scores and of real values.

In the formulas p is the sigmoid of a logit, q the softmax, y the target, t the true class, and r a
prediction less its target. Each function has its loss's parameters and returns values, the
derivative of their sum by the output, and what the values count in the mean unless that is 1.
Temporaries are overwritten, inputs never.
"""

import torch
from torch import Tensor

from losses.arguments import ClassWeight, PerClass
from losses.weighting import Normalizer, weight_of, weighted


def sides(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """p, 1 - p and the logarithm of the larger, each with all its digits wherever p lies."""
    if torch.compiler.is_compiling():  # fewer operations, in more steps than torch takes unfused
        small = torch.exp(-logits.abs())
        large = 1 / (1 + small)
        sure = logits >= 0
        p, rest = torch.where(sure, large, small * large), torch.where(sure, small * large, large)
        return p, rest, -small.log1p()
    p, rest = torch.sigmoid(logits), torch.sigmoid(-logits)
    return p, rest, torch.minimum(p, rest).neg_().log1p_()


def costs(logits: Tensor, larger: Tensor) -> tuple[Tensor, Tensor]:
    """-log p and -log(1 - p)."""
    return (-logits).clamp_(min=0).sub_(larger), logits.clamp(min=0).sub_(larger)


def mixed_cost(logits: Tensor, target: Tensor, larger: Tensor) -> Tensor:
    """-y log p - (1 - y) log(1 - p)."""
    return logits.clamp(min=0).addcmul_(logits, target, value=-1).sub_(larger)


def power(base: Tensor, exponent: float | Tensor) -> Tensor:
    """base^exponent; torch multiplies for 2 and 3, and this for 4."""
    if isinstance(exponent, float | int) and exponent == 4:
        return base.square().square_()
    return base.pow(exponent)


def bce(
    logits: Tensor, target: Tensor, *, pos_weight: float | Tensor | None = None
) -> tuple[Tensor, Tensor]:
    r"""Slope :math:`p - y`, or :math:`(1 - y) p - w y (1 - p)`."""
    p, rest, larger = sides(logits)
    if pos_weight is None:
        return mixed_cost(logits, target, larger), p.sub_(target)
    if isinstance(pos_weight, Tensor):
        pos_weight = pos_weight.view(-1, *[1] * (logits.ndim - 2))
    positive, negative = target * pos_weight, 1 - target
    missed, false = costs(logits, larger)
    slope = p.mul_(negative).addcmul_(rest, positive, value=-1)
    return missed.mul_(positive).addcmul_(false, negative), slope


def mean_bce(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """That of :func:`bce` over the number of classes."""
    values, slope = bce(logits, target)
    return values.div_(logits.shape[1]), slope.div_(logits.shape[1])


def binary_focal(
    logits: Tensor, target: Tensor, *, gamma: float = 2.0, alpha: float | None = None
) -> tuple[Tensor, Tensor]:
    r"""With parts :math:`P = a (1 - p)^\gamma, N = b p^\gamma` and their values :math:`v_P =
    -P \log p, v_N = -N \log(1 - p)` it is :math:`p (N - \gamma v_P) - (1 - p) (P - \gamma v_N)`."""
    p, rest, larger = sides(logits)
    positive, negative = power(rest, gamma).mul_(target), power(p, gamma).mul_(1 - target)
    if alpha is not None:
        positive, negative = positive.mul_(alpha), negative.mul_(1 - alpha)
    missed, false = costs(logits, larger)
    missed, false = missed.mul_(positive), false.mul_(negative)
    # p before the cost: 0 times what has overflowed were not a number
    slope = negative.mul_(p).addcmul_(p, missed, value=-gamma)
    slope.sub_(positive.mul_(rest).addcmul_(rest, false, value=-gamma))
    return missed.add_(false), slope


def asymmetric(
    logits: Tensor,
    target: Tensor,
    *,
    positive_gamma: float = 0.0,
    negative_gamma: float = 4.0,
    margin: float = 0.05,
) -> tuple[Tensor, Tensor]:
    r"""As :func:`binary_focal`, but :math:`p (1 - p) (N / (1 - \tilde p) + \gamma_- v_N / \tilde p)
    - (1 - p) P - \gamma_+ p v_P`."""
    p, rest, larger = sides(logits)
    missed, false = costs(logits, larger)
    positive, by_weight, by_cost, shifted = power(rest, positive_gamma).mul_(target), p, rest, p
    if margin:
        shifted_rest = (rest + margin).clamp_(max=1)
        shifted, false = 1 - shifted_rest, shifted_rest.log().neg_()
        by_weight = shifted_rest.reciprocal_().mul_(rest).mul_(p)
        by_cost = (p / shifted.clamp(min=torch.finfo(p.dtype).tiny)).mul_(rest)
    negative = power(shifted, negative_gamma) if negative_gamma else shifted.sign()
    negative.mul_(1 - target)
    missed, false = missed.mul_(positive), false.mul_(negative)
    slope = negative.mul_(by_weight).addcmul_(by_cost, false, value=negative_gamma)
    slope.addcmul_(positive, rest, value=-1)
    return missed + false, slope.addcmul_(p, missed, value=-positive_gamma)


def brier(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Slope 2 (p - y) p (1 - p)."""
    p = torch.sigmoid(logits)
    error = p - target
    values = error.square()
    return values, error.mul_(p).mul_(p.neg_().add_(1)).mul_(2)


def quality_focal(logits: Tensor, target: Tensor, *, beta: float = 2.0) -> tuple[Tensor, Tensor]:
    r"""With c the cross-entropy and d = p - y it is :math:`\mathrm{sign}(d) |d|^{\beta - 1}
    (d^2 + \beta c\, p (1 - p))`."""
    p, rest, larger = sides(logits)
    cost, error = mixed_cost(logits, target, larger), p - target
    weight = power(error.abs(), beta - 1).mul_(error.sign())
    slope = p.mul_(rest).mul_(cost).mul_(beta).addcmul_(error, error).mul_(weight)
    return weight.mul_(error).mul_(cost), slope


def varifocal(
    logits: Tensor, target: Tensor, *, alpha: float = 0.75, gamma: float = 2.0
) -> tuple[Tensor, Tensor]:
    r"""Of a positive :math:`y (p - y)`, of a negative that of :func:`binary_focal`."""
    p, rest, larger = sides(logits)
    cost = mixed_cost(logits, target, larger)
    easy = power(p, gamma).mul_(alpha).mul_(1 - target.sign())  # 0 at positives
    weight = easy + target
    slope = p.sub_(target).mul_(weight).addcmul_(easy, rest.mul_(cost), value=gamma)
    return weight.mul_(cost), slope


def shifted(logits: Tensor, into: Tensor | None = None) -> Tensor:
    """Scores less the largest over axis 1."""
    return torch.sub(logits, logits.amax(1, keepdim=True), out=into)


def softmax_(shifted: Tensor) -> tuple[Tensor, Tensor]:
    """In place of scores x whose largest is 0 softmax q over axis 1; and a with log q = x - a.

    torch's softmax is for long rows: rows of ten take it ten times as long as these steps.
    """
    if shifted.ndim == 2 and shifted.shape[1] > 100:
        q = torch.softmax(shifted, 1, out=shifted)
        return q, q.amax(1, keepdim=True).log_().neg_()
    q = shifted.exp_()
    total = q.sum(1, keepdim=True)
    return q.div_(total), total.log_()


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    class_weight: ClassWeight = None,
    smoothing: float = 0.0,
    normalizer: Normalizer = "weight",
    into: Tensor | None = None,
) -> tuple[Tensor, ...]:
    r"""With shares :math:`s_c = w_c \tilde y_c` it is :math:`q_c \sum_k s_k - s_c`."""
    weight = None
    if isinstance(class_weight, Tensor):
        weight = class_weight.view(-1, *[1] * (logits.ndim - 2))
    of_form = _of_rows if target.is_floating_point() else _of_index
    values, slope = of_form(shifted(logits, into), target, weight, smoothing)
    if class_weight is None or normalizer == "count":
        return values, slope
    return values, slope, weight_of(target, class_weight)


def _of_rows(
    scores: Tensor, target: Tensor, weight: Tensor | None, smoothing: float
) -> tuple[Tensor, Tensor]:
    shares = ((1 - smoothing) * target).add_(smoothing / scores.shape[1])
    shares = shares if weight is None else shares.mul_(weight)
    share = shares.sum(1, keepdim=True)
    below = (scores * shares).sum(1)
    q, log_total = softmax_(scores)
    return (share * log_total).squeeze(1) - below, q.mul_(share).sub_(shares)


def _of_index(
    scores: Tensor, target: Tensor, weight: Tensor | None, smoothing: float
) -> tuple[Tensor, Tensor]:
    index, even = target.unsqueeze(1), smoothing / scores.shape[1]
    below = scores.gather(1, index)
    own = torch.full_like(below, 1 - smoothing)
    if weight is not None:
        own *= weight.flatten()[index]
    below.mul_(own)
    if smoothing:
        rows = scores if weight is None else scores * weight
        below.add_(rows.sum(1, keepdim=True), alpha=even)
    slope, log_total = softmax_(scores)
    if weight is not None:
        share = own + smoothing * weight.mean()
        slope.mul_(share)
        log_total.mul_(share)
    slope.scatter_add_(1, index, -own)
    if smoothing:
        slope.sub_(even if weight is None else even * weight)
    values = log_total.sub_(below)
    return values.squeeze(1), slope


def poly1(
    logits: Tensor,
    target: Tensor,
    *,
    epsilon: float = 1.0,
    class_weight: ClassWeight = None,
    normalizer: Normalizer = "weight",
) -> tuple[Tensor, ...]:
    r"""That of the cross-entropy times :math:`1 + \epsilon q_t`."""
    values, slope = cross_entropy(logits, target)
    fall = torch.expm1(-values)  # q_t - 1
    slope.mul_((1 + epsilon + epsilon * fall).unsqueeze(1))
    return _weighted(values - epsilon * fall, slope, target, class_weight, normalizer)


def focal(
    logits: Tensor,
    target: Tensor,
    *,
    gamma: float | Tensor = 2.0,
    class_gamma: PerClass = None,
    class_weight: ClassWeight = None,
    normalizer: Normalizer = "weight",
) -> tuple[Tensor, ...]:
    """That of :func:`binary_focal` by the log-odds of t: its logit less its rivals' log-sum-exp.

    The derivative of the latter is minus the softmax among the rivals.
    """
    index = target.unsqueeze(1)
    rivals = logits.scatter(1, index, torch.finfo(logits.dtype).min)
    best = rivals.amax(1, keepdim=True)
    q, log_total = softmax_(rivals.sub_(best))
    log_odds = logits.gather(1, index) - best - log_total
    p, rest, larger = sides(log_odds)
    gamma = class_gamma[index] if isinstance(class_gamma, Tensor) else gamma
    cost, weight = costs(log_odds, larger)[0], power(rest, gamma)
    rise = rest.addcmul_(p.mul_(gamma), cost).mul_(weight)
    slope = q.mul_(rise).scatter_(1, index, -rise)
    return _weighted(weight.mul_(cost).squeeze(1), slope, target, class_weight, normalizer)


def ldam(
    lowered: Tensor,
    target: Tensor,
    scale: float,
    class_weight: ClassWeight,
    normalizer: Normalizer,
) -> tuple[Tensor, ...]:
    """That of the cross-entropy of scores times the scale, whose margins have been taken off."""
    values, slope = cross_entropy(scale * lowered, target)
    return _weighted(values, slope.mul_(scale), target, class_weight, normalizer)


def _weighted(
    values: Tensor, slope: Tensor, target: Tensor, class_weight: ClassWeight, normalizer: Normalizer
) -> tuple[Tensor, ...]:
    """As :func:`losses.weighting.weighted`, with the slope [N, C, ...]."""
    values, counts = weighted(values, target, class_weight, normalizer)
    if class_weight is not None:
        slope = slope.mul_(weight_of(target, class_weight).unsqueeze(1))
    return (values, slope) if counts is None else (values, slope, counts)


def mae(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Slope sign r."""
    residual = prediction - target
    return residual.abs(), residual.sign_()


def log_cosh(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Slope tanh r = sign(r) d / (2 - d), d = 1 - exp(-2 |r|); torch's tanh takes longer."""
    residual = prediction - target
    size = residual.abs()
    less = torch.expm1(-2 * size)  # -d
    slope = residual.sign_().mul_(less).div_(less + 2).neg_()
    return size.add_(less.div_(2).log1p_()), slope


def pseudo_huber(
    prediction: Tensor, target: Tensor, *, delta: float = 1.0
) -> tuple[Tensor, Tensor]:
    r"""Slope :math:`r / \sqrt{1 + (r / \delta)^2}`."""
    residual = prediction - target
    root = torch.hypot(residual / delta, residual.new_ones(()))
    return residual / (root + 1) * residual, residual.div_(root)


def quantile(prediction: Tensor, target: Tensor, *, q: float = 0.5) -> tuple[Tensor, Tensor]:
    """Slope 1 - q above the target, -q below, 0 at it."""
    residual = prediction - target
    side = residual.sign()
    slope = side.clamp(min=0).mul_(1 - q).add_(side.clamp_(max=0), alpha=q)
    return residual.mul_(slope), slope


def poisson_nll(log_rate: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Slope: the rate less y."""
    rate = log_rate.exp()
    return torch.addcmul(rate, log_rate, target, value=-1), rate.sub_(target)
