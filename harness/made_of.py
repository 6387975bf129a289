"""From records to what objectives are made of, and how that moved while training. No torch."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.measured import CurvePoint, MadeOf, PairCurve, TermCurve
from harness.statistics import paired
from harness.summary import Runs, is_usable, spread

MOST_POINTS = 40
"""Points of a curve; where more steps were measured, each is the mean of some in a row."""

NEEDED = {"terms", "steps", "norms", "shares", "cosines"}
Row = Mapping[str, Any]  # one measured step: every column's entry at it
Series = dict[int, dict[float, float]]  # by seed and step


def made_of(runs: Runs, *, interval: bool) -> MadeOf | None:
    """What the runs of one arm have recorded; None where that is nothing.

    Args:
        runs: done runs by seed.
        interval: whether to give intervals; not while the sweep runs.
    """
    starts = [r.start for r in runs.values() if r.start]
    loss, gradient = (
        spread([start[name] for start in starts if start.get(name) is not None])
        for name in ("loss", "gradient")
    )
    measured = {seed: r.gradients for seed, r in runs.items() if r.gradients.keys() >= NEEDED}
    if not starts and not measured:
        return None
    terms = list(dict.fromkeys(term for found in measured.values() for term in found["terms"]))

    def curve(column: str, index: Callable[[Sequence[str]], int | None]) -> list[CurvePoint]:
        return _curve(_series(measured, column, index), interval=interval)

    drawn = []
    for term in terms:
        norm, share = (curve(column, _place(term)) for column in ("norms", "shares"))
        drawn.append(TermCurve(term, norm, share))
    pairs = [(a, b) for i, a in enumerate(terms) for b in terms[i + 1 :]]
    angles = [PairCurve(a, b, curve("cosines", _place_of_pair(a, b))) for a, b in pairs]
    return MadeOf(loss, gradient, drawn, angles)


def _place(term: str) -> Callable[[Sequence[str]], int | None]:
    return lambda terms: terms.index(term) if term in terms else None


def _place_of_pair(first: str, second: str) -> Callable[[Sequence[str]], int | None]:
    """Where a pair stands in the order of `itertools.combinations`."""

    def find(terms: Sequence[str]) -> int | None:
        order = [(a, b) for i, a in enumerate(terms) for b in terms[i + 1 :]]
        return order.index((first, second)) if (first, second) in order else None

    return find


def _series(
    measured: Mapping[int, Row], column: str, index: Callable[[Sequence[str]], int | None]
) -> Series:
    """One number by seed and step, where it is known."""
    found: Series = {}
    for seed, kept in measured.items():
        at = index(kept["terms"])
        rows = zip(kept["steps"], kept[column], strict=True)
        pairs = [(float(step), row[at]) for step, row in rows if at is not None]
        found[seed] = {step: v for step, v in pairs if v is not None and is_usable(v)}
    return found


def _curve(series: Series, *, interval: bool) -> list[CurvePoint]:
    """Mean over seeds and its t interval, at the mean of some steps in a row."""
    steps = sorted({step for known in series.values() for step in known})
    size = -(-len(steps) // MOST_POINTS) or 1
    points = []
    for start in range(0, len(steps), size):
        row = steps[start : start + size]
        values = []
        for known in series.values():
            here = [known[step] for step in row if step in known]
            if here:
                values.append(sum(here) / len(here))
        test = paired(values)
        low, high = (test.low, test.high) if interval else (None, None)
        points.append(CurvePoint(sum(row) / len(row), len(values), test.mean, None, low, high))
    return points
