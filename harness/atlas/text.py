"""The atlas as text: a table for the terminal, Markdown, and JSON."""

import dataclasses
import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.report import style
from harness.report.exports import escape_markdown
from harness.store import dump_json

if TYPE_CHECKING:
    from losses.atlas import Portrait
    from losses.atlas.claims import Contrast, Entry

MADE_BY = "made by lossbench atlas"
VERSION = 1
WIDTH = 100
GROUPS = {
    "real": "Real numbers",
    "index": "Classes",
    "index or probabilities": "Classes",
    "probabilities": "Classes",
    "binary": "Yes or no",
    "ordinal": "Ordered classes",
    "place": "Places between bins",
    "binary (region)": "Regions, as masks",
    "index (region)": "Regions, as classes",
    "boxes": "Boxes",
    "labels": "Embeddings with labels",
    "fields": "Named fields",
}
"""Headings of the kinds of targets, in order; a kind that is not named here has its own name."""
SHORT = {"saturates": "satur.", "at target": "target", "symmetric": "symm."}
LEGEND = """\
✔ has the property, ✘ has not, – does not apply; the number is what was measured, e-4 is 10^-4.
robust: pull of a mistake of 1000 against an ordinary one's, bounded or not. smooth: largest jump of
the gradient. convex: least curvature. satur.: gradient where wrong by 50. scale: exponent of size,
or its range. bounded: largest value, or exponent of growth. target: gradient at the target. symm.:
largest change when two things trade places. proper: how far the least expected loss is from the
labels' probability, or what it is of a distribution of numbers. The page has the words to each."""


def grouped(portraits: "Sequence[Portrait]") -> "dict[str, list[Portrait]]":
    """The portraits under the headings of their kinds of targets."""
    found: dict[str, list[Portrait]] = {}
    for heading in dict.fromkeys(GROUPS.values()):
        found[heading] = [p for p in portraits if GROUPS.get(p.target) == heading]
    for portrait in portraits:
        if portrait.target not in GROUPS:
            found.setdefault(portrait.target, []).append(portrait)
    return {heading: group for heading, group in found.items() if group}


def properties() -> dict[str, str]:
    """What each column measures, in the words of the function that does."""
    from losses.atlas import PROPERTIES

    return {name: " ".join((inspect.getdoc(f) or "").split()) for name, f in PROPERTIES.items()}


def terminal(portraits: "Sequence[Portrait]", entries: "Sequence[Entry]") -> str:
    """The measured table and, if any, the notes' table, at most 100 columns wide."""
    blocks = [_table(heading, group) for heading, group in grouped(portraits).items()]
    if portraits:
        blocks.append(LEGEND)
    if entries:
        blocks.append(_notes(entries))
    return "\n\n".join(blocks)


def _table(heading: str, group: "Sequence[Portrait]") -> str:
    titles = list(group[0].findings)
    rows = [[style.clean(p.findings[title].cell) for title in titles] for p in group]
    head = [SHORT.get(title, title) for title in titles]
    sizes = [max(map(style.columns, column)) for column in zip(head, *rows, strict=True)]
    room = max(8, WIDTH - sum(sizes) - 2 * len(sizes))
    names = [style.shortened(style.clean(p.title), room) for p in group]
    width = max(style.columns(name) for name in [heading, *names])
    lines = [_row(heading, width, head, sizes)]
    lines += [_row(name, width, row, sizes) for name, row in zip(names, rows, strict=True)]
    return "\n".join(lines)


def _row(name: str, width: int, cells: Sequence[str], sizes: Sequence[int]) -> str:
    padded = [cell + " " * (n - style.columns(cell)) for cell, n in zip(cells, sizes, strict=True)]
    return "  ".join([name + " " * (width - style.columns(name)), *padded]).rstrip()


def _notes(entries: "Sequence[Entry]") -> str:
    """The notes' table: their mark, equal or not, and the measured mark with its number."""
    lines = ["The notes' table, D: their mark, = or ≠, the measured one and its number"]
    rows = [["", *dict.fromkeys(entry.column for entry in entries)]]
    for loss in dict.fromkeys(entry.loss for entry in entries):
        rows.append([loss, *(_compared(entry) for entry in entries if entry.loss == loss)])
    sizes = [max(map(style.columns, column)) for column in zip(*rows, strict=True)]
    lines += [_row(row[0], sizes[0], row[1:], sizes[1:]) for row in rows]
    agreeing = sum(entry.verdict == "agrees" for entry in entries)
    return "\n".join([*lines, f"{agreeing} of {len(entries)} entries agree."])


def _compared(entry: "Entry") -> str:
    said = "✔" if entry.said else "✘"
    sign = "=" if entry.verdict == "agrees" else "≠"
    return style.shortened(f"{said} {sign} {entry.finding.cell}", 24)


def to_markdown(portraits: "Sequence[Portrait]", notes: str) -> str:
    """The notes' table beside the measured one, then every loss's numbers."""
    parts = [f"<!-- {MADE_BY} -->", "# Atlas of losses", "## The notes' table against measurement"]
    parts += [notes, "## What is measured"]
    parts.append("\n".join(f"- **{name}**: {text}" for name, text in properties().items()))
    for heading, group in grouped(portraits).items():
        titles = list(group[0].findings)
        rows = [["loss", *titles, "along"], ["---"] * (len(titles) + 2)]
        for portrait in group:
            cells = [portrait.title, *(portrait.findings[t].cell for t in titles)]
            rows.append([escape_markdown(cell) for cell in [*cells, portrait.coordinate]])
        lines = ["| " + " | ".join(row) + " |" for row in rows]
        parts += [f"## {escape_markdown(heading)}", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def to_json(
    portraits: "Sequence[Portrait]", entries: "Sequence[Entry]", contrasts: "Sequence[Contrast]"
) -> str:
    """Everything that was measured; NaN and infinities as null."""
    content: dict[str, Any] = {
        "about": MADE_BY,
        "version": VERSION,
        "properties": properties(),
        "losses": [_plain(portrait) for portrait in portraits],
        "notes": [dataclasses.asdict(entry) | {"verdict": entry.verdict} for entry in entries],
        "contrasts": [dataclasses.asdict(contrast) for contrast in contrasts],
    }
    return dump_json(content)


def _plain(portrait: "Portrait") -> dict[str, Any]:
    content = dataclasses.asdict(portrait)
    content["curve"] = dict(zip(("x", "loss", "gradient"), portrait.curve, strict=True))
    return content
