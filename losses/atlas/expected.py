"""What the least expected loss predicts: probabilities, or which functional of a distribution."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from losses.atlas.finding import Finding, brief, nothing, shown
from losses.atlas.line import Inputs, fractions, least
from losses.atlas.lines import class_scores, real_output, real_target, shifted
from losses.core import Fraction, Loss

SHARES = (0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9)
ROWS = ((0.6, 0.3, 0.1), (0.45, 0.35, 0.2), (0.8, 0.15, 0.05), (0.4, 0.31, 0.29))
PROPER = 1e-3
NAMED = 5e-3  # half the spacing of the distributions' points around their medians
REACH = 12.0  # of scores; a sigmoid there is 6e-6 from its end
PIXELS = 4
PLACES = 501
UNDRAWN = {
    "labels": "embeddings are compared, no probability is predicted",
    "fields": "which of the named fields are drawn at random differs from loss to loss",
}

Weights = list[float]
Sides = list[Callable[[Tensor], Inputs]]


class Fit(NamedTuple):
    """Probabilities of labels, and those that the least expected loss predicts."""

    given: tuple[float, ...]
    found: tuple[float, ...]

    @property
    def distance(self) -> float:
        """The largest difference of a probability."""
        return max(abs(p - q) for p, q in zip(self.found, self.given, strict=True))

    @property
    def decides(self) -> bool:
        """Whether the likeliest class is the one that is predicted, alone."""
        best = max(range(len(self.given)), key=self.given.__getitem__)
        others = (p for i, p in enumerate(self.found) if i != best)
        return self.found[best] > max(others) + 1e-6


def mean_loss(entry: Loss, sides: Sequence[Inputs], weights: Weights) -> Tensor:
    """Mean loss [K] over labels of these probabilities: mean of values over mean of counts."""
    made = [fractions(entry, inputs) for inputs in sides]
    total = sum(w * f.numerator for w, f in zip(weights, made, strict=True))
    count = sum(w * f.denominator for w, f in zip(weights, made, strict=True))
    return entry.divide(Fraction(torch.as_tensor(total), torch.as_tensor(count)))


def fits(entry: Loss) -> list[Fit] | None:
    """What is predicted for labels of several probabilities; None where there are no labels."""
    if entry.target in ("labels", "boxes", "fields"):
        return None
    if entry.target == "real":
        return [_fit_number(entry, q) for q in SHARES] if _takes(entry, 0.0, 1.0) else None
    if entry.region:
        return [_fit_region(entry, q) for q in SHARES]
    if entry.target == "binary":
        return [_fit_binary(entry, q) for q in SHARES]
    return [_fit_classes(entry, q) for q in ROWS]


def _takes(entry: Loss, *targets: float) -> bool:
    return entry.within is None or all(target in entry.within for target in targets)


def _fit_number(entry: Loss, q: float) -> Fit:
    """Labels 0 and 1 as real numbers; the prediction is read as a probability."""

    def objective(z: Tensor) -> Tensor:
        output = real_output(entry, z[:, 0].exp() if entry.point is torch.exp else z[:, 0])
        labels = torch.ones(len(z), 1, dtype=torch.float64)
        return mean_loss(entry, [(output, labels), (output, 0 * labels)], [q, 1 - q])

    best = float(least(objective, -REACH, 3.0, 1))
    share = math.exp(best) if entry.point is torch.exp else best
    return Fit((q, 1 - q), (share, 1 - share))


def _fit_binary(entry: Loss, q: float) -> Fit:
    shape = (-1, 1, 1) if entry.sum_classes else (-1, 1)

    def objective(z: Tensor) -> Tensor:
        output = z.view(shape)
        yes = torch.ones_like(output, dtype=torch.long)
        return mean_loss(entry, [(output, yes), (output, 1 - yes)], [q, 1 - q])

    share = float(torch.sigmoid(least(objective, -REACH, REACH, 1)))
    return Fit((q, 1 - q), (share, 1 - share))


def _fit_region(entry: Loss, q: float) -> Fit:
    """Pixels that are of the object independently, each with probability q, and one logit for all.

    That is what a model can know of pixels that look alike.
    """
    patterns = torch.tensor(list(itertools.product((0, 1), repeat=PIXELS))).view(-1, 1, 2, 2)
    weights = [q ** int(p.sum()) * (1 - q) ** (PIXELS - int(p.sum())) for p in patterns]

    def objective(z: Tensor) -> Tensor:
        logit = z.view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
        output = logit if entry.target == "binary" else torch.stack([0 * logit, logit], 2)
        return mean_loss(entry, [(output, p.expand(len(z), 1, 2, 2)) for p in patterns], weights)

    share = float(torch.sigmoid(least(objective, -REACH, REACH, 1)))
    return Fit((q, 1 - q), (share, 1 - share))


def _fit_classes(entry: Loss, q: tuple[float, ...]) -> Fit:
    """Three classes, grades or bins: two free scores, or the two questions of grades."""

    def scores(z: Tensor) -> Tensor:
        rows = z if entry.target == "ordinal" else torch.cat([torch.zeros_like(z[:, :1]), z], 1)
        return class_scores(entry, rows.unsqueeze(1))

    def objective(z: Tensor) -> Tensor:
        output = scores(z)
        sides = [(output, torch.full((len(z), 1), label)) for label in range(3)]
        return mean_loss(entry, sides, list(q))

    output = scores(least(objective, -REACH, REACH, 2).unsqueeze(0)).squeeze(1)
    if entry.target == "ordinal" and entry.point is not None:
        output = entry.point(output)
    return Fit(q, tuple(output.softmax(1)[0].tolist()))


def proper(entry: Loss, *_: object) -> Finding:
    """What the least expected loss predicts for labels, or numbers, of a known distribution.

    For labels of probabilities q the largest distance of the prediction, read off by sigmoid or
    softmax, from q: proper means at most 0.001. Regions have 4 pixels, each of the object with
    probability q by itself, and one logit. For real numbers and boxes it is the functional that
    comes out for three distributions alike: mean, median, another quantile, or none of these.
    """
    if entry.target in ("real", "boxes"):
        return _elicits(entry)
    found = fits(entry)
    if found is None:
        return nothing(UNDRAWN[entry.target])
    worst = max(found, key=lambda fit: fit.distance)
    distance, wrong = worst.distance, sum(not fit.decides for fit in found)
    pairs = ", ".join(f"{p:.3f}" for p in worst.found[: max(1, len(worst.found) - 1)])
    given = ", ".join(f"{q:g}" for q in worst.given[: max(1, len(worst.given) - 1)])
    words = (
        f"the least expected loss predicts {pairs} where the labels' probability is {given}: off "
        f"by {shown(distance)} at most (proper: {PROPER} or less); the likeliest label is not the "
        f"predicted one for {wrong} of {len(found)} distributions"
    )
    return Finding(distance, brief(distance), distance <= PROPER, words)


def spreads() -> dict[str, Tensor]:
    """Points of three distributions with unlike means, medians and tails, equally likely."""
    u = (torch.arange(PLACES, dtype=torch.float64) + 0.5) / PLACES
    return {"exponential": -torch.log1p(-u), "uniform": u, "cubed": 3 * u**3}


def elicited(entry: Loss, points: Tensor) -> float:
    """The number whose expected loss is least when targets are these points, equally likely."""
    log = entry.point is torch.exp

    def objective(z: Tensor) -> Tensor:
        number = z[:, 0].exp() if log else z[:, 0]
        pair = number.repeat_interleave(len(points)), points.repeat(len(number))
        made = fractions(entry, _located(entry, *pair))
        total, count = (part.reshape(len(number), -1).mean(1) for part in made)
        return entry.divide(Fraction(total, count))

    best = float(least(objective, -7.0 if log else -0.5, 2.0 if log else 7.5, 1))
    return math.exp(best) if log else best


def _located(entry: Loss, number: Tensor, true: Tensor) -> Inputs:
    if entry.target == "boxes":
        return shifted(number, true)
    return real_output(entry, number), true.unsqueeze(1)


def _elicits(entry: Loss) -> Finding:
    """Which functional of the targets' distribution the least expected loss is."""
    if entry.target == "real" and not _takes(entry, 0.0, 10.0) and real_target(entry) != 1.0:
        return nothing("its targets lie within narrower limits than the distributions here")
    found = {name: elicited(entry, points) for name, points in spreads().items()}
    errors = _errors(found)
    name = min(errors, key=errors.__getitem__)
    levels = [_level(spreads()[k], m) for k, m in found.items()]
    where = "; ".join(
        f"{k} {shown(m)} (mean {shown(float(p.mean()))}, median {shown(float(p.median()))})"
        for (k, p), m in zip(spreads().items(), found.values(), strict=True)
    )
    if errors[name] <= NAMED:
        words = f"it elicits the {name}, to {NAMED}: {where}"
        return Finding(errors[name], name, True, words)
    if max(levels) - min(levels) <= NAMED:
        level = sum(levels) / len(levels)
        words = f"it elicits the quantile of level {level:.3f}, to {NAMED}: {where}"
        return Finding(level, f"q{level:.2f}", True, words)
    words = f"no mean, median or other quantile, off by {shown(errors[name])}: {where}"
    return Finding(errors[name], "none", False, words)


def _level(points: Tensor, number: float) -> float:
    return float((points < number).double().mean() + (points <= number).double().mean()) / 2


def _errors(found: dict[str, float]) -> dict[str, float]:
    """How far each functional is from what came out, in the worst of the distributions."""
    functionals: dict[str, Callable[[Tensor], Tensor]] = {
        "mean": torch.mean,
        "median": torch.median,
        "log-mean": lambda y: y.log1p().mean().expm1(),
    }
    points = spreads()
    return {
        name: max(abs(m - float(of(points[k]))) for k, m in found.items())
        for name, of in functionals.items()
    }
