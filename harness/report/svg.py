"""The pieces of a figure: axes, ticks, marks and text, as inline SVG."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from harness.comparison import Verdict
from harness.report import style
from harness.report.markup import Safe, element

CHAR = 7.1  # width of a character of the figures' text in pixels, a little too wide on purpose
OUTLIER = 4.0  # an arm that reaches this many times farther than the median arm is off the scale


@dataclass(frozen=True)
class Axis:
    """A linear map from values to pixels, optionally of their logarithm."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of a value, never outside the axis."""
        low, high, value = (self._scale(number) for number in (self.low, self.high, value))
        share = (value - low) / (high - low) if high > low else 0.5
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)

    def _scale(self, value: float) -> float:
        return math.log10(value) if self.log else value

    def side(self, value: float) -> int:
        """-1 below the axis, 1 above it, 0 on it."""
        return (value > self.high) - (value < self.low)

    def ticks(self, most: int) -> list[float]:
        """At most `most` round values on a linear axis and at least one."""
        step = 10.0 ** math.floor(math.log10((self.high - self.low) / most))
        while True:
            for factor in (1, 2, 5):
                size = step * factor
                first, last = math.ceil(self.low / size), math.floor(self.high / size)
                if last - first < most:
                    return [i * size for i in range(first, last + 1)]
            step *= 10


def visible(
    arms: Iterable[Sequence[float]],
    seeds: Iterable[float] = (),
    centre: float = 0.0,
    outlier: float = OUTLIER,
) -> tuple[float, float]:
    """The range a figure shows: every arm and seed but those far off, and always the centre.

    Args:
        arms: what belongs to each arm (its mean and interval); an arm shows whole or not at all.
        seeds: single values; they widen the range only within the limit set by the arms.
        centre: what distances are measured from.
        outlier: how many times farther than the median arm is far off.
    """
    reaches = [(max(abs(value - centre) for value in arm), arm) for arm in arms if arm]
    ordered = sorted(reach for reach, _ in reaches)
    limit = outlier * ordered[len(ordered) // 2] if ordered else 0.0
    near = [value for reach, arm in reaches if reach <= limit for value in arm]
    near += [value for value in seeds if abs(value - centre) <= limit]
    low, high = min([*near, centre]), max([*near, centre])
    pad = 0.06 * (high - low) or max(abs(centre), 1.0) * 1e-3
    return low - pad, high + pad


def tick_labels(ticks: Sequence[float], *, sign: bool = False) -> list[str]:
    """Ticks with just the decimals that tell them apart."""
    step = min((b - a for a, b in pairwise(ticks)), default=abs(ticks[0]) or 1.0)
    places = max(0, -math.floor(math.log10(step) + 1e-9)) if step < 1 else 0
    return [style.number(tick, places, sign=sign and abs(tick) > step / 2) for tick in ticks]


def text_width(text: str) -> float:
    """Pixels a text takes, rather too many."""
    return CHAR * style.columns(text)


def fitted(text: object, pixels: float) -> str:
    """The text cut in its middle to a width."""
    return style.shortened(style.clean(text), int(pixels / CHAR))


def svg(title: str, desc: str, width: float, height: float, *shapes: object) -> Safe:
    """A figure with title and description, as wide as the page allows but no wider than drawn."""
    return element(
        "svg",
        element("title", title),
        element("desc", desc),
        *shapes,
        role="img",
        viewBox=f"0 0 {width:g} {height:g}",
        style=f"max-width:{width:g}px",
    )


def label(x: float, y: float, text: object, *, anchor: str = "start", class_: str = "t") -> Safe:
    """Text at a point; `anchor` is start, middle or end."""
    return element(
        "text",
        text,
        x=_px(x),
        y=_px(y),
        class_=class_,
        text_anchor=None if anchor == "start" else anchor,
    )


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Safe:
    """A straight line."""
    return element("line", x1=_px(x1), y1=_px(y1), x2=_px(x2), y2=_px(y2), class_=class_)


def path(points: Sequence[tuple[float, float]], class_: str, *, closed: bool = False) -> Safe:
    """A line through points, or the area inside them."""
    steps = " L".join(f"{_px(x)} {_px(y)}" for x, y in points)
    return element("path", d=f"M{steps}{'Z' if closed else ''}", class_=class_)


def dot(x: float, y: float, radius: float, class_: str) -> Safe:
    """A filled circle."""
    return element("circle", cx=_px(x), cy=_px(y), r=f"{radius:g}", class_=class_)


def mark(verdict: Verdict, x: float, y: float) -> Safe:
    """The shape that stands for a verdict, filled in its colour."""
    shapes = {
        "better": [(0, -6), (6, 5), (-6, 5)],
        "worse": [(0, 6), (6, -5), (-6, -5)],
        "no practical difference": [(-5, -5), (5, -5), (5, 5), (-5, 5)],
        "identical": [(0, -6), (6, 0), (0, 6), (-6, 0)],
        "baseline": [(0, -6), (6, 0), (0, 6), (-6, 0)],
    }
    if verdict in shapes:
        corners = [(x + dx, y + dy) for dx, dy in shapes[verdict]]
        return path(corners, f"mark {style.tone(verdict)}", closed=True)
    return dot(x, y, 5, "mark none" if verdict == "not enough evidence" else "mark open")


def arrow(x: float, y: float, dx: int, dy: int, class_: str) -> Safe:
    """A small arrow head whose tip is at a point, pointing along (dx, dy)."""
    back, side = 7, 4
    corners = [
        (x, y),
        (x - back * dx + side * dy, y - back * dy + side * dx),
        (x - back * dx - side * dy, y - back * dy - side * dx),
    ]
    return path(corners, class_, closed=True)


def _px(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
