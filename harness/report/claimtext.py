"""Verdicts on claims as text: terminal, Markdown and JSON. Needs no torch."""

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from harness.claims.claim import ContrastResult, Outcome, Verdict
from harness.outlook import many
from harness.report import style
from harness.report.exports import escape_markdown
from harness.store import dump_json

TITLE = "The textbook, tested"
WORDS: tuple[Verdict, ...] = ("SUPPORTED", "CONTRADICTED", "NOT ENOUGH EVIDENCE", "PENDING")
SYMBOLS: dict[Verdict, str] = {
    "SUPPORTED": "✔",
    "CONTRADICTED": "✘",
    "NOT ENOUGH EVIDENCE": "●",
    "PENDING": "○",
}
COLOURS: dict[Verdict, str] = {"SUPPORTED": "32", "CONTRADICTED": "31"}
HEAD = ("claim", "verdict, effect and 95% interval", "p (Holm)", "seeds", "seconds")
WIDTH = 100  # columns of the terminal's table, if names can give way
MOST = 5  # decimals
SHORTEST = 16  # columns of a name
LEGEND = (
    "effect: mean paired difference, arm minus the one it is held against; 95% Student t interval "
    "over seeds. A contrast is supported where the interval lies on the claim's side of its "
    "margin, contradicted where it lies on the other, and not decided where it holds the margin. "
    "p: of the same t test against the margin, Holm over the claim's contrasts; above 0.05 nothing "
    "is decided. A run that diverged is lost: it is worse than any that did not, and where one was "
    "lost an exact sign test over the seeds decides. One that failed leaves its contrast undecided."
)


def places(tested: ContrastResult) -> int:
    """Decimals for the effect and interval of a contrast."""
    known = tested.low is not None and tested.high is not None
    half = [(tested.high - tested.low) / 2] if known else []  # type: ignore[operator]
    return min(MOST, style.decimals([tested.mean] if tested.mean is not None else [], half))


def effect(tested: ContrastResult) -> str:
    """The mean difference, or why there is none."""
    if tested.mean is None and tested.differences:
        lost = sum(not math.isfinite(value) for value in tested.differences)
        return f"{lost} lost"
    return style.number(tested.mean, places(tested), sign=True)


def interval(tested: ContrastResult) -> str:
    """The 95% interval of the mean difference."""
    return style.interval(tested.low, tested.high, places(tested))


def numbers(tested: ContrastResult) -> str:
    """The mean difference, and its interval where there is one."""
    return effect(tested) if tested.low is None else f"{effect(tested)} {interval(tested)}"


def summary(outcomes: Sequence[Outcome]) -> str:
    """How many claims came out how, and what it cost."""
    counts = Counter(outcome.verdict for outcome in outcomes)
    parts = [f"{counts[word]} {word.lower()}" for word in WORDS if counts[word]]
    plural = "" if len(outcomes) == 1 else "s"
    return f"{len(outcomes)} claim{plural}: {', '.join(parts)}"


def seconds(outcomes: Sequence[Outcome]) -> float:
    """What all runs took, those that several claims share once."""
    found: dict[str, float] = {}
    for outcome in outcomes:
        found |= outcome.seconds_by_run
    return sum(found.values())


def terminal(outcomes: Sequence[Outcome], *, color: bool = False) -> str:
    """A line per claim with its verdict and cost, below it one per contrast; then alarms."""
    rows = [row for outcome in outcomes for row in _rows(outcome)]
    shown = [HEAD, *(cells for _, cells in rows)]
    sizes = [max(style.columns(cells[i]) for cells in shown) for i in range(len(HEAD))]
    sizes[0] = min(sizes[0], max(SHORTEST, WIDTH - sum(sizes[1:]) - 2 * len(sizes[1:])))
    lines = [_line(HEAD, sizes)]
    for verdict, cells in rows:
        line = _line(cells, sizes)
        painted = color and verdict in COLOURS
        lines.append(f"\x1b[{COLOURS[verdict]}m{line}\x1b[0m" if painted else line)
    total = f"{summary(outcomes)}; {style.seconds(seconds(outcomes))} s of training in all"
    told = [
        f"{note.level:<10}{style.clean(f'{outcome.claim.name}: {note.text}')}"
        for outcome in outcomes
        for note in outcome.notes
        if note.level == "alarm"
    ]
    beside = sum(note.level == "warning" for outcome in outcomes for note in outcome.notes)
    if beside:
        told.append(f"{many(beside, 'warning')} beside, told by the page that --report writes")
    return "\n".join([*lines, "", total, *told]) + "\n"


def _rows(outcome: Outcome) -> list[tuple[Verdict, tuple[str, ...]]]:
    """What `HEAD` names, of the claim and then of each of its contrasts."""
    name, cost = style.clean(outcome.claim.name), style.seconds(outcome.seconds)
    first: tuple[str, ...] = (name, outcome.verdict, "", f"{outcome.seeds}", cost)
    rows = [(outcome.verdict, first)]
    tasks = {tested.contrast.task for tested in outcome.results}
    for tested in outcome.results:
        contrast = tested.contrast
        where = f", {contrast.task}" if len(tasks) > 1 else ""
        label = style.clean(f"{contrast.arm} - {contrast.against}, {contrast.metric}{where}")
        found = f"{SYMBOLS[tested.verdict]} {numbers(tested)}"
        rows.append((tested.verdict, (f"  {label}", found, _p(tested), "", "")))
    return rows


def _p(tested: ContrastResult) -> str:
    return "" if tested.p_holm is None else style.p_value(tested.p_holm)


def _line(cells: Sequence[str], sizes: Sequence[int]) -> str:
    name = style.shortened(cells[0], sizes[0])
    parts = [name + " " * (sizes[0] - style.columns(name)), cells[1].ljust(sizes[1])]
    parts += [cell.rjust(size) for cell, size in zip(cells[2:], sizes[2:], strict=True)]
    return "  ".join(parts).rstrip()


def to_json(outcomes: Sequence[Outcome]) -> str:
    """Everything that is known about the claims; infinite differences as null."""
    return dump_json({"version": 1, "claims": [_plain(outcome) for outcome in outcomes]})


def _plain(outcome: Outcome) -> dict[str, Any]:
    whole = dataclasses.asdict(outcome)
    claim = whole.pop("claim")
    said = {key: claim[key] for key in ("name", "claim", "notes", "supports", "contradicts")}
    return {**said, "outcome": claim["outcome"], **whole}


def table(outcomes: Sequence[Outcome]) -> str:
    """A Markdown table, a row per contrast; the claim's own verdict stands in its first."""
    head = ("claim", "verdict", "contrast", "effect", "95% interval", "seeds", "seconds")
    rows = [f"| {' | '.join(head)} |", "|---|---|---|---:|:---:|---:|---:|"]
    for outcome in outcomes:
        for i, tested in enumerate(outcome.results):
            name, words = escape_markdown(outcome.claim.name), escape_markdown(outcome.claim.claim)
            many = f" {SYMBOLS[tested.verdict]}" if len(outcome.results) > 1 else ""
            first = [f"{words} (`{name}`)".replace("\\_", "_"), f"**{outcome.verdict.lower()}**"]
            last = [f"{outcome.seeds}", style.seconds(outcome.seconds)]
            cells = [
                *(["", ""] if i else first),
                escape_markdown(tested.contrast.words) + many,
                escape_markdown(effect(tested)),
                escape_markdown(interval(tested)),
                *(["", ""] if i else last),
            ]
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def to_markdown(outcomes: Sequence[Outcome]) -> str:
    """The page as Markdown: the table, then every claim with its words."""
    parts = [
        f"# {TITLE}",
        escape_markdown(summary(outcomes)) + ".",
        table(outcomes).strip(),
        LEGEND,
    ]
    for outcome in outcomes:
        claim = outcome.claim
        parts.append(f"## {SYMBOLS[outcome.verdict]} {escape_markdown(claim.claim)}")
        said = {
            "Verdict": outcome.verdict.lower(),
            "Stands in the notes": claim.notes,
            "For it": claim.supports,
            "Against it": claim.contradicts,
            "What came out": claim.outcome,
        }
        parts += [f"**{key}**: {escape_markdown(text)}" for key, text in said.items() if text]
        lines = [f"{t.contrast.words}: {numbers(t)}, {t.text}" for t in outcome.results]
        parts.append("\n".join(f"- {escape_markdown(line)}" for line in lines))
        parts += [f"> **{note.level}**: {escape_markdown(note.text)}" for note in outcome.notes]
        parts.append(f"Again: <code>{escape_markdown(outcome.command)}</code>")
    return "\n\n".join(parts) + "\n"
