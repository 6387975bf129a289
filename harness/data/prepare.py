"""From a data set's name to three disjoint parts, ready to train on.

Everything random is drawn from two seeds: `split_seed` decides which items train, validate and
test, `corrupt_seed` what is done to the training part. Two arms of one seed get identical data.
"""

import hashlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.data import corrupt
from harness.data.base import Data, Kind, Part, Raw, each, get
from harness.data.held import Held, Holding, notes
from harness.data.objects import check_objects
from harness.data.pictures import Pictures
from harness.data.scale import in_units, standardised, z_scored
from harness.data.split import Array, Split, cut, generator, random_split
from losses.arguments import Parameter, check_arguments, parameters_of
from losses.inputs import IGNORE_INDEX

MAPS = ("mask", "semantic")


def load(name: str, *, split_seed: int, corrupt_seed: int, workers: int = 0, **given: Any) -> Data:
    """Load, divide, cut, corrupt (training part only) and scale, in this order.

    Classes are split 60/20/20 within each class; labels and numbers at random. Input columns are
    z-scored by the training part as it is trained on; a column constant there becomes 0. Regression
    targets are standardised by the training part before outliers are added; `standardise=false`
    trains on the original units. Pictures that do not fit into `memory` are read by `workers`
    processes as they are used.

    Raises:
        ValueError: unknown name or parameter, a value out of bounds, or more items asked for than
            there are.

    >>> load("iris", split_seed=0, corrupt_seed=0, train_size=30).class_counts
    tensor([10, 10, 10])
    """
    entry = get(name)
    checked = check_arguments(name, entry.parameters, given)
    kind: Kind = entry.kind or checked.get("kind") or entry.parameters["kind"].default
    own, rest = _divided(checked, parameters_of(entry.function))
    size, rest = _divided(rest, parameters_of(cut))
    options, rest = _divided(rest, parameters_of(corrupt.BY_KIND[kind]))
    holding, rest = _divided(rest, parameters_of(Holding))
    units, foreign = _divided(rest, parameters_of(in_units) if kind == "regression" else {})
    for key, value in foreign.items():
        if value != entry.parameters[key].default:
            raise ValueError(f"{name}.{key}={value!r} does not apply to {kind} data")
    raw, held = entry.function(split_seed, **own), None
    try:
        if isinstance(raw.inputs, Pictures):
            held = Held(raw, Holding(**holding), workers)
            raw = held.raw
        split = _split(kind, raw, split_seed, size)
        rng = generator(corrupt_seed, "corrupt")
        return _assembled(kind, raw, split, rng, options, units, held)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _divided(
    given: dict[str, Any], declared: dict[str, Parameter]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is declared, and the rest."""
    mine = {key: value for key, value in given.items() if key in declared}
    return mine, {key: value for key, value in given.items() if key not in declared}


def _split(kind: Kind, raw: Raw, seed: int, size: dict[str, Any]) -> Split:
    """Row numbers of the parts, the training part cut to size and with all classes in it."""
    classes = raw.target if kind in ("binary", "multiclass") else None
    if kind in MAPS and not isinstance(raw.inputs, Pictures):
        check_maps(raw.target, raw.inputs, len(raw.target_names))
    if kind == "boxes" and not isinstance(raw.inputs, Pictures):
        check_objects(raw.target, raw.inputs, len(raw.target_names))
    split = raw.split or random_split(len(raw.inputs), classes, generator(seed, "split"))
    train = cut(split[0], classes, **size)
    if classes is not None and not raw.unseen:
        there = np.bincount(classes[train], minlength=len(raw.target_names))
        for missing in np.flatnonzero(there == 0)[:1]:
            raise ValueError(
                f"class '{raw.target_names[missing]}' has no item in the training part"
            )
    return train, *split[1:]


def _assembled(
    kind: Kind,
    raw: Raw,
    split: Split,
    rng: np.random.Generator,
    options: dict[str, Any],
    units: dict[str, Any],
    held: Held | None,
) -> Data:
    """Corrupt the training part, scale, and turn arrays into tensors."""
    train, val, test = split
    target, scale = raw.target, None
    if kind == "regression":
        target, scale = standardised(target, train, raw.target_names)
    clean = each(target, lambda array: array[train])
    kept, corrupted = corrupt.BY_KIND[kind](clean, rng, **options)
    changed = np.zeros(len(kept), bool) if kind == "boxes" else corrupted != clean[kept]
    train = train[kept]
    if scale is not None:
        (target, _), (corrupted, scale) = (in_units(t, scale, **units) for t in (target, corrupted))
    inputs: Any = raw.inputs
    if raw.standardise:
        inputs = z_scored(inputs, train)

    def part(numbers: Array, values: Any) -> Part:
        target = each(values, lambda array: _tensor(kind, array))
        if held:
            return held.part(numbers, target)
        return Part(torch.from_numpy(inputs[numbers].astype(np.float32)), target)

    rows = [numbers if raw.rows is None else raw.rows[numbers] for numbers in (train, val, test)]
    return Data(
        kind=kind,
        train=part(train, corrupted),
        val=part(val, each(target, lambda array: array[val])),
        test=part(test, each(target, lambda array: array[test])),
        outputs=1 if kind in ("binary", "mask") else len(raw.target_names),
        target_names=raw.target_names,
        scale=scale,
        fingerprints={"data": raw.fingerprint, "split": digest(*rows, changed)}
        | ({"composed": raw.composed} if raw.composed else {}),
        class_counts=held.counts(train)
        if held and kind in MAPS
        else _counts(kind, corrupted, len(raw.target_names)),
        rows={k: torch.from_numpy(r) for k, r in zip(("train", "val", "test"), rows, strict=True)},
        augment=held.holding.augment if held else "none",
        notes=notes(raw.faults),
    )


def _tensor(kind: Kind, array: Array) -> Tensor:
    if kind == "boxes":  # several arrays, each of its own type
        return torch.from_numpy(array)
    return torch.from_numpy(array.astype(np.float32 if kind == "regression" else np.int64))


def _counts(kind: Kind, target: Any, number: int) -> Tensor | None:
    if kind == "regression":
        return None
    target = target["labels"] if kind == "boxes" else target
    asked = target[target != IGNORE_INDEX] if kind in (*MAPS, "boxes") else target
    counts = target.sum(0) if kind == "multilabel" else np.bincount(asked, minlength=number)
    return torch.from_numpy(counts.astype(np.int64))


def check_maps(target: Array, inputs: Array, classes: int) -> None:
    """Raise ValueError unless each image [N, C, H, W] has a map [N, H, W] of known classes.

    A map without foreground, or with nothing that is asked, is an item like others.
    """
    if inputs.ndim != 4 or target.shape != (len(inputs), *inputs.shape[2:]):
        raise ValueError(
            f"maps must have the size of their images, got maps {list(target.shape)} "
            f"and images {list(inputs.shape)}"
        )
    wrong = (target != IGNORE_INDEX) & ((target < 0) | (target >= classes))
    for item, row, column in np.argwhere(wrong)[:1]:
        raise ValueError(
            f"item {item}, row {row}, column {column}: class {target[item, row, column]} must be "
            f"below {classes}, or {IGNORE_INDEX} where nothing is asked; {wrong.sum()} such pixels "
            f"in {wrong.any((1, 2)).sum()} items"
        )


def digest(*arrays: Array) -> str:
    """sha256 of the arrays' types, shapes and values, the same on every platform."""
    total = hashlib.sha256()
    for array in arrays:
        plain = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        total.update(f"{plain.dtype.str}{plain.shape}".encode() + plain.tobytes())
    return total.hexdigest()
