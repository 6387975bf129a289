"""A comparison rendered: terminal, CSV, Markdown, LaTeX, JSON and one HTML page. Needs no torch."""

from collections.abc import Mapping
from pathlib import Path

from harness.compare import compare
from harness.plan import Plan
from harness.record import Record
from harness.report.answers import answers
from harness.report.exports import to_csv, to_json, to_latex, to_markdown
from harness.report.html import to_html
from harness.report.several import write_several
from harness.report.terminal import terminal
from harness.report.tuning import trials_csv
from harness.store import Store, write_atomically

__all__ = [
    "answers",
    "terminal",
    "to_csv",
    "to_html",
    "to_json",
    "to_latex",
    "to_markdown",
    "write_report",
    "write_several",
]


def write_report(
    plan: Plan,
    records: Mapping[str, Record],
    folder: Path | str,
    store: Store | None = None,
    against: str | None = None,
) -> Path:
    """Compare and write every rendering, each file at once or not at all.

    Args:
        plan: the sweep.
        records: records by run id, complete or not.
        store: where runs keep what they predicted, to be shown on the page.
        against: the metric to show against the headline's, instead of one chosen by rule.
        folder: where report.html, report.json and comparison.csv, .md and .tex go, and of a tuned
            sweep trials.csv.

    Returns:
        The path of report.html, written last.

    Raises:
        StoreError: a file cannot be written.
        ValueError: the plan does not say which way its metric, or that one, is better.
    """
    comparison = compare(plan, records, against)
    texts = {
        "comparison.csv": to_csv(comparison),
        "comparison.md": to_markdown(comparison),
        "comparison.tex": to_latex(comparison),
        **({"trials.csv": trials_csv(comparison.tuning)} if comparison.tuning else {}),
        "report.json": to_json(comparison),
        "report.html": to_html(comparison, answers(plan, records, store) if store else ()),
    }
    page = Path(folder)
    for name, text in texts.items():
        page = Path(folder) / name
        write_atomically(page, text.encode("utf-8", "replace").decode("utf-8"))
    return page
