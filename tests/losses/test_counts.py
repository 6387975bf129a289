"""Calls of operators and peaks of memory, which are equal in every run.

`scripts/bench_losses` counts and says how much each loss may take, at the sizes it compares.
"""

import dataclasses
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_losses"


def load():
    spec = spec_from_loader("bench_losses", SourceFileLoader("bench_losses", str(SCRIPT)))
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for their own module
    kept, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = kept
    return module


bench = load()
BOUNDED = [pytest.param(case, id=f"{case.name}-{i}") for i, case in enumerate(bench.CASES)
           if case.units is not None]  # fmt: skip


@pytest.mark.parametrize("case", BOUNDED)
def test_memory_and_calls_are_within_what_the_table_allows(case):
    inputs = bench.inputs_of(case)
    if case.compiled:
        case.ours(*inputs)  # made once
    most, calls = bench.counts(case.ours, inputs, case.compiled)
    assert most / case.unit(*inputs) <= case.units
    assert case.compiled or calls <= case.calls


@pytest.mark.parametrize("name", ["giou", "sup_con"])
def test_counts_are_the_same_again(name):
    case = next(case for case in bench.CASES if case.name == name)
    inputs = bench.inputs_of(case)
    assert bench.counts(case.ours, inputs) == bench.counts(case.ours, inputs)


def test_every_byte_and_every_call_is_counted():
    x = torch.ones(1000, requires_grad=True)
    most, calls = bench.counts(lambda x: (x * x.detach()).sum(), (x,))
    # alive at the most: the value, its slope, and either the product or the gradient
    assert most == 4000 + 4 + 4
    # product, sum; slope, gradient; the slope is spread over the elements as a view
    assert calls == 4


def test_the_gate_tells_what_is_wrong():
    case = next(case for case in bench.CASES if case.name == "sup_con")
    inputs = bench.inputs_of(case)
    right = bench.reference(case, inputs)
    assert bench.wrong(case.ours, inputs, right) == ""
    assert "value" in bench.wrong(lambda *xs: 1.001 * case.ours(*xs), inputs, right)
    assert "value" in bench.wrong(lambda *xs: torch.nan * case.ours(*xs), inputs, right)

    def slanted(output, target):
        value = case.ours(output, target)
        return value + 0.001 * (value - value.detach())

    assert "gradient" in bench.wrong(slanted, inputs, right)


def test_a_row_that_is_wrong_is_not_timed_and_fails(monkeypatch, capsys):
    case = dataclasses.replace(bench.CASES[0], name="bce", given={}, peers=())
    monkeypatch.setattr(bench.Case, "plain", lambda self, *xs: 2 * self.ours(*xs))
    monkeypatch.setattr(bench, "CASES", (case,))
    monkeypatch.setattr(sys, "argv", ["bench_losses"])
    assert bench.main() == 1
    printed = capsys.readouterr().out
    assert "bce  ours: WRONG: value off by 5.0e-01" in printed
    assert "rounds" not in printed


def test_a_library_that_is_missing_is_left_out_with_a_line(monkeypatch, capsys):
    peer = bench.Peer("absent/Loss")
    case = bench.Case("mse", bench.maps(4, 4, soft=True), (peer,))
    monkeypatch.setitem(bench.MODULES, "absent", "no_such_library")
    monkeypatch.setattr(bench, "CASES", (case,))
    monkeypatch.setattr(sys, "argv", ["bench_losses"])
    assert bench.main() == 0
    assert "absent/Loss: not installed, left out" in capsys.readouterr().out


def test_tables_hold_the_same_rows(monkeypatch, capsys):
    case = next(case for case in bench.CASES if case.name == "triplet")
    monkeypatch.setattr(bench, "CASES", (case,))
    for arguments in (["--only", "trip"], ["--markdown"], ["--only", "nothing"]):
        monkeypatch.setattr(sys, "argv", ["bench_losses", "--rounds", "3", *arguments])
        assert bench.main() == 0
        printed = capsys.readouterr().out
        assert ("torch/triplet_margin_loss" in printed) == ("nothing" not in arguments)
