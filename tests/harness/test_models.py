"""Models by name: shapes for every data set, weights from a seed alone, clear refusals."""

import dataclasses
import json
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from harness import data, models
from harness.compose import compose
from harness.config import RunConfig, check, outcome, run_id
from harness.prepare import prepare
from harness.run import run_once
from harness.store import Store

BUNDLED = [name for name in data.names() if not data.get(name).needs]
OF_VALUES = [name for name in models.names() if models.get(name).gives == "values"]


@pytest.mark.parametrize("name", OF_VALUES)
@pytest.mark.parametrize("source", BUNDLED)
def test_every_model_fits_every_data_set(name: str, source: str) -> None:
    """Outputs have the shape that targets of this kind need, and every parameter learns."""
    few = {"length": 1, "copies": 3} if source == "digit_numbers" else {}  # 10 classes, 30 items
    one = data.load(source, split_seed=0, corrupt_seed=0, train_size=30, **few)
    shape = tuple(one.train.inputs.shape[1:])
    if name == "cnn" and len(shape) != 3:
        with pytest.raises(ValueError, match=r"needs inputs \[C, H, W\]"):
            models.build(name, shape, one.outputs, seed=0)
        return
    built = models.build(name, shape, one.outputs, seed=0)
    output = built(one.train.inputs)
    assert output.shape == ((30,) if one.outputs == 1 else (30, one.outputs))
    (output - 1).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in built.parameters())


@pytest.mark.parametrize(
    ("name", "shape", "given", "wanted"),
    [
        ("linear", (1, 8, 8), {}, 64 * 10 + 10),
        ("mlp", (13,), {"hidden": [5, 7]}, 13 * 5 + 5 + 5 * 7 + 7 + 7 * 10 + 10),
        ("mlp", (13,), {"hidden": []}, 13 * 10 + 10),
        ("cnn", (3, 9, 8), {"channels": [4]}, 3 * 9 * 4 + 4 + 4 * 4 * 4 * 10 + 10),
    ],
)
def test_parameters_are_counted(
    name: str, shape: tuple[int, ...], given: dict[str, Any], wanted: int
) -> None:
    built = models.build(name, shape, 10, seed=0, **given)
    assert models.parameter_count(built) == wanted
    next(built.parameters()).requires_grad_(False)
    assert models.parameter_count(built) == wanted - next(built.parameters()).numel()


def states() -> tuple[Any, ...]:
    """Of all generators a model's author might draw from."""
    numpy = {key: str(value) for key, value in np.random.get_state(legacy=False).items()}
    return torch.get_rng_state().tolist(), numpy, random.getstate()


# the constant's weights are 0 whatever the seed
DRAWN = [name for name in models.names() if name != "constant"]


@pytest.mark.parametrize("name", [*DRAWN, "torchvision/resnet18"])
def test_weights_come_from_the_seed_alone(name: str) -> None:
    """No generator moves while building, and none matters."""
    before = states()
    first = models.build(name, (3, 32, 32), 4, seed=1)
    assert states() == before
    torch.manual_seed(99)
    again, other = (models.build(name, (3, 32, 32), 4, seed=seed) for seed in (1, 2))
    flat = [torch.cat([p.flatten() for p in built.parameters()]) for built in (first, again, other)]
    assert torch.equal(flat[0], flat[1])
    assert not torch.equal(flat[0], flat[2])
    prints = [models.fingerprint(built) for built in (first, again, other)]
    assert prints[0] == prints[1] != prints[2]


def test_a_fingerprint_sees_buffers_and_single_bits() -> None:
    built = models.build("torchvision/resnet18", (3, 32, 32), 4, seed=0)
    before = models.fingerprint(built)
    assert next(built.buffers()).dtype == torch.float32
    next(built.buffers()).nextafter_(torch.tensor(1.0))
    assert models.fingerprint(built) != before


def test_dropout_and_activation_are_where_they_are_said_to_be() -> None:
    built = models.build("mlp", (6,), 3, seed=0, hidden=[50], activation="tanh", dropout=1.0)
    affine, last = (layer for layer in built.modules() if isinstance(layer, nn.Linear))
    assert torch.equal(built(torch.ones(2, 6)), last.bias.expand(2, 3))
    built.eval()
    inputs = torch.linspace(-1, 1, 12).reshape(2, 6)
    assert torch.equal(built(inputs), last(torch.tanh(affine(inputs))))


@pytest.mark.parametrize(("shape", "outputs"), [((3, 32, 32), 7), ((1, 32, 32), 1)])
def test_torchvision_classifiers_are_built_by_name(shape: tuple[int, ...], outputs: int) -> None:
    built = models.build("torchvision/resnet18", shape, outputs, seed=0)
    assert built.training
    counters = [buffer for buffer in built.buffers() if buffer.dtype == torch.int64]
    assert all(int(counter) == 0 for counter in counters)  # trying it out left no statistics
    assert built(torch.rand(4, *shape)).shape == ((4,) if outputs == 1 else (4, outputs))


def test_grey_images_count_as_three_equal_channels() -> None:
    grey = models.build("torchvision/resnet18", (1, 32, 32), 4, seed=0).eval()
    colour = models.build("torchvision/resnet18", (3, 32, 32), 4, seed=0).eval()
    image = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(grey(image), colour(image.repeat(1, 3, 1, 1)))


def test_torchvision_models_with_extra_heads_give_one_output() -> None:
    built = models.build("torchvision/googlenet", (3, 64, 64), 5, seed=0)
    assert built(torch.rand(2, 3, 64, 64)).shape == (2, 5)


@pytest.mark.parametrize(
    ("name", "shape", "given", "message"),
    [
        ("mpl", (4,), {}, "there is no model 'mpl'; did you mean 'mlp'?"),
        ("resnet18", (3, 32, 32), {}, "there is no model 'resnet18'"),
        ("torchvision/resnt18", (3, 32, 32), {}, "did you mean 'torchvision/resnet18'?"),
        (
            "torchvision/resnet18",
            (3, 32, 32),
            {"width": 2},
            "has no parameter 'width'; there is pretrained",
        ),
        ("torchvision/resnet18", (2, 32, 32), {}, "needs inputs [3, H, W]"),
        ("torchvision/resnet18", (30,), {}, "needs inputs [3, H, W]"),
        (
            "torchvision/alexnet",
            (3, 32, 32),
            {},
            "cannot take inputs [3, 32, 32]: Given input size",
        ),
        ("cnn", (1, 8, 8), {"channels": [4] * 4}, "of at least 16x16, got [1, 8, 8]"),
        ("mlp", (4,), {"hiden": [3]}, "mlp has no parameter 'hiden'; did you mean 'hidden'?"),
        ("mlp", (4,), {"hidden": [0]}, "mlp.hidden[0] must be >= 1, got 0"),
        ("mlp", (4,), {"activation": "swish"}, "must be one of relu, gelu, tanh, got 'swish'"),
    ],
)
def test_what_cannot_be_built_is_refused(
    name: str, shape: tuple[int, ...], given: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]*$") as raised:
        models.build(name, shape, 10, seed=0, **given)
    assert message in str(raised.value)


def test_a_name_is_registered_once() -> None:
    with pytest.raises(ValueError, match="model 'mlp' is registered twice"):
        models.model("mlp")(models.get("linear").function)


# Weights from a file, and a teacher that is made of them.

SHORT = ["task=classification/iris", "trainer.epochs=3"]


def trained(tmp_path: Path, *overrides: str) -> Path:
    """A file of weights, saved by a run."""
    path = tmp_path / "weights" / "mlp.pt"
    config = compose([*SHORT, "loss=cross_entropy", f"save={path}", *overrides])
    record = run_once(config, Store(tmp_path / "store"))
    assert record
    assert record.status == "done"
    return path


def test_saved_weights_are_where_the_next_run_starts(tmp_path: Path) -> None:
    path = trained(tmp_path)
    config = compose([*SHORT, "loss=focal", f"model.pretrained={path}"])
    saved, started = torch.load(path, weights_only=True), prepare(config).task.model.state_dict()
    assert saved.keys() == started.keys()
    assert all(torch.equal(saved[key], started[key]) for key in saved)
    assert run_id(config, 0) != run_id(compose([*SHORT, "loss=focal"]), 0)
    moved = path.rename(path.with_name("elsewhere.pt"))
    again = compose([*SHORT, "loss=focal", f"model.pretrained={moved}"])
    assert run_id(config_of(again), 0) == run_id(again, 0)
    assert str(path) not in json.dumps(outcome(again))


def config_of(config: RunConfig) -> RunConfig:
    return check(config.plain())


def test_a_last_layer_of_another_width_starts_anew(tmp_path: Path) -> None:
    path = trained(tmp_path)
    wine = compose(["task=classification/digits", "loss=focal"])
    built = models.build("mlp", (4,), 7, seed=1, pretrained=str(path))
    fresh = models.build("mlp", (4,), 7, seed=1)
    saved, *_, last = torch.load(path, weights_only=True).values()
    assert torch.equal(next(built.parameters()), saved)
    assert torch.equal(list(built.parameters())[-1], list(fresh.parameters())[-1])
    assert len(last) == 3
    refused = dataclasses.replace(wine, model={**wine.model, "pretrained": str(path)})
    with pytest.raises(ValueError, match=r"does not fit: 1\.weight is \[64, 4\] there and"):
        prepare(refused)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"no weights", "is no file of weights alone"),
        (pickle.dumps(print), "is no file of weights alone"),
        ({"a": torch.zeros(1)}, "is of another model: only one of them has 1.bias"),
        ({1: torch.zeros(2)}, "holds no tensors of finite numbers by name"),
        ({"1.bias": torch.full((3,), torch.nan)}, "holds no tensors of finite numbers by name"),
        ({"1.bias": torch.zeros(3, dtype=torch.complex64)}, "of finite numbers by name"),
        ([torch.zeros(1)], "holds no tensors of finite numbers by name"),
    ],
)
def test_a_file_that_is_not_of_these_weights_is_refused(
    tmp_path: Path, content: Any, message: str
) -> None:
    path = tmp_path / "w.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(ValueError, match=r"^pretrained=[^\n]*$") as raised:
        models.build("linear", (4,), 3, seed=0, pretrained=str(path))
    assert message in str(raised.value)


def test_a_student_learns_from_a_teacher_that_stays_as_it_is(tmp_path: Path) -> None:
    path = trained(tmp_path, "trainer.epochs=40")
    teacher = ["teacher=mlp", f"teacher.pretrained={path}"]
    config = compose([*SHORT, "loss=distillation", "model=linear", *teacher])
    task = prepare(config).task
    before = {k: v.clone() for k, v in task.teacher[0].state_dict().items()}
    inputs, target = next(iter(task.batches))
    task.train()
    total = task.objective(task.compare(inputs, target), task.model).total
    total.backward()
    assert not task.teacher[0].training
    assert all(p.grad is None for p in task.teacher[0].parameters())
    assert all(torch.equal(before[k], v) for k, v in task.teacher[0].state_dict().items())
    assert not any("teacher" in key for key in task.state_dict())
    logits, wanted = task.model(inputs) / 4, task.teacher[0](inputs) / 4
    expected = 16 * F.kl_div(
        logits.log_softmax(1), wanted.log_softmax(1), reduction="batchmean", log_target=True
    )
    torch.testing.assert_close(total, expected)
    assert run_once(config, Store(tmp_path / "store")).status == "done"  # type: ignore[union-attr]
    other = compose(
        [
            *SHORT,
            "loss=distillation",
            "model=linear",
            "teacher=mlp",
            f"teacher.pretrained={trained(tmp_path / 'b')}",
        ]
    )
    assert run_id(config, 0) != run_id(other, 0)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["loss=distillation"], "loss distillation needs a teacher: teacher=MODEL"),
        (["loss=focal", "teacher=mlp"], "a teacher must have learnt something"),
        (["loss=dpo"], "task classification refuses loss dpo"),
        (["loss=arcface"], "task classification refuses loss arcface"),
    ],
)
def test_a_teacher_that_cannot_teach_is_refused(overrides: list[str], message: str) -> None:
    config = compose([*SHORT, *overrides])
    with pytest.raises(ValueError, match=message):
        prepare(config)
