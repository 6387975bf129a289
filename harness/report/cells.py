"""Rows as CSV that a spreadsheet shows and does not compute."""

import contextlib
import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness.shown import printable

FORMULA = ("=", "+", "-", "@")
"""What a spreadsheet takes for the beginning of a formula."""


def to_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """A header and a row each; text that would be a formula gets an apostrophe before it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(_cell, columns))
    writer.writerows([_cell(row.get(column, "")) for column in columns] for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    """Numbers as they are, of text the visible part.

    >>> _cell("=1+1"), _cell("-0.5"), _cell(-0.5), _cell("arm\\x1b")
    ("'=1+1", '-0.5', -0.5, 'arm�')
    """
    if not isinstance(value, str):
        return value
    with contextlib.suppress(ValueError):
        float(value)
        return value
    text = printable(value.replace("\n", " "))
    return f"'{text}" if text.lstrip("\ufeff \u00a0").startswith(FORMULA) else text
