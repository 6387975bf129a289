"""The same properties for losses of named fields, whose inputs only the loss's own example knows.

`OF_FIELDS` holds them under the names of :data:`~losses.conformance.base.PROPERTIES`, and
`BEYOND_FIELDS` says of the others why they do not apply. Where a property speaks of "the output",
this one speaks of every float field that is not declared detached, all at once.
"""

import itertools
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from losses.arguments import Bounds
from losses.conformance.base import (
    ROUNDING,
    NotApplicable,
    Property,
    require,
    same,
    short,
)
from losses.conformance.samples import EXTREMES
from losses.core import Fraction, Loss
from losses.module import LossModule

Fields = tuple[Tensor, ...]
OF_FIELDS: dict[str, Property] = {}
UNLABELLED = "fields leave no label to mark an item with"
UNNAMED = "which of the fields holds scores of classes, only its own tests know"
UNKNOWN = "what is right and what is wrong differs from loss to loss; its own tests say"
BEYOND_FIELDS = {
    "all ignored": UNLABELLED,
    "ignored items do not matter": UNLABELLED,
    "ignored items are absent": UNLABELLED,
    "names of classes": UNNAMED,
    "shift of scores": UNNAMED,
    "perfect prediction": UNKNOWN,
    "wrong and confident": UNKNOWN,
    "monotone": UNKNOWN,
    "derivative": "its gradient is left to autograd",
}
MODERATE = 25.0  # what an unbounded loss must bear; two fields may be subtracted in an exponent
MANY = 2000  # numbers whose derivatives are no longer taken one by one
ROUNDS = 40  # batches of extreme numbers, drawn at random


def prop(name: str) -> Callable[[Property], Property]:
    """Name the property of fields; it is one of the ordinary properties."""

    def register(function: Property) -> Property:
        OF_FIELDS[name] = function
        return function

    return register


def example(entry: Loss, seed: int = 0) -> Fields:
    """The loss's own example; the declared fields, if any, are all there."""
    require(entry.example, "it declares no example")
    said = set(entry.fields) - set(entry.own)
    require(said == set(entry.inputs), "`fields` must say what each input is")
    assert entry.example is not None
    return entry.example(torch.Generator().manual_seed(seed))


def learnt(entry: Loss, fields: Fields) -> list[int]:
    """Places of the float fields that carry a gradient."""
    words = set(re.findall(r"\w+", entry.detached or ""))
    floats = [i for i, field in enumerate(fields) if field.is_floating_point()]
    return [i for i in floats if entry.inputs[i] not in words]


def mean(entry: Loss, *fields: Tensor) -> Tensor:
    """The loss as it is trained on."""
    return entry.divide(entry.fraction(*fields))


def numerator(entry: Loss, *fields: Tensor) -> Tensor:
    """The sum of values, before the division."""
    return entry.fraction(*fields).numerator


def gradient(
    entry: Loss, fields: Fields, of: Callable[..., Tensor] = mean
) -> tuple[Tensor, Fields]:
    """Value, and gradient with respect to each learnt field; exactly none reaches the others."""
    leaves = tuple(
        f.detach().clone().requires_grad_() if f.is_floating_point() else f for f in fields
    )
    value = of(entry, *leaves)
    require(value.requires_grad, "the value has no graph")
    floats = [i for i, field in enumerate(leaves) if field.requires_grad]
    slopes = torch.autograd.grad(value, [leaves[i] for i in floats], allow_unused=True)
    found = dict(zip(floats, slopes, strict=True))
    fixed = [found[i] for i in floats if i not in learnt(entry, fields)]
    idle = all(slope is None or (slope == 0).all() for slope in fixed if not _hidden(slope))
    require(idle, f"a gradient reaches what it declares detached: {entry.detached}")
    ours = tuple(found[i] for i in learnt(entry, fields))
    for i, slope in zip(learnt(entry, fields), ours, strict=True):
        require(slope is not None, f"{entry.inputs[i]} has no gradient and is not declared so")
    return value.detach(), ours


def _hidden(slope: Tensor | None) -> bool:
    return slope is not None and slope.is_meta


def rounded(fields: Fields, dtype: torch.dtype) -> Fields:
    """Float fields in a dtype, the others as they are."""
    return tuple(f.to(dtype) if f.is_floating_point() else f for f in fields)


def rows(fields: Fields, which: Any) -> Fields:
    """The same rows of every field."""
    return tuple(field[which] for field in fields)


def extremes(entry: Loss, largest: float) -> list[Fields]:
    """The example with extreme numbers for some elements, rows or whole fields, in mixtures."""
    fields, draw = example(entry), torch.Generator().manual_seed(1)
    made = []
    few = sum(field.numel() for field in fields) > 10 * MANY
    for round_ in range(ROUNDS // 5 if few else ROUNDS):
        changed = list(fields)
        for i, field in enumerate(fields):
            if field.is_floating_point():
                bounds = entry.limits.get(entry.inputs[i], Bounds())
                numbers = torch.tensor([n for n in EXTREMES if abs(n) <= largest and n in bounds])
                shape = field.shape if round_ % 2 else (len(field), *[1] * (field.ndim - 1))
                picked = numbers[torch.randint(len(numbers), shape, generator=draw)].double()
                swap = torch.rand(shape, generator=draw) < (0.5 if round_ % 4 < 2 else 1.0)
                changed[i] = torch.where(swap, picked, field)
        made.append(tuple(changed))
    return made


@prop("finite")
def finite(entry: Loss) -> None:
    """Values and gradients are finite for extreme numbers within the limits, in mixtures.

    A loss that declares itself unbounded is held to ±25, and must overflow at 1e4.
    """
    for fields in extremes(entry, MODERATE if entry.unbounded else max(EXTREMES)):
        for dtype in (torch.float32, torch.bfloat16):
            value, slopes = gradient(entry, rounded(fields, dtype), numerator)
            require(value.isfinite(), f"{dtype}: the sum over extreme fields is {value.item()}")
            for i, slope in zip(learnt(entry, fields), slopes, strict=True):
                where = f"in {entry.inputs[i]} at {[short(f) for f in fields]}"
                require(slope.isfinite().all(), f"{dtype}: gradient {short(slope)} {where}")
        half = numerator(entry, *rounded(fields, torch.float16))
        require(half.isfinite(), f"float16: the sum over extreme fields is {half.item()}")
    if entry.unbounded:
        totals = [numerator(entry, *rounded(f, torch.float32)) for f in extremes(entry, 1e4)]
        overflown = not torch.stack(totals).isfinite().all()
        require(overflown, "it declares itself unbounded but is finite at 1e4")


@prop("internal precision")
def internal_precision(entry: Loss) -> None:
    """Half precision is computed in float32, under autocast too; float64 stays float64."""
    fields = example(entry)
    for dtype in (torch.float16, torch.bfloat16):
        low = rounded(fields, dtype)
        value = mean(entry, *low)
        require(value.dtype == torch.float32, f"{dtype} gives {value.dtype}")
        single = mean(entry, *rounded(low, torch.float32))
        same(value, single, f"{dtype} against float32", 0)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            same(mean(entry, *low), value, "under autocast against without", 0)
    for dtype in (torch.float32, torch.float64):
        got = numerator(entry, *rounded(fields, dtype)).dtype
        require(got == dtype, f"{dtype} gives {got}")


@prop("large sums")
def large_sums(entry: Loss) -> None:
    """The mean over many equal items in float16 is one item's in float64, within 0.1%."""
    if not entry.additive:
        raise NotApplicable("the items of a batch are coupled")
    one = rounded(rows(example(entry), slice(1)), torch.float16)
    many = 2**18 // max(field.numel() for field in one)
    repeated = (field.expand(many, *field.shape[1:]) for field in one)
    expected = mean(entry, *rounded(one, torch.float64))
    same(mean(entry, *repeated).double(), expected, "many in float16 against one in float64", 1e-3)


@prop("gradcheck")
def gradcheck(entry: Loss) -> None:
    """Autograd agrees with central differences in float64, value by value and field by field."""
    fields = example(entry)
    places = learnt(entry, fields)
    if entry.detached and len(places) == sum(field.is_floating_point() for field in fields):
        raise NotApplicable(f"a part carries no gradient by design: {entry.detached}")

    def values(*given: Tensor) -> Tensor:
        return entry.parts(*put(fields, places, given)).values

    gradient(entry, fields)  # what is declared detached must be
    leaves = [fields[i].clone().requires_grad_() for i in places]
    large = sum(leaf.numel() for leaf in leaves) > MANY  # then along one random direction
    torch.autograd.gradcheck(values, leaves, fast_mode=large)


def put(fields: Fields, places: list[int], given: Fields) -> Fields:
    """The fields with those at some places replaced."""
    changed = list(fields)
    for place, field in zip(places, given, strict=True):
        changed[place] = field
    return tuple(changed)


@prop("not below the minimum")
def not_below_minimum(entry: Loss) -> None:
    """No example, as it is or at extremes, costs less than the declared minimum."""
    if entry.minimum is None:
        raise NotApplicable("it declares no minimum")
    for fields in [example(entry), *extremes(entry, MODERATE)]:
        least = entry.parts(*fields).values.min().item()
        require(least >= entry.minimum - ROUNDING, f"{least} is below {entry.minimum}")


@prop("empty batch")
def empty_batch(entry: Loss) -> None:
    """A batch without items costs 0 and has an empty gradient; nothing is raised."""
    none = rows(example(entry), slice(0))
    value, slopes = gradient(entry, none)
    require(value == 0, f"value {value.item()}")
    for i, slope in zip(learnt(entry, none), slopes, strict=True):
        require(slope.shape == none[i].shape, f"gradient of shape {list(slope.shape)}")


@prop("reductions")
def reductions(entry: Loss) -> None:
    """There are values of every item; the sum is theirs, the mean is sum over denominator."""
    fields = example(entry)
    values = entry.parts(*fields).values
    apart = not entry.additive or values.shape[:1] == fields[0].shape[:1]
    require(apart, f"values of shape {list(values.shape)} for {len(fields[0])} items")
    fraction = entry.fraction(*fields)
    require(fraction.numerator.ndim == fraction.denominator.ndim == 0, "no scalars")
    same(fraction.numerator, values.sum(), "numerator against sum of values")
    same(LossModule(entry, {})(*fields), entry.divide(fraction), "mean")
    if entry.finish is None:
        same(LossModule(entry, {}, "sum")(*fields), values.sum(), "sum")
        same(LossModule(entry, {}, "none")(*fields), values, "none")


@prop("additive")
def additive(entry: Loss) -> None:
    """Numerators and denominators of uneven parts add up to those of the batch."""
    fields, parts = _split(entry)
    joined = _joined(entry, parts)
    for name, total, expected in zip(
        Fraction._fields, joined, entry.fraction(*fields), strict=True
    ):
        same(total, expected, name)


@prop("gradient accumulation")
def gradient_accumulation(entry: Loss) -> None:
    """Uneven micro-batches, put together before the division, give the batch's gradient."""
    fields, parts = _split(entry)
    places = learnt(entry, fields)
    leaves = [[part[i].clone().requires_grad_() for i in places] for part in parts]
    pieces = [put(part, places, tuple(own)) for part, own in zip(parts, leaves, strict=True)]
    slopes = torch.autograd.grad(
        entry.divide(_joined(entry, pieces)), list(itertools.chain(*leaves))
    )
    expected = gradient(entry, fields)[1]
    for i, whole in enumerate(expected):
        same(torch.cat(slopes[i :: len(places)]), whole, f"gradient in {entry.inputs[places[i]]}")


def _joined(entry: Loss, parts: list[Fields]) -> Fraction:
    fractions = [entry.fraction(*part) for part in parts]
    return Fraction(*(torch.stack(column).sum() for column in zip(*fractions, strict=True)))


def _split(entry: Loss) -> tuple[Fields, list[Fields]]:
    """The example as a whole, and in two uneven parts."""
    if not entry.additive:
        raise NotApplicable("the items of a batch are coupled")
    fields = example(entry)
    return fields, [rows(fields, slice(2)), rows(fields, slice(2, None))]


@prop("order of items")
def order_of_items(entry: Loss) -> None:
    """The order of the items changes nothing but the order of the values."""
    fields = example(entry)
    order = torch.randperm(len(fields[0]), generator=torch.Generator().manual_seed(0))
    shuffled = rows(fields, order)
    same(mean(entry, *shuffled), mean(entry, *fields), "mean")
    if entry.additive:
        same(entry.parts(*shuffled).values, entry.parts(*fields).values[order], "values")
