"""A CSV file of the user's own, read strictly: nothing is guessed about a cell."""

import csv
import dataclasses
import functools
import hashlib
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from harness.data.base import Kind, Raw, dataset
from harness.data.split import Array, Order, contiguous_split
from losses.arguments import nearest

MISSING = {"", "na", "n/a", "nan", "null", "none", "?"}
DELIMITERS = ",;\t|"


@dataclass(frozen=True)
class Table:
    """A file's cells by column; `rows` are row numbers as a spreadsheet counts, the header is 1."""

    name: str
    columns: dict[str, list[str]]
    rows: list[int]

    def where(self, column: str, item: int) -> str:
        """The place of a cell, to begin a message with."""
        return f"{self.name}, row {self.rows[item]}, column '{column}'"

    def cells(self, column: str) -> list[str]:
        """The column's texts, none of them missing."""
        for item, cell in enumerate(self.columns[column]):
            if cell.lower() in MISSING:
                raise ValueError(
                    f"{self.where(column, item)}: the value is missing ({cell!r}); "
                    f"fill it in, remove the row, drop the column, or set data.bad=skip"
                )
        return self.columns[column]

    def numbers(self, column: str, advice: str = "") -> Array:
        """The column as float64 [N]."""
        result = np.empty(len(self.rows))
        for item, cell in enumerate(self.cells(column)):
            number = _number(cell)
            if number is None:
                raise ValueError(
                    f"{self.where(column, item)}: {cell!r} is no finite number{advice}"
                )
            result[item] = number
        return result


@dataset("csv", kind=None, source="the user's own file", needs="data.path, as said above")
def table(
    _: int,
    *,
    path: str,
    target: str | Sequence[str],
    kind: Kind,
    drop: Sequence[str] = (),
    one_hot: Sequence[str] = (),
    split: Order = "random",
    bad: Literal["refuse", "skip"] = "refuse",
) -> Raw:
    """A UTF-8 file: a header row, then an item per row; cells parted by comma, semicolon, tab or |.

    Every column that is neither target, dropped nor one-hot must hold finite numbers, and no cell
    of a used column may be empty. Classes are the target's distinct values, sorted (as numbers
    where all are numbers); of two classes the last is positive. A one-hot column becomes one input
    per distinct value in the file.

    Args:
        path: the file, relative to the current folder.
        target: the column to predict; several for multilabel (0 or 1 each) or regression.
        kind: binary, multiclass, multilabel or regression.
        drop: columns to leave out.
        one_hot: columns of categories.
        split: random, or contiguous where rows have an order, such as time: the first 60% of the
            rows train, the next 20% validate, the last 20% test.
        bad: what is done about rows in which a value is missing: refuse the file, or skip the rows,
            which are counted and told.

    Raises:
        ValueError: the file, row and column that is not as said, and what to do.
    """
    file = _found(path)
    targets = (target,) if isinstance(target, str) else tuple(target)
    stamp = file.stat().st_ino, file.stat().st_size, file.stat().st_mtime_ns
    raw = _raw(file, stamp, targets, kind, tuple(drop), tuple(one_hot), bad == "skip")
    if split == "contiguous":
        return dataclasses.replace(raw, split=contiguous_split(len(raw.target)))
    return raw


def _found(path: str) -> Path:
    file = Path(path).expanduser()
    if not file.is_file():
        raise ValueError(
            f"csv.path: there is no file {path!r} in {Path.cwd()}; "
            f"set it to a CSV file with a header row and one item per row"
        )
    return file


@functools.lru_cache(maxsize=8)
def _raw(
    file: Path,
    _stamp: tuple[int, ...],  # a changed file is read again
    targets: tuple[str, ...],
    kind: Kind,
    drop: tuple[str, ...],
    one_hot: tuple[str, ...],
    skip: bool,
) -> Raw:
    content = file.read_bytes()
    cells = _read(str(file), content)
    for column in (*targets, *drop, *one_hot):
        if column not in cells.columns:
            raise ValueError(f"{file} has no column '{column}'{nearest(column, cells.columns)}")
    used = [column for column in cells.columns if column not in (*targets, *drop)]
    if not used:
        raise ValueError(f"{file}: no column is left as an input")
    faults: tuple[str, ...] = ()
    if skip:
        cells, faults = _complete(cells, [*used, *targets])
    target, names = _target(cells, targets, kind)
    advice = "; list the column under one_hot or drop"
    inputs = [
        _indicators(cells, column) if column in one_hot else cells.numbers(column, advice)[:, None]
        for column in used
    ]
    stacked = np.concatenate(inputs, axis=1)
    for array in (stacked, target):
        array.flags.writeable = False
    return Raw(stacked, target, names, hashlib.sha256(content).hexdigest(), faults=faults)


def _complete(cells: Table, columns: Sequence[str]) -> tuple[Table, tuple[str, ...]]:
    """The rows that have a value in all of these columns, and where the others lack one."""
    lacking = {
        item: f"{cells.where(column, item)}: the value is missing"
        for column in columns
        for item, cell in enumerate(cells.columns[column])
        if cell.lower() in MISSING
    }
    kept = [item for item in range(len(cells.rows)) if item not in lacking]
    if not kept:
        raise ValueError(f"{cells.name}: every row lacks a value")
    columns_kept = {name: [texts[item] for item in kept] for name, texts in cells.columns.items()}
    faults = tuple(lacking[item] for item in sorted(lacking))
    return Table(cells.name, columns_kept, [cells.rows[item] for item in kept]), faults


def _read(name: str, content: bytes) -> Table:
    lines = _lines(name, content)
    if len(lines) < 2:
        raise ValueError(f"{name} needs a header row and at least one more, got {len(lines)} rows")
    header, rows = lines[0], [row for row, line in enumerate(lines[1:], start=2) if line]
    for place, column in enumerate(header, start=1):
        if not column:
            raise ValueError(f"{name}, column {place} has no name in the header (row 1)")
        if header.count(column) > 1:
            raise ValueError(f"{name} has {header.count(column)} columns named '{column}'")
    for row in rows:
        if len(lines[row - 1]) != len(header):
            raise ValueError(
                f"{name}, row {row} has {len(lines[row - 1])} cells, the header {len(header)}"
            )
    columns = {c: [lines[row - 1][i] for row in rows] for i, c in enumerate(header)}
    return Table(name, columns, rows)


def _lines(name: str, content: bytes) -> list[list[str]]:
    """Stripped cells per row, empty rows included; the delimiter is what parts the header most."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not UTF-8 text (byte {error.start})") from None

    def split(delimiter: str) -> Iterator[list[str]]:
        return csv.reader(io.StringIO(text, newline=None), delimiter=delimiter)

    try:
        delimiter = max(DELIMITERS, key=lambda d: len(next(split(d), [])))
        return [[cell.strip() for cell in row] for row in split(delimiter)]
    except csv.Error as error:
        raise ValueError(f"{name} is no CSV file: {error}") from None


def _number(cell: str) -> float | None:
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _indicators(cells: Table, column: str) -> Array:
    """One column of 0 and 1 per distinct value, in sorted order: float64 [N, V]."""
    texts = np.array(cells.cells(column))
    return np.asarray(texts[:, None] == np.unique(texts), dtype=float)


def _target(cells: Table, targets: tuple[str, ...], kind: Kind) -> tuple[Array, tuple[str, ...]]:
    """The target in the form of :class:`Raw` and the names of classes, labels or targets."""
    if kind == "multilabel" and len(targets) < 2:
        raise ValueError(f"csv.target: multilabel needs two or more columns, got {list(targets)}")
    if kind in ("binary", "multiclass"):
        if len(targets) != 1:
            raise ValueError(f"csv.target: {kind} needs one column, got {list(targets)}")
        return _classes(cells, targets[0], kind)
    columns = np.stack([cells.numbers(column) for column in targets], axis=1)
    for column, values in zip(targets, columns.T, strict=True):
        if np.ptp(values) == 0:
            raise ValueError(f"{cells.name}: target '{column}' is {values[0]:g} in every row")
        wrong = np.flatnonzero((values != 0) & (values != 1))
        if kind == "multilabel" and len(wrong):
            raise ValueError(f"{cells.where(column, wrong[0])}: a label is 0 or 1")
    if kind == "multilabel":
        return columns.astype(np.int64), targets
    return (columns[:, 0] if len(targets) == 1 else columns), targets


def _classes(cells: Table, column: str, kind: Kind) -> tuple[Array, tuple[str, ...]]:
    """Class numbers int64 [N] and their names."""
    texts = cells.cells(column)
    numbers = [number for cell in texts if (number := _number(cell)) is not None]
    values = np.array(numbers if len(numbers) == len(texts) else texts)  # 1 and 1.0 are one class
    found, target, counts = np.unique(values, return_inverse=True, return_counts=True)
    plain = [str(value) for value in found]
    names = tuple(p.removesuffix(".0") if values.dtype.kind == "f" else p for p in plain)
    where = f"{cells.name}: target '{column}'"
    if len(names) == 1:
        raise ValueError(f"{where} is '{names[0]}' in every row")
    if kind == "binary" and len(names) > 2:
        raise ValueError(f"{where} has {len(names)} classes; use kind=multiclass")
    if counts.min() < 3:
        raise ValueError(
            f"{where} has class '{names[counts.argmin()]}' in {counts.min()} rows, and each part "
            f"needs one; for a number to predict use kind=regression"
        )
    return target.astype(np.int64), names
