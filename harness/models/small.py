"""Small models of our own for values per item, trained in seconds."""

import itertools
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from harness.models.base import Shape, model
from losses.arguments import Count, Share

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh}


@model("linear")
def linear(input_shape: Shape, outputs: int) -> nn.Module:
    """One affine map of the flattened inputs."""
    return nn.Sequential(nn.Flatten(), nn.Linear(_size(input_shape), outputs))


class Constant(nn.Module):
    """The same learnt numbers for every item."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.output = nn.Parameter(torch.zeros(outputs))

    def forward(self, inputs: Tensor) -> Tensor:
        """The numbers, once per item: [N, outputs]."""
        return self.output.expand(len(inputs), -1)


@model("constant")
def constant(_: Shape, outputs: int) -> nn.Module:
    """One output for all inputs, learnt from 0: the best that can be done without looking."""
    return Constant(outputs)


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


def _size(shape: Shape) -> int:
    return torch.Size(shape).numel()


def _dropout(share: float) -> list[nn.Module]:
    return [nn.Dropout(share)] if share > 0 else []
