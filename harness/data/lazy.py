"""A part of a data set whose pictures are read when they are used."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from harness.data.base import Part, Target, each, scaled
from harness.data.pictures import Pictures


@dataclass(frozen=True, eq=False, kw_only=True)
class LazyPart(Part):
    """Items whose pictures are read as they are used; `inputs` and maps stand for their shape."""

    pictures: Pictures
    rows: Tensor  # of the pictures, int64 [N]
    workers: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def to(self, device: torch.device) -> Part:
        """The same items, to be brought to a device."""
        if not self.pictures.maps:
            return replace(self, device=device, target=each(self.target, lambda t: t.to(device)))
        return replace(self, device=device)

    def take(self, rows: Tensor) -> tuple[Tensor, Target]:
        """Inputs and target of some items."""
        return self._given(rows, _Reading(self).__getitems__(rows.tolist()))

    def first(self, number: int) -> Part:
        """No more than so many of its items."""
        target = each(self.target, lambda tensor: tensor[:number])
        return replace(self, inputs=self.inputs[:number], target=target, rows=self.rows[:number])

    def batches(self, batches: Iterable[Tensor]) -> Iterator[tuple[Tensor, Target]]:
        """The same, one batch after the other, in this order whatever the number of workers."""
        wanted = list(batches)
        loader = DataLoader(
            _Reading(self),
            batch_sampler=[rows.tolist() for rows in wanted],
            num_workers=min(self.workers, len(wanted)),
            collate_fn=_as_is,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # or it would draw from that of dropout
        )
        for rows, read in zip(wanted, loader, strict=True):
            yield self._given(rows, read)

    def _given(self, rows: Tensor, read: tuple[Tensor, Tensor | None]) -> tuple[Tensor, Target]:
        pixels, maps = read
        inputs = scaled(pixels.to(self.device, non_blocking=True), self.normalise)
        if maps is not None:
            return inputs, maps.to(self.device, non_blocking=True).long()
        return inputs, each(self.target, lambda tensor: tensor[rows.to(tensor.device)])


class _Reading(Dataset[Any]):
    """What a worker does: read the pictures of a batch."""

    def __init__(self, part: LazyPart) -> None:
        self.pictures, self.rows = part.pictures, part.rows.cpu()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, items: list[int]) -> tuple[Tensor, Tensor | None]:
        read = [self.pictures.read(int(row)) for row in self.rows[items]]
        height, width = self.pictures.size
        pixels = torch.empty(len(read), self.pictures.channels, height, width, dtype=torch.uint8)
        maps = torch.empty(len(read), height, width, dtype=torch.int16)
        for item, (image, mapped) in enumerate(read):
            pixels[item] = image
            if mapped is not None:
                maps[item] = mapped
        return pixels, maps if self.pictures.maps else None


def _as_is(read: Any) -> Any:
    return read
