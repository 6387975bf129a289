"""What a data set is, before and after it is divided, and the registry of all of them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from harness.data import corrupt
from harness.data.scale import in_units
from harness.data.split import Array, Split, cut
from losses.arguments import Parameter, nearest, parameters_of

Kind = Literal["binary", "multiclass", "multilabel", "regression", "mask", "semantic", "boxes"]
Target = Any
"""A tensor of N rows, or such tensors by name."""


@dataclass(frozen=True, eq=False)
class Part:
    """Items of one part: inputs float32 [N, ...]; target, see :class:`Data`, all of N rows."""

    inputs: Tensor
    target: Target

    def to(self, device: torch.device) -> "Part":
        """The same items on a device."""
        return Part(self.inputs.to(device), _each(self.target, lambda rows: rows.to(device)))

    def take(self, rows: Tensor) -> tuple[Tensor, Target]:
        """Inputs and target of some items."""
        rows = rows.to(self.inputs.device)
        return self.inputs[rows], _each(self.target, lambda tensor: tensor[rows])

    def __len__(self) -> int:
        return len(self.inputs)


def _each(target: Target, change: Callable[[Tensor], Tensor]) -> Target:
    if isinstance(target, Tensor):
        return change(target)
    return {name: change(tensor) for name, tensor in target.items()}


@dataclass(frozen=True, eq=False)
class Data:
    """A data set, divided and ready to train on.

    Attributes:
        kind: what the target is. binary: int64 [N] of 0 and 1; multiclass: int64 [N] below C;
            multilabel: int64 [N, L] of 0 and 1; regression: float32 [N] or, of several, [N, K];
            mask: int64 [N, H, W] of 0 and 1, -100 where nothing is asked; semantic: int64 [N, H, W]
            below C, or -100; boxes: `boxes` float32 [N, M, 4] in pixels, corners x1, y1, x2, y2,
            and `labels` int64 [N, M] below C, -100 where an item has fewer than M objects; `masks`
            uint8 [N, M, H, W] may stand beside them.
        train: the training part, corrupted where that was asked for.
        val: the validation part: clean, and distributed as the source is.
        test: the test part, likewise.
        outputs: how many numbers a model gives per item: 1, C, L, or the number of targets.
        target_names: names of the classes (2 if binary), labels, or regression targets.
        scale: mean and sd of a regression target over the clean training part, float64 [] or [K];
            `target * sd + mean` has the original units. None for classes, and where targets were
            not standardised.
        fingerprints: sha256 of `data` (the source, before anything was drawn) and of `split` (the
            row numbers of the three parts, and which training targets were corrupted); of
            `composed` items too, where a data set composes them itself.
        class_counts: training items per class (2 if binary), or with each label, after the
            corruption; of maps, pixels per class. int64, None for regression.
        rows: row numbers in the source per part (`train`, `val`, `test`), int64 [N], or [N, M]
            where an item is composed of up to M source rows, the rest being -1.
    """

    kind: Kind
    train: Part
    val: Part
    test: Part
    outputs: int
    target_names: tuple[str, ...]
    scale: tuple[Tensor, Tensor] | None
    fingerprints: dict[str, str]
    class_counts: Tensor | None
    rows: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Raw:
    """What a data set's function returns: every item, undivided and unscaled.

    Attributes:
        inputs: float [N, ...].
        target: int64 [N], [N, L] or [N, H, W], or float [N] or [N, K]; see :class:`Data`.
        target_names: as in :class:`Data`.
        fingerprint: sha256 of the source.
        standardise: z-score each input column by the training part; off where inputs have a scale
            of their own, such as pixels.
        split: a split the data set makes itself; None draws one at random.
        rows: source rows of each item, int64 [N, M]; None where items are the rows.
        composed: sha256 of items that the data set composed from the source.
        unseen: the parts share no class, and those that train are numbered first.
    """

    inputs: Array
    target: Array
    target_names: tuple[str, ...]
    fingerprint: str
    standardise: bool = True
    split: Split | None = None
    rows: Array | None = None
    composed: str | None = None
    unseen: bool = False


@dataclass(frozen=True)
class DataSet:
    """One registered data set; `kind` is None where a parameter of that name says it."""

    name: str
    function: Callable[..., Raw]
    kind: Kind | None
    source: str
    licence: str
    parameters: dict[str, Parameter]


REGISTRY: dict[str, DataSet] = {}


def dataset(
    name: str, *, kind: Kind | None, source: str, licence: str = ""
) -> Callable[[Callable[..., Raw]], Callable[..., Raw]]:
    """Register a function (split_seed, *, parameters) that returns a :class:`Raw`.

    Its parameters are joined by `train_size` and by those its kind has in
    :mod:`harness.data.corrupt`.

    Raises:
        ValueError: the name is taken.
    """

    def register(function: Callable[..., Raw]) -> Callable[..., Raw]:
        if name in REGISTRY:
            raise ValueError(f"data set '{name}' is registered twice")
        declared = parameters_of(function) | parameters_of(cut)
        for each in [kind] if kind else corrupt.BY_KIND:
            declared |= parameters_of(corrupt.BY_KIND[each])
            declared |= parameters_of(in_units) if each == "regression" else {}
        REGISTRY[name] = DataSet(name, function, kind, source, licence, declared)
        return function

    return register


def names() -> list[str]:
    """Names of all registered data sets, sorted."""
    return sorted(REGISTRY)


def get(name: str) -> DataSet:
    """The registered data set of that name.

    Raises:
        ValueError: no such data set; the message has the nearest name.
    """
    if name not in REGISTRY:
        raise ValueError(f"there is no data set '{name}'{nearest(name, REGISTRY)}")
    return REGISTRY[name]
