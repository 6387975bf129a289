"""A small network that gives a value for each pixel."""

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness import across
from harness.models.base import Shape, model
from losses.arguments import Count


@model("unet", gives="map")
def unet(input_shape: Shape, outputs: int, *, channels: Count = 12, depth: Count = 3) -> nn.Module:
    """A U-Net: convolutions on ever smaller maps, then back up beside what was seen on the way.

    Two 3x3 convolutions per level on the way down and one on the way up, each followed by batch
    normalisation and ReLU; 2x2 max-pooling down, nearest neighbours up. After Ronneberger et al.
    2015, arXiv:1505.04597. Normalising each image by itself would not tie an item's output to its
    batch, and learns far more slowly.

    Args:
        input_shape: [C, H, W], each of H and W at least 2 to the depth.
        outputs: values per pixel.
        channels: on the full map; twice as many on each smaller one.
        depth: how often the map is halved.
    """
    smallest = 2**depth
    if len(input_shape) != 3 or min(input_shape[1:]) < smallest:
        raise ValueError(
            f"unet of depth {depth} needs inputs [C, H, W] of at least {smallest}x{smallest}, "
            f"got {list(input_shape)}"
        )
    built: nn.Module = UNet(input_shape[0], outputs, channels, depth)
    return built.to(memory_format=torch.channels_last)  # a third faster on a CPU


class UNet(nn.Module):
    """See :func:`unet`."""

    def __init__(self, inputs: int, outputs: int, channels: int, depth: int) -> None:
        super().__init__()
        widths = [channels * 2**level for level in range(depth + 1)]
        pairs = list(itertools.pairwise(widths))
        self.down = nn.ModuleList(_block(a, b, b) for a, b in [(inputs, channels), *pairs])
        self.up = nn.ModuleList(_block(a + b, a) for a, b in reversed(pairs))
        self.head = nn.Conv2d(channels, outputs, kernel_size=1)

    def forward(self, images: Tensor) -> Tensor:
        """[N, C, H, W] to [N, outputs, H, W]."""
        maps = [self.down[0](images)]
        for block in self.down[1:]:
            maps.append(block(F.max_pool2d(maps[-1], 2)))
        here: Tensor = maps.pop()
        for block in self.up:
            beside = maps.pop()
            raised = F.interpolate(here, size=beside.shape[-2:])
            here = block(torch.cat([beside, raised], 1))
        result: Tensor = self.head(here)
        return result


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation; by the whole batch where several processes each have a share of it."""

    def forward(self, inputs: Tensor) -> Tensor:
        """[N, C, H, W] to the same."""
        if not (self.training and across.processes() > 1):
            return super().forward(inputs)
        places = (0, 2, 3)
        count = across.total(torch.tensor(float(inputs.numel() // inputs.shape[1])).to(inputs))
        mean = across.added(inputs.sum(places)) / count
        centred = inputs - mean.view(-1, 1, 1)
        variance = across.added(centred.square().sum(places)) / count
        self._remember(mean.detach(), variance.detach() * count / (count - 1).clamp(min=1))
        scale = self.weight * (variance + self.eps).rsqrt()
        return centred * scale.view(-1, 1, 1) + self.bias.view(-1, 1, 1)

    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        self.num_batches_tracked += 1


def _block(*widths: int) -> nn.Sequential:
    """A 3x3 convolution, normalisation and ReLU from each width to the next."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        convolution = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False)
        layers += [convolution, BatchNorm(outputs), nn.ReLU()]
    return nn.Sequential(*layers)
