"""The sections of the page that are tables: cost, other metrics, lost runs, arms, provenance."""

from collections.abc import Sequence
from typing import TypeVar

from harness.comparison import ArmResult, Comparison, Fingerprint, TaskResult
from harness.report import exports, style
from harness.report.markup import Safe, details, element, table

Item = TypeVar("Item")
COLUMNS = 11  # of any table, the name of the row included
SHORT = 12  # characters of a fingerprint on the page


def _caption(comparison: Comparison, task: TaskResult, text: str) -> str:
    return f"{task.task}: {text}" if len(comparison.tasks) > 1 else text


def cost(comparison: Comparison) -> list[Safe]:
    """What a run of each arm takes, per task."""
    head = (
        "arm",
        "seconds",
        "× baseline",
        "ms per step",
        "step × baseline",
        "steps",
        "steps to its score",
        "parameters",
        "memory",
    )
    made = []
    for task in comparison.tasks:
        base = task.arm(comparison.baseline)
        whole = base.cost.total_seconds if base else None
        step = base.cost.step_seconds if base else None
        rows = [
            [
                result.arm,
                style.seconds(mine.total_seconds),
                f"{mine.total_seconds / whole:.2f}" if whole and mine.total_seconds else "–",
                style.seconds(1000 * mine.step_seconds if mine.step_seconds else None),
                f"{mine.step_seconds / step:.2f}" if step and mine.step_seconds else "–",
                style.amount(mine.steps),
                _reached(result),
                style.amount(mine.parameters),
                style.memory(mine.peak_memory),
            ]
            for result in task.arms
            for mine in [result.cost]
            if result.done
        ]
        if rows:
            made.append(table(head, rows, caption=_caption(comparison, task, "mean per done run")))
    text = (
        "Steps to its score: median step at which the validation curve is first as good as the "
        "baseline's is at its end on the same seed; in brackets how many seeds get there. Seconds "
        "are without those spent on trainer.gradients; peak memory is with what that takes."
    )
    return [*made, element("p", text, class_="soft")] if made else []


def _reached(result: ArmResult) -> str:
    """Steps to the baseline's score, and how many seeds got there where not all did."""
    mine = result.cost
    if mine.steps_to_baseline is None:
        return style.NOTHING
    few = f" ({mine.reached} of {result.done})" if mine.reached < result.done else ""
    return f"{style.amount(mine.steps_to_baseline)}{few}"


def controls(comparison: Comparison) -> list[Safe]:
    """Arms whose outcome is known beforehand, and whether it came out."""
    head = ("control", "done", "mean", "sd", "diff", "95% interval", "p", "came out")
    signs = {True: "✓ ", False: "✕ ", None: ""}
    made = []
    for task in comparison.tasks:
        rows: list[list[object]] = []
        for control in task.controls:
            _, *row = exports.cells(control.result, style.task_decimals(task))
            contrast = control.result.contrast
            row[-2:] = [style.p_value(contrast.p) if contrast else style.NOTHING]
            tone = "worse" if control.held is False else None
            words = element("span", signs[control.held], control.text, class_=tone)
            told = element("span", element("b", control.word), ", ", control.expected)
            rows.append([told, *row, words])
        if rows:
            caption = _caption(comparison, task, "against the baseline; p of a t test of their own")
            made.append(table(head, rows, caption=caption, class_="board controls"))
    text = (
        "Arms whose outcome is known beforehand. They are none of the comparisons that Holm's "
        "correction counts; one that comes out wrong stands among the warnings above the table."
    )
    return [element("p", text, class_="soft"), *made] if made else []


def across(comparison: Comparison) -> list[Safe]:
    """Differences of every arm on every task, where there are several."""
    if len(comparison.tasks) < 2:
        return []
    made = []
    for tasks in _chunks(comparison.tasks, COLUMNS - 1):
        head = ["arm", *(task.task for task in tasks)]
        names = dict.fromkeys(result.arm for task in tasks for result in task.arms)
        rows = [[name, *(_brief(task, name) for task in tasks)] for name in names]
        caption = (
            "difference to the baseline in the task's own metric units, with the verdict's shape"
        )
        made.append(table(head, rows, caption=caption))
    return made


def _brief(task: TaskResult, arm: str) -> object:
    result = task.arm(arm)
    if result is None:
        return style.NOTHING
    words = style.number(
        result.contrast.mean if result.contrast else None, style.task_decimals(task), sign=True
    )
    return element(
        "span",
        f"{words} {style.SYMBOLS[result.verdict]}",
        class_=style.tone(result.verdict),
        title=result.text,
    )


def others(comparison: Comparison) -> list[Safe]:
    """Metrics beside the headline as mean ± sd; no test, so that nobody picks the lucky one."""
    made = []
    for task in comparison.tasks:
        for names in _chunks(exports.other_metrics(task), COLUMNS - 1):
            places = {name: exports.others_decimals(task, name) for name in names}
            rows = [
                [
                    result.arm,
                    *(exports.spread(result.others.get(name), places[name]) for name in names),
                ]
                for result in task.arms
                if result.done
            ]
            rows += [
                [name, *(exports.spread(known.get(metric), places[metric]) for metric in names)]
                for name, known in task.references.items()
            ]
            head = ["arm", *(_directed(comparison, name) for name in names)]
            text = "exploratory: mean ± standard deviation over seeds, no test"
            made.append(table(head, rows, caption=_caption(comparison, task, text)))
    return made


def _directed(comparison: Comparison, name: str) -> str:
    """The metric's name with an arrow towards the better, where the plan knows it."""
    arrows = {"higher": " ↑", "lower": " ↓", None: ""}
    return name + arrows[comparison.directions.get(name)]


def lost(comparison: Comparison) -> list[Safe]:
    """Every failed and diverged run with its error."""
    rows = []
    for task, result in [*comparison.results(), *comparison.controls()]:
        for run in result.runs:
            if run.status in ("failed", "diverged"):
                name, code = f"{task.task} / {result.arm}", element("code", run.id)
                rows.append([name, f"{run.seed}", run.status, run.error or "", code])
    head = ("task / arm", "seed", "status", "error", "run")
    return [table(head, rows, numeric=False)] if rows else []


def arms(comparison: Comparison) -> list[Safe]:
    """What each arm minimises, and the config keys beyond it that differ from the baseline's."""
    rows = [
        [
            arm,
            element("code", changes.get("objective", "")),
            element("code", _changes(changes)),
        ]
        for arm, changes in comparison.differences.items()
    ]
    head = ("arm", "objective", f"differs from {comparison.baseline} also in")
    return [table(head, rows, numeric=False)] if rows else []


def _changes(changes: dict[str, object]) -> str:
    other = [f"{key}={value}" for key, value in changes.items() if key != "objective"]
    return ", ".join(other) or style.NOTHING


def provenance(comparison: Comparison) -> list[Safe]:
    """How to make it again, with what it was made, and which runs are behind every number."""
    facts = [[key, ", ".join(values)] for key, values in comparison.provenance.items()]
    facts.append(["seeds", ", ".join(str(seed) for seed in comparison.seeds)])
    if comparison.overrides:
        facts.append(["overrides", " ".join(comparison.overrides)])
    marks = [_mark(mark) for mark in comparison.fingerprints]
    everything = [*comparison.results(), *comparison.controls()]
    runs = [[f"{task.task} / {result.arm}", _ids(result)] for task, result in everything]
    prints = table(("fingerprint", "seed", "sha256"), marks, numeric=False)
    return [
        element("p", "To run it again:"),
        element("pre", element("code", comparison.command)),
        table(("what", "value"), facts, numeric=False),
        details("Fingerprints of data, split, initial weights and order", prints),
        details("Runs behind each number", table(("task / arm", "seed: run"), runs, numeric=False)),
    ]


def _mark(mark: Fingerprint) -> list[object]:
    values = [value[:SHORT] for value in mark.values]
    shown = values[0] if len(values) == 1 else f"differs: {', '.join(values)}"
    return [f"{mark.task} / {mark.kind}", f"{mark.seed}", element("code", shown)]


def _ids(result: ArmResult) -> Safe:
    words = ", ".join(
        f"{run.seed}: {run.id}" + ("" if run.status == "done" else f" ({run.status})")
        for run in result.runs
    )
    return element("code", words)


def _chunks(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
