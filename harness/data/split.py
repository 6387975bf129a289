"""Which items train, validate and test. Arrays of row numbers in, arrays of row numbers out."""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from losses.arguments import Count

Array = npt.NDArray[Any]
Split = tuple[Array, Array, Array]
"""Row numbers of the training, validation and test part."""
Order = Literal["random", "contiguous"]
"""How items are divided: at random, or in the order of their rows."""


def generator(seed: int, purpose: Literal["split", "corrupt"]) -> np.random.Generator:
    """A source of random numbers for one purpose; equal seeds of two purposes are unrelated."""
    return np.random.default_rng([seed, ("split", "corrupt").index(purpose)])


def shuffled(n: int, rng: np.random.Generator) -> Array:
    """0 to n-1 in random order.

    Sorts uniform numbers: numpy keeps their stream across versions, but not that of `permutation`.
    """
    return np.argsort(rng.random(n), kind="stable")


def random_split(n: int, classes: Array | None, rng: np.random.Generator) -> Split:
    """60/20/20 at random; within each class where `classes` [n] are given, at least 1 item each.

    Raises:
        ValueError: a class has fewer than 3 items.
    """
    order = shuffled(n, rng)
    strata = np.zeros(n, np.int64) if classes is None else classes
    part = np.zeros(n, np.int64)
    for stratum in np.unique(strata):
        rows = order[strata[order] == stratum]
        if len(rows) < 3:
            raise ValueError(
                f"a split needs at least 3 items (of each class), got {len(rows)} of {stratum}"
            )
        fifth = max(1, round(len(rows) / 5))
        part[rows[:fifth]] = 2
        part[rows[fifth : 2 * fifth]] = 1
    return order[part[order] == 0], order[part[order] == 1], order[part[order] == 2]


def class_split(
    classes: Array, names: tuple[str, ...], rng: np.random.Generator
) -> tuple[Array, tuple[str, ...], Split]:
    """60/20/20 of the classes at random, each with all its items, and at least 1 class a part.

    Classes are numbered anew: those that train come first, then those that validate, then those
    that test. Gives the new `classes` [n], their names, and the split.

    Raises:
        ValueError: there are fewer than 3 classes.
    """
    if len(names) < 3:
        raise ValueError(f"a split by class needs at least 3 classes, got {len(names)}")
    order = shuffled(len(names), rng)
    fifth = max(1, round(len(names) / 5))
    part = np.repeat([0, 1, 2], [len(names) - 2 * fifth, fifth, fifth])  # of the new numbers
    return _by_class(classes, names, order, part, rng)


def _by_class(
    classes: Array, names: tuple[str, ...], order: Array, part: Array, rng: np.random.Generator
) -> tuple[Array, tuple[str, ...], Split]:
    """Classes numbered anew in this order, and the items of those of each part."""
    numbers = np.argsort(order)[classes]
    rows = shuffled(len(classes), rng)
    of = part[numbers[rows]]
    split = (rows[of == 0], rows[of == 1], rows[of == 2])
    return numbers, tuple(names[each] for each in order), split


def own_test_split(strata: Array, test: int, validation: float, rng: np.random.Generator) -> Split:
    """The split of data that bring their own test part: `validation` of the others validate.

    Rows of the training part come first, those of the test part after them. Within each stratum at
    least 1 item validates and 1 trains.

    Args:
        strata: class of each item that is not in the test part, or zeros.
        test: items of the test part.
        validation: share of the others that validate.
        rng: which do.

    Raises:
        ValueError: a stratum has fewer than 2 items.
    """
    order = shuffled(len(strata), rng)
    held = np.zeros(len(strata), bool)
    for stratum in np.unique(strata):
        rows = order[strata[order] == stratum]
        if len(rows) < 2:
            raise ValueError(f"training and validation need an item each, got 1 of class {stratum}")
        held[rows[: min(max(1, round(validation * len(rows))), len(rows) - 1)]] = True
    return order[~held[order]], order[held[order]], np.arange(len(strata), len(strata) + test)


def own_test_classes(
    classes: Array, names: tuple[str, ...], test: Array, validation: float, rng: np.random.Generator
) -> tuple[Array, tuple[str, ...], Split]:
    """The same of whole classes, as :func:`class_split` gives them: parts share no class.

    Args:
        classes: class of every item [n].
        names: of the classes.
        test: which classes test, bool [C].
        validation: share of the others that validate, at least 1 class.
        rng: which do.

    Raises:
        ValueError: fewer than 2 classes do not test, or none does.
    """
    order = shuffled(len(names), rng)
    others, tests = order[~test[order]], order[test[order]]
    if len(others) < 2 or not len(tests):
        raise ValueError(
            f"a split by class needs 2 classes and 1 to test, got {len(names)} classes"
        )
    number = min(max(1, round(validation * len(others))), len(others) - 1)
    order = np.concatenate([others[number:], others[:number], tests])
    part = np.repeat([0, 1, 2], [len(others) - number, number, len(tests)])  # of the new numbers
    return _by_class(classes, names, order, part, rng)


def contiguous_split(n: int) -> Split:
    """The first 60% of the rows, the next 20%, the last 20%."""
    first, second = n * 3 // 5, n * 4 // 5
    rows = np.arange(n)
    return rows[:first], rows[first:second], rows[second:]


def cut(train: Array, classes: Array | None, *, train_size: Count | None = None) -> Array:
    """The first `train_size` rows of the training part, each class keeping its share to within one.

    Smaller cuts are contained in larger ones, and every class keeps at least one item.

    Args:
        train: row numbers in the order they are taken, int64 [N].
        classes: the class of every row of the source, or None to take rows as they come.
        train_size: how many items to train on; None for all.

    Raises:
        ValueError: there are fewer items than that, or fewer than one per class.
    """
    if train_size is None:
        return train
    if train_size > len(train):
        raise ValueError(f"train_size={train_size}, but the training part has {len(train)} items")
    if classes is None:
        return train[:train_size]
    turn = np.empty(len(train))  # an item's place in its class, as a part of the class
    present = np.unique(classes[train])
    if train_size < len(present):
        raise ValueError(f"train_size={train_size} leaves some of {len(present)} classes empty")
    for each in present:
        mine = classes[train] == each
        turn[mine] = np.arange(mine.sum()) / mine.sum()
    return train[np.sort(np.argsort(turn, kind="stable")[:train_size])]
