"""What the processes of one run tell each other, so that together they train as one would.

DistributedDataParallel takes the mean of the gradients of all processes. What follows makes that
mean the gradient of the whole batch, whatever share of it each process has; none may be missing,
but any share may be empty.
"""

import io
from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed.nn.functional import all_reduce

from losses import Fraction


def processes() -> int:
    """How many processes train this run together; 0 where there is one alone."""
    there = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if there else 0


def total(number: Tensor) -> Tensor:
    """The sum of a number over all processes; carries no gradient."""
    number = number.detach().clone()
    distributed.all_reduce(number)
    return number


def added(tensor: Tensor) -> Tensor:
    """The sum over all processes of tensors of one shape; its gradient reaches all of them."""
    result: Tensor = all_reduce(tensor)  # type: ignore[no-untyped-call]
    return result


def summed(fraction: Fraction) -> Fraction:
    """Numerator and denominator of the whole batch, for losses whose items stand alone.

    The value is the global one. The gradient is that of this process's share times the number of
    processes, by which the mean of gradients divides.
    """
    local = fraction.numerator
    both = total(torch.stack([local.detach(), fraction.denominator.to(local)]))
    scaled = local * distributed.get_world_size()
    return Fraction(scaled + (both[0] - scaled).detach(), both[1])


def gathered(rows: Tensor) -> Tensor:
    """The rows of all processes [N, ...], for losses that compare items with one another.

    Each process evaluates the loss of the whole batch; gradients reach it through its own rows
    only, and are multiplied by the number of processes, by which the mean of gradients divides.
    """
    world, rank = distributed.get_world_size(), distributed.get_rank()
    lengths = torch.zeros(world, dtype=torch.int64, device=rows.device)
    lengths[rank] = len(rows)
    distributed.all_reduce(lengths)
    numbers = lengths.tolist()
    sent = rows.detach().new_zeros(max(numbers), *rows.shape[1:])
    sent[: len(rows)] = rows.detach()
    plain = sent.byte() if sent.dtype is torch.bool else sent
    received = [torch.empty_like(plain) for _ in range(world)]
    distributed.all_gather(received, plain)
    shares = [r.to(rows.dtype)[:n] for r, n in zip(received, numbers, strict=True)]
    own = rows.clone()
    if own.requires_grad:
        own.register_hook(lambda slope: slope * world)  # type: ignore[no-untyped-call]
    shares[rank] = own
    return torch.cat(shares)


def collected(value: Any, device: torch.device) -> list[Any]:
    """What every process has, as tensors and plain values: nothing that arrives can run.

    Args:
        value: this process's.
        device: of which tensors can be sent.
    """
    buffer = io.BytesIO()
    torch.save(value, buffer)
    content = torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8).to(device)
    lengths = gathered(torch.tensor([len(content)], device=device)).tolist()
    parts = torch.split(gathered(content).cpu(), lengths)
    return [torch.load(io.BytesIO(part.numpy().tobytes()), weights_only=True) for part in parts]
