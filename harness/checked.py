"""A record made of JSON that anybody may have written: of the types its readers rely on. No torch.

What is not as it should be raises, so that a store that somebody sent ends in one line and not in
the middle of a report.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

from harness.record import Record

LONG, MANY = 1e12, 2**63
"""Seconds that no run takes, and what no count reaches."""
_EMPTY = Record(id="", status="done", config={}, seed=0)


def record(content: Mapping[str, Any], run_id: str) -> Record:
    """The record of that run; keys of a later version are left out, as are nulls among numbers.

    Raises:
        ValueError, TypeError, AttributeError, ArithmeticError: it is none, or of another run.
    """
    known = {field.name for field in dataclasses.fields(Record)}
    made = Record(**{key: value for key, value in content.items() if key in known})
    for field in dataclasses.fields(Record):
        value, kind = getattr(made, field.name), type(getattr(_EMPTY, field.name))
        if field.name != "error" and type(value) is not kind:
            raise TypeError(f"{field.name} is {_short(value)}")
    if made.id != run_id:
        raise ValueError(f"it is of run {_short(made.id)}")
    if made.status not in ("done", "failed", "diverged"):
        raise ValueError(f"status is {_short(made.status)}")
    _refuse_others((str,), made.fingerprints.values(), made.notes, [made.error or ""])
    _refuse_others((int,), made.seeds.values())
    for name in ("seed", "steps", "parameters", "peak_memory"):
        if not 0 <= getattr(made, name) < MANY:
            raise ValueError(f"{name} is {_short(getattr(made, name))}")
    seconds = _numbers(made.seconds)
    if any(not 0 <= value < LONG for value in seconds.values()) or not (
        "total" in seconds or not seconds
    ):
        raise ValueError(f"seconds is {_short(made.seconds)}")
    _check_gradients(made.gradients)
    return dataclasses.replace(
        made,
        metrics=_numbers(made.metrics),
        curve=[_numbers(point) for point in made.curve],
        start=_numbers(made.start),
        references={name: _numbers(table) for name, table in made.references.items()},
        seconds=seconds,
    )


def _check_gradients(given: Mapping[str, Any]) -> None:
    """Every measured step has a number or null per term, or per pair of them."""
    if not given:
        return
    terms, steps = given["terms"], given["steps"]
    _refuse_others((str,), terms)
    _refuse_others((int, float), steps)
    sizes = {"norms": len(terms), "shares": len(terms), "cosines": math.comb(len(terms), 2)}
    for name in sizes.keys() & given.keys():
        _refuse_others((list,), given[name])
        _refuse_others((int, float, type(None)), *given[name])
        if {len(row) for row in given[name]} - {sizes[name]} or len(given[name]) != len(steps):
            raise ValueError(f"gradients.{name} has not a number for every step and term")


def _numbers(table: Mapping[str, Any]) -> dict[str, float]:
    """Without nulls, which stand for what is no finite number."""
    found = {name: value for name, value in table.items() if value is not None}
    _refuse_others((int, float), found.values())
    return {name: float(value) for name, value in found.items()}


def _refuse_others(kinds: tuple[type, ...], *values: Iterable[Any]) -> None:
    """Every value is of one of these very types, so that True is no number."""
    for value in (each for several in values for each in several):
        if type(value) not in kinds:
            raise TypeError(f"{_short(value)} stands where another type is needed")


def _short(value: Any) -> str:
    return f"{value!r:.80}"
