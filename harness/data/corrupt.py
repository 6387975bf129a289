"""What is done to the training part alone; validation and test stay clean and as the source is.

Each function takes the clean training target and a generator, and returns which items are kept (an
array of positions) and their new targets. Its keyword-only parameters are options of every data set
of that kind. More corruption contains less: a larger share spoils the same items and others.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.data.split import shuffled
from losses.arguments import Count, Share

Array = npt.NDArray[Any]


def classes(
    target: Array,
    rng: np.random.Generator,
    *,
    head: Count | None = None,
    tail: Count | None = None,
    label_noise: Share = 0.0,
) -> tuple[Array, Array]:
    r"""A long tail, then label noise, for int64 [N] below C.

    Class k of 0 to C-1 keeps :math:`\text{head} \, (\text{tail}/\text{head})^{k/(C-1)}` items, so
    for two classes `tail` is the number of positives.

    Args:
        target: classes, int64 [N].
        rng: the order in which items are dropped and spoiled.
        head: items of the first class; None for as many as there are.
        tail: items of the last class; None for as many as `head`. Both None keep everything.
        label_noise: share of the kept items that get another class, uniformly.

    Raises:
        ValueError: `tail` exceeds `head`, or a class has fewer items than it should keep.
    """
    order, spoiling = shuffled(len(target), rng), shuffled(len(target), rng)
    places = rng.random(len(target))
    number = int(target.max()) + 1
    kept = np.arange(len(target))
    if head is not None or tail is not None:
        kept = _long_tail(target, order, _profile(target, number, head, tail))
    spoilt = spoiling[np.isin(spoiling, kept)][: round(label_noise * len(kept))]
    noisy = target.copy()
    noisy[spoilt] = (target[spoilt] + 1 + (places[spoilt] * (number - 1)).astype(int)) % number
    return kept, noisy[kept]


def _profile(target: Array, number: int, head: int | None, tail: int | None) -> Array:
    """Items to keep per class, int64 [C]."""
    there = np.bincount(target, minlength=number)
    first = int(there[0]) if head is None else head
    last = first if tail is None else tail
    if last > first:
        raise ValueError(f"tail={last} must not exceed head={first}")
    sizes = first * (last / first) ** (np.arange(number) / (number - 1))
    wanted = np.round(sizes).astype(np.int64)
    for each in np.flatnonzero(wanted > there)[:1]:
        raise ValueError(
            f"head={first} and tail={last} ask for {wanted[each]} training items "
            f"of class {each}, which has {there[each]}"
        )
    return wanted


def _long_tail(target: Array, order: Array, wanted: Array) -> Array:
    """Positions of the first `wanted` items of each class by `order`, ascending."""
    kept = [order[target[order] == each][:size] for each, size in enumerate(wanted)]
    return np.sort(np.concatenate(kept))


def labels(
    target: Array, rng: np.random.Generator, *, label_noise: Share = 0.0
) -> tuple[Array, Array]:
    """Label noise for int64 [N, L] of 0 and 1.

    Args:
        target: which labels each item has, int64 [N, L].
        rng: the order in which entries are spoiled.
        label_noise: share of the N * L entries that are flipped.
    """
    noisy = target.copy()
    spoilt = shuffled(target.size, rng)[: round(label_noise * target.size)]
    noisy.flat[spoilt] = 1 - target.flat[spoilt]
    return np.arange(len(target)), noisy


def numbers(
    target: Array, rng: np.random.Generator, *, outliers: Share = 0.0, outlier_size: float = 10.0
) -> tuple[Array, Array]:
    """Outliers for standardised targets [N] or [N, K].

    Args:
        target: standardised targets, float [N] or [N, K].
        rng: the order in which items are spoiled.
        outliers: share of items whose target is shifted (all K of them).
        outlier_size: the shift, in standard deviations of the clean training target.
    """
    shifted = target.copy()
    shifted[shuffled(len(target), rng)[: round(outliers * len(target))]] += outlier_size
    return np.arange(len(target)), shifted


def maps(target: Array, _: np.random.Generator) -> tuple[Array, Array]:
    """Nothing is done to maps int64 [N, H, W]."""
    return np.arange(len(target)), target


def objects(target: Mapping[str, Array], _: np.random.Generator) -> tuple[Array, Any]:
    """Nothing is done to boxes and labels of objects."""
    return np.arange(len(target["labels"])), target


BY_KIND: dict[str, Callable[..., tuple[Array, Any]]] = {
    "binary": classes,
    "multiclass": classes,
    "multilabel": labels,
    "regression": numbers,
    "mask": maps,
    "semantic": maps,
    "boxes": objects,
}
