"""The atlas as one self-contained page: the notes' table, the measured one, a card per loss."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness import report
from harness.atlas.text import MADE_BY, grouped, properties
from harness.report.markup import Safe, details, element, join, table
from harness.report.svg import Axis, label, line, path, svg, tick_labels

if TYPE_CHECKING:
    from losses.atlas import Portrait
    from losses.atlas.claims import Contrast, Entry

WIDTH, HEIGHT = 300, 232
LEFT, RIGHT = 48, 8
PANELS = ((18, 112), (136, 204))  # top and bottom of the loss's and of the gradient's panel
NUMBERS = (
    "Numbers: the pull of a mistake of 1000 against an ordinary one's; the largest jump of the "
    "gradient; how many distributions of labels are decided wrongly, and how far the prediction is "
    "from the probability at worst; how far the prediction is from moving with its targets."
)
STYLE = """
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr));
  gap: 1rem; }
.card { border: 1px solid var(--line); border-radius: .4rem; padding: .6rem .75rem; min-width: 0; }
.card h3 { margin: 0; overflow-wrap: anywhere; }
.card dl { display: grid; grid-template-columns: 1fr 1.4fr 1fr; gap: .3rem .5rem; margin: .25rem 0;
  font-size: .875rem; font-variant-numeric: tabular-nums; }
.card dt { color: var(--soft); font-size: .8125rem; } .card dd { margin: 0; }
.card dl > div { min-width: 0; } .card details p { font-size: .875rem; }
.curve.slope { stroke: var(--better); }
.target { stroke: var(--soft); stroke-dasharray: 2 3; }
.t.slope { fill: var(--better); stroke: var(--paper); }
.differs { color: var(--worse); font-weight: 700; } .mark-cell { white-space: nowrap; }
.atlas td, .atlas thead th { white-space: nowrap; overflow-wrap: normal; }
.atlas th[scope=row] { overflow-wrap: normal; }
.claims thead th { overflow-wrap: normal; }
.atlas th[scope=row], .atlas thead th:first-child { position: sticky; left: 0;
  background: var(--paper); }
.claims td { min-width: 7rem; }
.jump a { margin-right: 1rem; white-space: nowrap; } a { color: var(--better); }
"""


def to_html(
    portraits: "Sequence[Portrait]", entries: "Sequence[Entry]", contrasts: "Sequence[Contrast]"
) -> str:
    """The whole atlas as one HTML document without script and without outside reference."""
    css = Path(report.__file__).with_name("style.css").read_text(encoding="utf-8") + STYLE
    groups = grouped(portraits)
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="generator", content=MADE_BY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", "Atlas of losses"),
        element("style", Safe(css)),
    )
    body = element(
        "body",
        element("header", element("h1", "Atlas of losses"), _lead(len(portraits)), _jump(groups)),
        element("main", _claims(entries, contrasts), _about(), *_sections(groups)),
    )
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _lead(number: int) -> Safe:
    words = (
        f"What tables of losses assert, measured: {number} loss{'' if number == 1 else 'es'}, each "
        "along a line on which its output goes wrong. ✔ has the property, ✘ has not, – does not "
        "apply; every mark has its number."
    )
    return element("p", words, class_="lead")


def _jump(groups: "dict[str, list[Portrait]]") -> Safe:
    links = [element("a", "The notes' table", href="#notes")]
    links += [element("a", name, href=f"#group-{i}") for i, name in enumerate(groups)]
    return element("nav", *links, class_="jump")


def _claims(entries: "Sequence[Entry]", contrasts: "Sequence[Contrast]") -> Safe:
    """The notes' marks beside the measured ones."""
    columns = list(dict.fromkeys(entry.column for entry in entries))
    rows = [
        [
            loss,
            next(e.row for e in entries if e.loss == loss),
            *(_compared(e) for e in entries if e.loss == loss),
        ]
        for loss in dict.fromkeys(entry.loss for entry in entries)
    ]
    agreeing = sum(entry.verdict == "agrees" for entry in entries)
    caption = "Their mark, = or ≠, the measured mark and its number"
    board = table(
        ["measured on", "in the notes", *columns],
        rows,
        caption=caption,
        numeric=False,
        class_="claims",
    )
    reasons = [
        element("p", element("strong", f"{e.loss}, {e.column}: "), e.finding.words)
        for e in entries
        if e.verdict == "disagrees"
    ]
    return element(
        "section",
        element("h2", "The notes' table against measurement", id="notes"),
        element("p", f"{agreeing} of {len(entries)} entries agree with what is measured."),
        board,
        element("p", NUMBERS, class_="soft"),
        *(element("p", _verdict(c.verdict), " ", c.words, ".") for c in contrasts),
        details("The numbers behind each disagreement", *reasons),
    )


def _compared(entry: "Entry") -> Safe:
    said = "✔" if entry.said else "✘"
    sign = element("span", "=" if entry.verdict == "agrees" else "≠", class_=_tone(entry.verdict))
    cell = entry.finding.cell
    marks = element("span", said, " ", sign, " ", cell[:1], class_="mark-cell")
    return join([marks, element("br"), element("span", cell[2:], class_="soft")])


def _tone(verdict: str) -> str:
    return "none" if verdict == "agrees" else "differs"


def _verdict(verdict: str) -> Safe:
    sign = "=" if verdict == "agrees" else "≠"
    return element("span", f"{sign} {verdict}:", class_=_tone(verdict))


def _about() -> Safe:
    lines = [
        element("p", element("strong", name), ": ", text) for name, text in properties().items()
    ]
    return details("What is measured, and the thresholds", *lines)


def _sections(groups: "dict[str, list[Portrait]]") -> list[Safe]:
    made, number = [], 0
    for i, (heading, group) in enumerate(groups.items()):
        ids = [f"loss-{number + k}" for k in range(len(group))]
        number += len(group)
        titles = list(group[0].findings)
        rows = [
            [element("a", p.title, href=f"#{id_}"), *(p.findings[t].cell for t in titles)]
            for p, id_ in zip(group, ids, strict=True)
        ]
        board = table(["loss", *titles], rows, numeric=False, class_="atlas")
        cards = [_card(p, id_) for p, id_ in zip(group, ids, strict=True)]
        title = element("h2", heading, id=f"group-{i}")
        made.append(element("section", title, board, element("div", *cards, class_="cards")))
    return made


def _card(portrait: "Portrait", id_: str) -> Safe:
    """Name, picture, numbers, and the sentences behind them."""
    cells = [
        element("div", element("dt", name), element("dd", f.cell, title=f.words))
        for name, f in portrait.findings.items()
    ]
    sentences = [
        element("p", element("strong", f"{name}: "), f.words)
        for name, f in portrait.findings.items()
    ]
    return element(
        "article",
        element("h3", portrait.title),
        element("p", "along: ", portrait.coordinate, class_="soft"),
        picture(portrait),
        element("dl", *cells),
        details("in words", *sentences),
        class_="card",
        id=id_,
    )


def picture(portrait: "Portrait") -> Safe:
    """The loss above its gradient, over the same places; dashed: the target."""
    places, value, slope = portrait.curve
    x = Axis(round(places[0], 2), round(places[-1], 2), LEFT, WIDTH - RIGHT)
    shapes = [
        _panel(x, places, value, PANELS[0], "loss", "curve"),
        _panel(x, places, slope, PANELS[1], "gradient", "curve slope"),
    ]
    bottom = PANELS[1][1]
    if portrait.right is not None and not x.side(portrait.right):
        shapes.append(line(x(portrait.right), PANELS[0][0], x(portrait.right), bottom, "target"))
    ticks = x.ticks(5)
    for tick, name in zip(ticks, tick_labels(ticks), strict=True):
        shapes.append(label(x(tick), bottom + 18, name, anchor="middle", class_="t soft"))
    title = f"Loss and gradient of {portrait.title}"
    described = f"Along: {portrait.coordinate}. " + "; ".join(
        f"{name} {finding.cell}" for name, finding in portrait.findings.items()
    )
    return svg(title, described, WIDTH, HEIGHT, *shapes)


def _panel(
    x: Axis,
    places: Sequence[float],
    numbers: Sequence[float],
    ends: tuple[int, int],
    name: str,
    class_: str,
) -> Safe:
    """One curve over a grid; what is not finite leaves a gap."""
    low, high = visible(numbers)
    y = Axis(low, high, ends[1], ends[0])
    ticks = y.ticks(4)
    shapes = [line(LEFT, y(tick), WIDTH - RIGHT, y(tick), "grid") for tick in ticks]
    for tick, text in zip(ticks, _labels(ticks), strict=True):
        shapes.append(label(LEFT - 6, y(tick) + 4, text, anchor="end", class_="t soft"))
    runs: list[list[tuple[float, float]]] = [[]]
    for place, number in zip(places, numbers, strict=True):
        if math.isfinite(number):
            runs[-1].append((x(place), y(number)))
        elif runs[-1]:
            runs.append([])
    shapes += [path(points, class_) for points in runs if points]
    kind = "t small slope" if "slope" in class_ else "t small"
    shapes.append(label(LEFT, ends[0] - 5, name, class_=kind))
    return join(shapes)


def _labels(ticks: Sequence[float]) -> list[str]:
    """Ticks as numbers that fit beside the axis."""
    if max(map(abs, ticks)) >= 1e4 or 0 < max(map(abs, ticks)) < 1e-2:
        return [f"{tick:.0e}".replace("e-0", "e-").replace("e+0", "e") for tick in ticks]
    return tick_labels(ticks)


def visible(numbers: Sequence[float]) -> tuple[float, float]:
    """The range that is drawn: 0 and all but the farthest fortieth, unless that is near, too."""
    finite = sorted(number for number in numbers if math.isfinite(number)) or [0.0]
    cut = len(finite) // 40
    low, high = min(0.0, finite[cut]), max(0.0, finite[-1 - cut])
    room = 2 * (high - low)
    low = finite[0] if finite[0] >= low - room else low
    high = finite[-1] if finite[-1] <= high + room else high
    low, high = min(low, 0.0), max(high, 0.0)
    pad = 0.05 * (high - low) or 1.0
    return low - pad, high + pad
