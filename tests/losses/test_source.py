"""What the fingerprint of a loss's code holds: all that is computed, and nothing else."""

import importlib
import itertools
import sys

import pytest

from losses.source import code_hash

MAIN = '''"""A loss."""
import mine.helpers
from mine import helpers
from mine.helpers import FACTOR, Pair, TABLE, near

loss = 1  # a global that is called as an attribute below

def error(output, target):
    """Of a pair."""
    pair = Pair(output, target)
    return FACTOR * near(pair.loss) + helpers.far(output) + TABLE["twice"](target)
'''
HELPERS = '''"""What it calls."""
from typing import NamedTuple

FACTOR = 2.0
UNUSED = 1

class Pair(NamedTuple):
    """Two of them."""
    first: float
    second: float

    @property
    def loss(self):
        """How they differ."""
        return apart(self.first, self.second)

def apart(first, second):
    return first - second

def near(value):
    return value * 2

def far(value):
    return value * 3

def _twice(value):
    return 2 * value

TABLE = {"twice": _twice}
'''
NUMBER = itertools.count()


def hashed(tmp_path, monkeypatch, main=MAIN, helpers=HELPERS):
    """The hash of `error` in a package of two files."""
    place = tmp_path / str(next(NUMBER))
    (place / "mine").mkdir(parents=True)
    (place / "mine" / "__init__.py").write_text("")
    (place / "mine" / "main.py").write_text(main)
    (place / "mine" / "helpers.py").write_text(helpers)
    monkeypatch.syspath_prepend(place)
    for name in [name for name in sys.modules if name.split(".")[0] == "mine"]:
        monkeypatch.delitem(sys.modules, name)
    return code_hash(importlib.import_module("mine.main").error)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("FACTOR = 2.0", "FACTOR = 3.0"),  # a constant
        ("value * 2", "value * 4"),  # a function
        ("value * 3", "value * 4"),  # one that is taken from its module
        ("first - second", "second - first"),  # what a property of a class calls
        ("apart(self.first, self.second)", "apart(self.second, self.first)"),  # the property
        ("return 2 * value", "return 3 * value"),  # one in a table
    ],
)
def test_what_is_called_counts(before, after, tmp_path, monkeypatch):
    assert HELPERS.count(before) == 1
    changed = hashed(tmp_path, monkeypatch, helpers=HELPERS.replace(before, after))
    assert changed != hashed(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("UNUSED = 1", "UNUSED = 2"),
        ('"""How they differ."""', '"""In words."""'),
        ('"""Two of them."""', '"""In words."""'),
        ("def near(value):\n", "def near(value):\n    # a comment\n\n"),
    ],
)
def test_what_is_not_computed_does_not(before, after, tmp_path, monkeypatch):
    assert HELPERS.count(before) == 1
    changed = hashed(tmp_path, monkeypatch, helpers=HELPERS.replace(before, after))
    assert changed == hashed(tmp_path, monkeypatch)


def test_an_attribute_is_not_the_global_of_its_name(tmp_path, monkeypatch):
    changed = hashed(tmp_path, monkeypatch, main=MAIN.replace("loss = 1", "loss = 2"))
    assert changed == hashed(tmp_path, monkeypatch)
