"""Paired statistics of arms: interval, test, corrections, power. Pure functions, no torch.

`differences` always holds one value per seed, arm minus baseline. References: Student 1908 for the
interval, Fisher 1935 for flipped signs, Holm 1979, Schuirmann 1987 for equivalence, Cohen 1988 for
d_z and power.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

ALPHA = 0.05
POWER = 0.8
EXACT_FLIPS = 16  # seeds up to which all 2^n sign patterns are enumerated
FLIP_DRAWS = 20_000  # random sign patterns beyond; standard error .0015 at p = .05
FLIP_SEED = 0
NEXT_TO_NOTHING = 5  # sd; seeds that show no smaller difference show next to nothing
MOST_SEEDS = 1000  # more than this is reported as "over 1000"
ROUNDING = 1e-9  # a spread below this share of the mean difference is arithmetic, not data


@dataclass(frozen=True)
class Paired:
    """Mean of n paired differences, its standard deviation (ddof 1), 95% interval and p.

    With one pair there is no spread: `sd`, `low`, `high` and `p` are None.
    """

    n: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None
    p: float | None


def _checked(owner: str, differences: Sequence[float]) -> NDArray[np.float64]:
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"{owner} needs a list of at least one difference, got {differences!r}")
    if not np.isfinite(values).all():
        raise ValueError(f"{owner} needs finite differences, got {differences!r}")
    return values


def mean_and_sd(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and standard deviation with n - 1 in the denominator; None for a single value.

    A spread that is rounding alone counts as 0.
    """
    array = _checked("mean_and_sd", values)
    mean = float(array.mean())
    if array.size == 1:
        return mean, None
    sd = float(array.std(ddof=1))
    return mean, 0.0 if sd <= ROUNDING * abs(mean) else sd


def paired(differences: Sequence[float]) -> Paired:
    r"""Student t interval :math:`\bar d \pm t_{n-1,.975}\, s / \sqrt n` and two-sided p.

    Without spread the t distribution has nothing to say: equal arms get p = 1, and a constant
    difference gets the p of flipped signs, so that two seeds which agree by rounding prove nothing.

    Raises:
        ValueError: no differences, or one that is not finite.
    """
    values = _checked("paired", differences)
    n = values.size
    mean, sd = mean_and_sd(differences)
    if sd is None:
        return Paired(n, mean, None, None, None, None)
    if sd == 0:
        return Paired(n, mean, sd, mean, mean, sign_flip(differences))
    error = sd / math.sqrt(n)
    reach = -float(special.stdtrit(n - 1, ALPHA / 2)) * error
    p = 2 * float(special.stdtr(n - 1, -abs(mean) / error))
    return Paired(n, mean, sd, mean - reach, mean + reach, p)


def holm(ps: Sequence[float], comparisons: int | None = None) -> list[float]:
    """Holm's adjusted p values, in the order given.

    Args:
        ps: one p per comparison that could be made.
        comparisons: size of the whole family, when some of it yielded no p (they count as p = 1).
    """
    family = len(ps) if comparisons is None else comparisons
    if family < len(ps):
        raise ValueError(f"holm: comparisons must be at least {len(ps)}, got {comparisons}")
    adjusted, highest = [0.0] * len(ps), 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        highest = max(highest, min(1.0, ps[i] * (family - rank)))
        adjusted[i] = highest
    return adjusted


@lru_cache(maxsize=4)
def _random_signs(n: int) -> NDArray[Any]:
    draws = np.random.default_rng(FLIP_SEED).integers(0, 2, (FLIP_DRAWS, n), dtype=np.int8)
    return draws * 2 - 1  # [draws, n]


def sign_flip(differences: Sequence[float]) -> float:
    """Two-sided p of the mean when every difference could as well have the other sign.

    Exact up to `EXACT_FLIPS` seeds (never below 2 / 2^n); beyond, `FLIP_DRAWS` patterns drawn with
    seed `FLIP_SEED`, the observed one counted in.
    """
    values = _checked("sign_flip", differences)
    least = abs(values.sum()) - 1e-12 * np.abs(values).sum()  # ties count despite rounding
    if values.size > EXACT_FLIPS:
        hits = int((np.abs(_random_signs(values.size) @ values) >= least).sum())
        return (1 + hits) / (1 + FLIP_DRAWS)
    sums = values[:1]  # the first sign stays: a pattern and its mirror image weigh the same
    for value in values[1:]:
        sums = np.concatenate([sums + value, sums - value])
    return float((np.abs(sums) >= least).mean())


def effect_size(differences: Sequence[float]) -> float | None:
    """Cohen's d_z: mean difference over its standard deviation; None without spread."""
    mean, sd = mean_and_sd(differences)
    return mean / sd if sd else None


def probability_of_improvement(differences: Sequence[float]) -> float:
    """Share of seeds with a difference above 0; a tie counts half."""
    values = _checked("probability_of_improvement", differences)
    return float((values > 0).mean() + (values == 0).mean() / 2)


def equivalence(differences: Sequence[float], margin: float) -> float | None:
    """P of two one-sided t tests that the mean difference lies outside (-margin, margin).

    None for a single pair. Without spread: 1 outside the margin, 2^-n inside.
    """
    if not margin > 0:
        raise ValueError(f"equivalence: margin must be > 0, got {margin!r}")
    mean, sd = mean_and_sd(differences)
    n = len(differences)
    if sd is None:
        return None
    if sd == 0:
        return 2.0**-n if abs(mean) < margin else 1.0
    return float(special.stdtr(n - 1, -(margin - abs(mean)) / (sd / math.sqrt(n))))


def power(d: float, n: int, comparisons: int = 1) -> float:
    """Chance that a two-sided paired t test with n seeds finds an effect of d standard deviations.

    Tested at ALPHA / comparisons, which is Holm's level for the smallest p.
    """
    if n < 2:
        return 0.0
    limit = -float(special.stdtrit(n - 1, ALPHA / max(1, comparisons) / 2))
    shift = abs(d) * math.sqrt(n)
    upper = 1 - float(special.nctdtr(n - 1, shift, limit))
    lower = float(special.nctdtr(n - 1, shift, -limit))  # NaN where it underflows
    return upper if math.isnan(lower) else upper + lower


def detectable(n: int, comparisons: int = 1) -> float | None:
    """Smallest d_z that n seeds find with power .8 at the corrected level; None below 2 seeds."""
    if n < 2:
        return None
    low, high = 0.0, 1.0
    while power(high, n, comparisons) < POWER:
        low, high = high, 2 * high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if power(middle, n, comparisons) < POWER else (low, middle)
    return high


def seeds_needed(d: float, comparisons: int = 1) -> int | None:
    """Fewest seeds that find d_z with power .8 at the corrected level; None above `MOST_SEEDS`."""
    low, high = 1, MOST_SEEDS
    if power(d, high, comparisons) < POWER:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if power(d, middle, comparisons) < POWER else (low, middle)
    return high


def evidence(n: int, comparisons: int) -> str:
    """What n paired seeds can show, in words for whoever plans a sweep.

    >>> evidence(10, 7)
    '10 paired seeds can show a difference of 1.5 sd or more (power .8, 7 comparisons)'
    """
    least = detectable(n, comparisons)
    if comparisons < 1:
        return "one arm: nothing to compare"
    if least is None:
        return f"{n} seed{'' if n == 1 else 's'} can show no difference: 2 or more give an interval"
    size = f"a difference of {math.ceil(least * 10) / 10:.1f} sd or more"
    if least > NEXT_TO_NOTHING:
        size = 'next to nothing: expect "not enough evidence"'
    plural = "" if comparisons == 1 else "s"
    return f"{n} paired seeds can show {size} (power .8, {comparisons} comparison{plural})"
