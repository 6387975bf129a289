"""How the headline metric answers to a number, and to another metric. Pure, needs no torch."""

import dataclasses
import difflib
import itertools
import math
from collections.abc import Mapping, Sequence

from scipy import special

from harness.measured import Response, Slope, Spread, Tradeoff
from harness.plan import Direction
from harness.statistics import ALPHA, holm, paired

DECADE = 10.0
LEAST_ARMS = 3  # from which an order of arms says something

Values = Mapping[int, float]  # of one arm by seed


def among_best(values: Mapping[str, Values], *, higher: bool) -> list[str]:
    """The arm with the best mean, then those not significantly worse: paired t, Holm, 5%.

    Args:
        values: of arms that all have the same seeds, two or more.
        higher: whether more is better.
    """
    if not values:
        return []
    means = {arm: sum(some.values()) / len(some) for arm, some in values.items()}
    leader = (max if higher else min)(means, key=lambda arm: means[arm])
    others = [arm for arm in values if arm != leader]
    ps = [paired(_differences(values[arm], values[leader])).p for arm in others]
    corrected = holm([1.0 if p is None else p for p in ps])
    return [leader, *(arm for arm, p in zip(others, corrected, strict=True) if p > ALPHA)]


def _differences(mine: Values, theirs: Values) -> list[float]:
    return [value - theirs[seed] for seed, value in mine.items() if seed in theirs]


def in_decades(values: Sequence[float]) -> bool:
    """Whether ascending values ask for a logarithmic axis: none negative, a decade or more apart.

    >>> in_decades([1, 2, 3]), in_decades([0, 0.1, 1])
    (False, True)
    """
    positive = [value for value in values if value > 0]
    return len(positive) > 1 and values[0] >= 0 and positive[-1] >= DECADE * positive[0]


def judged(given: Response, values: Mapping[str, Values], whole: int, *, higher: bool) -> Response:
    """The response with its intervals, its best value, what is as good, and how fast it falls.

    Args:
        given: which arms, at which values of the number.
        values: headline metric of the done runs by arm and seed.
        whole: how many runs an arm has if none is missing.
        higher: whether more is better.
    """
    intervals = [_interval([*values.get(arm, {}).values()]) for arm in given.arms]
    full = {arm: values[arm] for arm in given.arms if len(values.get(arm, ())) == whole > 1}
    good = among_best(full, higher=higher)
    if not good:
        return dataclasses.replace(given, intervals=intervals)
    at = given.arms.index(good[0])
    row = [at]
    for step in (-1, 1):
        for place in itertools.count(at + step, step):
            if not 0 <= place < len(given.arms) or given.arms[place] not in good:
                break
            row.append(place)
    beyond = [i for i, arm in enumerate(given.arms) if arm in good and i not in row]
    return dataclasses.replace(
        given,
        intervals=intervals,
        best=given.values[at],
        plateau=[given.values[i] for i in sorted(row)],
        apart=[given.values[i] for i in beyond],
        slope=_steepest(given, at, full, higher=higher),
    )


def _interval(values: Sequence[float]) -> tuple[float, float] | None:
    if not values:
        return None
    test = paired(values)
    return None if test.low is None or test.high is None else (test.low, test.high)


def _steepest(
    given: Response, at: int, values: Mapping[str, Values], *, higher: bool
) -> Slope | None:
    """Towards the neighbour where the metric worsens fastest; a 0 lies no decades away.

    None if a neighbour is not among `values`, those of arms with every run done: the metric may
    worsen fastest there.
    """
    decades, best, found = in_decades(given.values), given.values[at], []
    places = [place for place in (at - 1, at + 1) if 0 <= place < len(given.arms)]
    if any(given.arms[place] not in values for place in places):
        return None
    for place in places:
        value = given.values[place]
        if decades and not (value > 0 and best > 0):
            continue
        gap = abs(math.log10(value / best)) if decades else abs(value - best)
        falls = _differences(values[given.arms[at]], values[given.arms[place]])
        test = paired([fall / gap if higher else -fall / gap for fall in falls])
        slope = Slope(value, "unit", test.mean, test.low, test.high)
        found.append(dataclasses.replace(slope, per="decade") if decades else slope)
    return max(found, key=lambda slope: slope.fall, default=None)


def front(points: Mapping[str, tuple[float, float]], higher: tuple[bool, bool]) -> list[str]:
    """Points that no other is at least as good as in both numbers, and better in one.

    >>> front({"a": (1, 5), "b": (2, 4), "c": (1, 4)}, (True, True))
    ['a', 'b']
    """
    signs = [1 if more else -1 for more in higher]
    good = {
        name: [s * x for s, x in zip(signs, point, strict=True)] for name, point in points.items()
    }
    return [
        name
        for name, (x, y) in good.items()
        if not any(a >= x and b >= y and (a > x or b > y) for a, b in good.values())
    ]


def agreement(points: Sequence[tuple[float, float]], higher: tuple[bool, bool]) -> float:
    """Kendall's tau (a) of two orders of the same arms, better first; ties count as neither.

    >>> agreement([(1, 3), (2, 2), (3, 1)], (True, False))
    1.0
    """
    pairs = list(itertools.combinations(points, 2))
    turn = 1 if higher[0] == higher[1] else -1
    score = sum(_sign(a[0] - b[0]) * _sign(a[1] - b[1]) for a, b in pairs)
    return turn * score / len(pairs) if pairs else 0.0


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def tradeoff(
    metric: str,
    means: Mapping[str, float],
    others: Mapping[str, Mapping[str, Spread]],
    directions: Mapping[str, Direction],
    against: str | None,
    planned: int,
) -> Tradeoff | None:
    """Another metric against the headline's, over arms that have both; None where that is nothing.

    Without `against` it is the one of the same part of the data that orders the arms least like the
    headline, the first of equals, and only if more than one arm is then on the front. An arm of
    which a run is not done is on no front: a mean over other seeds is no match.

    Args:
        metric: the headline's name.
        means: of the headline, by arm.
        others: of every other metric, by arm.
        directions: which way is better, by metric.
        against: the metric asked for.
        planned: runs of every arm.
    """
    part = metric.partition("/")[0]
    names = dict.fromkeys(name for known in others.values() for name in known)
    wanted = [against] if against else [n for n in names if n.partition("/")[0] == part]
    found = []
    for name in wanted:
        spreads = {arm: others[arm].get(name) for arm in means}
        points = {
            arm: (means[arm], s.mean) for arm, s in spreads.items() if s and s.mean is not None
        }
        if name not in directions or len({y for _, y in points.values()}) < 2:
            continue
        if len(points) < (2 if against else max(LEAST_ARMS, len(means))):
            continue
        higher = (directions[metric] == "higher", directions[name] == "higher")
        tau = agreement([*points.values()], higher)
        whole = {arm: at for arm, at in points.items() if others[arm][name].n == planned}
        best = front(whole, higher)
        found.append(Tradeoff(name, directions[name], bool(against), tau, best))
    least = min(found, key=lambda one: one.agreement, default=None)
    return least if least and (against or len(least.front) > 1) else None


def interval(known: Spread) -> tuple[float, float] | None:
    """The 95% t interval of a mean; None where it has none."""
    if known.mean is None or known.sd is None:
        return None
    reach = -float(special.stdtrit(known.n - 1, ALPHA / 2)) * known.sd / math.sqrt(known.n)
    return known.mean - reach, known.mean + reach


def check_metric(name: str, metric: str, directions: Mapping[str, Direction]) -> None:
    """Raise ValueError unless a metric can be shown against the headline's."""
    known = [other for other in directions if other != metric]
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = (
            f"did you mean '{close[0]}'?" if close else f"there are: {', '.join(known) or 'none'}"
        )
        raise ValueError(f"--against {name}: no metric to be shown against {metric}; {hint}")
