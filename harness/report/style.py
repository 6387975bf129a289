"""The look of every rendering in one place: how text, numbers and verdicts are written."""

import math
import unicodedata
from collections.abc import Iterable

from harness.comparison import ArmResult, Comparison, Spread, TaskResult, Verdict
from harness.shown import clean as clean
from harness.shown import printable as printable

NOTHING = "–"
MOST_DECIMALS = 8
UNTAUGHT = "has learnt nothing"
SYMBOLS: dict[Verdict, str] = {
    "better": "▲",
    "worse": "▼",
    "no practical difference": "■",
    "not enough evidence": "●",
    "identical": "◆",
    "baseline": "◆",
    "no baseline": "○",
    "no result": "✕",
    "pending": "○",
}
"""A shape per verdict, so that none is told by colour alone."""


def decimals(values: Iterable[float], widths: Iterable[float] = ()) -> int:
    """Decimals for a column: two digits of the smallest width, or four of the typical value.

    Args:
        values: what the column shows.
        widths: half widths of intervals, or spreads, that the reader must be able to tell from 0.
    """
    sizes = sorted(abs(value) for value in values if value and math.isfinite(value))
    typical = math.floor(math.log10(sizes[len(sizes) // 2])) if sizes else 0
    plain = min(4, max(0, 3 - typical)) if typical >= -1 else 3 - typical
    known = [width for width in widths if width and math.isfinite(width)]
    if known:
        plain = min(1 - math.floor(math.log10(min(known))), plain + 2)
    return min(MOST_DECIMALS, max(0, plain))


def number(value: float | None, places: int, *, sign: bool = False) -> str:
    """A number with fixed decimals, never "-0.0"; in powers of ten where they cannot hold it.

    >>> number(-0.00001, 4, sign=True), number(1.5e9, 2), number(None, 2)
    ('+0.0000', '1.50e+09', '–')
    """
    if value is None:
        return NOTHING
    tiny = places == MOST_DECIMALS and 0 < abs(value) < 0.5 * 10.0**-places
    if abs(value) >= 1e7 or tiny:
        return f"{value:{'+' if sign else ''}.2e}"
    rounded = round(value, places) + 0.0  # adding 0.0 turns -0.0 into 0.0
    return f"{rounded:{'+' if sign else ''}.{places}f}"


def interval(low: float | None, high: float | None, places: int) -> str:
    """An interval with signs, or a dash."""
    if low is None or high is None:
        return NOTHING
    return f"[{number(low, places, sign=True)}, {number(high, places, sign=True)}]"


def p_value(p: float | None) -> str:
    """Three decimals, one more where they would hide on which side of 5% it lies.

    >>> p_value(0.0004), p_value(0.0496), p_value(0.0504), p_value(0.2)
    ('<0.001', '0.0496', '0.0504', '0.200')
    """
    if p is None:
        return NOTHING
    if p < 0.001:
        return "<0.001"
    return f"{p:.4f}" if 0.0495 <= p < 0.0505 and p != 0.05 else f"{p:.3f}"


def count(done: int, planned: int) -> str:
    """How many of the planned runs are done, short where all are."""
    return f"{done}" if done == planned else f"{done} of {planned}"


def amount(value: float | None) -> str:
    """A count, or a mean of counts, with thousands separated."""
    return NOTHING if value is None else f"{value:,.0f}"


def seconds(value: float | None) -> str:
    """A duration with about three digits.

    >>> seconds(0.01234), seconds(2.0), seconds(54.32), seconds(12345.6)
    ('0.012', '2.00', '54.3', '12,346')
    """
    if value is None:
        return NOTHING
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2 if value >= 0.1 else 3}f}"


def memory(bytes_: float | None) -> str:
    """Bytes as mebibytes."""
    return NOTHING if bytes_ is None else f"{bytes_ / 2**20:,.0f} MiB"


def task_decimals(task: TaskResult) -> int:
    """Decimals for means, differences and intervals of one task."""
    contrasts = [result.contrast for result in task.arms if result.contrast]
    halves = [(c.high - c.low) / 2 for c in contrasts if c.low is not None and c.high is not None]
    return decimals([r.mean for r in task.arms if r.mean is not None], halves)


def heading(comparison: Comparison) -> str:
    """What the numbers are, in one line: metric, direction, baseline, seeds, comparisons."""
    plural = "" if comparison.comparisons == 1 else "s"
    seeds = f"{len(comparison.seeds)} seed{'' if len(comparison.seeds) == 1 else 's'}"
    return clean(
        f"{comparison.metric} ({comparison.direction} is better), baseline {comparison.baseline}, "
        f"{seeds}, {comparison.comparisons} comparison{plural}"
    )


def references(comparison: Comparison, task: TaskResult) -> list[tuple[str, Spread]]:
    """What has learnt nothing, and its headline metric."""
    found = ((clean(name), known.get(comparison.metric)) for name, known in task.references.items())
    return [(name, spread) for name, spread in found if spread]


def variance(comparison: Comparison) -> str:
    """Which variance the intervals hold."""
    tuning = comparison.tuning
    if tuning and tuning.anew:
        return "The interval holds the variance of new seeds and of tuning anew for each."
    chosen = " at the chosen settings" if tuning else ""
    return f"The interval holds the variance of new seeds{chosen}, not that of tuning anew."


def footnotes(comparison: Comparison) -> list[str]:
    """How to read the table, as far as it needs saying."""
    diff = "diff: mean paired difference to the baseline on the seeds both have"
    if comparison.pending:
        return [f"{diff}; intervals, p values and verdicts wait for the last run."]
    number = comparison.comparisons
    family = f"Holm over all {number} comparisons" if number != 1 else "the only comparison"
    lines = [
        f"{diff}; 95% Student t interval over seeds, each by itself; p: paired t, {family} of the "
        "sweep.",
        variance(comparison),
        "Best: every run is done and it is not significantly worse than the best mean.",
    ]
    if comparison.margin is not None:
        lines.append(
            f"No practical difference: two one-sided tests put it within ±{comparison.margin:g}."
        )
    if any(task.controls for task in comparison.tasks):
        lines.append("Controls: p of a t test of their own, none of the comparisons above.")
    if any(references(comparison, task) for task in comparison.tasks):
        lines.append(f"{UNTAUGHT}: measured the same way, for the rows above to be held against.")
    if any(disagrees(result) for _, result in comparison.results()):
        lines.append("†: the exact sign-flip test falls on the other side of 5% than the t test.")
    return lines


def disagrees(result: ArmResult) -> bool:
    """Whether the sign-flip test contradicts the t test on this arm."""
    return result.contrast is not None and result.contrast.disagrees


def marked(result: ArmResult) -> str:
    """The verdict in words, with a dagger where the sign-flip test disagrees."""
    return clean(result.text) + (" †" if disagrees(result) else "")


def tone(verdict: Verdict) -> str:
    """The colour class of a verdict."""
    return verdict if verdict in ("better", "worse") else "none"


def columns(text: str) -> int:
    """Columns a text takes where every character takes one, or two in East Asian scripts."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def shortened(text: str, width: int) -> str:
    """The text cut in its middle to a number of columns: names of arms differ at their ends.

    >>> shortened("elastic_net:weight=0.001", 16)
    'elastic…ht=0.001'
    """
    if columns(text) <= width:
        return text
    head, tail = text[: len(text) // 2][:width], text[len(text) // 2 :][-width:]
    while columns(head) + columns(tail) > width - 1:
        if columns(head) >= columns(tail):
            head = head[:-1]
        else:
            tail = tail[1:]
    return f"{head}…{tail}"
