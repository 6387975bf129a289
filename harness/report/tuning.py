"""How the arms were tuned: what was chosen, what n trials are worth, and every trial."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from harness.comparison import Comparison, TrialResult, TunedArm, TuningResult
from harness.report import style
from harness.report.cells import to_csv
from harness.report.figures import NARROW, WIDE, both_widths
from harness.report.markup import Safe, details, element, table
from harness.report.svg import Axis, dot, fitted, label, line, path, svg, tick_labels, visible

MOST_SIZES = 6  # numbers of trials shown in a table
APART = 17.0  # pixels between the names at the ends of curves


def sizes(number: int, most: int = MOST_SIZES) -> list[int]:
    """Numbers of trials worth a column: doublings, and all.

    >>> sizes(12), sizes(12, 2), sizes(1)
    ([1, 2, 4, 8, 12], [1, 12], [1])
    """
    doubled = [2**i for i in range(number.bit_length()) if 2**i < number]
    return [*doubled[: most - 1], number]


def settings(given: Mapping[str, Any]) -> str:
    """Settings as one would type them."""
    return " ".join(f"{key}={value}" for key, value in given.items())


def chosen(arm: TunedArm) -> str:
    """The chosen settings by the ends of their keys; their ranges where every seed has its own."""
    picked = [arm.trials[number].settings for number in arm.chosen]
    if not picked:
        return style.NOTHING
    short = {key: key.rpartition(".")[2] for key in picked[0]}
    if len(set(short.values())) < len(short):
        short = {key: key for key in short}
    return settings({short[key]: _range([one[key] for one in picked]) for key in short})


def _range(values: Sequence[Any]) -> str:
    different = list(dict.fromkeys(values))
    if len(different) == 1:
        return f"{different[0]}"
    if all(isinstance(value, int | float) for value in different):
        return f"{min(different)}..{max(different)}"
    return "|".join(str(value) for value in different)


def name(tuning: TuningResult, arm: TunedArm) -> str:
    """The arm's name, after its task's where there are several."""
    several = len({other.task for other in tuning.arms}) > 1
    return f"{arm.task} / {arm.arm}" if several else arm.arm


def summary(tuning: TuningResult) -> str:
    """What was done for every arm, and what it cost in all."""
    runs = sum(len(trial.ids) for arm in tuning.arms for trial in arm.trials)
    spent = sum(arm.seconds for arm in tuning.arms)
    return (
        f"{tuning.number} trials per arm by {tuning.metric} ({tuning.direction} is better), {runs} "
        f"runs in all, {style.seconds(spent)} s; best of n: the expected best of n of them."
    )


def head(tuning: TuningResult, most: int = MOST_SIZES) -> list[str]:
    """The columns of the table of arms."""
    return [
        "arm",
        *(f"best of {n}" for n in sizes(tuning.number, most)),
        "failed",
        "seconds",
        "chosen",
    ]


def rows(tuning: TuningResult, most: int = MOST_SIZES) -> list[list[str]]:
    """One row per arm, in the order of `head`."""
    known = [value for arm in tuning.arms for value in arm.best_of if value is not None]
    places = style.decimals(known)
    found = []
    for arm in tuning.arms:
        values = [*arm.best_of, *[None] * tuning.number]
        found.append(
            [
                style.clean(name(tuning, arm)),
                *(style.number(values[n - 1], places) for n in sizes(tuning.number, most)),
                f"{sum(trial.failed for trial in arm.trials)}",
                style.seconds(arm.seconds),
                style.clean(chosen(arm)),
            ]
        )
    return found


def trials_csv(tuning: TuningResult) -> str:
    """One row per trial; settings under their config keys."""
    keys = dict.fromkeys(key for a in tuning.arms for t in a.trials for key in t.settings)
    columns = ["task", "arm", "trial", *keys, tuning.metric, "seconds", "chosen", "runs"]
    rows = []
    for arm in tuning.arms:
        for trial in arm.trials:
            facts = {"task": arm.task, "arm": arm.arm, "trial": trial.number, **trial.settings}
            facts |= {tuning.metric: trial.value, "seconds": trial.seconds}
            picked = arm.chosen.count(trial.number)
            rows.append({**facts, "chosen": picked, "runs": " ".join(trial.ids)})
    return to_csv(columns, rows)


def section(comparison: Comparison) -> list[Safe]:
    """The part of the page on tuning; nothing where nothing was tuned."""
    tuning = comparison.tuning
    if tuning is None:
        return []
    names = head(tuning)
    names = [names[0], names[-1], *names[1:-1]]
    plain = [[row[0], element("code", row[-1]), *row[1:-1]] for row in rows(tuning)]
    drawn = []
    for task in dict.fromkeys(arm.task for arm in tuning.arms):
        arms = [arm for arm in tuning.arms if arm.task == task and any(_points(arm))]
        if arms:
            drawn.append(element("figure", both_widths(partial(best_of, comparison, tuning, arms))))
    text = (
        f"Expected {tuning.metric} of the best of n trials, n from 1 to {tuning.number}: an arm "
        "that still climbs at the right would gain from more trials."
    )
    return [
        element("p", element("strong", style.variance(comparison)), class_="note"),
        element("p", summary(tuning), class_="soft"),
        table(names, plain, caption="Chosen values and cost", class_="whole"),
        *([element("p", text, class_="soft"), *drawn] if drawn else []),
        *(_trials(tuning, arm) for arm in tuning.arms),
    ]


def _trials(tuning: TuningResult, arm: TunedArm) -> Safe:
    """Every trial of an arm, the chosen ones marked."""
    places = style.decimals([t.value for t in arm.trials if t.value is not None])
    found = [
        [
            element("span", f"{trial.number}", class_="strong" if picked else None),
            element("code", settings(trial.settings)),
            "failed" if trial.failed else style.number(trial.value, places),
            style.seconds(trial.seconds),
            _picked(arm, trial),
            element("code", ", ".join(trial.ids)),
        ]
        for trial in arm.trials
        for picked in [trial.number in arm.chosen]
    ]
    names = ("trial", "settings", tuning.metric, "seconds", "chosen", "runs")
    words = f"{name(tuning, arm)}: {len(arm.trials)} trials, {style.seconds(arm.seconds)} s"
    return details(words, table(names, found, numeric=False, class_="whole"))


def _picked(arm: TunedArm, trial: TrialResult) -> str:
    times = arm.chosen.count(trial.number)
    if len(arm.chosen) < 2:
        return "✓ chosen" if times else ""
    return f"✓ for {times} seed{'s' if times > 1 else ''}" if times else ""


def _points(arm: TunedArm) -> list[tuple[int, float]]:
    return [(n, value) for n, value in enumerate(arm.best_of, 1) if value is not None]


def best_of(
    comparison: Comparison, tuning: TuningResult, arms: Sequence[TunedArm], width: int
) -> Safe:
    """What the best of n trials is worth, one curve per arm with its name at its end."""
    curves = [(arm, _points(arm)) for arm in arms]
    ends = sorted(points[-1][1] for _, points in curves)
    low, high = visible([[v for _, v in p] for _, p in curves], centre=ends[len(ends) // 2])
    bottom = max(220.0, APART * len(arms) + 20)
    room = 240 if width == WIDE else 132
    y = Axis(low, high, bottom - 8, 12)
    x = Axis(1, max(tuning.number, 2), 64, width - room)
    ticks = y.ticks(5)
    shapes = [line(x.start, y(value), x.end, y(value), "grid") for value in ticks]
    for value, words in zip(ticks, tick_labels(ticks), strict=True):
        shapes.append(label(58, y(value) + 4, words, anchor="end", class_="t soft"))
    for n in sizes(tuning.number)[-3 if width == NARROW else -MOST_SIZES :]:
        shapes.append(label(x(n), bottom + 14, f"{n}", anchor="middle", class_="t soft"))
    shapes.append(label(x.start, bottom + 32, "trials", class_="t soft"))
    heights = spread_out([y(points[-1][1]) for _, points in curves], bottom - 8)
    places = style.decimals(ends)
    for (arm, points), at in zip(curves, heights, strict=True):
        dashed = " dashed" if arm.arm == comparison.baseline else ""
        shapes.append(path([(x(n), y(v)) for n, v in points], f"curve{dashed}"))
        shapes += [dot(x(n), y(v), 2, "point") for n, v in points if not y.side(v)]
        shapes.append(line(x(points[-1][0]) + 3, y(points[-1][1]), x.end + 16, at, "grid"))
        last = style.number(points[-1][1], places)
        words = fitted(arm.arm, room - 24 - 8 * len(last))
        shapes.append(label(x.end + 19, at + 4, f"{words} {last}", class_="t small"))
    title = f"Best of n trials on {arms[0].task}, the baseline dashed"
    desc = "; ".join(f"{arm.arm}: {style.number(p[-1][1], places)}" for arm, p in curves)
    return svg(title, desc, width, bottom + 40, *shapes)


def spread_out(heights: Sequence[float], lowest: float) -> list[float]:
    """Heights moved apart until a line of text fits between each two, none below `lowest`.

    >>> spread_out([10, 12, 100], 100)
    [10, 27.0, 100]
    """
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    placed = list(heights)
    for before, i in zip([None, *order], order, strict=False):
        if before is not None:
            placed[i] = max(placed[i], placed[before] + APART)
    limit = lowest
    for i in reversed(order):
        placed[i] = min(placed[i], limit)
        limit = placed[i] - APART
    return placed
