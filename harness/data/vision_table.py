"""torchvision's data sets of pictures with a class each: a row for what sets each apart."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.data.split import Array

Listed = tuple[Any, Array, tuple[str, ...]]
"""Sources as :class:`Pictures` has them, class of each, and names of the classes."""


def _of_array(part: Any) -> Listed:
    """Of a set that torchvision has read whole."""
    pixels = np.asarray(part.data)
    if pixels.ndim == 3:
        pixels = pixels[:, None]
    elif pixels.shape[3] == 3:
        pixels = pixels.transpose(0, 3, 1, 2)
    target = np.asarray(part.targets if hasattr(part, "targets") else part.labels, dtype=np.int64)
    digits = tuple(str(each) for each in range(10))
    return np.array(pixels, order="C"), target, tuple(getattr(part, "classes", digits))


def of_folder(part: Any) -> Listed:
    """Of a folder of folders."""
    files, target = zip(*part.samples, strict=True)
    return [Path(file) for file in files], np.array(target), tuple(part.classes)


def _of_pets(part: Any) -> Listed:
    return list(part._images), np.array(part._labels), tuple(part.classes)


def _of_food(part: Any) -> Listed:
    return list(part._image_files), np.array(part._labels), tuple(part.classes)


def _of_omniglot(part: Any) -> Listed:
    places = [
        (part._characters[number], name, number) for name, number in part._flat_character_images
    ]
    files = [Path(part.target_folder) / character / name for character, name, _ in places]
    return files, np.array([number for *_, number in places]), tuple(part._characters)


def _of_faces(part: Any) -> Listed:
    names = list(part.class_to_idx)
    used = sorted(set(part.targets))
    target = np.searchsorted(used, part.targets)
    return [Path(file) for file in part.data], target, tuple(names[each] for each in used)


@dataclass(frozen=True)
class Row:
    """What sets one of these data sets apart.

    Attributes:
        name: here.
        of: name of torchvision's class.
        text: what is asked, how many, how large.
        needs: what lies where in `data.root`.
        parts: what torchvision is asked for the part that trains and the part that tests; the whole
            is split at random where there is one only.
        listed: how to read what torchvision gives.
        size: of the pictures; None leaves them as they are, where all are of one size.
        unseen: its parts share no class.
    """

    name: str
    of: str
    text: str
    source: str
    licence: str
    needs: str
    parts: tuple[Mapping[str, Any], ...]
    listed: Callable[[Any], Listed] = _of_array
    channels: int = 3
    size: tuple[int, int] | None = None
    unseen: bool = False
    folder: str = ""


TRAIN_TEST = ({"split": "train"}, {"split": "test"})
BY_FLAG = ({"train": True}, {"train": False})
IDX = (
    "{}/raw/ with train-images-idx3-ubyte, train-labels-idx1-ubyte and t10k-... likewise, unpacked"
)
UNKNOWN = "not stated"
ROWS = [
    Row(
        "mnist",
        "MNIST",
        "Which digit is it? 60,000 and 10,000 grey images of 28x28.",
        "LeCun, Cortes & Burges 1998",
        UNKNOWN,
        IDX.format("MNIST"),
        BY_FLAG,
        channels=1,
    ),
    Row(
        "fashion_mnist",
        "FashionMNIST",
        "Which of ten garments is it? 60,000 and 10,000 grey images of 28x28.",
        "Xiao, Rasul & Vollgraf 2017, arXiv:1708.07747",
        "MIT",
        IDX.format("FashionMNIST"),
        BY_FLAG,
        channels=1,
    ),
    Row(
        "kmnist",
        "KMNIST",
        "Which of ten cursive Japanese characters? 60,000 and 10,000 grey images of 28x28.",
        "Clanuwat et al. 2018, arXiv:1812.01718",
        "CC BY-SA 4.0",
        IDX.format("KMNIST"),
        BY_FLAG,
        channels=1,
    ),
    Row(
        "cifar10",
        "CIFAR10",
        "Which of ten things is it? 50,000 and 10,000 images of 32x32.",
        "Krizhevsky 2009, Learning multiple layers of features from tiny images",
        UNKNOWN,
        "cifar-10-batches-py/",
        BY_FLAG,
    ),
    Row(
        "cifar100",
        "CIFAR100",
        "Which of a hundred things is it? 50,000 and 10,000 images of 32x32, 500 per class.",
        "Krizhevsky 2009, Learning multiple layers of features from tiny images",
        UNKNOWN,
        "cifar-100-python/",
        BY_FLAG,
    ),
    Row(
        "svhn",
        "SVHN",
        "Which digit of a house number? 73,257 and 26,032 images of 32x32; more ones than nines.",
        "Netzer et al. 2011, Reading digits in natural images",
        "non-commercial use",
        "svhn/ with train_32x32.mat and test_32x32.mat",
        TRAIN_TEST,
        folder="svhn",
    ),
    Row(
        "stl10",
        "STL10",
        "Which of ten things is it? 5,000 and 8,000 images of 96x96, those that have a class.",
        "Coates, Lee & Ng 2011, An analysis of single-layer networks",
        UNKNOWN,
        "stl10_binary/",
        TRAIN_TEST,
    ),
    Row(
        "eurosat",
        "EuroSAT",
        "Which of ten uses of land? 27,000 satellite images of 64x64; no test part of its own.",
        "Helber et al. 2019, arXiv:1709.00029",
        "MIT",
        "eurosat/2750/CLASS/*.jpg",
        ({},),
        of_folder,
        size=(64, 64),
    ),
    Row(
        "food101",
        "Food101",
        "Which of 101 dishes? 75,750 and 25,250 photographs; classes of the former are noisy.",
        "Bossard, Guillaumin & Van Gool 2014, Food-101",
        UNKNOWN,
        "food-101/ with images/ and meta/",
        TRAIN_TEST,
        _of_food,
        size=(224, 224),
    ),
    Row(
        "omniglot",
        "Omniglot",
        "Which of 1,623 characters of 50 alphabets? 20 drawings of 105x105 each, for tasks judged "
        "on classes they have not trained on: 964 train and validate, 659 test.",
        "Lake, Salakhutdinov & Tenenbaum 2015, Human-level concept learning",
        "MIT",
        "omniglot-py/ with images_background.zip and images_evaluation.zip, and both unpacked",
        ({"background": True}, {"background": False}),
        _of_omniglot,
        channels=1,
        size=(28, 28),
        unseen=True,
    ),
    Row(
        "lfw_people",
        "LFWPeople",
        "Whose face is it? 13,233 photographs of 5,749 people, for tasks that are judged on people "
        "they have not trained on; of 4,069 there is one photograph only.",
        "Huang et al. 2007, Labeled Faces in the Wild",
        UNKNOWN,
        "lfw-py/ with lfw-funneled.tgz, the same unpacked, lfw-names.txt, peopleDevTrain.txt and "
        "peopleDevTest.txt; torchvision downloads it no more",
        TRAIN_TEST,
        _of_faces,
        size=(112, 112),
        unseen=True,
    ),
]
