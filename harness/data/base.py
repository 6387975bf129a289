"""What a data set is, before and after it is divided, and the registry of all of them."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor

from harness.data import corrupt
from harness.data.scale import in_units
from harness.data.split import Array, Split, cut
from losses.arguments import Parameter, look_up, parameters_of

if TYPE_CHECKING:
    from harness.data.pictures import Pictures

Kind = Literal["binary", "multiclass", "multilabel", "regression", "mask", "semantic", "boxes"]
Target = Any
"""A tensor of N rows, or such tensors by name."""
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and sd of red, green and blue."""


@dataclass(frozen=True, eq=False)
class Part:
    """Items of one part.

    Attributes:
        inputs: float32 [N, ...], or pixels in uint8, which are scaled when they are taken.
        target: see :class:`Data`, all of N rows; maps may be kept in int16 until they are taken.
        normalise: of pixels, see :func:`scaled`.
    """

    inputs: Tensor
    target: Target
    normalise: bool = False

    def to(self, device: torch.device) -> "Part":
        """The same items on a device."""
        target = each(self.target, lambda rows: rows.to(device))
        return replace(self, inputs=self.inputs.to(device), target=target)

    def take(self, rows: Tensor) -> tuple[Tensor, Target]:
        """Inputs and target of some items."""
        rows = rows.to(self.inputs.device)
        target = each(self.target, lambda tensor: plain(tensor[rows]))
        return scaled(self.inputs[rows], self.normalise), target

    def first(self, number: int) -> "Part":
        """No more than so many of its items."""
        target = each(self.target, lambda tensor: tensor[:number])
        return replace(self, inputs=self.inputs[:number], target=target)

    def batches(self, batches: Iterable[Tensor]) -> Iterator[tuple[Tensor, Target]]:
        """The same, one batch of row numbers after the other."""
        return map(self.take, batches)

    def __len__(self) -> int:
        return len(self.inputs)


def scaled(pixels: Tensor, normalise: bool) -> Tensor:
    """Pixels uint8 [N, C, H, W] as float32 from 0 to 1; other inputs as they are.

    Args:
        pixels: what a part holds.
        normalise: subtract each colour's mean over ImageNet and divide by its sd, as weights that
            were trained there expect.
    """
    if pixels.dtype is not torch.uint8:
        return pixels
    shares = pixels.float() / 255
    if normalise:
        mean, sd = torch.tensor(IMAGENET, device=pixels.device).view(2, 3, 1, 1)
        shares = (shares - mean) / sd
    return shares


def plain(target: Tensor) -> Tensor:
    """A target as losses take it: maps are kept in int16 and taken in int64."""
    return target.long() if target.dtype is torch.int16 else target


def each(target: Any, change: Callable[[Any], Any]) -> Any:
    """A target with every tensor or array of it changed alike."""
    if isinstance(target, Mapping):
        return {name: change(rows) for name, rows in target.items()}
    return change(target)


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
        augment: what is done to training items as they are used, see :mod:`harness.data.augment`.
        notes: what was left out of the source, and why.
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
    augment: str = "none"
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Raw:
    """What a data set's function returns: every item, undivided and unscaled.

    Attributes:
        inputs: float [N, ...], or pictures that are read one by one.
        target: int64 [N], [N, L] or [N, H, W], float [N] or [N, K], or arrays by name; see
            :class:`Data`. None where it is read with the pictures.
        target_names: as in :class:`Data`.
        fingerprint: sha256 of the source.
        standardise: z-score each input column by the training part; off where inputs have a scale
            of their own, such as pixels.
        split: a split the data set makes itself; None draws one at random.
        rows: source rows of each item, int64 [N, M]; None where items are the rows.
        composed: sha256 of items that the data set composed from the source.
        unseen: the parts share no class, and those that train are numbered first.
        faults: what is wrong with the source, a sentence each, and was left out of all this.
    """

    inputs: "Array | Pictures"
    target: Any
    target_names: tuple[str, ...]
    fingerprint: str
    standardise: bool = True
    split: Split | None = None
    rows: Array | None = None
    composed: str | None = None
    unseen: bool = False
    faults: tuple[str, ...] = ()


@dataclass(frozen=True)
class DataSet:
    """One registered data set.

    `kind` is None where a parameter of that name says it. `needs` says which files must lie where,
    for data that come with no library.
    """

    name: str
    function: Callable[..., Raw]
    kind: Kind | None
    source: str
    licence: str
    parameters: dict[str, Parameter]
    needs: str = ""


REGISTRY: dict[str, DataSet] = {}


def dataset(
    name: str,
    *,
    kind: Kind | None,
    source: str,
    licence: str = "",
    needs: str = "",
    options: Callable[..., Any] | None = None,
) -> Callable[[Callable[..., Raw]], Callable[..., Raw]]:
    """Register a function (split_seed, *, parameters) that returns a :class:`Raw`.

    Its parameters are joined by `train_size` and by those its kind has in
    :mod:`harness.data.corrupt`, and by those of `options`.

    Raises:
        ValueError: the name is taken.
    """

    def register(function: Callable[..., Raw]) -> Callable[..., Raw]:
        if name in REGISTRY:
            raise ValueError(f"data set '{name}' is registered twice")
        declared = parameters_of(function) | parameters_of(cut)
        declared |= parameters_of(options) if options else {}
        for one in [kind] if kind else get_args(declared["kind"].annotation):
            declared |= parameters_of(corrupt.BY_KIND[one])
            declared |= parameters_of(in_units) if one == "regression" else {}
        REGISTRY[name] = DataSet(name, function, kind, source, licence, declared, needs)
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
    return look_up("data set", name, REGISTRY)
