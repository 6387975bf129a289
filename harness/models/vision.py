"""torchvision's models by name, `torchvision/NAME`."""

import functools

import torch
from torch import Tensor, nn

from harness.models.base import TORCHVISION, Adapted, Model, Shape
from losses.arguments import nearest

AUXILIARY = {"googlenet", "inception_v3"}  # their extra heads would need losses of their own


class Colours(nn.Module):
    """Grey images as colour images: [N, 1, H, W] to [N, 3, H, W], three equal channels."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Repeat the channel without copying it."""
        return inputs.expand(-1, 3, -1, -1)


def entry(name: str) -> Model:
    """The torchvision model of that name, with new weights.

    Raises:
        ValueError: no such model; the message has the nearest name.
    """
    from torchvision import models  # 1.6 s

    known = models.list_models(module=models)
    if name.removeprefix(TORCHVISION) not in known:
        raise ValueError(
            f"there is no model '{name}'{nearest(name, [TORCHVISION + each for each in known])}"
        )
    return Model(name, functools.partial(_classifier, name), {}, "values")


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
    built = Adapted(built, before=Colours()) if input_shape[0] == 1 else built
    try:
        with torch.no_grad():
            built.eval()(torch.zeros(2, *input_shape))
    except Exception as error:  # whatever a model of others raises when inputs are too small for it
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{name} cannot take inputs {list(input_shape)}: {reason}") from None
    return built.train()
