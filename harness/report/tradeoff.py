"""Two metrics against each other, with the Pareto front."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

from harness.comparison import Comparison, Spread, TaskResult, Tradeoff
from harness.report import style
from harness.report.figures import WIDE, both_widths
from harness.report.markup import Safe, element, table
from harness.report.svg import (
    Axis,
    arrow,
    dot,
    label,
    line,
    path,
    svg,
    text_width,
    tick_labels,
    visible,
)
from harness.response import interval

HEIGHT = 330
FAR = 20.0  # times as far from the middle as the median arm is off the scale
FRONT = "✓ front"
OFFSETS = [(9, 4), (-9, 4), (0, -9), (0, 19), (9, -8), (-9, -8), (9, 17), (-9, 17)]
"""Where a number may stand beside its point, in pixels, the best place first."""

Box = tuple[float, float, float, float]  # left, right, top, bottom


@dataclass(frozen=True)
class Spot:
    """One arm: its number on the page, its means of both metrics, and whether none beats it.

    `whole`: every run is done; without that it is on no front.
    """

    number: int
    arm: str
    x: Spread
    y: Spread
    front: bool
    whole: bool = True

    @property
    def at(self) -> tuple[float, float]:
        """The two means."""
        assert self.x.mean is not None
        assert self.y.mean is not None
        return self.x.mean, self.y.mean


def spots(task: TaskResult, given: Tradeoff) -> list[Spot]:
    """The arms that have both metrics, in the order of the leaderboard."""
    found: list[Spot] = []
    for arm in task.arms:
        other = arm.others.get(given.metric)
        if arm.mean is not None and other and other.mean is not None:
            mine = Spread(arm.done, arm.mean, arm.sd)
            whole = arm.done == arm.planned
            front = whole and arm.arm in given.front
            found.append(Spot(len(found) + 1, arm.arm, mine, other, front, whole))
    return found


def rows(task: TaskResult, given: Tradeoff) -> list[list[str]]:
    """Arm, number, both means, and whether it is on the front or cannot be."""
    found = spots(task, given)
    places = style.task_decimals(task), style.decimals([spot.at[1] for spot in found])
    return [
        [
            spot.arm,
            f"{spot.number}",
            *(style.number(value, p) for value, p in zip(spot.at, places, strict=True)),
            FRONT if spot.front else "" if spot.whole else "incomplete",
        ]
        for spot in found
    ]


def words(given: Tradeoff) -> str:
    """Why this metric, and how to ask for another."""
    if given.asked:
        return f"{given.metric} ({given.direction} is better) was asked for."
    return (
        f"{given.metric} ({given.direction} is better) is, of the metrics of the same part, the "
        f"one that orders the arms least like the headline (Kendall's tau "
        f"{style.number(given.agreement, 2)}); --against METRIC shows another."
    )


def sentence(comparison: Comparison, given: Tradeoff) -> str:
    """Which arms are on the front, and which cannot be since not all their runs are done."""
    found = [
        spot for task in comparison.tasks if task.tradeoff is given for spot in spots(task, given)
    ]
    front = ", ".join(spot.arm for spot in found if spot.front) or "no arm"
    rest = ", ".join(spot.arm for spot in found if not spot.whole)
    more = f"; incomplete and left out: {rest}" if rest else ""
    return f"{given.metric} against {comparison.metric}, Pareto front of the means: {front}{more}."


LEGEND = (
    "Pareto front (▲, dashed line): arms that no other is at least as good as in both means and "
    "better in one, among those with every run done (small grey points are not). Bars: 95% t "
    "intervals of the means; a thin line joins arms that differ in one number, in its order; an "
    "arrow: off the scale. Exploratory: nothing is tested here."
)


def drawn(comparison: Comparison, task: TaskResult) -> list[Safe]:
    """The figure and, since names beside points would collide, a table of its numbers."""
    given = task.tradeoff
    if given is None:
        return []
    head = ("arm", "point", comparison.metric, given.metric, "Pareto")
    body = [
        [element("span", row[0], class_="strong" if row[-1] == FRONT else None), *row[1:]]
        for row in rows(task, given)
    ]
    return [
        element("p", words(given), class_="soft"),
        element("figure", both_widths(partial(scatter, comparison, task, given))),
        table(head, body, class_="whole"),
    ]


def scatter(comparison: Comparison, task: TaskResult, given: Tradeoff, width: int) -> Safe:
    """Every arm as a numbered point; what lies far off is an arrow at the edge."""
    found = spots(task, given)
    whole = not comparison.pending  # before the last run there are no intervals
    left, right = _range([spot.x for spot in found], whole=whole)
    low, high = _range([spot.y for spot in found], whole=whole)
    x, y = Axis(left, right, 64, width - 16), Axis(low, high, HEIGHT - 52, 26)
    shapes = [*_across(x, y, 6 if width == WIDE else 5), *_along(x, y)]
    shapes += _trails(task, found, x, y)
    ends = [spot.at for spot in found if spot.front]
    shapes.append(path([(x(a), y(b)) for a, b in sorted(ends)], "curve dashed"))
    for spot in found:
        shapes += _reaches(spot, x, y) if whole else []
        shapes.append(_mark(spot, x, y))
    shapes += _numbers(found, x, y)
    more = "→ better" if comparison.direction == "higher" else "← better"
    words = f"{comparison.metric} {more}"
    shapes.append(label(x.end, HEIGHT - 10, words, anchor="end", class_="t soft"))
    more = "↑ better" if given.direction == "higher" else "↓ better"
    shapes.append(label(4, 14, f"{given.metric} {more}", class_="t soft"))
    title = f"{given.metric} against {comparison.metric} on {task.task}"
    desc = f"On the Pareto front: {', '.join(spot.arm for spot in found if spot.front)}"
    return svg(title, desc, width, HEIGHT, *shapes)


def _range(spreads: Sequence[Spread], *, whole: bool) -> tuple[float, float]:
    """What an axis shows: means, and where there are some the ends of their intervals."""
    means = sorted(spread.mean for spread in spreads if spread.mean is not None)
    ends = [
        [s.mean, *((interval(s) if whole else None) or ())] for s in spreads if s.mean is not None
    ]
    return visible(ends, centre=means[len(means) // 2], outlier=FAR)


def _across(x: Axis, y: Axis, most: int) -> list[Safe]:
    ticks = x.ticks(most)
    shapes = [line(x(value), y.end, x(value), y.start, "grid") for value in ticks]
    for value, name in zip(ticks, tick_labels(ticks), strict=True):
        shapes.append(label(x(value), y.start + 18, name, anchor="middle", class_="t soft"))
    return shapes


def _along(x: Axis, y: Axis) -> list[Safe]:
    ticks = y.ticks(5)
    shapes = [line(x.start, y(value), x.end, y(value), "grid") for value in ticks]
    for value, name in zip(ticks, tick_labels(ticks), strict=True):
        shapes.append(label(x.start - 6, y(value) + 4, name, anchor="end", class_="t soft"))
    return shapes


def _trails(task: TaskResult, found: Sequence[Spot], x: Axis, y: Axis) -> list[Safe]:
    """How arms that differ in one number move through both metrics."""
    at = {spot.arm: spot.at for spot in found}
    rows = [[at[arm] for arm in given.arms if arm in at] for given in task.responses]
    return [path([(x(a), y(b)) for a, b in row], "trail") for row in rows if len(row) > 1]


def _reaches(spot: Spot, x: Axis, y: Axis) -> list[Safe]:
    a, b = spot.at
    shapes = []
    if (ends := interval(spot.x)) and not x.side(a) and not y.side(b):
        shapes.append(line(x(ends[0]), y(b), x(ends[1]), y(b), "reach"))
    if (ends := interval(spot.y)) and not x.side(a) and not y.side(b):
        shapes.append(line(x(a), y(ends[0]), x(a), y(ends[1]), "reach"))
    return shapes


def _mark(spot: Spot, x: Axis, y: Axis) -> Safe:
    a, b = spot.at
    across, along = x.side(a), -y.side(b)
    if across or along:
        return arrow(x(a), y(b), across, 0 if across else along, "mark none")
    if not spot.front:
        return dot(x(a), y(b), 4.5, "mark open") if spot.whole else dot(x(a), y(b), 3.5, "mark")
    corners = [(x(a) + dx, y(b) + dy) for dx, dy in ((0, -7), (6.5, 5), (-6.5, 5))]
    return path(corners, "mark better", closed=True)


def _numbers(found: Sequence[Spot], x: Axis, y: Axis) -> list[Safe]:
    """Each number where it covers no point and no other number, farther away if need be."""
    places = [(x(spot.at[0]), y(spot.at[1])) for spot in found]
    taken: list[Box] = [(a - 5, a + 5, b - 6, b + 6) for a, b in places]
    shapes = []
    for spot, (a, b) in zip(found, places, strict=True):
        wide = text_width(f"{spot.number}")
        for farther, (dx, dy) in product((1.0, 1.8, 2.6, 3.4), OFFSETS):
            middle, foot = a + dx * farther + (wide / 2 * ((dx > 0) - (dx < 0))), b + dy * farther
            box = (middle - wide / 2, middle + wide / 2, foot - 10, foot + 1)
            inside = (
                box[0] > x.start + 1
                and box[1] < x.end + 14
                and box[2] > 18
                and box[3] < y.start + 6
            )
            if inside and not any(_overlap(box, other) for other in taken):
                break
        taken.append(box)
        if farther > 2:
            shapes.append(line(a, b, middle, foot - 4, "trail"))
        shapes.append(label(middle, foot, f"{spot.number}", anchor="middle", class_="t small"))
    return shapes


def _overlap(one: Box, other: Box) -> bool:
    apart = one[1] <= other[0] or other[1] <= one[0] or one[3] <= other[2] or other[3] <= one[2]
    return not apart
