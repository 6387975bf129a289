"""Models by name: shapes for every data set, weights from a seed alone, clear refusals."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector

from harness import data, models

BUNDLED = [name for name in data.names() if name != "csv"]


@pytest.mark.parametrize("name", models.names())
@pytest.mark.parametrize("source", BUNDLED)
def test_every_model_fits_every_data_set(name: str, source: str) -> None:
    """Outputs have the shape that targets of this kind need, and every parameter learns."""
    one = data.load(source, split_seed=0, corrupt_seed=0, train_size=30)
    shape = tuple(one.train.inputs.shape[1:])
    if name == "cnn" and len(shape) != 3:
        with pytest.raises(ValueError, match=r"needs inputs \[C, H, W\]"):
            models.build(name, shape, one.outputs, seed=0)
        return
    built = models.build(name, shape, one.outputs, seed=0)
    output = built(one.train.inputs)
    assert output.shape == ((30,) if one.outputs == 1 else (30, one.outputs))
    output.square().sum().backward()
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


@pytest.mark.parametrize("name", [*models.names(), "torchvision/resnet18"])
def test_weights_come_from_the_seed_alone(name: str) -> None:
    """No generator moves while building, and none matters."""
    before = states()
    first = models.build(name, (3, 32, 32), 4, seed=1)
    assert states() == before
    torch.manual_seed(99)
    again, other = (models.build(name, (3, 32, 32), 4, seed=seed) for seed in (1, 2))
    flat = [parameters_to_vector(built.parameters()) for built in (first, again, other)]
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
        ("resnet18", (3, 32, 32), {}, "there are cnn, linear, mlp, torchvision/NAME"),
        ("torchvision/resnt18", (3, 32, 32), {}, "did you mean 'torchvision/resnet18'?"),
        (
            "torchvision/resnet18",
            (3, 32, 32),
            {"width": 2},
            "has no parameter 'width'; it has none",
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
        models.model("mlp")(models.linear)
