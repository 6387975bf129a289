"""Every loss over several processes equals the loss of one process with the whole batch."""

import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import losses
from harness.objective import OUTPUT, Compared, Facts, Objective, Subject
from harness.terms import parse_objective
from losses.conformance.samples import CLASSES, FEATURES, samples, settings
from losses.inputs import IGNORE_INDEX, IGNORING
from tests.harness.spine import start

NONE = slice(0, 0)
Rows = slice | list[int]
IGNORED, LONELY = "first ignored", "no positive pair in the first"
SHARES: dict[int, dict[str, list[slice]]] = {  # the rows of an odd number that each process has
    2: {
        "ragged": [slice(0, None, 2), slice(1, None, 2)],
        "one empty": [slice(None), NONE],
        IGNORED: [slice(0, 3), slice(3, None)],
    },
    4: {
        "ragged": [slice(rank, None, 4) for rank in range(4)],
        "two empty": [NONE, slice(0, 3), NONE, slice(3, None)],
        IGNORED: [slice(0, 3), NONE, slice(3, 5), slice(5, None)],
    },
}
ROUNDING = 1e-10  # sums of a few dozen float64 numbers in another order
SLIGHT = 1e-3  # what a loss does not depend on, such as a length, has a gradient of rounding alone


def fields_of(entry: losses.Loss) -> tuple[Tensor, ...]:
    assert entry.example is not None
    return entry.example(torch.Generator().manual_seed(5))


def objective_of(name: str) -> Objective:
    given = {k: torch.as_tensor(v).tolist() for k, v in settings(losses.get(name)).items()}
    sizes: dict[str, Any] = {"classes": CLASSES, "features": FEATURES}
    facts = Facts(sizes=sizes | {"class_counts": [3.0, 1.0, 2.0, 7.0]})
    return Objective(parse_objective({name: given}), facts).double()


def shares_of(name: str, world: int) -> dict[str, list[Rows]]:
    """The ways in which processes share the items of a loss."""
    entry = losses.get(name)
    found: dict[str, list[Rows]] = {share: [*rows] for share, rows in SHARES[world].items()}
    if entry.target not in IGNORING:
        del found[IGNORED]
    if entry.target == "labels":
        labels = first(entry)[1].tolist()
        single = [labels.index(label) for label in sorted(set(labels))]
        rest = [row for row in range(len(labels)) if row not in single]
        found[LONELY] = [single, rest, *([NONE] * (world - 2))]
    return found


def evaluate(name: str, rows: Rows, share: str) -> list[Tensor]:
    """Value and gradients, by numbers the output is scaled by and by the loss's own tensors."""
    entry, objective = losses.get(name), objective_of(name)
    whole = fields_of(entry) if entry.target == "fields" else first(entry)
    if share == IGNORED:
        whole[1][:3] = IGNORE_INDEX
    inputs = [tensor[rows] for tensor in whole]
    scales = []
    for i, tensor in enumerate(inputs):
        if tensor.is_floating_point() and (i == 0 or entry.target == "fields"):
            scales.append(torch.ones(tensor.shape[1:], dtype=torch.float64, requires_grad=True))
            inputs[i] = tensor * scales[-1]
    fields = dict(zip(entry.inputs, inputs, strict=True))
    subject = Subject((inputs[0], inputs[-1]))
    total = objective(Compared({OUTPUT: subject}, fields), nn.Identity()).total
    learnt = [*scales, *objective.parameters()]
    slopes = torch.autograd.grad(total, learnt, allow_unused=True, materialize_grads=True)
    return [total.detach(), *slopes]


def first(entry: losses.Loss) -> tuple[Tensor, Tensor]:
    output, target = samples(entry)[0]
    return output, target


NAMES = losses.names()


def serve(rank: int, world: int, port: int) -> None:
    """One of several processes: every loss, the gradients averaged as DDP does, saved by each."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world
    )
    found = {}
    for name in NAMES:
        for share, rows in shares_of(name, world).items():
            total, *slopes = evaluate(name, rows[rank], share)
            for slope in slopes:
                torch.distributed.all_reduce(slope)
                slope /= world
            found[name, share] = [total, *slopes]
    torch.save(found, f"rank{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("world", SHARES)
def test_several_processes_equal_one_with_the_whole_batch(tmp_path: Path, world: int) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = "from tests.harness.test_across import serve; serve({}, {}, {})"
    processes = [start(["-c", code.format(rank, world, port)], tmp_path) for rank in range(world)]
    for process in processes:
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
    found = [torch.load(tmp_path / f"rank{rank}.pt") for rank in range(world)]
    wrong = {}
    for name in NAMES:
        for share in shares_of(name, world):
            expected = evaluate(name, slice(None), share)
            assert expected[1].norm() > 0 or losses.get(name).minimum is None, name
            for rank in range(world):
                pairs = zip(found[rank][name, share], expected, strict=True)
                apart = max(float((a - b).norm() / (b.norm() + SLIGHT)) for a, b in pairs)
                if not apart <= ROUNDING:
                    wrong[name, share, rank] = apart
    assert wrong == {}
