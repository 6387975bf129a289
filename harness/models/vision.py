"""torchvision's models by name, `torchvision/NAME`: classifiers, segmenters, detectors."""

import functools
from typing import Any

import torch
from torch import Tensor, nn

from harness.models import vision_boxes
from harness.models.base import TORCHVISION, Adapted, Model, Shape
from losses.arguments import nearest

SMALLEST = 16
"""Least side of an image for a map: these models shrink it eight or sixteen times on their way."""
AUXILIARY = {"googlenet", "inception_v3"}  # their extra heads would need losses of their own


class Colours(nn.Module):
    """Grey images as colour images: [N, 1, H, W] to [N, 3, H, W], three equal channels."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Repeat the channel without copying it."""
        return inputs.expand(-1, 3, -1, -1)


class Main(nn.Module):
    """The map that a torchvision model of segmentation is asked for, of all that it gives."""

    def forward(self, outputs: dict[str, Tensor]) -> Tensor:
        """[N, C, H, W]."""
        return outputs["out"]


def entry(name: str) -> Model:
    """The torchvision model of that name, with new weights.

    Raises:
        ValueError: no such model; the message has the nearest name.
    """
    from torchvision import models  # 1.6 s

    plain = name.removeprefix(TORCHVISION)
    maps = models.list_models(module=models.segmentation)
    if plain in maps:
        return Model(name, functools.partial(_segmenter, name), {}, "map")
    boxes = models.list_models(module=models.detection)
    if plain in boxes:
        return vision_boxes.entry(name, boxes)
    values = models.list_models(module=models)
    if plain not in values:
        known = [TORCHVISION + each for each in (*values, *maps, *boxes)]
        raise ValueError(f"there is no model '{name}'{nearest(name, known)}")
    return Model(name, functools.partial(_classifier, name), {}, "values")


def _classifier(name: str, input_shape: Shape, outputs: int) -> nn.Module:
    """A torchvision classifier with new weights, tried out on a batch of zeros."""
    from torchvision.models import get_model

    _check_channels(name, input_shape)
    plain = name.removeprefix(TORCHVISION)
    options = {"aux_logits": False, "init_weights": True} if plain in AUXILIARY else {}
    built: nn.Module = get_model(plain, weights=None, num_classes=outputs, **options)
    return _tried(name, built, input_shape)


def _segmenter(name: str, input_shape: Shape, outputs: int) -> nn.Module:
    """A torchvision model of segmentation with new weights and no auxiliary head."""
    from torchvision.models import get_model

    _check_channels(name, input_shape)
    if min(input_shape[1:]) < SMALLEST:
        raise ValueError(
            f"{name} needs images of at least {SMALLEST}x{SMALLEST}, got {list(input_shape)}"
        )
    plain = name.removeprefix(TORCHVISION)
    without = {} if plain.startswith("lraspp") else {"aux_loss": False}
    built: nn.Module = get_model(
        plain, weights=None, weights_backbone=None, num_classes=outputs, **without
    )
    whole: Any = _tried(name, built, input_shape, after=Main())
    if plain.startswith("lraspp"):
        whole.heads = ("classifier.low_classifier.", "classifier.high_classifier.")
    segmenter: nn.Module = whole
    return segmenter


def _check_channels(name: str, input_shape: Shape) -> None:
    if len(input_shape) != 3 or input_shape[0] not in (1, 3):
        raise ValueError(
            f"{name} needs inputs [3, H, W], or [1, H, W] repeated to 3 channels, "
            f"got {list(input_shape)}"
        )


def _tried(
    name: str, built: nn.Module, input_shape: Shape, after: nn.Module | None = None
) -> nn.Module:
    """Tried out on a batch of zeros; grey images are given to it as three equal channels."""
    before = Colours() if input_shape[0] == 1 else None
    built = Adapted(built, before, after) if before or after else built
    try:
        with torch.no_grad():
            built.eval()(torch.zeros(2, *input_shape))
    except Exception as error:  # whatever a model of others raises when inputs are too small for it
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{name} cannot take inputs {list(input_shape)}: {reason}") from None
    return built.train()
