"""Properties of batches: ignored items, no items, reductions, parts, order, names of classes."""

from collections.abc import Iterator

import torch
from torch import Tensor

from losses.conformance.base import (
    NotApplicable,
    gradient,
    mean,
    prop,
    require,
    same,
    short,
)
from losses.conformance.samples import (
    Sample,
    columns,
    hard_samples,
    has_classes,
    own_tensors,
    per_class,
    samples,
)
from losses.core import Fraction, Loss
from losses.inputs import IGNORE_INDEX, IGNORING, over_classes
from losses.module import LossModule

IGNORED = (IGNORE_INDEX, 255)  # both beyond every class index of the samples


@prop("all ignored")
def all_ignored(entry: Loss) -> None:
    """With every item ignored the loss is 0, its denominator 0 and its gradient exactly 0."""
    for output, target in _labelled(entry):
        for ignored in IGNORED:
            blank = Sample(output, torch.full_like(target, ignored))
            value, slope = gradient(entry, blank, ignore_index=ignored)
            denominator = entry.fraction(*blank, ignore_index=ignored).denominator
            require(denominator == 0, f"denominator {denominator.item()}")
            require(value == 0, f"value {value.item()}")
            require((slope == 0).all(), f"gradient {short(slope)}")


@prop("ignored items do not matter")
def ignored_do_not_matter(entry: Loss) -> None:
    """Whatever the output of an ignored item, NaN included, not one bit changes."""
    for sample in _labelled(entry):
        for ignored in IGNORED:
            for marked in _marks(entry, sample.target):
                _junk_does_not_matter(entry, sample, marked, ignored)


def _marks(entry: Loss, target: Tensor) -> Iterator[Tensor]:
    """What of a target to ignore: every other item and, of regions, a third of the elements."""
    number = torch.arange(target.numel()).view(target.shape)
    yield number // max(target[0].numel(), 1) % 2 == 1
    if entry.region:
        yield number % 3 == 1


def _junk_does_not_matter(entry: Loss, sample: Sample, marked: Tensor, ignored: int) -> None:
    target = sample.target.masked_fill(marked, ignored)
    places = over_classes(marked, sample.output).expand_as(sample.output)
    value, slope = gradient(entry, Sample(sample.output, target), ignore_index=ignored)
    require((slope[places] == 0).all(), "an ignored item has a gradient")
    for junk in (1e6, -float("inf"), float("nan")):
        output = sample.output.masked_fill(places, junk)
        other = gradient(entry, Sample(output, target), ignore_index=ignored)
        same(other[0], value, f"value with {junk} in ignored items", 0)
        same(other[1], slope, f"gradient with {junk} in ignored items", 0)


@prop("ignored items are absent")
def ignored_are_absent(entry: Loss) -> None:
    """A batch with ignored items costs what the batch without them costs."""
    for output, target in _labelled(entry):
        marked = target.clone()
        marked[:3] = IGNORE_INDEX
        same(mean(entry, output, marked), mean(entry, output[3:], target[3:]), "mean")


def _labelled(entry: Loss) -> list[Sample]:
    if entry.target not in IGNORING:
        raise NotApplicable(f"{entry.target} targets leave no value to mark an item with")
    return hard_samples(entry)


@prop("empty batch")
def empty_batch(entry: Loss) -> None:
    """A batch without items costs 0 and has an empty gradient; nothing is raised."""
    for output, target in samples(entry):
        value, slope = gradient(entry, Sample(output[:0], target[:0]))
        require(value == 0, f"value {value.item()}")
        require(slope.shape == output[:0].shape, f"gradient of shape {list(slope.shape)}")


@prop("reductions")
def reductions(entry: Loss) -> None:
    """There is one value per item; the sum is theirs, the mean is sum over denominator."""
    for output, target in samples(entry):
        values = entry.parts(output, target).values
        summed = columns(entry) or entry.sum_classes
        items = output.shape[:1] + output.shape[2:] if summed else target.shape
        if entry.region:  # a value per item and class, or one per item
            items = torch.Size((len(output), values.shape[-1]))
        elif entry.target == "boxes":
            items = output.shape[:1]
        coupled = not entry.additive and values.shape == (1,)  # one value for the whole batch
        right = coupled or values.shape == items
        require(right, f"values of shape {list(values.shape)}, not {list(items)}")
        fraction = entry.fraction(output, target)
        require(fraction.numerator.ndim == fraction.denominator.ndim == 0, "no scalars")
        same(fraction.numerator, values.sum(), "numerator against sum of values")
        same(LossModule(entry, {})(output, target), entry.divide(fraction), "mean")
        if entry.finish is None:
            same(LossModule(entry, {}, "sum")(output, target), values.sum(), "sum")
            same(LossModule(entry, {}, "none")(output, target), values, "none")


@prop("additive")
def additive(entry: Loss) -> None:
    """Numerators and denominators of uneven parts add up to those of the batch."""
    for whole, parts in _split(entry):
        joined = _joined(entry, parts)
        for name, total, expected in zip(
            Fraction._fields, joined, entry.fraction(*whole), strict=True
        ):
            same(total, expected, name)


@prop("gradient accumulation")
def gradient_accumulation(entry: Loss) -> None:
    """Uneven micro-batches, put together before the division, give the batch's gradient."""
    for whole, parts in _split(entry):
        leaves = [part.output.detach().clone().requires_grad_() for part in parts]
        pieces = [Sample(o, part.target) for o, part in zip(leaves, parts, strict=True)]
        slopes = torch.autograd.grad(entry.divide(_joined(entry, pieces)), leaves)
        same(torch.cat(slopes), gradient(entry, whole)[1], "gradient")


def _joined(entry: Loss, parts: list[Sample]) -> Fraction:
    fractions = [entry.fraction(*part) for part in parts]
    return Fraction(*(torch.stack(column).sum() for column in zip(*fractions, strict=True)))


def _split(entry: Loss) -> Iterator[tuple[Sample, list[Sample]]]:
    """Samples as a whole and in two parts of 2 and 5 items, one of them ignored where possible."""
    if not entry.additive:
        raise NotApplicable("the items of a batch are coupled")
    for output, target in samples(entry):
        labels = target.clone()
        if entry.target in IGNORING and not target.is_floating_point():
            labels[1] = IGNORE_INDEX
        parts = [Sample(output[:2], labels[:2]), Sample(output[2:], labels[2:])]
        yield Sample(output, labels), parts


@prop("order of items")
def order_of_items(entry: Loss) -> None:
    """The order of the items changes nothing but the order of the values."""
    order = torch.tensor([3, 0, 6, 5, 1, 4, 2])
    for output, target in samples(entry):
        same(mean(entry, output[order], target[order]), mean(entry, output, target), "mean")
        if entry.additive:
            values = entry.parts(output, target).values[order]
            same(entry.parts(output[order], target[order]).values, values, "values")


@prop("names of classes")
def names_of_classes(entry: Loss) -> None:
    """Renumbering the classes in output, target and parameters alike changes nothing."""
    if entry.target == "labels":
        _names_of_labels(entry)
        return
    labels = entry.sum_classes and entry.target == "binary"
    if not has_classes(entry) and not labels:
        raise NotApplicable("it has no classes whose order is of no account")
    order = torch.tensor([2, 0, 3, 1])  # what was class order[i] is now class i
    given = {k: v[order] for k, v in per_class(entry).items()}
    for output, target in samples(entry):
        rows = labels or target.is_floating_point()
        renamed = target[:, order] if rows else order.argsort()[target]
        ours = mean(entry, output[:, order], renamed, **given)
        same(ours, mean(entry, output, target), "mean")


def _names_of_labels(entry: Loss) -> None:
    order = torch.tensor([2, 0, 3, 1])
    own = {name: tensor[order] for name, tensor in own_tensors(entry).items()}
    for output, target in samples(entry):
        renamed = order.argsort()[target]
        same(mean(entry, output, renamed, **own), mean(entry, output, target), "mean")


@prop("shift of scores")
def shift_of_scores(entry: Loss) -> None:
    """Adding one number to all scores of an item changes nothing."""
    if not has_classes(entry) and entry.target != "place":
        raise NotApplicable("it has no scores of classes")
    if entry.output_within:
        raise NotApplicable("its outputs are log-probabilities")
    for output, target in samples(entry):
        same(mean(entry, output + 3.0, target), mean(entry, output, target), "mean")
