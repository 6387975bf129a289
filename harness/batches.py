"""Batches of a part, in an order and with changes that depend on seed and epoch alone."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from harness.data import Part

Draw = Callable[[torch.Generator], Sequence[Tensor]]
"""From a generator to the row numbers of each batch of an epoch, as many batches every time."""
Change = Callable[[Tensor, Any, Tensor, int], tuple[Tensor, Any]]
"""From inputs, target, their row numbers and the epoch to what is trained on in their place."""


class Batches:
    """Shuffled minibatches of a part; each epoch is keyed on (seed, epoch).

    Every process draws the same global batch and takes its own share of it, so the data seen do not
    depend on the number of devices.

    Args:
        part: inputs and targets, on the device they are trained on or to be brought there.
        size: items per global batch; the last batch of an epoch may be smaller.
        seed: sub-seed of the order; None keeps the order of the rows.
        draw: how batches are composed; None takes `size` after `size` of a random order.
        augment: what is done to the items of a batch, by their row numbers and the epoch.
        rank, world: which share of each batch this process takes.

    Attributes:
        epoch, skip: where the next iteration starts: an epoch, and batches of it that are left out.
    """

    def __init__(
        self,
        part: Part,
        size: int,
        seed: int | None = None,
        draw: Draw | None = None,
        augment: Change | None = None,
        *,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.part, self.size, self.seed, self.draw = part, size, seed, draw
        self.augment = augment
        self.rank, self.world = rank, world
        self.epoch, self.skip = 0, 0

    def __len__(self) -> int:
        return len(self.rows(0)) if self.draw else -(-len(self.part) // self.size)

    def rows(self, epoch: int) -> Sequence[Tensor]:
        """Row numbers of each batch of one epoch, in the order they are used."""
        if self.seed is None:
            return torch.split(torch.arange(len(self.part)), self.size)
        # A generator's first numbers differ little between near seeds, so mix seed and epoch well.
        key = hashlib.sha256(f"{self.seed}/{epoch}".encode()).digest()[:8]
        generator = torch.Generator().manual_seed(int.from_bytes(key, "big") >> 1)
        if self.draw:
            return self.draw(generator)
        return torch.split(torch.randperm(len(self.part), generator=generator), self.size)

    def __iter__(self) -> Iterator[tuple[Tensor, Any]]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        skip, self.skip = self.skip, 0
        shares = [rows[self.rank :: self.world] for rows in self.rows(epoch)[skip:]]
        for rows, (inputs, target) in zip(shares, self.part.batches(shares), strict=True):
            yield self.augment(inputs, target, rows, epoch) if self.augment else (inputs, target)

    def fingerprint(self) -> str:
        """Sha256 of the row order of the first epoch."""
        return hashlib.sha256(torch.cat([*self.rows(0)]).numpy().tobytes()).hexdigest()
