"""Models by name: small ones of our own, and any torchvision classifier without its weights."""

import functools
import hashlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from losses.arguments import Count, Parameter, Share, check_arguments, nearest, parameters_of

Shape = tuple[int, ...]
TORCHVISION = "torchvision/"
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh}
AUXILIARY = {"googlenet", "inception_v3"}  # their extra heads would need losses of their own


@dataclass(frozen=True)
class Model:
    """One registered model: a function (input_shape, outputs, *, parameters) to a module."""

    name: str
    function: Callable[..., nn.Module]
    parameters: dict[str, Parameter]


REGISTRY: dict[str, Model] = {}


def model(name: str) -> Callable[[Callable[..., nn.Module]], Callable[..., nn.Module]]:
    """Register a function (input_shape, outputs, *, parameters) that returns a module.

    The module takes [N, *input_shape] and gives [N, outputs]; :func:`build` does the rest.

    Raises:
        ValueError: the name is taken.
    """

    def register(function: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
        if name in REGISTRY:
            raise ValueError(f"model '{name}' is registered twice")
        REGISTRY[name] = Model(name, function, parameters_of(function))
        return function

    return register


def names() -> list[str]:
    """Names of the registered models, sorted; `torchvision/NAME` is accepted besides."""
    return sorted(REGISTRY)


def get(name: str) -> Model:
    """The registered model of that name, or the torchvision classifier `torchvision/NAME`.

    Raises:
        ValueError: no such model; the message has the nearest name.
    """
    if name.startswith(TORCHVISION):
        return _torchvision(name)
    if name not in REGISTRY:
        known = [*REGISTRY, f"{TORCHVISION}NAME"]
        raise ValueError(f"there is no model '{name}'{nearest(name, known)}")
    return REGISTRY[name]


def build(name: str, input_shape: Shape, outputs: int, *, seed: int, **given: Any) -> nn.Module:
    """A model with initial weights drawn from `seed` alone; no global random state changes.

    It takes float [N, *input_shape] and gives [N, outputs], or [N] where `outputs` is 1.

    Args:
        name: a registered name, or `torchvision/NAME`.
        input_shape: the shape of one item.
        outputs: how many numbers per item.
        seed: of the initial weights.
        given: the model's own parameters.

    Raises:
        ValueError: unknown model or parameter, a value out of bounds, or inputs it cannot take.

    >>> build("mlp", (1, 8, 8), 10, seed=0, hidden=[32])(torch.zeros(5, 1, 8, 8)).shape
    torch.Size([5, 10])
    """
    entry = get(name)
    checked = check_arguments(name, entry.parameters, given)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed GPUs too
        built = entry.function(tuple(input_shape), outputs, **checked)
    return nn.Sequential(built, nn.Flatten(0)) if outputs == 1 else built


@model("linear")
def linear(input_shape: Shape, outputs: int) -> nn.Module:
    """One affine map of the flattened inputs."""
    return nn.Sequential(nn.Flatten(), nn.Linear(_size(input_shape), outputs))


@model("mlp")
def mlp(
    input_shape: Shape,
    outputs: int,
    *,
    hidden: Sequence[Count] = (64, 64),
    activation: Literal["relu", "gelu", "tanh"] = "relu",
    dropout: Share = 0.0,
) -> nn.Module:
    """Affine maps of the flattened inputs with an activation between them.

    Args:
        input_shape: any shape.
        outputs: the last layer's width.
        hidden: widths of the hidden layers, first to last.
        activation: after each hidden layer.
        dropout: share of hidden activations zeroed in training, after each activation.
    """
    widths = [_size(input_shape), *hidden]
    layers: list[nn.Module] = [nn.Flatten()]
    for width, following in itertools.pairwise(widths):
        layers += [nn.Linear(width, following), ACTIVATIONS[activation](), *_dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(widths[-1], outputs))


@model("cnn")
def cnn(
    input_shape: Shape,
    outputs: int,
    *,
    channels: Sequence[Count] = (16, 32),
    dropout: Share = 0.0,
) -> nn.Module:
    """Per entry of `channels` a 3x3 convolution, ReLU and 2x2 max-pooling; then one affine map.

    No normalisation layers: they would make an item's output depend on its batch.

    Args:
        input_shape: [C, H, W], each of H and W at least 2 to the number of convolutions.
        outputs: the last layer's width.
        channels: of the convolutions, first to last.
        dropout: share of activations zeroed in training, before the affine map.
    """
    smallest = 2 ** len(channels)
    if len(input_shape) != 3 or min(input_shape[1:]) < smallest:
        raise ValueError(
            f"cnn with {len(channels)} convolutions needs inputs [C, H, W] of at least "
            f"{smallest}x{smallest}, got {list(input_shape)}"
        )
    layers: list[nn.Module] = []
    for width, following in itertools.pairwise([input_shape[0], *channels]):
        convolution = nn.Conv2d(width, following, kernel_size=3, padding=1)
        layers += [convolution, nn.ReLU(), nn.MaxPool2d(2)]
    height, width = (side // smallest for side in input_shape[1:])
    last = [input_shape[0], *channels][-1]
    head = nn.Linear(last * height * width, outputs)
    return nn.Sequential(*layers, nn.Flatten(), *_dropout(dropout), head)


class Colours(nn.Module):
    """Grey images as colour images: [N, 1, H, W] to [N, 3, H, W], three equal channels."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Repeat the channel without copying it."""
        return inputs.expand(-1, 3, -1, -1)


def _torchvision(name: str) -> Model:
    import torchvision  # 1.6 s

    known = torchvision.models.list_models(module=torchvision.models)
    if name.removeprefix(TORCHVISION) not in known:
        raise ValueError(
            f"there is no model '{name}'{nearest(name, [TORCHVISION + each for each in known])}"
        )
    return Model(name, functools.partial(_classifier, name), {})


def _classifier(name: str, input_shape: Shape, outputs: int) -> nn.Module:
    """A torchvision classifier with new weights, tried out on a batch of zeros.

    Grey images are given to it as three equal channels.
    """
    from torchvision.models import get_model

    if len(input_shape) != 3 or input_shape[0] not in (1, 3):
        raise ValueError(
            f"{name} needs inputs [3, H, W], or [1, H, W] repeated to 3 channels, "
            f"got {list(input_shape)}"
        )
    plain = name.removeprefix(TORCHVISION)
    options = {"aux_logits": False, "init_weights": True} if plain in AUXILIARY else {}
    built: nn.Module = get_model(plain, weights=None, num_classes=outputs, **options)
    built = nn.Sequential(Colours(), built) if input_shape[0] == 1 else built
    try:
        with torch.no_grad():
            built.eval()(torch.zeros(2, *input_shape))
    except Exception as error:  # whatever a model of others raises when inputs are too small for it
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{name} cannot take inputs {list(input_shape)}: {reason}") from None
    return built.train()


def _size(shape: Shape) -> int:
    return torch.Size(shape).numel()


def _dropout(share: float) -> list[nn.Module]:
    return [nn.Dropout(share)] if share > 0 else []


def parameter_count(module: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def fingerprint(module: nn.Module) -> str:
    """sha256 of the bytes of all parameters and buffers, in the order of the state dict."""
    total = hashlib.sha256()
    for tensor in module.state_dict().values():
        total.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
