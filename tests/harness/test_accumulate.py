"""A batch that the model sees in parts has the loss and the gradient of the whole."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from harness.compose import compose
from harness.config import run_id
from harness.prepare import prepare
from harness.record import Record
from harness.run import check_ready, run
from harness.store import Store

CASES = {
    "class weights": [
        "task=classification/digits",
        "loss=cross_entropy",
        "loss.cross_entropy.class_weight=balanced",
    ],
    "two terms": ["task=classification/digits", "loss=[focal,l2]", "loss.l2.weight=0.01"],
    "a root": ["task=regression/diabetes", "loss=rmse"],
    "coupled": ["task=embedding/digits", "loss=sup_con"],
    "a network of maps": ["task=classification/digits", "loss=cross_entropy", "model=cnn"],
}


def gradient(overrides: list[str], parts: int) -> tuple[Tensor, int]:
    """That of the first batch, in float64, and bytes kept for it."""
    config = compose([*overrides, "trainer.batch_size=61", f"trainer.accumulate={parts}"])
    task = prepare(config).task.double()
    inputs, target = next(iter(task.batches))
    target = target.double() if target.is_floating_point() else target
    weights, kept = {p.data_ptr() for p in task.parameters()}, {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in weights:
            kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        total = task.objective(task.compare(inputs.double(), target), task.model).total
    total.backward()
    found = [p.grad.flatten() for p in task.model.parameters() if p.grad is not None]
    return torch.cat(found), sum(kept.values())


@pytest.mark.parametrize("overrides", CASES.values(), ids=CASES)
@pytest.mark.parametrize("parts", [2, 7, 55])
def test_the_gradient_is_that_of_the_whole_batch(overrides: list[str], parts: int) -> None:
    """61 items leave ragged parts; 1e-12: other orders of sums in float64."""
    whole, parted = gradient(overrides, 1)[0], gradient(overrides, parts)[0]
    assert (whole - parted).norm() <= 1e-12 * whole.norm()


def test_activations_are_not_kept() -> None:
    """Those of the networks' layers are most of what a whole batch keeps."""
    overrides = CASES["a network of maps"]
    assert gradient(overrides, 4)[1] < 0.2 * gradient(overrides, 1)[1]


def trained(folder: Path, parts: int, *more: str) -> Record:
    words = ["task=classification/iris", "loss=[cross_entropy,l2]", "trainer.epochs=3"]
    config = compose([*words, "trainer.precision=64-true", f"trainer.accumulate={parts}", *more])
    return run(config, Store(folder))


def test_a_run_is_the_same(tmp_path: Path) -> None:
    """1e-9: a few hundred steps of float64, each off by other orders of sums."""
    whole, parted = trained(tmp_path / "1", 1), trained(tmp_path / "2", 3, "trainer.gradients=5")
    assert whole.id == parted.id
    assert parted.metrics == pytest.approx(whole.metrics, rel=1e-9)
    assert parted.curve[-1]["train/loss"] == pytest.approx(whole.curve[-1]["train/loss"], rel=1e-9)
    assert parted.gradients


@pytest.mark.parametrize("key", ["accumulate", "devices"])
def test_it_is_part_of_a_run_where_the_model_draws_part_by_part(key: str) -> None:
    def identity(parts: int, *more: str) -> str:
        words = [*CASES["two terms"], f"trainer.{key}={parts}", "trainer.accelerator=cpu", *more]
        return run_id(compose(words), 0)

    assert identity(1) == identity(2)
    for more in ("model.dropout=0.5", "model=torchvision/resnet18"):
        assert identity(1, more) != identity(2, more), more


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["task=segmentation/rare_digits", "loss=binary_dice"],
            "trainer.accumulate=2: unet normalises over the batch, not in parts",
        ),
        (
            ["task=detection/digit_boxes", "loss=[binary_focal,giou]"],
            "trainer.accumulate=2: fcos_tiny .*, not in parts",
        ),
    ],
)
def test_models_that_look_at_the_batch_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_ready(compose([*overrides, "trainer.accumulate=2"]))


@pytest.mark.parametrize(
    ("batch", "parts", "most"), [(8, 8, 8), (8, 100, 8), (64, 40, 30), (8, 7, None), (1, 1, None)]
)
def test_fewer_parts_than_items(batch: int, parts: int, most: int | None) -> None:
    """Of 30 items that train no batch has more."""
    words = ["task=classification/iris", "loss=cross_entropy", "data.train_size=30"]
    config = compose([*words, f"trainer.batch_size={batch}", f"trainer.accumulate={parts}"])
    if most is None:
        check_ready(config)
        return
    told = f"trainer.accumulate={parts} must be less than the {most} items of a batch, with "
    with pytest.raises(ValueError, match=f"^{told}trainer.batch_size={batch}$"):
        check_ready(config)


def test_no_parts_are_refused() -> None:
    with pytest.raises(ValueError, match=r"trainer.accumulate must be .*, got 0"):
        compose([*CASES["a root"], "trainer.accumulate=0"])
