"""How losses are called: tensors in order or by name, parameters checked against the signature."""

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from losses.arguments import ClassCounts, ClassWeight, Parameter, PerClass, check_arguments
from losses.inputs import IGNORE_INDEX, IGNORING, check_counts

if TYPE_CHECKING:
    from losses.core import Loss

Reduction = Literal["none", "mean", "sum"]
OF_CLASSES = (ClassCounts, ClassWeight, PerClass)


def checked(entry: "Loss", given: dict[str, Any]) -> dict[str, Any]:
    """Check against the signature, `ignore_index` included; a list of numbers becomes a tensor."""
    allowed = entry.parameters
    if entry.ignoring:
        allowed = {**allowed, "ignore_index": Parameter("ignore_index", int, IGNORE_INDEX)}
    checked = check_arguments(entry.name, allowed, given)
    for key, parameter in allowed.items():
        if parameter.annotation == ClassCounts:
            check_counts(f"{entry.name}.{key}", checked.get(key, parameter.default))
    for key, value in checked.items():
        if allowed[key].annotation == ClassWeight and isinstance(value, str):
            raise ValueError(
                f"{entry.name}.{key}={value!r} needs class counts: "
                f"pass losses.class_weight({value!r}, counts)"
            )
        if isinstance(value, list) and value and allowed[key].annotation in OF_CLASSES:
            checked[key] = torch.tensor(value, dtype=torch.get_default_dtype())
    return checked


def in_order(
    entry: "Loss", tensors: tuple[Tensor, ...], given: dict[str, Any]
) -> tuple[Tensor, ...]:
    """The tensors, with those at the end that were given by name, which leave `given`."""
    if not given:
        return tensors
    rest = [*entry.inputs, *entry.own][len(tensors) :]
    return (*tensors, *(given.pop(name) for name in rest if name in given))


def own_apart(
    entry: "Loss", tensors: tuple[Tensor, ...]
) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """The inputs, and by name the tensors of its own that follow them."""
    if not entry.own:
        return tensors, {}
    wanted, inputs = [*entry.inputs, *entry.own], len(entry.inputs)
    if len(tensors) != len(wanted):
        raise ValueError(f"{entry.name} needs {', '.join(wanted)}; got {len(tensors)} tensors")
    return tensors[:inputs], dict(zip(entry.own, tensors[inputs:], strict=True))


def torch_like(function: Callable[..., Any], entry: "Loss") -> inspect.Signature:
    """The signature of a loss as it is called."""
    signature = inspect.signature(function)
    given = signature.parameters
    inputs = [given[name] for name in (*entry.inputs, *entry.own)]
    settings = [given[name] for name in entry.parameters]
    keyword = inspect.Parameter.KEYWORD_ONLY
    extra = [inspect.Parameter("reduction", keyword, default="mean", annotation=Reduction)]
    if entry.target in IGNORING:
        ignored = inspect.Parameter("ignore_index", keyword, default=IGNORE_INDEX, annotation=int)
        extra.append(ignored)
    return signature.replace(parameters=[*inputs, *settings, *extra], return_annotation=Tensor)
