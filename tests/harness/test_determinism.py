"""The same run in another process leaves the same record, to the last bit; what may not is said."""

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.compose import compose, options
from harness.config import run_id
from harness.doctor import fitting, own_tasks, together
from harness.run import run
from harness.store import Store
from tests.harness import tiny
from tests.harness.spine import iris, python, start

EPOCHS = ["trainer.epochs=2", "trainer.evaluations=2", "trainer.gradients=4"]
FEW = {  # of what takes long
    "segmentation/digit_scenes": ["data.scenes=[40,8,8]"],
    "segmentation/rare_digits": ["data.scenes=[40,8,8]"],
    "detection/digit_boxes": ["data.scenes=[40,8,8]"],
    "classification/digit_numbers": ["trainer.epochs=1"],
    "embedding/omniglot": ["trainer.batch_size=20"],
}
FILES = {  # data set and loss of tasks whose data lie in files
    "classification/csv": ("csv", "cross_entropy"),
    "regression/csv": ("csv", "mse"),
    "classification/image_folder": ("image_folder", "cross_entropy"),
    "classification/fashion_mnist": ("fashion_mnist", "cross_entropy"),
    "classification/cifar10": ("cifar10", "cross_entropy"),
    "embedding/omniglot": ("omniglot", "triplet"),
    "segmentation/image_masks": ("image_masks", "bce"),
    "segmentation/voc": ("voc_segmentation", "cross_entropy"),
    "detection/coco_json": ("coco_json", "[binary_focal,giou]"),
    "detection/voc": ("voc_detection", "fcos"),
}
ALIKE = {  # tasks that are another's data loader, model and settings with other files
    "classification/mnist": "classification/fashion_mnist",
    "classification/kmnist": "classification/fashion_mnist",
    "classification/cifar100": "classification/cifar10",
    "classification/svhn": "classification/cifar10",
    "classification/stl10": "classification/cifar10",
    "classification/eurosat": "classification/image_folder",
    "classification/food101": "classification/image_folder",
    "classification/pets": "classification/image_folder",
    "embedding/lfw_people": "embedding/omniglot",
    "segmentation/cityscapes": "segmentation/voc",
    "segmentation/pets": "segmentation/voc",
    "detection/coco": "detection/voc",
}
"""Trained by none of the tests below."""


def words_of(task: str, data: Path) -> list[str]:
    """What trains a task for a moment, on files below `data` where it needs some."""
    words = [f"task={task}", *EPOCHS, *FEW.get(task, [])]
    if task not in FILES:
        fits = fitting(task)
        loss = next((name for name in ("cross_entropy", "bce", "mse") if name in fits), fits[0])
        return [*words, together(task, loss)]
    name, loss = FILES[task]
    place = data / task.replace("/", "-")
    place.mkdir(parents=True)
    given = tiny.write(name, place)
    given |= {"kind": "regression", "target": "a"} if task == "regression/csv" else {}
    return [*words, f"loss={loss}", *(f"data.{key}={value}" for key, value in given.items())]


def train_all(commands: str, out: str) -> None:
    """Train what a file lists, one after the other, in an order that the current folder decides."""
    with pytest.MonkeyPatch.context() as patched:
        tiny.trust(patched)
        listed = list(json.loads(Path(commands).read_text()).items())
        random.Random(Path.cwd().name).shuffle(listed)
        made = {task: run(compose(words), Store(Path(out) / task)) for task, words in listed}
    assert {task: record.error for task, record in made.items() if record.error} == {}


def left(store: Path) -> dict[str, Any]:
    """All that a run has left, but when and where it was made, how long it took, and of what."""
    found: dict[str, Any] = {}
    for path in store.glob("runs/*/*"):
        if path.name == "record.json":
            record = json.loads(path.read_text())
            for key in ("provenance", "seconds", "peak_memory"):
                del record[key]
            found[path.name] = json.dumps(record)
        else:
            found[path.name] = path.read_bytes()
    return found


def test_every_task_is_looked_at() -> None:
    assert {*own_tasks(), *FILES, *ALIKE} == set(options("task"))
    assert not {*own_tasks(), *FILES} & ALIKE.keys()


@pytest.mark.slow
def test_every_task_leaves_the_same_bits_in_another_process(tmp_path: Path) -> None:
    """In another order and folder, with another hash seed, language and OMP_NUM_THREADS."""
    commands = {task: words_of(task, tmp_path / "data") for task in [*own_tasks(), *FILES]}
    (tmp_path / "commands.json").write_text(json.dumps(commands))
    code = (
        "import sys; from tests.harness.test_determinism import train_all; train_all(*sys.argv[1:])"
    )
    for place, threads, language in (("one", "1", "C"), ("an other", "2", "C.UTF-8")):
        folder = tmp_path / place
        folder.mkdir()
        process = start(
            ["-c", code, "../commands.json", "out"],
            folder,
            PYTHONHASHSEED=threads,
            OMP_NUM_THREADS=threads,
            LC_ALL=language,
        )
        _, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
    apart = []
    for task in commands:
        one, other = (left(tmp_path / place / "out" / task) for place in ("one", "an other"))
        assert "record.json" in one
        apart += [task] if one != other else []
    assert apart == []


# What is not deterministic

PUT = """
import torch
from losses import loss

@loss("put", target="index", source="a test")
def put(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    value = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    return value + torch.zeros_like(value).put_(torch.tensor([0]), value[:1].detach())
"""


@pytest.mark.parametrize(
    ("wanted", "code", "said"),
    [
        ("warn", 0, "note      not deterministic here: put_\n"),
        ("none", 0, ""),
        ("strict", 2, "put_ does not have a deterministic implementation"),
    ],
)
def test_operations_that_are_not_deterministic_are_noted_or_refused(
    wanted: str, code: int, said: str, tmp_path: Path
) -> None:
    (tmp_path / "put.py").write_text(PUT)
    words = ["-m", "harness", "train", "task=classification/iris", "loss=put", "plugins=[put.py]"]
    done = python([*words, "trainer.epochs=1", f"trainer.deterministic={wanted}"], tmp_path)
    assert done.returncode == code, done.stderr
    assert said in (done.stderr if code else done.stdout)
    assert done.stderr.count("\n") == (1 if code else 0)
    assert ("not deterministic" in done.stdout) == (wanted == "warn")


def test_the_setting_decides_no_outcome_and_is_in_the_record(tmp_path: Path) -> None:
    found = []
    for wanted in ("none", "warn", "strict"):
        config = iris("loss=ce_focal", "model.dropout=0.2", f"trainer.deterministic={wanted}")
        record = run(config, Store(tmp_path / wanted))
        assert record.provenance["flags"]["deterministic"] == wanted
        assert record.provenance["flags"]["matmul"] == torch.get_float32_matmul_precision()
        assert {"OMP_NUM_THREADS", "tf32", "CUBLAS_WORKSPACE_CONFIG"} <= record.provenance[
            "flags"
        ].keys()
        assert record.notes == []
        found.append((run_id(config, 0), record.metrics, record.curve, record.config))
    assert found[0] == found[1] == found[2]
    assert dataclasses.asdict(record)["config"]["trainer"]["threads"] == 1
