"""Properties of values and gradients: finite, precise, right at both ends, monotone."""

import itertools

import torch
from torch import Tensor

from losses import fused
from losses.conformance.base import (
    ROUNDING,
    NotApplicable,
    gradient,
    mean,
    numerator,
    prop,
    require,
    same,
    short,
)
from losses.conformance.samples import (
    Sample,
    approach,
    extremes,
    hard_samples,
    mistaken,
    perfect,
    samples,
)
from losses.core import Loss
from losses.inputs import IGNORE_INDEX


@prop("finite")
def finite(entry: Loss) -> None:
    """Values and gradients are finite for outputs of 0, ±1e-6, ±1, ±50, ±1e4 in every mixture.

    A loss that declares itself unbounded is held to ±50, and must overflow at 1e4.
    """
    output, target = extremes(entry, 50 if entry.unbounded else 1e4)
    for dtype in (torch.float32, torch.bfloat16):
        value, slope = gradient(entry, Sample(output.to(dtype), target), numerator)
        require(value.isfinite(), f"{dtype}: the sum over extreme outputs is {value.item()}")
        for given, got in zip(output, slope, strict=True):
            require(got.isfinite().all(), f"{dtype}: gradient {short(got)} at {short(given)}")
    half = numerator(entry, output.half(), target)
    require(half.isfinite(), f"float16: the sum over extreme outputs is {half.item()}")
    if entry.unbounded:
        output, target = extremes(entry)
        total = numerator(entry, output.float(), target)
        require(not total.isfinite(), "it declares itself unbounded but is finite at 1e4")


@prop("internal precision")
def internal_precision(entry: Loss) -> None:
    """Half precision is computed in float32, under autocast too; float64 stays float64."""
    for output, target in samples(entry):
        for dtype in (torch.float16, torch.bfloat16):
            low = output.to(dtype)
            value = mean(entry, low, target)
            require(value.dtype == torch.float32, f"{dtype} gives {value.dtype}")
            same(value, mean(entry, low.float(), target), f"{dtype} against float32", 0)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                same(mean(entry, low, target), value, "under autocast against without", 0)
        for dtype in (torch.float32, torch.float64):
            got = mean(entry, output.to(dtype), target).dtype
            require(got == dtype, f"{dtype} gives {got}")


@prop("large sums")
def large_sums(entry: Loss) -> None:
    """The mean over 512 x 512 equal items in float16 is one item's in float64, within 0.1%.

    Of a region it is the elements that are many: a large one in float16 costs what it does in
    float64, and there about what one of an eighth costs, which no sum in half precision can.
    """
    if not entry.additive:
        raise NotApplicable("the items of a batch are coupled")
    output, target = (t[:1] for t in samples(entry)[0])
    output = output.half()
    if entry.region:  # what is summed first are the elements of an item
        small, large = (
            [t.repeat_interleave(length // 6, -1) for t in (output, target)]
            for length in (512 * 64, 512 * 512)
        )
        expected = mean(entry, large[0].double(), large[1])
        same(mean(entry, *large).double(), expected, "a large region in float16", 1e-4)
        eighth = mean(entry, small[0].double(), small[1])
        same(expected, eighth, "a large region against an eighth of it", 1e-3)
        return
    one = mean(entry, output.double(), target)
    many = (t.expand(512 * 512, *t.shape[1:]) for t in (output, target))
    same(mean(entry, *many).double(), one, "many in float16 against one in float64", 1e-3)


@prop("gradcheck")
def gradcheck(entry: Loss) -> None:
    """Autograd agrees with central differences in float64, value by value."""
    if entry.detached:
        raise NotApplicable(f"a part carries no gradient by design: {entry.detached}")
    for output, target in samples(entry):

        def values(output: Tensor, target: Tensor = target) -> Tensor:
            return entry.parts(output, target).values

        torch.autograd.gradcheck(values, output.requires_grad_())


@prop("perfect prediction")
def perfect_prediction(entry: Loss) -> None:
    """A perfect prediction costs the declared minimum and has a finite gradient."""
    for _, target in hard_samples(entry):
        value, slope = gradient(entry, Sample(perfect(entry, target, 1e4), target))
        require(slope.isfinite().all(), f"gradient {short(slope)}")
        if entry.minimum is not None:
            same(value, torch.full_like(value, entry.minimum), "value against minimum", 1e-8)


@prop("not below the minimum")
def not_below_minimum(entry: Loss) -> None:
    """No sample costs less than the declared minimum."""
    if entry.minimum is None:
        raise NotApplicable("it declares no minimum")
    for output, target in samples(entry):
        least = entry.parts(output, target).values.min().item()
        require(least >= entry.minimum - ROUNDING, f"{least} is below {entry.minimum}")


@prop("wrong and confident")
def wrong_and_confident(entry: Loss) -> None:
    """A confident mistake has a gradient in every item, or the loss declares that it saturates.

    Where an item is a sum over labels, each label is a mistake of its own.
    """
    target = hard_samples(entry)[0].target
    _, slope = gradient(entry, Sample(mistaken(entry, target), target), numerator)
    items = slope.numel() if entry.sum_classes and entry.target == "binary" else len(slope)
    least = slope.abs().reshape(items, -1).amax(1).min().item()
    if entry.saturating:
        require(least < 1e-4, f"it declares that it saturates, but its gradient is {least:.2g}")
        raise NotApplicable(f"it saturates: {entry.saturating}")
    require(least > 1e-4, f"sure of a wrong answer, an item has a gradient of {least:.2g}")


@prop("monotone")
def monotone(entry: Loss) -> None:
    """Moving an output towards its target never raises a value, and lowers the sum.

    On its way to its place an embedding may pass by others: there the sum alone is compared.
    """
    if entry.nonmonotone:
        raise NotApplicable(f"it is not monotone: {entry.nonmonotone}")
    for sample in hard_samples(entry):
        path = [entry.parts(output, sample.target).values for output in approach(entry, sample)]
        for before, after in itertools.pairwise(path):
            rise = (after - before).max().item()
            steady = rise <= ROUNDING or entry.target == "labels"
            require(steady, f"a step towards the target raised a value by {rise}")
        require(path[-1].sum() < path[0].sum(), "the sum is not lower at the target")


@prop("derivative")
def derivative(entry: Loss) -> None:
    """The derivative by hand gives the value and gradient of the plain formula, in any pieces."""
    if entry.derivative is None:
        raise NotApplicable("its gradient is left to autograd")
    piece = fused.PIECE["cpu"]
    try:
        for sample in samples(entry):
            output, target, kept, given = entry.ready(tuple(sample), IGNORE_INDEX, {})
            output = output.detach().requires_grad_()
            plain = entry.plain(output, target, kept, given)
            (expected,) = torch.autograd.grad(plain.values.sum(), output)
            number = plain.values.numel() if plain.counts is None else plain.counts.sum()
            for fused.PIECE["cpu"] in (1, 7, piece):
                total, count = fused.fraction(entry, output, target, kept, given)
                (slope,) = torch.autograd.grad(total, output)
                words = f"{fused.PIECE['cpu']} elements at a time"
                same(total, plain.values.sum(), f"value, {words}")
                same(slope, expected, f"gradient, {words}")
                same(count, torch.as_tensor(number).to(count), f"count, {words}")
    finally:
        fused.PIECE["cpu"] = piece
