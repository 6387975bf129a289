"""Learning curves as small figures, one per arm, all on the same scale."""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.comparison import ArmResult, Comparison, TaskResult
from harness.report import style
from harness.report.markup import Safe, element
from harness.report.svg import Axis, arrow, dot, label, line, path, svg, tick_labels, visible

WIDTH, HEIGHT = 236, 150
LEFT, RIGHT, TOP, BOTTOM = 56, 10, 8, 26
MOST_POINTS = 40  # evaluations beyond which single ones are no longer marked

Line = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class _Panel:
    """What one small figure shows; `band` is step, low, high."""

    title: str
    curve: Line
    band: Sequence[tuple[float, float, float]] = ()
    behind: Line = ()


def difference_panels(comparison: Comparison, task: TaskResult) -> list[Safe]:
    """The learning curve of every arm minus the baseline's, with its interval."""
    panels = []
    for result in task.arms:
        curve = [(p.step, p.difference) for p in result.curve if p.difference is not None]
        band = [
            (p.step, p.low, p.high)
            for p in result.curve
            if p.low is not None and p.high is not None
        ]
        title = f"{result.arm}: {task.curve_metric} minus that of {comparison.baseline}"
        if curve:
            panels.append((result, _Panel(title, curve, band)))
    return _drawn(panels, 0.0, sign=True)


def curve_panels(comparison: Comparison, task: TaskResult) -> list[Safe]:
    """The mean learning curve of every arm, the baseline's dashed behind it."""
    base = task.arm(comparison.baseline)
    behind = [(p.step, p.mean) for p in base.curve] if base else []
    panels = []
    for result in task.arms:
        curve = [(p.step, p.mean) for p in result.curve]
        title = f"{result.arm}: mean {task.curve_metric} while training"
        if curve:
            panels.append((result, _Panel(title, curve, behind=behind)))
    means = sorted(value for _, panel in panels for _, value in panel.curve)
    return _drawn(panels, means[len(means) // 2] if means else 0.0, sign=False)


def _drawn(panels: Sequence[tuple[ArmResult, _Panel]], centre: float, *, sign: bool) -> list[Safe]:
    """The panels on one common scale, each under the arm's name."""
    if not panels:
        return []
    arms = [
        [*(v for _, v in panel.curve), *(end for _, *ends in panel.band for end in ends)]
        for _, panel in panels
    ]
    steps = [step for _, panel in panels for step, _ in panel.curve]
    x = Axis(min(steps), max(steps), LEFT, WIDTH - RIGHT)
    y = Axis(*visible(arms, centre=centre), HEIGHT - BOTTOM, TOP)
    figures = []
    for result, panel in panels:
        shape = element("span", style.SYMBOLS[result.verdict], class_=style.tone(result.verdict))
        name = element("figcaption", shape, " ", result.arm)
        figures.append(element("figure", name, _figure(panel, x, y, sign=sign), class_="panel"))
    return figures


def _figure(panel: _Panel, x: Axis, y: Axis, *, sign: bool) -> Safe:
    ticks = y.ticks(4)
    shapes = [line(x.start, y(value), x.end, y(value), "grid") for value in ticks]
    for value, name in zip(ticks, tick_labels(ticks, sign=sign), strict=True):
        shapes.append(label(LEFT - 6, y(value) + 4, name, anchor="end", class_="t soft small"))
    if sign:
        shapes.append(line(x.start, y(0), x.end, y(0), "zero"))
    if panel.band:
        upper = [(x(step), y(high)) for step, _, high in panel.band]
        lower = [(x(step), y(low)) for step, low, _ in reversed(panel.band)]
        shapes.append(path([*upper, *lower], "band", closed=True))
    if panel.behind:
        shapes.append(path([(x(step), y(value)) for step, value in panel.behind], "curve dashed"))
    shapes.append(path([(x(step), y(value)) for step, value in panel.curve], "curve"))
    if len(panel.curve) <= MOST_POINTS:
        shapes += [dot(x(s), y(v), 2, "point") for s, v in panel.curve if not y.side(v)]
    shapes += _farthest(panel.curve, x, y, sign=sign)
    shapes.append(label(LEFT, HEIGHT - 8, f"{x.low:g}", class_="t soft small"))
    end = label(WIDTH - RIGHT, HEIGHT - 8, f"{x.high:g} steps", anchor="end", class_="t soft small")
    last = panel.curve[-1]
    places = style.decimals([last[1]])
    desc = f"at step {last[0]:g}: {style.number(last[1], places, sign=sign)}"
    return svg(panel.title, desc, WIDTH, HEIGHT, *shapes, end)


def _farthest(curve: Line, x: Axis, y: Axis, *, sign: bool) -> list[Safe]:
    """An arrow with its number where a curve leaves the scale farthest."""
    off = [point for point in curve if y.side(point[1])]
    if not off:
        return []
    step, value = max(off, key=lambda point: abs(point[1]))
    side = y.side(value)
    left = x(step) < (x.start + x.end) / 2
    number = style.number(value, style.decimals([value]), sign=sign)
    at = x(step) + (9 if left else -9)
    words = label(at, y(value) + (16 if side > 0 else -7), number,
                  anchor="start" if left else "end", class_="t small")  # fmt: skip
    return [arrow(x(step), y(value) - 4 * side, 0, -side, "mark none"), words]
