"""Real data that comes with scikit-learn, so that nothing is downloaded.

Digits, breast_cancer, wine and diabetes hold no two equal rows; iris holds one pair (rows 101 and
142), which a random split may separate.
"""

import functools
from typing import Annotated, Any, Literal

import numpy as np

from harness.data.base import Raw, dataset
from harness.data.prepare import digest
from harness.data.split import (
    Array,
    Order,
    Split,
    class_split,
    contiguous_split,
    generator,
    random_split,
)
from losses.arguments import Bounds, Count

DIGITS = "Alpaydin & Kaynak 1998, Optical recognition of handwritten digits, UCI (test set)"
CANCER = "Wolberg et al. 1995, Breast cancer Wisconsin (diagnostic), UCI"
CC_BY = "CC BY 4.0"


@functools.cache
def _bundled(name: str) -> tuple[Array, Array, tuple[str, ...], str]:
    """Inputs and target as scikit-learn has them, names of the input columns, and their sha256.

    The arrays are hashed, not the files, because the files' compression is free to change.
    """
    from sklearn import datasets  # 0.7 s

    options: dict[str, Any] = {"scaled": False} if name == "diabetes" else {}
    bunch = getattr(datasets, f"load_{name}")(**options)
    for array in (bunch.data, bunch.target):
        array.flags.writeable = False
    columns = tuple(str(column) for column in bunch.feature_names)
    return bunch.data, bunch.target, columns, digest(bunch.data, bunch.target)


@functools.cache
def digit_images() -> tuple[Array, Array, str]:
    """Images float32 [1797, 1, 8, 8] in [0, 1], classes int64 [1797], and their sha256."""
    inputs, target, _, fingerprint = _bundled("digits")
    images = (inputs / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    images.flags.writeable = False
    return images, target, fingerprint


def _ordered(order: Order, n: int) -> Split | None:
    return contiguous_split(n) if order == "contiguous" else None


@dataset("digits", kind="multiclass", source=DIGITS, licence=CC_BY)
def digits(split_seed: int, *, split: Literal["random", "contiguous", "classes"] = "random") -> Raw:
    """Which digit is it? 1797 images [1, 8, 8] of 10 classes with 174 to 183 items each.

    Rows come in blocks of one writer each, so a random split tests on writers it has trained on.

    Args:
        split: random, or contiguous, which is harder: rows 0-1077 train, 1078-1436 validate and
            1437-1796 test, written by other people; or classes, for tasks that are judged on
            classes they have not trained on: 6 digits train, 2 validate and 2 test, which is too
            few to learn what sets digits apart.
    """
    images, target, fingerprint = digit_images()
    names = tuple("0123456789")
    if split == "classes":
        target, names, parts = class_split(target, names, generator(split_seed, "split"))
        return Raw(images, target, names, fingerprint, standardise=False, split=parts, unseen=True)
    ordered = _ordered(split, len(target))
    return Raw(images, target, names, fingerprint, standardise=False, split=ordered)


@dataset("digit_vs_rest", kind="binary", source=DIGITS, licence=CC_BY)
def digit_vs_rest(
    _: int, *, digit: Annotated[int, Bounds(0, 9)] = 8, split: Order = "random"
) -> Raw:
    """Is it this digit? The images of digits, one class against nine: 1 positive in 10.

    `tail` makes positives rarer in training: `tail=20` leaves about 1 in 50.

    Args:
        digit: the positive class.
        split: as in digits.
    """
    images, target, fingerprint = digit_images()
    names, parts = ("other", str(digit)), _ordered(split, len(target))
    positive = (target == digit).astype(np.int64)
    return Raw(images, positive, names, fingerprint, standardise=False, split=parts)


@dataset("digit_pairs", kind="multilabel", source=DIGITS, licence=CC_BY)
def digit_pairs(split_seed: int) -> Raw:
    """Which digits are present? Two digits side by side, images [1, 8, 16] with 10 labels.

    Digits are split 60/20/20 within each class before they are paired at random, and each is used
    once, so no digit is seen in two parts and items are independent. In one pair of ten both halves
    show the same digit, which is then one label.
    """
    images, target, fingerprint = digit_images()
    split = random_split(len(target), target, generator(split_seed, "split"))
    pairs = [part[: len(part) // 2 * 2].reshape(-1, 2) for part in split]
    rows = np.concatenate(pairs)  # [N, 2]
    present = np.zeros((len(rows), 10), np.int64)
    np.put_along_axis(present, target[rows], 1, axis=1)
    ends = np.cumsum([len(part) for part in pairs])
    first, second, third = np.split(np.arange(len(rows)), ends[:2])
    return Raw(
        np.concatenate([images[rows[:, 0]], images[rows[:, 1]]], axis=-1),
        present,
        tuple("0123456789"),
        fingerprint,
        standardise=False,
        split=(first, second, third),
        rows=rows,
    )


@dataset("digit_numbers", kind="multiclass", source=DIGITS, licence=CC_BY)
def digit_numbers(
    split_seed: int,
    *,
    length: Annotated[int, Bounds(1, 6)] = 3,
    base: Annotated[int, Bounds(2, 10)] = 10,
    copies: Count = 1,
) -> Raw:
    """Which number is it? Digits side by side, images [1, 8, 8 length] of base^length classes.

    For what many classes cost: `length=5 base=8` has 32,768. Digits are split 60/20/20 within each
    class before numbers are composed; every number is there `copies` times in training, each time
    of other images as chance has it, and 500 numbers drawn at random validate and 500 test.

    Args:
        length: digits of a number.
        base: digits are 0 to base - 1.
        copies: training items of each number.

    Raises:
        ValueError: there would be more than 100,000 training items.
    """
    images, target, fingerprint = digit_images()
    if base**length * copies > 100_000:
        raise ValueError(
            f"{copies} copies of {base}^{length} numbers must be 100000 items or fewer, "
            f"got {base**length * copies}"
        )
    rng = generator(split_seed, "split")
    split = random_split(len(target), target, rng)
    numbers = [np.tile(np.arange(base**length), copies)]
    numbers += [rng.integers(0, base**length, 500) for _ in ("val", "test")]
    rows = np.concatenate(
        [_spelt(n, length, base, part, target, rng) for n, part in zip(numbers, split, strict=True)]
    )
    ends = np.cumsum([len(n) for n in numbers])
    first, second, third = np.split(np.arange(len(rows)), ends[:2])
    return Raw(
        np.concatenate([images[column] for column in rows.T], axis=-1),
        np.concatenate(numbers),
        tuple(np.base_repr(n, base).zfill(length) for n in range(base**length)),
        fingerprint,
        standardise=False,
        split=(first, second, third),
        rows=rows,
    )


def _spelt(
    numbers: Array, length: int, base: int, part: Array, target: Array, rng: np.random.Generator
) -> Array:
    """For each number [N] the rows [N, length] of images of its digits, drawn from a part."""
    digits = numbers[:, None] // base ** np.arange(length)[::-1] % base
    rows = np.empty_like(digits)
    for digit in range(base):
        there, wanted = part[target[part] == digit], digits == digit
        rows[wanted] = rng.choice(there, wanted.sum())
    return rows


@dataset("breast_cancer", kind="binary", source=CANCER, licence=CC_BY)
def breast_cancer(_: int) -> Raw:
    """Is the tumour malignant? 569 patients, 30 measures of cell nuclei; 212 are malignant (1)."""
    inputs, benign, _names, fingerprint = _bundled("breast_cancer")
    return Raw(inputs, 1 - benign, ("benign", "malignant"), fingerprint)


@dataset("breast_cancer_worst", kind="regression", source=CANCER, licence=CC_BY)
def breast_cancer_worst(_: int) -> Raw:
    """The worst of ten measures of cell nuclei from their mean and standard error: 10 targets.

    Ten targets of a picture's 569 measures, in units from 0.1 to 4000 and hard to predict to
    different degrees (least squares explains .78 to .98). The other real candidates without a
    download are worse: linnerud has 20 rows, the lower half of a digit has pixels that never
    change, and diabetes gives two targets of which the second is another input.
    """
    inputs, _benign, columns, fingerprint = _bundled("breast_cancer")
    return Raw(inputs[:, :20], inputs[:, 20:], columns[20:], fingerprint)


@dataset("iris", kind="multiclass", source="Fisher 1936, UCI", licence=CC_BY)
def iris(_: int) -> Raw:
    """Which of three species? 150 flowers, 4 lengths in cm, 50 per class; rows sorted by class."""
    inputs, target, _names, fingerprint = _bundled("iris")
    return Raw(inputs, target, ("setosa", "versicolor", "virginica"), fingerprint)


@dataset("wine", kind="multiclass", source="Aeberhard & Forina 1991, UCI", licence=CC_BY)
def wine(_: int) -> Raw:
    """Which of three growers? 178 wines, 13 chemical measures; 59, 71 and 48, sorted by class."""
    inputs, target, _names, fingerprint = _bundled("wine")
    return Raw(inputs, target, ("grower 1", "grower 2", "grower 3"), fingerprint)


@dataset("diabetes", kind="regression", source="Efron et al. 2004, Least angle regression")
def diabetes(_: int) -> Raw:
    """Progression of the disease a year later: 442 patients, 10 measures, target 25 to 346.

    The measures are the raw ones: scikit-learn's default has been scaled by all items, and a hash
    of computed numbers could differ between machines.
    """
    inputs, target, _names, fingerprint = _bundled("diabetes")
    return Raw(inputs, target, ("progression",), fingerprint)
