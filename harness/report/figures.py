"""Figures that compare arms: paired differences, and the response to a number of the config."""

import math
from collections.abc import Callable, Sequence

from harness.comparison import ArmResult, Comparison, Contrast, Response, TaskResult
from harness.report import style
from harness.report.markup import Safe, element, join
from harness.report.svg import (
    Axis,
    arrow,
    dot,
    fitted,
    label,
    line,
    mark,
    path,
    svg,
    text_width,
    tick_labels,
    visible,
)
from harness.response import in_decades

WIDE, NARROW = 880, 350  # pixels of a figure on a screen and on a phone


def both_widths(draw: Callable[[int], Safe]) -> Safe:
    """A figure drawn for screens and once more for phones, so that its text keeps its size."""
    wide = element("div", draw(WIDE), class_="wide")
    return join([wide, element("div", draw(NARROW), class_="narrow")])


def forest(comparison: Comparison, task: TaskResult, width: int) -> Safe:
    """Paired differences to the baseline: interval and mean of every arm, one dot per seed."""
    rows = [(result, result.contrast) for result in task.arms if result.contrast]
    low, high = visible([_ends(c) for _, c in rows], [d for _, c in rows for d in c.differences])
    places = style.task_decimals(task)
    left, right = 10.0, 10.0
    if width == WIDE:
        left, right = 200, 24 + max(text_width(_number(c, places)) for _, c in rows)
    height = 36 if width == WIDE else 54
    top, bottom = 6, 12 + height * len(rows)
    axis = Axis(low, high, left, width - right)
    shapes = [_grid(axis, top, bottom, 5 if width == WIDE else 4)]
    ways = ("worse", "better") if comparison.direction == "higher" else ("better", "worse")
    shapes.append(label(axis.start, bottom + 36, f"← {ways[0]}", class_="t soft"))
    shapes.append(label(axis.end, bottom + 36, f"{ways[1]} →", anchor="end", class_="t soft"))
    for i, (result, contrast) in enumerate(rows):
        y = top + height * (i + 1) - 20
        shapes.append(_words(result, contrast, places, y, width))
        shapes.append(_row(axis, result, contrast, y, places))
    title = f"Paired differences to {comparison.baseline} on {task.task}"
    desc = "; ".join(f"{r.arm} {_number(c, places)}: {r.text}" for r, c in rows)
    return svg(title, desc, width, bottom + 44, *shapes)


def _ends(contrast: Contrast) -> list[float]:
    return [v for v in (contrast.mean, contrast.low, contrast.high) if v is not None]


def _number(contrast: Contrast, places: int) -> str:
    """The mean difference, with its interval where there is one."""
    mean = style.number(contrast.mean, places, sign=True)
    if contrast.low is None:
        return mean
    return f"{mean} {style.interval(contrast.low, contrast.high, places)}"


def _words(result: ArmResult, contrast: Contrast, places: int, y: float, width: int) -> Safe:
    """Name and numbers of a row: beside it on a screen, above it on a phone."""
    numbers = _number(contrast, places)
    if width == WIDE:
        room, y = 184.0, y + 4
    else:
        room, y = width - text_width(numbers) - 12, y - 15
        if room < 100:
            numbers = style.number(contrast.mean, places, sign=True)
            room = width - text_width(numbers) - 12
    tip = element("title", result.arm)
    kind = "t strong" if result.best else "t"
    name = element("text", tip, fitted(result.arm, room), x=2, y=f"{y:g}", class_=kind)
    return join([name, label(width - 2, y, numbers, anchor="end", class_="t num")])


def _grid(axis: Axis, top: float, bottom: float, most: int) -> Safe:
    """Vertical lines at round values with their labels, and the line of no difference."""
    ticks = axis.ticks(most)
    shapes = [line(axis(value), top, axis(value), bottom, "grid") for value in ticks]
    shapes.append(line(axis(0), top, axis(0), bottom, "zero"))
    for value, name in zip(ticks, tick_labels(ticks, sign=True), strict=True):
        shapes.append(label(axis(value), bottom + 16, name, anchor="middle", class_="t soft"))
    return join(shapes)


def _row(axis: Axis, result: ArmResult, contrast: Contrast, y: float, places: int) -> Safe:
    """One arm: interval and mean on one line, its seeds below; what is off the scale as arrows."""
    tone = style.tone(result.verdict)
    shapes = []
    if contrast.low is not None and contrast.high is not None:
        shapes.append(line(axis(contrast.low), y, axis(contrast.high), y, f"bar {tone}"))
    for end in _ends(contrast):
        if side := axis.side(end):
            shapes.append(arrow(axis(end) + 6 * side, y, side, 0, f"mark {tone}"))
    for i, value in enumerate(contrast.differences):
        if not axis.side(value):
            shapes.append(dot(axis(value), y + 11 + i % 3 * 2, 2, "seed"))
    for side in (-1, 1):
        off = [value for value in contrast.differences if axis.side(value) == side]
        if off:
            far = style.number(max(off, key=abs), places, sign=True)
            words = far if len(off) == 1 else f"{len(off)} seeds to {far}"
            anchor = "start" if side < 0 else "end"
            x = axis(off[0])
            shapes.append(arrow(x + 6 * side, y + 13, side, 0, "seed"))
            shapes.append(label(x - 5 * side, y + 17, words, anchor=anchor, class_="t small"))
    if not axis.side(contrast.mean):
        shapes.append(mark(result.verdict, axis(contrast.mean), y))
    return join(shapes)


def response(comparison: Comparison, task: TaskResult, given: Response, width: int) -> Safe:
    """The headline metric against one number of the config; the dashed line is the baseline."""
    points = []
    for i, (value, arm) in enumerate(zip(given.values, given.arms, strict=True)):
        result = task.arm(arm)
        if result is not None and result.mean is not None:
            points.append((value, result, result.mean, _ends_of_mean(given, i)))
    base = task.arm(comparison.baseline)
    level = base.mean if base is not None else None
    centre = level if level is not None else points[0][2]
    low, high = visible([[mean, *ends] for *_, mean, ends in points], centre=centre)
    bottom = 240
    y = Axis(low, high, bottom - 18, 14)
    ticks = y.ticks(5)
    shapes = [line(64, y(value), width - 8, y(value), "grid") for value in ticks]
    for value, name in zip(ticks, tick_labels(ticks), strict=True):
        shapes.append(label(58, y(value) + 4, name, anchor="end", class_="t soft"))
    if level is not None:
        shapes.append(line(64, y(level), width - 8, y(level), "curve dashed"))
    xs = positions([value for value, *_ in points], 90, width - 30)
    shapes += _band([(x, *ends) for x, (*_, ends) in zip(xs, points, strict=True) if ends], y)
    shapes.append(path([(x, y(p[2])) for x, p in zip(xs, points, strict=True)], "curve"))
    shapes.append(_value_labels(xs, [v for v, *_ in points], bottom))
    for i, (x, (value, result, mean, _)) in enumerate(zip(xs, points, strict=True)):
        shapes.append(_response_point(x, y, result, mean, style.task_decimals(task), i))
        if value == given.best and not y.side(mean):
            shapes.append(dot(x, y(mean), 10, "ring"))
    row = [x for x, (value, *_) in zip(xs, points, strict=True) if value in given.plateau]
    shapes += [line(row[0] - 7, bottom - 6, row[-1] + 7, bottom - 6, "plateau")] if row else []
    shapes.append(label(width - 8, bottom + 32, given.key, anchor="end", class_="t soft"))
    title = f"{comparison.metric} against {given.key} on {task.task}"
    desc = "; ".join(f"{value:g}: {style.number(mean, 4)}" for value, _, mean, _ in points)
    return svg(title, desc, width, bottom + 40, *shapes)


def _ends_of_mean(given: Response, index: int) -> tuple[float, ...]:
    return (given.intervals[index] or ()) if given.intervals else ()


def _band(ends: Sequence[tuple[float, ...]], y: Axis) -> list[Safe]:
    """The area between the ends of intervals at their pixels; of one a bar."""
    upper = [(x, y(high)) for x, _, high in ends]
    lower = [(x, y(low)) for x, low, _ in ends]
    if len(ends) == 1:
        return [line(*lower[0], *upper[0], "bar")]
    return [path([*upper, *reversed(lower)], "band", closed=True)] if ends else []


def positions(values: Sequence[float], start: float, end: float) -> list[float]:
    """Pixels of ascending values, in decades where they span one; a 0 then stands leftmost."""
    if not in_decades(values):
        axis = Axis(values[0], values[-1], start, end)
        return [axis(value) for value in values]
    positive = [value for value in values if value > 0]
    left = start + (end - start) / len(values) if len(positive) < len(values) else start
    axis = Axis(positive[0], positive[-1], left, end, log=True)
    return [axis(value) if value > 0 else start for value in values]


def _value_labels(xs: Sequence[float], values: Sequence[float], bottom: float) -> Safe:
    """The values under their points, leaving out those without room."""
    shapes, taken = [], -math.inf
    for x, value in zip(xs, values, strict=True):
        name = f"{value:g}"
        half = text_width(name) / 2
        if x - half > taken + 6:
            shapes.append(label(x, bottom + 14, name, anchor="middle", class_="t soft"))
            taken = x + half
    return join(shapes)


def _response_point(
    x: float, y: Axis, result: ArmResult, mean: float, places: int, index: int
) -> Safe:
    """The mark of an arm's verdict at its mean; off the scale an arrow with the number."""
    side = y.side(mean)
    if not side:
        return mark(result.verdict, x, y(mean))
    shapes = [arrow(x, y(mean) - 6 * side, 0, -side, f"mark {style.tone(result.verdict)}")]
    below = y(mean) + side * (18 + index % 2 * 14)  # neighbours at two heights
    shapes.append(label(x, below, style.number(mean, places), anchor="middle", class_="t small"))
    return join(shapes)
