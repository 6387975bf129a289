"""What a number of the config does to the metric, drawn and in words."""

from collections.abc import Sequence
from functools import partial

from harness.comparison import Comparison, Response, TaskResult
from harness.report import style
from harness.report.figures import both_widths, response
from harness.report.markup import Safe, element, join


def drawn(comparison: Comparison, task: TaskResult) -> list[Safe]:
    """A figure and a sentence for every number in which arms of a task differ."""
    made = []
    for given in task.responses:
        if any(r is not None and r.mean is not None for r in map(task.arm, given.arms)):
            figure = element("figure", both_widths(partial(response, comparison, task, given)))
            words = element(
                "p", element("code", given.key), ": ", sentence(comparison, task, given)
            )
            made.append(join([figure, words]))
    return made


def legend(comparison: Comparison) -> list[str]:
    """How to read the figures of `drawn`."""
    lines = [
        f"Mean {comparison.metric} of arms that differ in this number alone. Band: 95% t "
        f"interval of the mean over seeds; shapes: verdicts against {comparison.baseline} "
        "(dashed), by pairs."
    ]
    if comparison.pending:
        return lines
    return [
        *lines,
        "Ring: the best mean. Line at the foot: the plateau, the unbroken row of values around it "
        "that are not significantly worse (paired t against the best, Holm). The fall is the mean "
        "paired loss from the best value to the one beside it where most is lost, over their "
        "distance in decades or units, with its 95% interval, if neither neighbour lost runs; "
        "chosen as the best, it flatters a little.",
    ]


def sentence(comparison: Comparison, task: TaskResult, given: Response) -> str:
    """What came out, in words."""
    if given.best is None:
        wait = "the sweep still runs" if comparison.pending else "no two arms have all their seeds"
        return f"no plateau, since {wait}."
    places = style.task_decimals(task)
    at = task.arm(given.arms[given.values.index(given.best)])
    mean = style.number(at.mean if at else None, places)
    parts = [f"best at {given.best:g} ({mean})", f"plateau {_row(given.plateau)}"]
    if given.apart:
        listed = ", ".join(f"{value:g}" for value in given.apart)
        beyond = "beyond a value that is worse or lost runs"
        parts.append(f"not told apart from it either, but {beyond}: {listed}")
    parts += [f"{value:g} beside it lost runs" for value in _lost(task, given)]
    slope = given.slope
    if slope:
        fall = style.number(slope.fall, places)
        ends = style.interval(slope.low, slope.high, places)
        parts.append(f"falls by {fall} {ends} per {slope.per} towards {slope.towards:g}")
    for end, word in ((0, "smallest"), (-1, "largest")):
        if given.best == given.values[end]:
            parts.append(f"the best is the {word} value tried")
    return f"{'; '.join(parts)}."


def _lost(task: TaskResult, given: Response) -> list[float]:
    """The values beside the best of which not every run is done."""
    assert given.best is not None
    at = given.values.index(given.best)
    beside = [place for place in (at - 1, at + 1) if 0 <= place < len(given.arms)]
    arms = {place: task.arm(given.arms[place]) for place in beside}
    return [given.values[i] for i, arm in arms.items() if arm and arm.done < arm.planned]


def _row(values: Sequence[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:g} alone"
    return f"{values[0]:g} to {values[-1]:g}"
