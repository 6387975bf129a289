"""Batches of data that lives on the device, in an order that depends on seed and epoch alone."""

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor

from harness.data import Part


class Batches:
    """Shuffled minibatches of a part; each epoch is keyed on (seed, epoch).

    Every process draws the same global batch and takes its own share of it, so the data seen do not
    depend on the number of devices.

    Args:
        part: inputs and targets, on the device they are trained on.
        size: items per global batch; the last batch of an epoch may be smaller.
        seed: sub-seed of the order; None keeps the order of the rows.
        rank, world: which share of each batch this process takes.
    """

    def __init__(
        self, part: Part, size: int, seed: int | None = None, rank: int = 0, world: int = 1
    ) -> None:
        self.part, self.size, self.seed = part, size, seed
        self.rank, self.world = rank, world
        self.epoch = 0

    def __len__(self) -> int:
        return -(-len(self.part) // self.size)

    def order(self, epoch: int) -> Tensor:
        """Row numbers of one epoch, in the order they are used."""
        if self.seed is None:
            return torch.arange(len(self.part))
        # A generator's first numbers differ little between near seeds, so mix seed and epoch well.
        key = hashlib.sha256(f"{self.seed}/{epoch}".encode()).digest()[:8]
        generator = torch.Generator().manual_seed(int.from_bytes(key, "big") >> 1)
        return torch.randperm(len(self.part), generator=generator)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = self.order(self.epoch).to(self.part.inputs.device)
        self.epoch += 1
        for rows in torch.split(order, self.size):
            mine = rows[self.rank :: self.world]
            yield self.part.inputs[mine], self.part.target[mine]

    def fingerprint(self) -> str:
        """Sha256 of the row order of the first epoch."""
        return hashlib.sha256(self.order(0).numpy().tobytes()).hexdigest()
