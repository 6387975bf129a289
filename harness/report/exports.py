"""A comparison as CSV, Markdown, LaTeX and JSON."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from harness.comparison import ArmResult, Comparison, Spread, TaskResult, TuningResult
from harness.report import made_of, overall, response, style, tradeoff, tuning
from harness.report.cells import to_csv as cells_as_csv
from harness.store import dump_json

TABLE_HEAD = ("arm", "runs", "mean", "sd", "diff", "95% interval", "p (Holm)", "verdict")
CONTROL = " (control)"
_LATEX = {char: f"\\{char}" for char in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "[": "{[}",  # after the end of a row it would begin an argument, as would a star
    "*": "{*}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    "†": r"$^\dagger$",
    "–": "--",
}


def to_json(comparison: Comparison) -> str:
    """Everything the comparison holds, with its version; NaN and infinities as null."""
    return dump_json(dataclasses.asdict(comparison))


def to_csv(comparison: Comparison) -> str:
    """One row per task and arm; floats with every digit, an empty cell where there is no number."""
    rows = [_flat_row(comparison, task, arm) for task, arm in comparison.results()]
    for task in comparison.tasks:
        for control in task.controls:
            row = _flat_row(comparison, task, control.result)
            rows.append({**row, "control": control.word, "text": control.text})
    return cells_as_csv(list(dict.fromkeys(key for row in rows for key in row)), rows)


def _flat_row(comparison: Comparison, task: TaskResult, result: ArmResult) -> dict[str, Any]:
    """All numbers of one arm on one task under flat names."""
    plain = {
        field.name: getattr(result, field.name)
        for field in dataclasses.fields(result)
        if field.name not in ("contrast", "runs", "others", "cost", "curve", "made_of")
    }
    contrast = dataclasses.asdict(result.contrast) if result.contrast else {}
    pairs = len(contrast.pop("seeds", ()))
    contrast.pop("differences", None)
    names = {"mean": "difference", "sd": "difference_sd"}
    facts = {"metric": comparison.metric, "direction": comparison.direction}
    references = {
        f"{name}.{what}": getattr(spread, what)
        for name, spread in style.references(comparison, task)
        for what in ("mean", "sd")
    }
    others = {
        f"{name}.{what}": getattr(spread, what)
        for name, spread in result.others.items()
        for what in ("mean", "sd")
    }
    return {
        "task": task.task,
        **plain,
        **facts,
        "baseline": comparison.baseline,
        "pairs": pairs,
        **{names.get(key, key): value for key, value in contrast.items()},
        **dataclasses.asdict(result.cost),
        **made_of.flat(result),
        **references,
        **others,
        **_tuned(comparison, task, result),
    }


def _tuned(comparison: Comparison, task: TaskResult, result: ArmResult) -> dict[str, Any]:
    """What an arm was tuned to, where it was."""
    given = comparison.tuning.arms if comparison.tuning else []
    mine = [arm for arm in given if (arm.task, arm.arm) == (task.task, result.arm)]
    return {
        key: value
        for arm in mine
        for key, value in (
            ("chosen", tuning.chosen(arm)),
            ("trials", len(arm.trials)),
            ("tuning_seconds", arm.seconds),
        )
    }


def cells(result: ArmResult, places: int) -> list[str]:
    """What a printed table shows of one arm, in the order of `TABLE_HEAD`."""
    contrast = result.contrast
    return [
        style.clean(result.arm),
        style.count(result.done, result.planned),
        style.number(result.mean, places),
        style.number(result.sd, places),
        style.number(contrast.mean, places, sign=True) if contrast else style.NOTHING,
        style.interval(contrast.low, contrast.high, places) if contrast else style.NOTHING,
        style.p_value(contrast.p_holm) if contrast else style.NOTHING,
        style.marked(result),
    ]


def reference_cells(comparison: Comparison, task: TaskResult) -> list[list[str]]:
    """The rows below those of the arms: what has learnt nothing."""
    places, gap = style.task_decimals(task), style.NOTHING
    return [
        [
            name,
            f"{spread.n}",
            style.number(spread.mean, places),
            style.number(spread.sd, places),
            *[gap] * 3,
            style.UNTAUGHT,
        ]
        for name, spread in style.references(comparison, task)
    ]


def control_cells(task: TaskResult, places: int) -> list[list[str]]:
    """The rows of control arms; their p is their own, outside Holm's family."""
    found = []
    for control in task.controls:
        row, contrast = cells(control.result, places), control.result.contrast
        p = style.p_value(contrast.p) if contrast else style.NOTHING
        found.append([row[0] + CONTROL, *row[1:-2], p, style.clean(control.text)])
    return found


def below(comparison: Comparison, task: TaskResult) -> list[list[str]]:
    """What stands below the arms, in the order of `TABLE_HEAD`."""
    places = style.task_decimals(task)
    return [*reference_cells(comparison, task), *control_cells(task, places)]


def escape_markdown(text: object) -> str:
    """Text that GitHub shows as it is, in a table cell too."""
    safe = style.clean(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]|#!~$])", r"\\\1", safe)


def to_markdown(comparison: Comparison) -> str:
    """Tables for GitHub, the best arms bold."""
    parts = [
        f"## {escape_markdown(comparison.question)}",
        escape_markdown(comparison.sentence),
        *(f"> **{note.level}**: {escape_markdown(note.text)}" for note in comparison.notes),
        escape_markdown(style.heading(comparison)),
    ]
    for task in comparison.tasks:
        if len(comparison.tasks) > 1:
            parts.append(f"### {escape_markdown(task.task)}")
        places = style.task_decimals(task)
        rows = [f"| {' | '.join(TABLE_HEAD)} |", "|---|---:|---:|---:|---:|:---:|---:|---|"]
        for result in task.arms:
            row = [escape_markdown(cell) for cell in cells(result, places)]
            if result.best:
                row[0] = f"**{row[0]}**"
                row[2] = f"**{row[2]}**"
            rows.append(f"| {' | '.join(row)} |")
        for row in below(comparison, task):
            rows.append(f"| {' | '.join(map(escape_markdown, row))} |")
        parts.append("\n".join(rows))
        parts += _answered(comparison, task)
        parts += _others(task)
    if comparison.overall:
        shown = [[*overall.HEAD], *overall.rows(comparison, comparison.overall)]
        parts += [escape_markdown(overall.sentence(comparison.overall)), _grid(shown)]
    if comparison.tuning:
        parts += _tuned_markdown(comparison.tuning)
    parts += [escape_markdown(line) for line in style.footnotes(comparison)]
    parts.append(f"Again: <code>{escape_markdown(comparison.command)}</code>")
    return "\n\n".join(parts) + "\n"


def spread(value: Spread | None, places: int) -> str:
    """Mean ± standard deviation, or a dash."""
    if value is None or value.mean is None:
        return style.NOTHING
    mean = style.number(value.mean, places)
    return mean if value.sd is None else f"{mean} ± {style.number(value.sd, places)}"


def other_metrics(task: TaskResult) -> list[str]:
    """Names of the metrics beside the headline, in the order they were recorded."""
    return list(dict.fromkeys(name for result in task.arms for name in result.others))


def others_decimals(task: TaskResult, name: str) -> int:
    """Decimals for one of the other metrics."""
    spreads = [result.others[name] for result in task.arms if name in result.others]
    return style.decimals([s.mean for s in spreads if s.mean is not None])


def _answered(comparison: Comparison, task: TaskResult) -> list[str]:
    """What a number does to the metric, which arms are on the front, and what losses start at."""
    parts = [
        escape_markdown(f"{given.key}: {response.sentence(comparison, task, given)}")
        for given in task.responses
    ]
    if task.tradeoff:
        parts.append(escape_markdown(tradeoff.sentence(comparison, task.tradeoff)))
    head, rows = made_of.start(comparison, task)
    if rows:
        words = escape_markdown(f"What the loss is made of, {made_of.CAPTION}:")
        parts += [words, _grid([head, *rows])]
    return parts


def _grid(lines: Sequence[Sequence[str]]) -> str:
    """A table, its first line the head, its first column of names."""
    shown = [[escape_markdown(cell) for cell in line] for line in lines]
    shown.insert(1, ["---", *["---:"] * (len(lines[0]) - 1)])
    return "\n".join(f"| {' | '.join(line)} |" for line in shown)


def _others(task: TaskResult) -> list[str]:
    """The other metrics as one table, metrics as rows so that any number of them fits."""
    names = other_metrics(task)
    if not names:
        return []
    columns = [(result.arm, result.others) for result in task.arms] + [*task.references.items()]
    head = ["metric", *(escape_markdown(column) for column, _ in columns)]
    rows = [f"| {' | '.join(head)} |", "|---|" + "---:|" * len(columns)]
    for name in names:
        places = others_decimals(task, name)
        row = [spread(values.get(name), places) for _, values in columns]
        rows.append(f"| {' | '.join([escape_markdown(name), *row])} |")
    return ["Other metrics (exploratory, mean ± sd):", "\n".join(rows)]


def escape_latex(text: object) -> str:
    """Text as LaTeX shows it; numbers in brackets keep their signs.

    >>> escape_latex("50% of a_b")
    '50\\\\% of a\\\\_b'
    """
    return "".join(_LATEX.get(char, char) for char in style.clean(text))


def _tuned_markdown(result: TuningResult) -> list[str]:
    """How every arm was tuned, as a heading and a table."""
    rows = [f"| {' | '.join(tuning.head(result))} |"]
    rows.append("|---|" + "---:|" * (len(tuning.head(result)) - 2) + "---|")
    for *numbers, chosen in tuning.rows(result):
        words = [escape_markdown(cell) for cell in [*numbers, chosen]]
        rows.append(f"| {' | '.join(words)} |")
    return [f"Tuned: {escape_markdown(tuning.summary(result))}", "\n".join(rows)]


def _tuned_latex(result: TuningResult) -> list[str]:
    """How every arm was tuned, as a booktabs table of its own."""
    head = tuning.head(result)
    columns = f"l{'r' * (len(head) - 2)}l"
    lines = ["", f"% tuned: {style.clean(tuning.summary(result))}"]
    lines += [rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
    lines += [" & ".join(map(escape_latex, head)) + r" \\", r"\midrule"]
    lines += [" & ".join(map(escape_latex, row)) + r" \\" for row in tuning.rows(result)]
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def _latex_number(text: str) -> str:
    return f"${text}$" if text[0] in "+-[" else escape_latex(text)


def to_latex(comparison: Comparison) -> str:
    """One booktabs table per task, the best arms bold."""
    lines = [f"% {style.clean(line)}" for line in (comparison.question, comparison.sentence)]
    lines += [f"% {note.level}: {style.clean(note.text)}" for note in comparison.notes]
    lines += [f"% {style.heading(comparison)}", r"% needs \usepackage{booktabs}"]
    for task in comparison.tasks:
        places = style.task_decimals(task)
        lines += ["", f"% {style.clean(task.task)}", r"\begin{tabular}{lrrrrcrl}", r"\toprule"]
        lines += [" & ".join(escape_latex(name) for name in TABLE_HEAD) + r" \\", r"\midrule"]
        for result in task.arms:
            arm, runs, mean, *rest, verdict = cells(result, places)
            row = [escape_latex(arm), runs, escape_latex(mean)]
            if result.best:
                row = [rf"\textbf{{{row[0]}}}", runs, rf"\textbf{{{row[2]}}}"]
            row += [*map(_latex_number, rest), escape_latex(verdict)]
            lines.append(" & ".join(row) + r" \\")
        beneath = below(comparison, task)
        lines += [r"\midrule"] if beneath else []
        for row in beneath:
            name, runs, *numbers, text = row
            shown = [escape_latex(name), runs, *map(_latex_number, numbers), escape_latex(text)]
            lines.append(" & ".join(shown) + r" \\")
        lines += [r"\bottomrule", r"\end{tabular}"]
    if comparison.tuning:
        lines += _tuned_latex(comparison.tuning)
    return "\n".join(lines) + "\n"
