"""What the objectives are made of: the scale they start at, and each term's part over training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.comparison import ArmResult, Comparison, CurvePoint, MadeOf, Spread, TaskResult
from harness.report import style
from harness.report.markup import Safe, element, table
from harness.report.svg import Axis, label, line, path, svg, tick_labels, visible

WIDTH, HEIGHT = 236, 150
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 8, 26
STYLES = 6  # kinds of lines there are

CAPTION = "at the first step: mean ± sd over seeds, before clipping, by the model's parameters"
HINT = "trainer.gradients=K measures the gradients of the single terms every K steps."

Curves = dict[str, list[CurvePoint]]  # by the name of a line


@dataclass(frozen=True)
class _Kind:
    """One sort of panel: what its lines are, and the range it always shows."""

    title: str
    note: str
    curves: Callable[[MadeOf], Curves]
    always: tuple[float, float]


def _shares(made: MadeOf) -> Curves:
    return {term.term: term.share for term in made.terms} if len(made.terms) > 1 else {}


def _cosines(made: MadeOf) -> Curves:
    return {f"{pair.first} · {pair.second}": pair.cosine for pair in made.pairs}


KINDS = (
    _Kind(
        "Share of each weighted term",
        "Share of each weighted term in the whole gradient, (w g) · whole / |whole|²; shares add "
        "up to 1, and a term that pulls against the whole is below 0.",
        _shares,
        (0.0, 1.0),
    ),
    _Kind(
        "Cosine between terms",
        "Cosine of the angle between the gradients of two terms: 1 the same way, 0 at right "
        "angles, -1 against each other.",
        _cosines,
        (-1.0, 1.0),
    ),
)


def section(comparison: Comparison) -> list[Safe]:
    """The part of the page on terms; nothing where no run has recorded any of it."""
    parts = []
    for task in comparison.tasks:
        made = _start(comparison, task)
        for kind in KINDS:
            made += _panels(comparison, task, kind)
        if made and len(comparison.tasks) > 1:
            parts.append(element("h3", task.task))
        parts += made
    return parts


def ratio(comparison: Comparison, task: TaskResult, arm: ArmResult) -> str:
    """How many times the baseline's the first gradient of an arm is."""
    base = task.arm(comparison.baseline)
    theirs = base.made_of.gradient.mean if base and base.made_of else None
    mine = arm.made_of.gradient.mean if arm.made_of else None
    return f"{mine / theirs:.3g}" if mine is not None and theirs else style.NOTHING


def start(comparison: Comparison, task: TaskResult) -> tuple[list[str], list[list[str]]]:
    """Value and gradient of every arm's loss at the first step, as head and rows of a table."""
    head = ["arm", "loss", "gradient norm", "× baseline", "shares at the first and last step"]
    rows = [
        [
            arm.arm,
            _spread(arm.made_of.loss),
            _spread(arm.made_of.gradient),
            ratio(comparison, task, arm),
            _parts(arm.made_of),
        ]
        for arm in task.arms
        if arm.made_of
    ]
    if any(row[-1] for row in rows):
        return head, rows
    return head[:-1], [row[:-1] for row in rows]


def flat(arm: ArmResult) -> dict[str, float | None]:
    """The same as single numbers under flat names."""
    made = arm.made_of
    if made is None:
        return {}
    starts = {"start_loss": made.loss.mean, "start_gradient": made.gradient.mean}
    return starts | {f"{t.term}.share": t.share[-1].mean for t in made.terms if t.share}


def _start(comparison: Comparison, task: TaskResult) -> list[Safe]:
    head, rows = start(comparison, task)
    if not rows:
        return []
    if len(head) > 4:
        return [table(head, rows, caption=CAPTION, class_="starts")]
    return [table(head, rows, caption=CAPTION), element("p", HINT, class_="soft")]


def _spread(given: Spread) -> str:
    if given.mean is None:
        return style.NOTHING
    return f"{given.mean:.3g}" if given.sd is None else f"{given.mean:.3g} ± {given.sd:.2g}"


def _parts(made: MadeOf) -> str:
    """Shares of the terms at both ends of training."""
    return "; ".join(
        f"{term.term} {style.number(term.share[0].mean, 2)} to "
        f"{style.number(term.share[-1].mean, 2)}"
        for term in made.terms
        if term.share
    )


def _panels(comparison: Comparison, task: TaskResult, kind: _Kind) -> list[Safe]:
    """A small figure for every arm with such lines, all on one scale."""
    drawn = [(arm, kind.curves(arm.made_of)) for arm in task.arms if arm.made_of]
    drawn = [(arm, {n: c for n, c in curves.items() if c}) for arm, curves in drawn]
    drawn = [(arm, curves) for arm, curves in drawn if curves]
    if not drawn:
        return []
    points = [p for _, curves in drawn for curve in curves.values() for p in curve]
    low, high = visible([[p.mean] for p in points], centre=sum(kind.always) / 2)
    x = Axis(min(p.step for p in points), max(p.step for p in points), LEFT, WIDTH - RIGHT)
    y = Axis(min(low, kind.always[0]), max(high, kind.always[1]), HEIGHT - BOTTOM, TOP)
    names = _names(comparison, kind)
    figures = [
        element(
            "figure",
            element("figcaption", arm.arm),
            _figure(f"{arm.arm}: {kind.title.lower()}", curves, names, x, y),
            class_="panel",
        )
        for arm, curves in drawn
    ]
    used = [name for name in names if any(name in curves for _, curves in drawn)]
    keys = [element("span", _key(name, names.index(name)), name) for name in used]
    return [
        element("h4" if len(comparison.tasks) > 1 else "h3", kind.title),
        element("p", kind.note, " Band: 95% t interval over seeds.", class_="soft"),
        element("p", *keys, class_="keys"),
        element("div", *figures, class_="panels"),
    ]


def _names(comparison: Comparison, kind: _Kind) -> list[str]:
    """Every line of the page, so that one name is drawn one way throughout."""
    arms = [arm.made_of for _, arm in comparison.results() if arm.made_of]
    return sorted({name for made in arms for name in kind.curves(made)})


def _class(index: int) -> str:
    return f"curve l{index % STYLES}"


def _key(name: str, index: int) -> Safe:
    return svg(f"how {name} is drawn", "", 34, 12, line(1, 6, 33, 6, _class(index)))


def _figure(title: str, curves: Curves, names: Sequence[str], x: Axis, y: Axis) -> Safe:
    ticks = y.ticks(4)
    shapes = [line(x.start, y(value), x.end, y(value), "grid") for value in ticks]
    for value, name in zip(ticks, tick_labels(ticks), strict=True):
        shapes.append(label(x.start - 6, y(value) + 4, name, anchor="end", class_="t soft small"))
    if y.low < 0 < y.high:
        shapes.append(line(x.start, y(0), x.end, y(0), "zero faint"))
    for name, curve in curves.items():
        band = [(p.step, p.low, p.high) for p in curve if p.low is not None and p.high is not None]
        upper = [(x(step), y(top)) for step, _, top in band]
        lower = [(x(step), y(end)) for step, end, _ in reversed(band)]
        shapes += [path([*upper, *lower], "band faint", closed=True)] if band else []
        line_ = [(x(p.step), y(p.mean)) for p in curve]
        shapes.append(path(line_, _class(names.index(name))))
    shapes.append(label(LEFT, HEIGHT - 8, f"{x.low:g}", class_="t soft small"))
    words = f"{x.high:g} steps"
    shapes.append(label(WIDTH - RIGHT, HEIGHT - 8, words, anchor="end", class_="t soft small"))
    desc = "; ".join(
        f"{name}: {style.number(c[-1].mean, 2)} at the end" for name, c in curves.items()
    )
    return svg(title, desc, WIDTH, HEIGHT, *shapes)
