"""What the tests of losses of embeddings share: references in numpy, and two processes.

A reference takes the loss's tensors as float64 and integer arrays with its parameters as keywords,
loops over items, and gives the values, or the values and what each counts; items may see others.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import losses
from tests.losses.oracle import STEP, TOLERANCE

ROOT = Path(__file__).resolve().parents[2]
Arrays = list[np.ndarray]


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(shape, dtype=torch.float64, generator=generator)


def directions(x: np.ndarray, axis: int = 1) -> np.ndarray:
    return x / np.sqrt((x**2).sum(axis, keepdims=True))


def assert_agrees(
    name: str,
    reference: Callable[..., Any],
    *tensors: torch.Tensor,
    fixed: Any = None,
    **given: Any,
) -> None:
    """The loss's values, mean, and the gradient of the mean in each float tensor are its.

    `fixed` names a keyword of the reference that takes the first tensor wherever it is not to be
    differentiated.
    """
    arrays = [tensor.numpy() for tensor in tensors]
    frozen = {fixed: arrays[0].copy()} if fixed else {}

    def mean(changed: Arrays) -> float:
        values, counts = _counted(reference(*changed, **given, **frozen))
        return values.sum() / max(counts.sum(), 1)

    leaves = [t.clone().requires_grad_() if t.is_floating_point() else t for t in tensors]
    values = getattr(losses, name)(*leaves, reduction="none", **given)
    expected = torch.as_tensor(_counted(reference(*arrays, **given))[0])
    torch.testing.assert_close(values.detach(), expected, rtol=1e-9, atol=1e-12)
    result = getattr(losses, name)(*leaves, **given)
    assert abs(result.item() - mean(arrays)) < 1e-9 * max(1, abs(result.item()))
    floats = [leaf for leaf in leaves if leaf.is_floating_point()]
    slopes = torch.autograd.grad(result, floats)
    for leaf, slope in zip(floats, slopes, strict=True):
        place = next(i for i, other in enumerate(leaves) if other is leaf)
        theirs = torch.tensor(_slope(mean, arrays, place)).reshape(slope.shape)
        torch.testing.assert_close(slope, theirs, rtol=TOLERANCE, atol=TOLERANCE)


def _counted(result: Any) -> tuple[np.ndarray, np.ndarray]:
    return result if isinstance(result, tuple) else (result, np.ones_like(result))


def _slope(mean: Callable[[Arrays], float], arrays: Arrays, place: int) -> list[float]:
    """Central differences in every number of one of the arrays."""
    found = []
    for at in np.ndindex(arrays[place].shape):
        ends = []
        for step in (STEP, -STEP):
            changed = list(arrays)
            changed[place] = arrays[place].copy()
            changed[place][at] += step
            ends.append(mean(changed))
        found.append((ends[0] - ends[1]) / (2 * STEP))
    return found


# Two processes that gather all rows with their gradient against one process with all rows.

LABELS = torch.tensor([0, 1, 2, 0, 1, 3, 2, 0])  # halves that share labels, one of them alone
FAMILIES = ("losses.metric", "losses.proxy", "losses.views")
ENTRIES = [losses.get(name) for name in losses.names()]
COUPLED = [e.name for e in ENTRIES if not e.additive and e.function.__module__ in FAMILIES]


class Gathered(torch.autograd.Function):
    """Rows of all processes; the gradient of a process's own rows is summed over all of them."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor) -> torch.Tensor:
        world = torch.distributed.get_world_size()
        everyone = [torch.empty_like(rows) for _ in range(world)]
        torch.distributed.all_gather(everyone, rows.contiguous())
        return torch.cat(everyone)

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor) -> torch.Tensor:
        slope = slope.contiguous()
        torch.distributed.all_reduce(slope)
        return slope.chunk(torch.distributed.get_world_size())[torch.distributed.get_rank()]


def gradients(name: str, rows: slice, gather: Callable[..., Any]) -> list[torch.Tensor]:
    """Of a linear model and of the loss's own tensors, for some rows of a fixed batch."""
    model = torch.nn.Linear(6, 5, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(draw(5, 6, seed=1))
        model.bias.copy_(draw(5, seed=2))
    entry = losses.get(name)
    sizes = {key: {"classes": 4, "features": 5}[key] for key in entry.sizes}
    module = losses.build(name, generator=torch.Generator().manual_seed(3), **sizes).double()
    output = gather(model(draw(8, 6, seed=4)[rows]))
    if entry.target == "labels":
        value = module(output, gather(LABELS[rows]))
    else:
        value = module(output, gather(model(draw(8, 6, seed=5)[rows])))
    return list(torch.autograd.grad(value, [*model.parameters(), *module.parameters()]))


def serve(rank: int, port: int) -> None:
    """One of two processes: gradients of all coupled losses, averaged as DDP does."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
    )
    rows = slice(4 * rank, 4 * rank + 4)
    found = {}
    for name in COUPLED:
        for way, gather in (("gathered", Gathered.apply), ("apart", lambda rows: rows)):
            found[name, way] = gradients(name, rows, gather)
            for slope in found[name, way]:
                torch.distributed.all_reduce(slope)
                slope /= 2
    torch.save(found, f"rank{rank}.pt")
    torch.distributed.destroy_process_group()


def two_processes(folder: Path) -> list[dict[tuple[str, str], list[torch.Tensor]]]:
    """What each of two processes found; they run in a folder of their own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = "from tests.losses.embeddings import serve; serve({}, {})"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code.format(rank, port)], cwd=folder, env=environment
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=120) for process in started] == [0, 0]
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(2)]
