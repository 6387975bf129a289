"""Several sweeps on one page: what each came to, and below it all of them."""

import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path

from harness.comparison import VERSION, Comparison
from harness.report import cells, exports, style
from harness.report.html import content, document, progress
from harness.report.markup import Safe, element, table
from harness.store import dump_json, write_atomically

HEAD = ("sweep", "question", "what came out", "warnings", "runs")
Part = tuple[Comparison, Sequence[Safe]]  # with pictures of what its runs answered


def write_several(parts: Sequence[Part], folder: Path | str) -> Path:
    """Write every rendering of several comparisons, each file at once or not at all.

    Returns:
        The path of report.html, written last.

    Raises:
        StoreError: a file cannot be written.
    """
    comparisons = [comparison for comparison, _ in parts]
    texts = {
        "comparison.csv": to_csv(comparisons),
        "comparison.md": to_markdown(comparisons),
        "comparison.tex": "\n".join(map(exports.to_latex, comparisons)),
        "report.json": to_json(comparisons),
        "report.html": to_html(parts),
    }
    page = Path(folder)
    for name, text in texts.items():
        page = Path(folder) / name
        write_atomically(page, text.encode("utf-8", "replace").decode("utf-8"))
    return page


def row(comparison: Comparison) -> list[str]:
    """A sweep in the table of sweeps, in the order of `HEAD`."""
    serious = sum(note.level != "note" for note in comparison.notes)
    done = style.count(comparison.done, comparison.planned)
    return [comparison.name, comparison.question, comparison.sentence, f"{serious}", done]


def title(comparisons: Sequence[Comparison]) -> str:
    """What the page is called."""
    return f"{len(comparisons)} sweeps: {', '.join(one.name for one in comparisons)}"


def to_html(parts: Sequence[Part]) -> str:
    """One document: the table of sweeps, then everything about each of them."""
    comparisons = [comparison for comparison, _ in parts]
    rows = [
        [element("a", one.name, href=f"#sweep-{i}"), *row(one)[1:]]
        for i, one in enumerate(comparisons, 1)
    ]
    overview = table(HEAD, rows, numeric=False, class_="sweeps")
    header = element("header", element("h1", title(comparisons)), overview)
    articles = [_article(i, *part) for i, part in enumerate(parts, 1)]
    return document(title(comparisons), header, element("main", *articles))


def _article(number: int, comparison: Comparison, answers: Sequence[Safe]) -> Safe:
    """All of one sweep, its headings a level lower than on a page of its own."""
    head = [
        element("h2", comparison.question or comparison.name),
        element("p", comparison.sentence, class_="lead"),
        element("p", element("code", comparison.name), ": ", progress(comparison), class_="soft"),
    ]
    parts = map(lowered, content(comparison, answers))
    back = element("p", element("a", "to the table of sweeps", href="#"), class_="soft")
    return element("article", *head, *parts, back, id=f"sweep-{number}")


def lowered(markup: Safe) -> Safe:
    """Markup with h2 for h3 and so on; text holds no tags, for it is escaped.

    >>> lowered(element("h2", "a < b"))
    '<h3>a &lt; b</h3>'
    """
    return Safe(re.sub(r"(</?h)([2-5])(?=[ >])", lambda m: f"{m[1]}{int(m[2]) + 1}", markup))


def to_markdown(comparisons: Sequence[Comparison]) -> str:
    """The table of sweeps, then each of them."""
    escape = exports.escape_markdown
    lines = [f"| {' | '.join(HEAD)} |", "|---|---|---|---:|---:|"]
    for one in comparisons:
        lines.append(f"| {' | '.join(map(escape, row(one)))} |")
    parts = [f"# {escape(title(comparisons))}", "\n".join(lines)]
    return "\n\n".join([*parts, *(exports.to_markdown(one).strip() for one in comparisons)]) + "\n"


def to_csv(comparisons: Sequence[Comparison]) -> str:
    """The rows of every sweep under its name; cells of columns it has not are empty."""
    rows = [
        {"sweep": one.name, **row}
        for one in comparisons
        for row in csv.DictReader(io.StringIO(exports.to_csv(one)))
    ]
    return cells.to_csv(list(dict.fromkeys(key for row in rows for key in row)), rows)


def to_json(comparisons: Sequence[Comparison]) -> str:
    """Everything each comparison holds."""
    sweeps = [json.loads(exports.to_json(one)) for one in comparisons]
    return dump_json({"version": VERSION, "sweeps": sweeps})
