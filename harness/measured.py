"""What is measured of arms, without a judgement on them: plain frozen data. Needs no torch."""

from dataclasses import dataclass, field
from typing import Literal

from harness.plan import Direction


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (ddof 1) over n runs; None where not finite or undefined."""

    n: int
    mean: float | None
    sd: float | None


@dataclass(frozen=True)
class CurvePoint:
    """One evaluation while training: mean over seeds, and paired difference with its interval."""

    step: float
    n: int
    mean: float
    difference: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Cost:
    """Means per done run: wall seconds, optimiser steps, parameters, bytes at the peak.

    `steps_to_baseline`: median over seeds of the step at which the curve is first as good as the
    baseline's last value on that seed, over the `reached` seeds that get there.
    """

    total_seconds: float | None
    train_seconds: float | None
    steps: float | None
    parameters: float | None
    peak_memory: float | None
    step_seconds: float | None = None
    steps_to_baseline: float | None = None
    reached: int = 0


@dataclass(frozen=True)
class TermCurve:
    """One term while training, over seeds: `norm` of its gradient before its weight, and `share`.

    A share is that of the weighted gradient in the whole, see :class:`harness.gradients.Pulls`.
    Bands are 95% t intervals of the mean, point by point.
    """

    term: str
    norm: list[CurvePoint]
    share: list[CurvePoint]


@dataclass(frozen=True)
class PairCurve:
    """The cosine of the angle between the gradients of two terms while training, over seeds."""

    first: str
    second: str
    cosine: list[CurvePoint]


@dataclass(frozen=True)
class MadeOf:
    """What an arm's objective is made of.

    Attributes:
        loss, gradient: value, and norm of its gradient before clipping, at the first step.
        terms, pairs: over training; empty unless `trainer.gradients` asked for it.
    """

    loss: Spread
    gradient: Spread
    terms: list[TermCurve] = field(default_factory=list)
    pairs: list[PairCurve] = field(default_factory=list)


@dataclass(frozen=True)
class Slope:
    """How fast the headline metric worsens from the best value of a number to a neighbour.

    `per` decade of the number, or unit; the interval is that of the paired difference.
    """

    towards: float
    per: Literal["decade", "unit"]
    fall: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Response:
    """Arms that differ in one number of the config alone, in its order.

    Attributes:
        intervals: per arm the 95% t interval of its mean over seeds; None where there is none.
        best: the value whose mean is best among arms of which every run is done.
        plateau: the unbroken row of values around it that are not significantly worse than the
            best (paired t, Holm within the row of arms), with every run done.
        apart: values of which that is as true, but which the row does not reach.
        slope: the steepest fall from the best value to a value beside it.

    While the sweep still runs, or with one seed, only `arms` and `values` are known.
    """

    key: str
    arms: list[str]
    values: list[float]
    intervals: list[tuple[float, float] | None] = field(default_factory=list)
    best: float | None = None
    plateau: list[float] = field(default_factory=list)
    apart: list[float] = field(default_factory=list)
    slope: Slope | None = None


@dataclass(frozen=True)
class Tradeoff:
    """Another metric against the headline's.

    Attributes:
        asked: whether it was asked for; else it is the one that orders the arms least alike.
        agreement: Kendall's tau of the two orders of the arms' means, better first.
        front: arms that no other is at least as good as in both means, and better in one.
    """

    metric: str
    direction: Direction
    asked: bool
    agreement: float
    front: list[str]


@dataclass(frozen=True)
class OverallArm:
    """One arm over all tasks, by the scores of :mod:`harness.overall`.

    Attributes:
        iqm, low, high: interquartile mean of its runs' scores, and its 95% bootstrap interval.
        rank: mean over tasks of its place, 1 for the best mean.
        gain: mean over tasks of its score less the baseline's.
        p_holm: flipped signs of these gains, Holm over arms; None below six tasks.
        profile: share of runs that score at least as much as each threshold.
    """

    arm: str
    iqm: float
    low: float | None
    high: float | None
    rank: float
    gain: float
    p_holm: float | None
    profile: list[float]


@dataclass(frozen=True)
class Overall:
    """What the tasks of a sweep say together, the best arm first.

    Attributes:
        friedman: p that all arms rank alike; None below five tasks or three arms.
        apart: least difference of mean ranks beyond chance (Nemenyi); None likewise.
    """

    tasks: int
    thresholds: list[float]
    arms: list[OverallArm]
    friedman: float | None
    apart: float | None
