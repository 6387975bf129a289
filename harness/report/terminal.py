"""A comparison as text for a terminal."""

import textwrap
from collections.abc import Sequence

from harness.comparison import Comparison, Note, TaskResult
from harness.report import exports, overall, style, tuning

WIDTH = 100
NARROWEST_ARM = 8
HEAD = ("arm", "mean", "diff", "95% interval", "p (Holm)", "verdict")
COLOURS = {"better": "32", "worse": "31", "alarm": "31", "warning": "33"}


def terminal(comparison: Comparison, *, width: int = WIDTH, color: bool = False) -> str:
    """The comparison as lines of at most `width` columns; escape codes only if `color`."""
    blocks = [
        _wrapped(comparison.question, width),
        _wrapped(style.heading(comparison), width),
        *(_table(comparison, task, width, color) for task in comparison.tasks),
        _wrapped(comparison.sentence, width),
        _together(comparison, width),
        _tuned(comparison, width),
        "\n".join(_note(note, width, color) for note in comparison.notes),
        "\n".join(_wrapped(line, width) for line in _legend(comparison)),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _legend(comparison: Comparison) -> list[str]:
    lines = [line.replace("Best:", "*:") for line in style.footnotes(comparison)]
    starred = any(result.best for _, result in comparison.results())
    return [line for line in lines if starred or not line.startswith("*:")]


def _wrapped(text: str, width: int, indent: str = "") -> str:
    # textwrap counts characters: those that take two columns count as two
    counted = "".join(f"{c}\0" if style.columns(c) > 1 else c for c in style.clean(text))
    return textwrap.fill(counted, width, subsequent_indent=indent).replace("\0", "")


def _painted(text: str, kind: str, color: bool) -> str:
    return f"\x1b[{COLOURS[kind]}m{text}\x1b[0m" if color and kind in COLOURS else text


def _note(note: Note, width: int, color: bool) -> str:
    label = {"alarm": "ALARM ", "warning": "warning ", "note": "note "}[note.level]
    return _painted(_wrapped(label + note.text, width, " " * len(label)), note.level, color)


def _table(comparison: Comparison, task: TaskResult, width: int, color: bool) -> str:
    """One task as aligned columns; the arm's name gives way first, then the verdict wraps."""
    places = style.task_decimals(task)
    rows = [
        [
            style.clean(result.arm),
            style.number(result.mean, places),
            style.number(c.mean, places, sign=True) if (c := result.contrast) else "",
            style.interval(c.low, c.high, places) if c and c.low is not None else "",
            style.p_value(c.p_holm) if c and c.p_holm is not None else "",
            style.marked(result),
        ]
        for result in task.arms
    ]
    below = [
        [name, style.number(spread.mean, places), "", "", "", style.UNTAUGHT]
        for name, spread in style.references(comparison, task)
    ]
    for row in exports.control_cells(task, places):
        words = ["" if cell == style.NOTHING else cell for cell in row]
        below.append([words[0].removesuffix(exports.CONTROL), words[2], *words[4:]])
    shown = [list(HEAD), *rows, *below]
    sizes = [max(style.columns(row[i]) for row in shown) for i in range(len(HEAD))]
    rest = sum(sizes[1:5]) + 2 * 5 + 1
    sizes[0] = max(NARROWEST_ARM, min(sizes[0], width - rest - min(sizes[5], width // 3)))
    sizes[5] = max(NARROWEST_ARM, width - rest - sizes[0])
    lines = [style.clean(task.task)] if len(comparison.tasks) > 1 else []
    lines.append(" " + _line(list(HEAD), sizes, [HEAD[5]]))
    for row, result in zip(rows, task.arms, strict=True):
        text = _line(row, sizes, textwrap.wrap(row[5], sizes[5]) or [""])
        star = "*" if result.best else " "
        lines.append(_painted(star + text, result.verdict, color))
    beneath = [" " + _line(row, sizes, textwrap.wrap(row[5], sizes[5])) for row in below]
    if task.controls:
        beneath.insert(len(below) - len(task.controls), " controls")
    lines += beneath
    return "\n".join(lines)


def _together(comparison: Comparison, width: int) -> str:
    """All tasks together, a line for each arm."""
    given = comparison.overall
    if given is None:
        return ""
    rows = [list(overall.HEAD), *overall.rows(comparison, given)]
    sizes = [max(style.columns(row[i]) for row in rows) for i in range(len(rows[0]))]
    sizes[0] = max(NARROWEST_ARM, min(sizes[0], width - sum(sizes[1:]) - 2 * len(sizes)))
    lines = [_wrapped(f"All tasks together. {overall.sentence(given)}", width)]
    for row in rows:
        first = style.shortened(row[0], sizes[0])
        words = [first + " " * (sizes[0] - style.columns(first))]
        words += [cell.rjust(size) for cell, size in zip(row[1:], sizes[1:], strict=True)]
        lines.append((" " + "  ".join(words)).rstrip())
    return "\n".join([*lines, _wrapped(overall.LEGEND, width)])


def _tuned(comparison: Comparison, width: int) -> str:
    """How every arm was tuned, a line each; the chosen settings give way."""
    result = comparison.tuning
    if result is None:
        return ""
    for most in range(tuning.MOST_SIZES, 0, -1):
        rows = [tuning.head(result, most), *tuning.rows(result, most)]
        sizes = [max(style.columns(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
        sizes[0] = max(NARROWEST_ARM, min(sizes[0], width // 4))
        room = width - sum(sizes) - 2 * len(sizes) - 1
        if room >= NARROWEST_ARM:
            break
    lines = [_wrapped(f"Tuned: {tuning.summary(result)}", width)]
    for row in rows:
        first = style.shortened(row[0], sizes[0])
        words = [first + " " * (sizes[0] - style.columns(first))]
        words += [cell.rjust(size) for cell, size in zip(row[1:-1], sizes[1:], strict=True)]
        words.append(style.shortened(row[-1], room))
        lines.append((" " + "  ".join(words)).rstrip())
    return "\n".join(lines)


def _line(row: Sequence[str], sizes: Sequence[int], verdict: Sequence[str]) -> str:
    """One row; further lines of its verdict hang below."""
    name = style.shortened(row[0], sizes[0])
    cells = [name + " " * (sizes[0] - style.columns(name))]
    cells += [row[1].rjust(sizes[1]), row[2].rjust(sizes[2])]
    cells += [row[3].center(sizes[3]), row[4].rjust(sizes[4]), verdict[0]]
    first = "  ".join(cells).rstrip()
    hang = " " * (sum(sizes[:5]) + 2 * 5 + 1)
    return "\n".join([first, *(hang + line for line in verdict[1:])])
