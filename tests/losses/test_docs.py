"""The README is what the code says, and its examples run."""

import re
import subprocess
import sys
import textwrap

import pytest
import torch

import losses
from losses.conformance import check
from losses.core import REGISTRY
from losses.docs import END, PUBLIC, README, table, with_exports, with_table


def test_readme_table_is_current():
    text = README.read_text(encoding="utf-8")
    assert with_table(text) == text, "run: python -m losses.docs --write"


def test_what_is_public_is_what_is_registered():
    text = PUBLIC.read_text(encoding="utf-8")
    assert with_exports(text) == text, "run: python -m losses.docs --write"
    known = {*losses.names(), *losses.penalty_names(), *losses.projection_names()}
    assert all(callable(getattr(losses, name)) for name in known)
    with pytest.raises(ValueError, match="needs the lines"):
        with_exports(text.replace("isort", "sorted"))


def test_table_has_a_row_with_a_formula_for_everything():
    rows = {row.split("`")[1]: row for row in table().splitlines() if row.startswith("| `")}
    assert set(rows) == {*losses.names(), *losses.penalty_names(), *losses.projection_names()}
    widths = {len(re.split(r"(?<!\\)\|", row)) for row in rows.values()}
    assert widths == {6, 8}  # losses 6 columns, what acts on weights 4, and the two ends
    assert all(re.match(r"\| `\w+` \| \$`[^`|]+`\$ \|", row) for row in rows.values())


def test_a_lost_marker_is_an_error():
    with pytest.raises(ValueError, match="the README needs the lines"):
        with_table(README.read_text(encoding="utf-8").replace(END, ""))


def test_readme_examples_run():
    found = re.findall(r"^ *```python\n(.*?)```", README.read_text(encoding="utf-8"), re.M | re.S)
    *examples, numpy_reference = (textwrap.dedent(block) for block in found)
    ours, theirs = {"__name__": "readme"}, {}
    try:
        for example in examples:
            exec(example, ours)
        assert [f for f in check("quartic", scale=2.0) if f.verdict == "fail"] == []
        exec(numpy_reference, theirs)
        prediction, target = torch.arange(3.0), torch.tensor([2.0, 0.0, 5.0])
        values = losses.build("quartic", scale=2.0, reduction="none")(prediction, target)
        assert (
            values.tolist() == theirs["quartic"](prediction.numpy(), target.numpy(), 2.0).tolist()
        )
    finally:
        REGISTRY.pop("quartic", None)


def test_command_prints_the_table():
    command = [sys.executable, "-m", "losses.docs"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == table()
    assert done.stderr == ""
