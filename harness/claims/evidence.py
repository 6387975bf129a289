r"""The rule of a claim's verdict: from paired differences to evidence. Needs no torch.

The claim says that the mean paired difference d (arm minus against) lies on one side of a boundary:
d > m for `higher`, d < -m for `lower`, -m < d < m for `equal`, with the margin m. A contrast is

- SUPPORTED if the 95% t interval of d lies on the claim's side entirely,
- CONTRADICTED if it lies on the other side entirely,
- NOT ENOUGH EVIDENCE if it holds the boundary.

That is the two-sided t test of d against the nearest boundary at 5%; where a claim has several
contrasts, its p values are corrected by Holm over them, so that an interval that just misses the
boundary may not be enough. The claim is supported if all of its contrasts are, contradicted if one
is. Fewer than three pairs decide nothing, and neither does anything before the last run.

A lost run, one that diverged, is infinitely worse than one that did not. Where that makes a
difference infinite there is no mean, and the sign test of the seeds takes the place of the t test:
on how many of them the difference lies on the claim's side. Nothing is decided about `equal` then,
and seeds on which both are lost say nothing. A run that failed (an error, no memory left) or that
is done without the metric is no evidence either way: one of them leaves the contrast undecided.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness import statistics
from harness.claims.claim import Direction, Verdict
from harness.statistics import paired
from harness.verdict import FEWEST_SEEDS


@dataclass(frozen=True)
class Evidence:
    """What differences say about one contrast, before they are corrected for others.

    Attributes:
        leans: the verdict the data lean to, whatever p is.
        p: two-sided, against the nearest boundary; None where nothing can be tested.
        seeds_needed: for power .8, were the effect seen the true one; None where unknown.
        why: why nothing can be tested, in words; empty where something can.
    """

    leans: Verdict
    p: float | None
    seeds_needed: int | None = None
    why: str = ""


def evidence(
    given: Sequence[float], direction: Direction, margin: float, comparisons: int = 1
) -> Evidence:
    """What paired differences say for or against a contrast, see the module's docstring."""
    if len(given) < FEWEST_SEEDS:
        return undecided(f"{len(given)} pair{'' if len(given) == 1 else 's'} of runs")
    if not all(math.isfinite(value) for value in given):
        if direction == "equal":
            return undecided("lost runs decide nothing about equality")
        return _signs([_beyond(value, direction, margin) for value in given])
    if direction == "equal" and not any(given):
        return Evidence("SUPPORTED", 0.0)  # identical: there is nothing to test
    mean, _ = statistics.mean_and_sd(given)
    side = math.copysign(1.0, mean) if direction == "equal" else 1.0
    beyond = [_beyond(value * side, direction, margin) for value in given]
    test = paired(beyond)
    d = statistics.effect_size(beyond)
    return Evidence(
        _side(test.mean), test.p, None if d is None else statistics.seeds_needed(d, comparisons)
    )


def undecided(why: str) -> Evidence:
    """No evidence at all, and why."""
    return Evidence("NOT ENOUGH EVIDENCE", None, why=why)


def _beyond(value: float, direction: Direction, margin: float) -> float:
    """How far a difference lies on the claim's side of the boundary."""
    if direction == "equal":
        return margin - value
    return (value if direction == "higher" else -value) - margin


def _side(value: float) -> Verdict:
    if value == 0:
        return "NOT ENOUGH EVIDENCE"
    return "SUPPORTED" if value > 0 else "CONTRADICTED"


def _signs(beyond: Sequence[float]) -> Evidence:
    """The exact sign test."""
    signs = [math.copysign(1.0, value) for value in beyond if value]
    return Evidence(_side(sum(signs)), statistics.sign_flip(signs) if signs else None)
