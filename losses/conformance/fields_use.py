"""Properties of use for losses of named fields: transforms, devices, dtypes, errors, state."""

import math
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from losses.arguments import Bounds
from losses.conformance.base import PROPERTIES, Counterexample, NotApplicable, require, same
from losses.conformance.fields import (
    OF_FIELDS,
    Fields,
    example,
    gradient,
    learnt,
    mean,
    prop,
    put,
)
from losses.conformance.samples import own_tensors
from losses.conformance.use import INDEX_TYPES, deterministic
from losses.core import Loss
from losses.module import LossModule


@prop("compile")
def compiles(entry: Loss) -> None:
    """One graph without a break (`fullgraph=True`) gives the same value and gradient."""
    _refuse_opaque(entry)
    torch.compiler.reset()
    fields = example(entry)
    compiled = torch.compile(lambda *given: mean(entry, *given), fullgraph=True, backend="eager")
    value, slopes = gradient(entry, fields, lambda _, *given: compiled(*given))
    expected, theirs = gradient(entry, fields)
    for ours, other in zip((value, *slopes), (expected, *theirs), strict=True):
        same(ours, other, "compiled against eager")


@prop("vmap")
def vmaps(entry: Loss) -> None:
    """Over a leading axis of fields, `torch.func.vmap` of value and gradient equals a loop."""
    fields = example(entry)
    places = learnt(entry, fields)

    def cost(*given: Tensor) -> Tensor:
        return mean(entry, *put(fields, places, given))

    slope_and_value = torch.func.grad_and_value(cost, argnums=tuple(range(len(places))))
    arms = [torch.stack([fields[i], fields[i].flip(0)]) for i in places]
    with warnings.catch_warnings():
        if entry.opaque:  # torch says that it is slow
            warnings.filterwarnings("ignore", "There is a performance drop")
        slopes, values = torch.func.vmap(slope_and_value)(*arms)
    for number in range(2):
        expected, value = slope_and_value(*(arm[number] for arm in arms))
        same(values[number], value, "vmap against a loop")
        for ours, theirs in zip(slopes, expected, strict=True):
            same(ours[number], theirs, "gradient of vmap against a loop")


@prop("no synchronisation")
def no_synchronisation(entry: Loss) -> None:
    """Forward and backward never look at a value: tensors on the meta device have none."""
    _refuse_opaque(entry)
    _without_values(entry)


def _without_values(entry: Loss) -> None:
    own: dict[str, Any] = {name: t.to("meta") for name, t in own_tensors(entry).items()}
    fields = tuple(field.to("meta") for field in example(entry))
    gradient(entry, fields, lambda _, *given: entry.divide(entry.fraction(*given, **own)))


def _refuse_opaque(entry: Loss) -> None:
    """Raise if the loss declares that it looks at values, and does."""
    if not entry.opaque:
        return
    try:
        _without_values(entry)
    except (RuntimeError, NotImplementedError):
        raise NotApplicable(f"it is a black box: {entry.opaque}") from None
    raise Counterexample("it declares itself opaque but never looks at a value")


@prop("no mutation")
def no_mutation(entry: Loss) -> None:
    """Every field is left as it was."""
    # A leaf refuses to be written to, so the loss gets none.
    fields = tuple(
        f.clone().requires_grad_().clone() if f.is_floating_point() else f.clone()
        for f in example(entry)
    )
    versions = [field._version for field in fields]
    torch.autograd.backward(mean(entry, *fields))
    require([field._version for field in fields] == versions, "an input was written to")


@prop("determinism")
def determinism(entry: Loss) -> None:
    """Two equal calls give equal bits under deterministic algorithms."""
    with deterministic():
        first, second = (gradient(entry, example(entry)) for _ in range(2))
    for ours, theirs in zip((first[0], *first[1]), (second[0], *second[1]), strict=True):
        same(ours, theirs, "first against second call", 0)


@prop("target types")
def target_types(entry: Loss) -> None:
    """Whatever dtype holds whole numbers, the same values give the same loss."""
    fields = example(entry)
    if not any(entry.fields[name].startswith("int") for name in entry.inputs):
        raise NotApplicable("no field holds whole numbers")
    for kind in INDEX_TYPES:
        given = (f.to(kind) if f.dtype == torch.int64 else f for f in fields)
        same(mean(entry, *given), mean(entry, *fields), f"whole numbers in {kind}")


@prop("clear errors")
def clear_errors(entry: Loss) -> None:
    """What does not fit raises a ValueError naming the loss and what it was given."""
    fields = example(entry)
    _refuses(entry, fields[:-1], str(len(fields) - 1))
    for i, (name, field) in enumerate(zip(entry.inputs, fields, strict=True)):
        other = field.long() if field.is_floating_point() else field.double()
        _refuses(entry, put(fields, [i], (other,)), name, str(other.dtype))
        for off, words in _outside(entry, name):
            _refuses(entry, put(fields, [i], (field + off,)), name, words)


def _outside(entry: Loss, name: str) -> Iterator[tuple[float, str]]:
    """What added to a field takes it out of its limits, and what the message must hold then."""
    bounds = entry.limits.get(name, Bounds())
    yield from (
        (end, str(bounds)) for end in (bounds.low - 1, bounds.high + 1) if abs(end) < math.inf
    )
    if "<" in entry.fields[name].split()[0]:
        yield from ((off, "from 0 to") for off in (-(10**4), 10**4))


@prop("no broadcasting")
def no_broadcasting(entry: Loss) -> None:
    """Shapes that differ are refused, also where torch would stretch one to the other."""
    fields = example(entry)
    for i, field in enumerate(fields):
        others = [field[:-1], field[:1], field[0]] * (len(fields) > 1)
        if len(fields) > 1 or not entry.fields[entry.inputs[i]].endswith("..."):
            others.append(field.unsqueeze(-1))
        for other in others:
            _refuses(entry, put(fields, [i], (other,)), str(list(other.shape)))


def _refuses(entry: Loss, fields: Fields, *words: str) -> None:
    given = ", ".join(f"{list(field.shape)} {field.dtype}" for field in fields)
    try:
        mean(entry, *fields)
    except ValueError as error:
        for word in (entry.name, *words):
            require(word in str(error), f"for {given} the message lacks '{word}': {error}")
    else:
        raise Counterexample(f"{given} were accepted")


@prop("state")
def state(entry: Loss) -> None:
    """A module of it holds no tensors, and calling it changes nothing in it."""
    module, fields = LossModule(entry, {}), example(entry)
    require(not module.state_dict(), f"state_dict holds {list(module.state_dict())}")
    same(module(*fields), module(*fields), "second against first call", 0)


for _name in ("documented", "own tensors"):  # they fit whatever a loss takes
    OF_FIELDS[_name] = PROPERTIES[_name]
