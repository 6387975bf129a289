"""Every item once per epoch, in an order that seed and epoch alone decide."""

import pytest
import torch
from torch import Tensor

from harness.batches import Batches
from harness.data import Part

ITEMS = 37  # no multiple of any batch size or number of processes below


def part(items: int = ITEMS) -> Part:
    """Items that carry their own number, as input and as target."""
    numbers = torch.arange(items)
    return Part(numbers.float().unsqueeze(1), numbers)


def epoch(batches: Batches) -> list[Tensor]:
    """Row numbers of each batch of the next epoch."""
    rows = []
    for inputs, target in batches:
        assert torch.equal(inputs.squeeze(1).long(), target)
        rows.append(target)
    assert len(rows) == len(batches)
    return rows


@pytest.mark.parametrize("size", [1, 8, ITEMS, 100])
@pytest.mark.parametrize("seed", [None, 0, 5])
def test_every_item_comes_once_per_epoch(size: int, seed: int | None) -> None:
    batches = Batches(part(), size, seed)
    for _ in range(3):
        rows = epoch(batches)
        assert all(len(batch) == size for batch in rows[:-1])
        assert sorted(torch.cat(rows).tolist()) == list(range(ITEMS))


@pytest.mark.parametrize("size", [3, 8, 100])
@pytest.mark.parametrize("world", [2, 4])
def test_processes_share_the_batches_of_one(world: int, size: int) -> None:
    """Batch for batch the same items, also where a batch has fewer items than processes."""
    alone = Batches(part(), size, seed=1)
    shares = [Batches(part(), size, seed=1, rank=rank, world=world) for rank in range(world)]
    for _ in range(2):
        whole, parts = epoch(alone), [epoch(share) for share in shares]
        for batch, *mine in zip(whole, *parts, strict=True):
            assert sorted(batch.tolist()) == sorted(torch.cat(mine).tolist())
            sizes = [len(one) for one in mine]
            assert max(sizes) - min(sizes) <= 1


def test_order_depends_on_seed_and_epoch_alone() -> None:
    used = Batches(part(), 8, seed=3)
    first = [torch.cat(epoch(used)) for _ in range(4)]
    torch.manual_seed(99)
    for size in (1, 8, 50):  # the batch size cuts the same order elsewhere
        again = Batches(part(), size, seed=3)
        assert all(torch.equal(torch.cat(epoch(again)), order) for order in first)
    orders = {tuple(order.tolist()) for order in first}
    assert len(orders) == 4
    for seed in range(50):
        orders |= {tuple(torch.cat([*Batches(part(), 8, seed).rows(e)]).tolist()) for e in range(4)}
    assert len(orders) == 50 * 4  # seed 3 is among them; near seeds share no epoch


def test_without_a_seed_rows_keep_their_order() -> None:
    batches = Batches(part(), 10)
    for _ in range(2):
        assert torch.equal(torch.cat(epoch(batches)), torch.arange(ITEMS))


def test_a_fingerprint_tells_orders_apart() -> None:
    prints = {seed: Batches(part(), 8, seed).fingerprint() for seed in range(20)}
    assert len(set(prints.values())) == len(prints)
    used = Batches(part(), 8, seed=3)
    epoch(used)
    assert (
        used.fingerprint() == prints[3] == Batches(part(), 2, seed=3, rank=1, world=2).fingerprint()
    )
    assert Batches(part(ITEMS + 1), 8, seed=3).fingerprint() != prints[3]
