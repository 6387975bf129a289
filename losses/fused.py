"""Value and gradient in one pass over the batch, in pieces that stay in the processor's cache.

A plain formula walks a large batch once per operation, forward and backward, and keeps what the
backward pass needs. A loss whose author also gives its derivative is evaluated here instead: piece
by piece, value and derivative together, with one buffer of the output's size and nothing else.
Transforms of functions (`torch.func`, `torch.compile`) and second derivatives use the plain one.

Who asks for it (`losses.build(..., compiled=True)`) has the pieces replaced by one kernel that
torch's compiler makes of the derivative, which keeps values in registers. Losses of regions have
pieces and kernels of their own, see :mod:`losses.regions`.
"""

import contextlib
import functools
import inspect
import math
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from types import FunctionType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from losses.inputs import as_numbers, over_classes

if TYPE_CHECKING:
    from losses.core import Loss

PIECE = {"cpu": 1 << 15}  # elements; a few float32 buffers of this size fit a core's cache
FEW = 1 << 14  # elements; below, the plain formula takes less time than the bookkeeping of pieces
WHOLE = 1 << 26  # elsewhere: few launches, and still no more than some pieces at a time


_COMPILING = ContextVar("_COMPILING", default=False)


@contextlib.contextmanager
def compiling() -> Iterator[None]:
    """Within it, what has a derivative by hand is evaluated by a compiled kernel."""
    before = _COMPILING.set(True)
    try:
        yield
    finally:
        _COMPILING.reset(before)


def compiles(output: Tensor) -> bool:
    """Whether that was asked for, and pays."""
    return _COMPILING.get() and output.numel() >= FEW


def applies(entry: "Loss", inputs: tuple[Tensor, ...], parameters: dict[str, Any]) -> bool:
    """Whether a loss has a derivative that may be used."""
    if entry.derivative is None or len(inputs) != 2 or inputs[0].numel() < FEW:
        return False
    return by_hand(*inputs, *parameters.values())


def by_hand(output: Tensor, *others: Any) -> bool:
    """Whether a gradient may be made by hand: eager, and only the output carries one."""
    tensors = [value for value in others if isinstance(value, Tensor)]
    if not output.requires_grad or any(tensor.requires_grad for tensor in tensors):
        return False
    return torch.is_grad_enabled() and eager(output, *tensors)


def eager(*tensors: Tensor) -> bool:
    """Whether neither the compiler nor a transform of functions nor forward mode is at work."""
    if torch.compiler.is_compiling() or forward_ad._current_level >= 0:
        return False
    return all(torch._C._functorch.maybe_get_level(tensor) == -1 for tensor in tensors)


def several(slope: Tensor) -> bool:
    """Whether it stands for several slopes at once."""
    functorch = torch._C._functorch
    return functorch.is_legacy_batchedtensor(slope) or functorch.maybe_get_level(slope) != -1


def fraction(
    entry: "Loss",
    output: Tensor,
    target: Tensor,
    kept: Tensor | None,
    parameters: dict[str, Any],
) -> tuple[Tensor, Tensor]:
    """Sum of values, with its gradient, and sum of counts."""
    result: tuple[Tensor, Tensor] = _Fused.apply(entry, output, target, kept, parameters)
    return result


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        entry: "Loss",
        output: Tensor,
        target: Tensor,
        kept: Tensor | None,
        parameters: dict[str, Any],
    ) -> tuple[Tensor, Tensor]:
        ctx.entry, ctx.parameters = entry, parameters
        ctx.tensors = [name for name, value in parameters.items() if isinstance(value, Tensor)]
        ctx.save_for_backward(output, target, kept, *(parameters[name] for name in ctx.tensors))
        numerator, denominator, *rest = _evaluate(entry, output, target, kept, parameters)
        ctx.derivative, ctx.scale = rest
        ctx.mark_non_differentiable(denominator)
        return numerator, denominator

    @staticmethod
    def backward(ctx: Any, slope: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        output, target, kept, *own = ctx.saved_tensors
        parameters = ctx.parameters | dict(zip(ctx.tensors, own, strict=True))
        nothing = (None, None, None)
        if torch.is_grad_enabled():  # somebody will differentiate again
            plain = ctx.entry.plain(output, target, kept, parameters).values.sum()
            (gradient,) = torch.autograd.grad(plain, output, slope, create_graph=True)
            return None, gradient, *nothing
        derivative, ctx.derivative = ctx.derivative, None
        if derivative is None:  # the graph was retained, and the buffer given away
            derivative = _evaluate(ctx.entry, output, target, kept, parameters)[2]
        slope = slope / ctx.scale
        if several(slope):
            return None, derivative * slope, *nothing
        if slope.device.type == "cpu" and slope == 1:  # elsewhere asking takes longer
            return None, derivative, *nothing
        return None, derivative.mul_(slope), *nothing


def _evaluate(
    entry: "Loss",
    output: Tensor,
    target: Tensor,
    kept: Tensor | None,
    parameters: dict[str, Any],
) -> tuple[Tensor, Tensor, Tensor, float]:
    """Sum of values, sum of counts, and in one buffer the derivative of the former times a scale.

    The scale is that of a mean over all values, so that its backward pass has nothing left to do.
    """
    if _COMPILING.get():
        return _by_kernel(entry, output, target, kept, parameters)
    buffer = torch.empty_like(output, memory_format=torch.contiguous_format)
    sums, numbers = [output.new_zeros(())], [output.new_zeros(())]
    defaults = [p.default for p in entry.parameters.values()]
    by_class = any(isinstance(value, Tensor) for value in (*parameters.values(), *defaults))
    whole, scale = by_class or entry.sum_classes, 0.0
    for x, y, mask, into in _pieces(entry, whole, output, target, kept, buffer):
        given = parameters | {"into": into} if _in_place(entry.derivative) else parameters
        values, derivative, counts = _piece(entry, x, y, mask, given)
        scale = scale or x.numel() / (values.numel() * output.numel())
        torch.mul(derivative, scale, out=into)
        sums.append(values.sum())
        numbers.append(values.new_full((), values.numel()) if counts is None else counts.sum())
    if entry.sum_classes:
        numbers = [_items(output, kept)]
    return torch.stack(sums).sum(), torch.stack(numbers).sum(), buffer, scale


@functools.lru_cache(maxsize=256)
def _in_place(derivative: Callable[..., Any]) -> bool:
    """Whether a derivative can be told where to write."""
    return "into" in inspect.signature(derivative).parameters


def _items(output: Tensor, kept: Tensor | None) -> Tensor:
    """How many items have an element that counts."""
    items = torch.ones_like(output[:, 0]) if kept is None else kept.any(1).to(output.dtype)
    return items.sum()


def _by_kernel(
    entry: "Loss",
    output: Tensor,
    target: Tensor,
    kept: Tensor | None,
    parameters: dict[str, Any],
) -> tuple[Tensor, Tensor, Tensor, float]:
    """As :func:`_evaluate`, in one kernel; numbers are constants of it, tensors are not."""
    tensors = {k: v for k, v in parameters.items() if isinstance(v, Tensor)}
    numbers = tuple((k, v) for k, v in parameters.items() if k not in tensors)
    value, counts, derivative, many = _kernel(entry.name, numbers)(output, target, kept, tensors)
    return value, _items(output, kept) if entry.sum_classes else counts, derivative, 1 / many


@functools.lru_cache(maxsize=256)
def _kernel(name: str, numbers: tuple[tuple[str, Any], ...]) -> Any:
    from losses.core import get  # which needs this module

    entry, fixed = get(name), dict(numbers)

    def sums(
        x: Tensor, y: Tensor, mask: Tensor | None, tensors: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor, int]:
        values, derivative, counts = _piece(entry, x, y, mask, fixed | tensors)
        many = values.numel()
        number = values.new_full((), many) if counts is None else counts.sum()
        return values.sum(), number, derivative * (1 / many), many

    return kernel(sums, name)


def kernel(function: Callable[..., Any], name: str) -> Any:
    """Compiled. The compiler counts a code object's variants and stops at some: each has its own.

    The function must be fresh, and the name no other's.
    """
    assert isinstance(function, FunctionType)
    function.__code__ = function.__code__.replace(co_name=name)
    return torch.compile(function)


def _piece(
    entry: "Loss", x: Tensor, y: Tensor, mask: Tensor | None, parameters: dict[str, Any]
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Values, derivative and counts of one piece, nothing of what is ignored in any of them."""
    assert entry.derivative is not None
    y = as_numbers(entry, y, x)
    if mask is None:
        values, derivative, *given = entry.derivative(x, y, **parameters)
        return values, derivative, given[0] if given else None
    over = over_classes(mask, x)
    x, y = torch.where(over, x, 0), torch.where(over_classes(mask, y), y, 0)
    values, derivative, *given = entry.derivative(x, y, **parameters)
    counts = given[0] * mask if given else mask.to(values.dtype)
    return values * mask, derivative * over, counts


def _pieces(
    entry: "Loss", whole: bool, output: Tensor, target: Tensor, *others: Tensor | None
) -> Iterator[tuple[Any, ...]]:
    """The same part of every tensor, small enough for the cache; views of the last."""
    tensors = (output, target, *others)
    most = PIECE.get(output.device.type, WHOLE)
    if entry.target in ("binary", "real") and entry.heads == 1 and not whole:
        yield from split(tuple(t if t is None else t.reshape(-1) for t in tensors), most, 0)
        return
    classes, size = output.shape[1], math.prod(output.shape[1:])
    if output.ndim > 3:  # [N, C, L] and [N, L]
        tensors = tuple(
            t if t is None else t.flatten(2 if t.ndim == output.ndim else 1) for t in tensors
        )
    if entry.target == "boxes":
        most *= 3  # tiny operations, of which the number counts
    elif entry.target in ("index", "index or probabilities", "probabilities"):
        most *= 16 if _in_place(entry.derivative) else 8  # few buffers beside one of the softmax
    if size <= most or output.ndim < 3:
        yield from split(tensors, max(1, most // size), 0)
        return
    for item in split(tensors, 1, 0):
        yield from split(item, max(1, most // classes), -1)


def split(
    tensors: tuple[Tensor | None, ...], size: int, axis: int
) -> Iterator[tuple[Tensor | None, ...]]:
    """The same part of every tensor, of at most that size along the axis."""
    length = next(t.shape[axis] for t in tensors if t is not None)
    if length <= size:
        yield from [tensors][:length]
        return
    parts = -(-length // size)
    each = ([None] * parts if t is None else torch.split(t, size, axis) for t in tensors)
    yield from zip(*each, strict=True)
