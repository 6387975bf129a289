"""A comparison as one self-contained page: no script, no reference to anything outside."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from harness.comparison import ArmResult, Comparison, TaskResult
from harness.report import exports, made_of, overall, response, sections, style, tradeoff, tuning
from harness.report.figures import both_widths, forest
from harness.report.markup import Safe, details, element, join, table
from harness.report.panels import curve_panels, difference_panels

BOARD = (
    "arm", "done", "mean", "sd", "diff", "95% interval", "p (Holm)", "sign flip", "d_z",
    "improves", "verdict",
)  # fmt: skip
BOARD_HELP = (
    "improves: share of seeds on which the arm is better, a tie counting half; d_z: mean "
    "difference over its standard deviation; sign flip: p of flipped signs, uncorrected, from 6 "
    "seeds."
)


def to_html(comparison: Comparison, answers: Sequence[Safe] = ()) -> str:
    """The whole report as one HTML document; `answers` show what runs predicted."""
    title = comparison.question or comparison.name
    header = element(
        "header",
        element("h1", title),
        element("p", comparison.sentence, class_="lead"),
        element("p", progress(comparison), class_="soft"),
    )
    return document(title, header, element("main", *content(comparison, answers)))


def document(title: str, *parts: Safe) -> str:
    """A page of its own with all it needs inside."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Safe(Path(__file__).with_name("style.css").read_text(encoding="utf-8"))),
    )
    return f"<!doctype html>\n{element('html', head, element('body', *parts), lang='en')}\n"


def content(comparison: Comparison, answers: Sequence[Safe] = ()) -> list[Safe]:
    """Notes and sections of one comparison."""
    return [*_notes(comparison), *_sections(comparison, list(answers))]


def progress(comparison: Comparison) -> str:
    """What the numbers are, and how many runs are done."""
    counts = {
        "failed": comparison.failed,
        "diverged": comparison.diverged,
        "pending": comparison.pending,
    }
    rest = "".join(f", {n} {word}" for word, n in counts.items() if n)
    done = f"{comparison.done} of {comparison.planned} runs done{rest}"
    return f"{style.heading(comparison)}; {done}"


def _notes(comparison: Comparison) -> list[Safe]:
    return [
        element(
            "p",
            element("strong", f"{note.level.capitalize()}: "),
            note.text,
            class_=f"note {note.level}",
            role="alert" if note.level == "alarm" else None,
        )
        for note in comparison.notes
    ]


def _sections(comparison: Comparison, answers: list[Safe]) -> list[Safe]:
    """All sections that have something to show, in order."""
    made = [
        ("Leaderboard", _boards(comparison)),
        ("Controls", sections.controls(comparison)),
        ("Paired differences", _forests(comparison)),
        ("Learning curves", _curves(comparison)),
        ("Response to a parameter", _responses(comparison)),
        ("Two metrics against each other", _tradeoffs(comparison)),
        ("How each arm was tuned", tuning.section(comparison)),
        ("What the runs answered", answers),
        ("Cost", sections.cost(comparison)),
        ("Across tasks", [*sections.across(comparison), *overall.section(comparison)]),
        ("What the loss is made of", made_of.section(comparison)),
        ("Other metrics", sections.others(comparison)),
        ("Runs without a result", sections.lost(comparison)),
        ("Arms", sections.arms(comparison)),
        ("Provenance", sections.provenance(comparison)),
    ]
    return [element("section", element("h2", title), *parts) for title, parts in made if parts]


def _per_task(comparison: Comparison, draw: Callable[[TaskResult], Iterable[Safe]]) -> list[Safe]:
    """What `draw` makes of every task, under the task's name where there are several."""
    made = [(task.task, list(draw(task))) for task in comparison.tasks]
    several = len(comparison.tasks) > 1
    return [
        join([element("h3", name) if several else None, *parts]) for name, parts in made if parts
    ]


def _boards(comparison: Comparison) -> list[Safe]:
    boards = _per_task(comparison, lambda task: [_board(comparison, task)])
    lines = [*style.footnotes(comparison), *([] if comparison.pending else [BOARD_HELP])]
    return [*boards, *(element("p", line, class_="soft") for line in lines)]


def _board(comparison: Comparison, task: TaskResult) -> Safe:
    places = style.task_decimals(task)
    rows = [_board_row(result, places) for result in task.arms]
    for name, runs, mean, sd, *_, text in exports.reference_cells(comparison, task):
        rows.append([name, runs, mean, sd, *[style.NOTHING] * 6, text])
    return table(BOARD, rows, caption="Arms, best mean first; bold: among the best", class_="board")


def _board_row(result: ArmResult, places: int) -> list[object]:
    """The cells of one arm, in the order of `BOARD`."""
    contrast = result.contrast
    kind = "strong" if result.best else None
    numbers = [style.NOTHING] * 6
    if contrast is not None:
        numbers = [
            style.number(contrast.mean, places, sign=True),
            style.interval(contrast.low, contrast.high, places),
            style.p_value(contrast.p_holm),
            style.p_value(contrast.p_sign_flip),
            style.number(contrast.effect_size, 2, sign=True),
            style.number(contrast.improvement, 2),
        ]
    shape = element("span", style.SYMBOLS[result.verdict], aria_hidden="true")
    return [
        element("span", result.arm, class_=kind),
        style.count(result.done, result.planned),
        element("span", style.number(result.mean, places), class_=kind),
        style.number(result.sd, places),
        *numbers,
        element("span", shape, " ", style.marked(result), class_=style.tone(result.verdict)),
    ]


def _forests(comparison: Comparison) -> list[Safe]:
    def draw(task: TaskResult) -> list[Safe]:
        if not any(result.contrast for result in task.arms):
            return []
        return [element("figure", both_widths(partial(forest, comparison, task)))]

    made = _per_task(comparison, draw)
    text = (
        f"Difference in {comparison.metric} to {comparison.baseline} on the same seed. Shape: mean "
        "and verdict; bar: 95% interval; dots: seeds; an arrow with a number: off the scale."
    )
    legend = [("better", "▲"), ("worse", "▼"), ("no practical difference", "■")]
    legend += [("not enough evidence", "●"), ("identical", "◆")]
    shapes = ", ".join(f"{shape} {word}" for word, shape in legend)
    return [element("p", f"{text} {shapes}.", class_="soft"), *made] if made else []


def _curves(comparison: Comparison) -> list[Safe]:
    def differences(task: TaskResult) -> list[Safe]:
        panels = difference_panels(comparison, task)
        return [element("div", *panels, class_="panels")] if panels else []

    def raw(task: TaskResult) -> list[Safe]:
        panels = curve_panels(comparison, task)
        return [element("div", *panels, class_="panels")] if panels else []

    made, plain = _per_task(comparison, differences), _per_task(comparison, raw)
    if not plain:
        return []
    metrics = ", ".join(dict.fromkeys(t.curve_metric for t in comparison.tasks if t.curve_metric))
    text = (
        f"Mean paired difference in {metrics} to {comparison.baseline} over optimiser steps, "
        "with a pointwise 95% interval; one scale for all panels."
    )
    behind = f"Raw means; dashed: {comparison.baseline}"
    first = [element("p", text, class_="soft"), *made] if made else []
    return [*first, details(behind, *plain)]


def _responses(comparison: Comparison) -> list[Safe]:
    made = _per_task(comparison, partial(response.drawn, comparison))
    lines = [element("p", line, class_="soft") for line in response.legend(comparison)]
    return [*lines, *made] if made else []


def _tradeoffs(comparison: Comparison) -> list[Safe]:
    made = _per_task(comparison, partial(tradeoff.drawn, comparison))
    return [*made, element("p", tradeoff.LEGEND, class_="soft")] if made else []
