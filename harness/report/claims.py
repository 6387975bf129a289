"""Verdicts on claims as one self-contained page: no script, no reference to anything outside."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from harness.claims.claim import ContrastResult, Outcome, Verdict
from harness.comparison import Verdict as Word
from harness.report import claimtext, style
from harness.report.figures import both_widths
from harness.report.markup import Safe, details, element, join, table
from harness.report.svg import (
    Axis,
    dot,
    fitted,
    label,
    line,
    mark,
    svg,
    text_width,
    tick_labels,
    visible,
)

STYLE = """
.side { fill: var(--better); opacity: .12; } .boundary { stroke: var(--better); stroke-width: 1.5;
  stroke-dasharray: 4 3; }
.supported { color: var(--better); } .contradicted { color: var(--worse); }
a { color: inherit; } .verdict { font-weight: 700; } dt { color: var(--soft); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem .75rem; margin: .5rem 0; }
dd { margin: 0; max-width: 48rem; }
.textbook th[scope=row] { max-width: none; min-width: 14rem; } .textbook td { white-space: nowrap; }
@media (max-width: 40rem) { dl { grid-template-columns: 1fr; gap: 0; } }
"""
TONES: dict[Verdict, Word] = {
    "SUPPORTED": "better",
    "CONTRADICTED": "worse",
    "NOT ENOUGH EVIDENCE": "not enough evidence",
    "PENDING": "pending",
}
FIGURES = (
    "Figures: the shaded side is where the claim puts the difference, the dashed line its margin; "
    "bar: 95% interval; dots: seeds."
)
ROW = 96  # pixels of a contrast in a figure


def to_html(outcomes: Sequence[Outcome]) -> str:
    """The whole page as one HTML document."""
    css = Path(__file__).with_name("style.css").read_text(encoding="utf-8") + STYLE
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", claimtext.TITLE),
        element("style", Safe(css)),
    )
    spent = style.seconds(claimtext.seconds(outcomes))
    words = f"{claimtext.summary(outcomes)}, in {spent} seconds of training."
    body = element(
        "body",
        element("header", element("h1", claimtext.TITLE), element("p", words, class_="lead")),
        element("main", _overview(outcomes), *map(_section, outcomes)),
    )
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _overview(outcomes: Sequence[Outcome]) -> Safe:
    """One row per claim, with a line for each of its contrasts."""
    head = ("claim", "verdict", "effect and its 95% interval", "seeds", "seconds")
    rows: list[list[object]] = []
    for outcome in outcomes:
        several = len(outcome.results) > 1
        lines = []
        for tested in outcome.results:
            sign = f"{claimtext.SYMBOLS[tested.verdict]} " if several else ""
            words = f"{sign}{claimtext.numbers(tested)}"
            lines.append(element("div", words, title=tested.contrast.words))
        link = element("a", outcome.claim.claim, href=f"#{anchor(outcome)}")
        cost = style.seconds(outcome.seconds)
        rows.append([link, _verdict(outcome.verdict), join(lines), f"{outcome.seeds}", cost])
    return element(
        "section",
        element("h2", "All claims"),
        table(
            head,
            rows,
            caption="Claims, with a line for each of their contrasts",
            numeric=False,
            class_="textbook",
        ),
        element("p", claimtext.LEGEND, class_="soft"),
        element("p", FIGURES, class_="soft"),
    )


def anchor(outcome: Outcome) -> str:
    """The fragment of a claim's section: letters, digits and dashes alone."""
    safe = "".join(c if c.isascii() and c.isalnum() else "-" for c in outcome.claim.name)
    return f"claim-{safe}"


def _verdict(verdict: Verdict) -> Safe:
    tone = {"SUPPORTED": "supported", "CONTRADICTED": "contradicted"}.get(verdict, "none")
    shape = element("span", claimtext.SYMBOLS[verdict], aria_hidden="true")
    return element("span", shape, " ", verdict.lower(), class_=f"verdict {tone}")


def _section(outcome: Outcome) -> Safe:
    """One claim: its words, its verdict, the figure, what it cost and how to repeat it."""
    claim = outcome.claim
    texts = [f"{tested.contrast.words}: {tested.text}" for tested in outcome.results]
    said: list[tuple[str, object]] = [
        ("Verdict", _verdict(outcome.verdict)),
        ("Stands in", claim.notes and f"notes {claim.notes}"),
        ("For it", claim.supports),
        ("Against it", claim.contradicts),
        ("Contrasts", join(element("div", text) for text in texts)),
        ("What came out", claim.outcome),
        ("Cost", _cost(outcome)),
    ]
    entries = [join([element("dt", key), element("dd", words)]) for key, words in said if words]
    notes = [
        element(
            "p", element("strong", f"{n.level.capitalize()}: "), n.text, class_=f"note {n.level}"
        )
        for n in outcome.notes
    ]
    return element(
        "section",
        element("h2", claim.claim),
        element("dl", *entries),
        element("figure", both_widths(partial(_figure, outcome))),
        details("Runs behind the numbers, and what a reader must know", _runs(outcome), *notes),
        element("pre", element("code", outcome.command)),
        id=anchor(outcome),
    )


def _cost(outcome: Outcome) -> str:
    runs = (
        f"{outcome.done} of {outcome.planned} runs"
        if outcome.done < outcome.planned
        else f"{outcome.done} runs"
    )
    return f"{outcome.seeds} seeds, {runs}, {style.seconds(outcome.seconds)} seconds"


def _runs(outcome: Outcome) -> Safe:
    rows: list[list[object]] = []
    for tested in outcome.results:
        where = tested.contrast.words
        for arm, runs in tested.runs.items():
            ids = ", ".join(
                f"{run.seed}: {run.id}" + ("" if run.status == "done" else f" ({run.status})")
                for run in runs
            )
            rows.append([where, arm, element("code", ids)])
    return table(("contrast", "arm", "seed: run"), rows, numeric=False)


def _figure(outcome: Outcome, width: int) -> Safe:
    """Every contrast on an axis of its own: interval, mean, seeds, and the side that is claimed."""
    shapes = [_contrast(each, ROW * i, width) for i, each in enumerate(outcome.results)]
    desc = "; ".join(f"{t.contrast.words}: {claimtext.numbers(t)}" for t in outcome.results)
    return svg(outcome.claim.claim, desc, width, ROW * len(outcome.results), *shapes)


def _contrast(tested: ContrastResult, top: float, width: int) -> Safe:
    numbers = claimtext.numbers(tested)
    room = width - text_width(numbers) - 16
    words = [
        label(2, top + 16, fitted(tested.contrast.words, room)),
        label(width - 2, top + 16, numbers, anchor="end", class_="t num"),
    ]
    if tested.mean is None:
        return join([*words, label(2, top + 44, tested.text, class_="t soft")])
    margin = tested.contrast.margin
    claimed = _claimed(tested)
    ends = [v for v in (tested.mean, tested.low, tested.high) if v is not None]
    inside = [v for v in claimed if abs(v) < float("inf")]
    low, high = visible([[*ends, *inside, 0.0]], tested.differences)
    axis = Axis(low, high, 30, width - 30)
    y, bottom = top + 40, top + 62
    left, right = (axis(value) for value in claimed)
    side = element(
        "rect", x=f"{left:.1f}", y=top + 26, width=f"{right - left:.1f}", height=36, class_="side"
    )
    shapes = [side, line(axis(0), top + 26, axis(0), bottom, "zero")]
    if margin:
        shapes += [line(axis(v), top + 26, axis(v), bottom, "boundary") for v in inside]
    ticks = axis.ticks(5 if width > 500 else 3)
    for value, name in zip(ticks, tick_labels(ticks, sign=True), strict=True):
        shapes.append(label(axis(value), bottom + 16, name, anchor="middle", class_="t soft"))
    word = TONES[tested.verdict]
    if tested.low is not None and tested.high is not None:
        tone = style.tone(word)
        shapes.append(line(axis(tested.low), y, axis(tested.high), y, f"bar {tone}"))
    for i, value in enumerate(tested.differences):
        if not axis.side(value):
            shapes.append(dot(axis(value), y + 11 + i % 3 * 2, 2, "seed"))
    return join([*words, *shapes, mark(word, axis(tested.mean), y)])


def _claimed(tested: ContrastResult) -> tuple[float, float]:
    """From where to where the claim puts the difference."""
    margin, endless = tested.contrast.margin, float("inf")
    return {
        "higher": (margin, endless),
        "lower": (-endless, -margin),
        "equal": (-margin, margin),
    }[tested.contrast.direction]
