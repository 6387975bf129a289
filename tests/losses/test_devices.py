"""On each device and in each precision of training every loss gives what float64 gives."""

import pytest
import torch

import losses
from losses.conformance import bind, fields
from losses.conformance.samples import own_tensors, samples

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
# Some dozen roundings of what a gradient is handed back in; half precision is float32 inside.
OFF = {
    torch.float64: 1e-9,
    torch.float32: 1e-4,
    torch.float16: 2e-3,
    torch.bfloat16: 1e-2,
}


def step(entry, inputs, device, dtype):
    """Value, and gradients by the float inputs that have one, as float64 on the CPU."""
    leaves = [
        t.to(device, dtype).requires_grad_() if t.is_floating_point() else t.to(device)
        for t in inputs
    ]
    own = {name: tensor.detach().to(device) for name, tensor in own_tensors(entry).items()}
    value = entry.divide(entry.fraction(*leaves, **own))
    learnt = [leaf for leaf in leaves if leaf.requires_grad]
    slopes = torch.autograd.grad(value, learnt, allow_unused=True)
    return value.detach().cpu().double(), [None if s is None else s.cpu().double() for s in slopes]


@pytest.mark.parametrize("dtype", OFF, ids=lambda dtype: str(dtype).removeprefix("torch."))
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", losses.names())
def test_values_and_gradients_are_those_of_float64(name, device, dtype):
    entry = bind(losses.get(name))
    given = [fields.example(entry)] if entry.target == "fields" else samples(entry)
    for inputs in given:
        rounded = fields.rounded(inputs, dtype)
        value, slopes = step(entry, rounded, device, dtype)
        expected, exact = step(entry, rounded, "cpu", torch.float64)
        torch.testing.assert_close(value, expected, rtol=min(OFF[dtype], 1e-4), atol=1e-6)
        for slope, true in zip(slopes, exact, strict=True):
            assert (slope is None) == (true is None)
            if true is not None:
                off = torch.linalg.vector_norm(slope - true)
                assert off <= OFF[dtype] * torch.linalg.vector_norm(true) + 1e-7  # boxes that agree
