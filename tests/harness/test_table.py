"""A user's own files are read as described, and refused with file, row and column."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness import data

Writer = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Writer:
    """Writes a file of 30 rows; `changes` sets cells by row and column."""

    def written(
        changes: dict[tuple[int, str], str] | None = None, delimiter: str = ",", head: str = ""
    ) -> Path:
        columns = ["a", "b", "same", "city", "animal", "sick", "tall"]
        rng = np.random.default_rng(0)
        lines = [columns]
        for i in range(30):
            a, b = rng.normal(size=2)
            city, animal = ("Bern", "Oslo", "Rome")[i % 3], ("cat", "dog", "eel")[i % 3]
            lines.append([f"{a:.6f}", f"{b:.6f}", "0.1", city, animal, str(i % 2), str(i // 3 % 2)])
        for (row, column), cell in (changes or {}).items():
            lines[row - 1][columns.index(column)] = cell
        path = tmp_path / "mine.csv"
        path.write_text(head + "\n".join(delimiter.join(line) for line in lines) + "\n", "utf-8")
        return path

    return written


def csv_of(path: Path | str, **given: Any) -> data.Data:
    defaults = {"target": "animal", "kind": "multiclass", "drop": ["city", "sick", "tall"]}
    return data.load("csv", split_seed=0, corrupt_seed=0, path=str(path), **(defaults | given))


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_a_file_is_read_whatever_parts_its_cells(write: Writer, delimiter: str) -> None:
    """The mark that some programs put before the first name is no part of it."""
    path = write(delimiter=delimiter, head="\ufeff")
    one = csv_of(path, drop=["a", "city", "sick", "tall"])
    assert one.target_names == ("cat", "dog", "eel")
    assert (len(one.train), len(one.val), len(one.test)) == (18, 6, 6)
    assert torch.equal(one.test.target, one.rows["test"] % 3)
    assert one.fingerprints["data"] == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("cell", ["0.1", "1"])  # the computed sd of the first is not exactly 0
def test_a_constant_column_becomes_zero(write: Writer, cell: str) -> None:
    one = csv_of(write({(row, "same"): cell for row in range(2, 32)}))
    assert torch.equal(one.train.inputs[:, 2], torch.zeros(18))
    assert bool((one.train.inputs[:, :2] != 0).all())


def test_one_hot_columns_become_an_input_per_value(write: Writer) -> None:
    path = write()
    one = csv_of(
        path,
        target="sick",
        kind="binary",
        drop=["a", "b", "same", "tall", "animal"],
        one_hot=["city"],
    )
    city = one.train.inputs > 0  # an indicator's z-score is positive where it is 1
    assert torch.equal(city.int().argmax(1), one.rows["train"] % 3)
    assert bool((city.sum(1) == 1).all())
    assert one.outputs == 1


def test_several_targets_and_contiguous_rows(write: Writer) -> None:
    labels = csv_of(write(), target=["sick", "tall"], kind="multilabel", drop=["city", "animal"])
    assert labels.target_names == ("sick", "tall")
    assert torch.equal(labels.val.target[:, 0], labels.rows["val"] % 2)
    numbers = csv_of(
        write(), target=["a", "b"], kind="regression", drop=["city", "animal"], split="contiguous"
    )
    assert numbers.train.target.shape == (18, 2)
    assert numbers.rows["val"].tolist() == list(range(18, 24))
    assert csv_of(write(), target="a", kind="regression", drop=["city", "animal"]).outputs == 1


def test_classes_written_as_numbers_are_numbers(write: Writer) -> None:
    changes = {(row, "animal"): ("10", "2", "2.0")[row % 3] for row in range(2, 32)}
    assert csv_of(write(changes)).target_names == ("2", "10")
    versions = {(row, "animal"): ("v1.0", "v2.0")[row % 2] for row in range(2, 32)}
    assert csv_of(write(versions)).target_names == ("v1.0", "v2.0")


def test_a_changed_file_is_read_again(write: Writer) -> None:
    before = csv_of(write())
    after = csv_of(write({(2, "a"): "123456"}))
    assert before.fingerprints["data"] != after.fingerprints["data"]
    assert not torch.equal(before.train.inputs, after.train.inputs)


def test_the_defaults_of_other_kinds_are_accepted(write: Writer) -> None:
    """A config that lists every default is as good as one that lists none."""
    declared = data.get("csv").parameters.values()
    defaults = {p.name: p.default for p in declared if not p.required and p.name != "drop"}
    explicit, implicit = csv_of(write(), **defaults), csv_of(write())
    assert explicit.fingerprints == implicit.fingerprints
    assert torch.equal(explicit.train.target, implicit.train.target)


@pytest.mark.parametrize(
    ("changes", "given", "message"),
    [
        ({}, {"target": "animl"}, "mine.csv has no column 'animl'; did you mean 'animal'?"),
        ({}, {"drop": ["town"]}, "mine.csv has no column 'town'"),
        ({}, {"drop": ["a", "b", "same", "city", "sick", "tall"]}, "no column is left as an input"),
        ({(7, "b"): ""}, {}, "mine.csv, row 7, column 'b': the value is missing ('')"),
        ({(8, "a"): "NaN"}, {}, "mine.csv, row 8, column 'a': the value is missing ('NaN')"),
        ({(9, "animal"): ""}, {}, "mine.csv, row 9, column 'animal': the value is missing"),
        ({(5, "a"): "tall"}, {}, "mine.csv, row 5, column 'a': 'tall' is no finite number; list"),
        ({(5, "a"): "inf"}, {}, "mine.csv, row 5, column 'a': 'inf' is no finite number"),
        ({(5, "a"): "1,5"}, {}, "mine.csv, row 5 has 8 cells, the header 7"),
        ({}, {"drop": ["sick", "tall"]}, "row 2, column 'city': 'Bern' is no finite number; list"),
        ({(4, "animal"): "elk"}, {}, "target 'animal' has class 'elk' in 1 rows"),
        ({}, {"kind": "binary"}, "target 'animal' has 3 classes; use kind=multiclass"),
        ({}, {"target": "same"}, "target 'same' is '0.1' in every row"),
        ({}, {"target": "same", "kind": "regression"}, "target 'same' is 0.1 in every row"),
        ({}, {"target": "city", "kind": "regression"}, "column 'city': 'Bern' is no finite number"),
        ({}, {"target": ["sick", "a"], "kind": "multilabel"}, "column 'a': a label is 0 or 1"),
        ({}, {"target": "sick", "kind": "multilabel"}, "multilabel needs two or more columns"),
        ({}, {"target": ["sick", "tall"]}, "csv.target: multiclass needs one column"),
        ({(1, "b"): "a"}, {}, "mine.csv has 2 columns named 'a'"),
        ({(1, "b"): ""}, {}, "mine.csv, column 2 has no name in the header (row 1)"),
        ({}, {"outliers": 0.1}, "csv.outliers=0.1 does not apply to multiclass data"),
        ({}, {"kind": "ranking"}, "csv.kind must be one of binary, multiclass"),
    ],
)
def test_a_wrong_file_is_refused_with_its_place(
    write: Writer, changes: dict[tuple[int, str], str], given: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]*$") as raised:
        csv_of(write(changes), **given)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "needs a header row and at least one more, got 0 rows"),
        (b"a,animal\n", "needs a header row and at least one more, got 1 rows"),
        (b"a,\xff\n1,2\n", "is not UTF-8 text (byte 2)"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "odd.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"^[^\n]*$") as raised:
        csv_of(path, drop=[])
    assert message in str(raised.value)


def test_a_missing_file_is_named_with_its_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no file 'nowhere.csv' in "):
        data.file_hash("nowhere.csv")
    with pytest.raises(ValueError, match=r"there is no file 'nowhere.csv' in .*; set it to a CSV"):
        csv_of("nowhere.csv")


def test_empty_lines_and_quotes_are_allowed(tmp_path: Path) -> None:
    rows = [f'"{i}","{"left, right"[i % 2 * 6 :][:5].strip(", ")}"' for i in range(20)]
    path = tmp_path / "quoted.csv"
    path.write_text('"x, in m","side"\r\n\r\n' + "\r\n".join(rows) + "\r\n\r\n")
    one = csv_of(path, target="side", kind="binary", drop=[])
    assert one.target_names == ("left", "right")
    assert len(one.train) == 12


def test_a_class_missing_from_the_first_rows_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "sorted.csv"
    path.write_text("x,y\n" + "".join(f"{i},{i // 8}\n" for i in range(24)))
    with pytest.raises(ValueError, match="csv: class '2' has no item in the training part"):
        csv_of(path, target="y", drop=[], split="contiguous")
