"""What the fingerprint of a loss's code holds: all that is computed, and nothing else."""

import dataclasses
import importlib
import itertools
import sys

import pytest

import losses
from losses.core import REGISTRY
from losses.source import code_hash, source_hash

MAIN = '''"""A loss."""
import mine.helpers
from mine import helpers
from mine.helpers import FACTOR, Pair, TABLE, bent, near

loss = 1  # a global that is called as an attribute below

def error(output, target):
    """Of a pair."""
    pair = Pair(output, target)
    return FACTOR * near(pair.loss) + helpers.far(output) + TABLE["twice"](target) + bent(output)
'''
HELPERS = '''"""What it calls."""
import functools
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

def _power(exponent):
    def power(value):
        return value ** exponent
    return power

bent = _power(5)
TABLE = {"twice": _twice, "round": functools.partial(round, ndigits=7), "size": abs}
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
        ("_power(5)", "_power(6)"),  # what a closure holds
        ("ndigits=7", "ndigits=6"),  # what a partial function is given
        ('"size": abs', '"size": float.__abs__'),  # which function of others
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


@pytest.mark.parametrize("fact", ["finish", "derivative", "total", "point"])
def test_all_that_a_loss_declares_to_compute_counts(fact, monkeypatch):
    entry = next(entry for name in losses.names() if getattr(entry := losses.get(name), fact))
    before = source_hash.__wrapped__(entry.name)
    other = dataclasses.replace(entry, **{fact: lambda *given: 2 * given[0]})
    monkeypatch.setitem(REGISTRY, entry.name, other)
    assert source_hash.__wrapped__(entry.name) != before


def test_an_attribute_is_not_the_global_of_its_name(tmp_path, monkeypatch):
    changed = hashed(tmp_path, monkeypatch, main=MAIN.replace("loss = 1", "loss = 2"))
    assert changed == hashed(tmp_path, monkeypatch)
