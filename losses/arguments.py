"""Typed, checked parameters read from a signature: the signature is the schema.

A function's keyword-only parameters (or a dataclass's fields) say what a config may set, of what
type, within what bounds. Nothing else in the project repeats these facts.
"""

import dataclasses
import difflib
import inspect
import math
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from torch import Tensor

Entry = TypeVar("Entry")
LISTED = 20
"""Names that a message lists."""
LONGEST = 300
"""Characters of a wrong value that a message shows."""


@dataclasses.dataclass(frozen=True)
class Bounds:
    """Interval a number must lie in; `low_open` or `high_open` excludes that end."""

    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False

    def __contains__(self, number: float) -> bool:
        above = number > self.low if self.low_open else number >= self.low
        below = number < self.high if self.high_open else number <= self.high
        return above and below

    def __str__(self) -> str:
        low = f"{'>' if self.low_open else '>='} {self.low:g}"
        high = f"{'<' if self.high_open else '<='} {self.high:g}"
        parts = [low] * (self.low > -math.inf) + [high] * (self.high < math.inf)
        return " and ".join(parts) or "any number"


Positive = Annotated[float, Bounds(0, low_open=True)]
NonNegative = Annotated[float, Bounds(0)]
Share = Annotated[float, Bounds(0, 1)]  # a part of a whole, ends included
Count = Annotated[int, Bounds(1)]
PerClass = Annotated[Tensor | Sequence[NonNegative] | None, "per_class"]
"""One factor per class."""
ClassWeight = Annotated[Tensor | Sequence[NonNegative] | str | None, "class_weight"]
"""One factor per class, or the name of a scheme of :mod:`losses.weighting` that needs counts."""
ClassCounts = Annotated[Tensor | Sequence[NonNegative] | Literal["data"], "class_counts"]
"""Training items of each class; `data` in a config lets the harness count them."""


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One settable parameter; its default is `inspect.Parameter.empty` where it has none."""

    name: str
    annotation: Any
    default: Any

    @property
    def required(self) -> bool:
        """Whether there is no default."""
        return self.default is inspect.Parameter.empty

    def __str__(self) -> str:
        default = "" if self.required else f" = {self.default!r}"
        return f"{self.name}: {describe(self.annotation)}{default}"


def parameters_of(source: Callable[..., Any]) -> dict[str, Parameter]:
    """Keyword-only parameters of a function, or the fields of a dataclass, in order."""
    hints = typing.get_type_hints(source, include_extras=True)
    if dataclasses.is_dataclass(source):
        return {
            field.name: Parameter(field.name, hints[field.name], _field_default(field))
            for field in dataclasses.fields(source)
        }
    return {
        name: Parameter(name, hints.get(name, Any), parameter.default)
        for name, parameter in inspect.signature(source).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


def _field_default(field: "dataclasses.Field[Any]") -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return inspect.Parameter.empty


def check_arguments(
    owner: str, parameters: Mapping[str, Parameter], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Return `given` converted to the declared types, or raise.

    Raises:
        ValueError: an unknown or missing name, a wrong type or a number out of bounds; the message
            names `owner`, the parameter, what must hold, what was given, and the nearest name.
    """
    for name in given:
        if name not in parameters:
            raise ValueError(f"{owner} has no parameter '{name}'{nearest(str(name), parameters)}")
    for name, parameter in parameters.items():
        if parameter.required and name not in given:
            raise ValueError(f"{owner} needs {parameter}")
    return {
        name: convert(f"{owner}.{name}", parameters[name].annotation, value)
        for name, value in given.items()
    }


def convert(path: str, annotation: Any, value: Any) -> Any:
    """Return `value` as the annotated type says, or raise ValueError naming `path` and both."""
    bounds = [extra for extra in get_args(annotation)[1:] if isinstance(extra, Bounds)]
    plain = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    matched, result = _match(path, plain, value)
    if not matched:
        raise ValueError(f"{path} must be {describe(annotation)}, got {_short(value)}")
    for bound in bounds if get_origin(annotation) is Annotated else []:
        if isinstance(result, int | float) and result not in bound:
            raise ValueError(f"{path} must be {bound}, got {_short(value)}")
    return result


def _short(value: Any) -> str:
    """What was given, cut where it is long."""
    return shown if len(shown := repr(value)) <= LONGEST else f"{shown[:LONGEST]}..."


def _match(path: str, plain: Any, value: Any) -> tuple[bool, Any]:
    """Whether `value` fits the plain (not Annotated) type, and the value converted to it."""
    origin = get_origin(plain)
    if plain is Any:
        return True, value
    if origin in (typing.Union, types.UnionType):
        return _match_union(path, get_args(plain), value)
    if origin is Literal:
        return any(type(o) is type(value) and o == value for o in get_args(plain)), value
    if plain is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        fits = number and abs(value) <= sys.float_info.max
        return fits, float(value) if fits else value
    if plain is int:
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole and abs(value) < 2**63, value
    if plain is None or plain is types.NoneType:
        return value is None, value
    if origin in (list, Sequence):
        return _match_list(path, get_args(plain)[0], value)
    if origin in (dict, Mapping):
        return isinstance(value, Mapping), value
    if dataclasses.is_dataclass(plain) and isinstance(plain, type):
        return _match_dataclass(path, plain, value)
    return isinstance(value, plain), value


def _match_union(path: str, options: Iterable[Any], value: Any) -> tuple[bool, Any]:
    for option in options:
        if isinstance(value, Mapping) and dataclasses.is_dataclass(option):
            return True, convert(path, option, value)  # whose message names the wrong key
        try:
            return True, convert(path, option, value)
        except ValueError:
            continue
    return False, value


def _match_list(path: str, item: Any, value: Any) -> tuple[bool, Any]:
    if isinstance(value, str | Tensor) or not isinstance(value, Sequence):
        return False, value
    return True, [convert(f"{path}[{i}]", item, entry) for i, entry in enumerate(value)]


def _match_dataclass(path: str, plain: type, value: Any) -> tuple[bool, Any]:
    if isinstance(value, plain):
        return True, value
    if not isinstance(value, Mapping):
        return False, value
    return True, plain(**check_arguments(path, parameters_of(plain), value))


def describe(annotation: Any) -> str:
    """The annotation in words a user of a config reads: `number >= 0`, `true or false`."""
    if get_origin(annotation) is Annotated:
        plain, *extras = get_args(annotation)
        if "per_class" in extras:
            return "a list with one number >= 0 per class, or null"
        if "class_weight" in extras:
            return "a list with one number >= 0 per class, a scheme's name, or null"
        if "class_counts" in extras:
            return "a list with the number of items of each class, or data"
        return " ".join([describe(plain), *(str(e) for e in extras if isinstance(e, Bounds))])
    origin = get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(option) for option in get_args(annotation))
    if origin is Literal:
        return "one of " + ", ".join(str(option) for option in get_args(annotation))
    if origin in (list, Sequence):
        return f"a list of {describe(get_args(annotation)[0])}"
    if origin in (dict, Mapping):
        return "a mapping"
    if dataclasses.is_dataclass(annotation):
        keys = ", ".join(field.name for field in dataclasses.fields(annotation))
        return f"a mapping of {keys}"
    words = {float: "number", int: "whole number", bool: "true or false", str: "text"}
    words |= {types.NoneType: "null", Any: "anything"}
    return words.get(annotation, getattr(annotation, "__name__", str(annotation)))


def look_up(what: str, name: str, table: Mapping[str, Entry]) -> Entry:
    """The entry of that name.

    Raises:
        ValueError: there is none; the message has the nearest name.
    """
    if name not in table:
        raise ValueError(f"there is no {what} '{name}'{nearest(name, table)}")
    return table[name]


def nearest(name: str, names: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or what there is when nothing is near.

    Nearest are names that begin with it, then those of which a word does, then those spelled alike,
    then those that hold it anywhere.
    """
    options = list(names)
    holding = [option for option in options if len(name) > 2 and name in option]
    holding.sort(key=lambda option: (not option.startswith(name), len(option)))
    close = [option for option in holding if re.search(rf"(^|[\W_]){re.escape(name)}", option)]
    close = close or difflib.get_close_matches(name, options, n=1, cutoff=0.6) or holding
    if close:
        return f"; did you mean '{close[0]}'?"
    if not options:
        return "; it has none"
    shown, more = sorted(options)[:LISTED], len(options) - LISTED
    rest = f" and {more} more" if more > 0 else ""
    return f"; there {'is' if len(options) == 1 else 'are'} {', '.join(shown)}{rest}"
