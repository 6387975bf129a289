"""What every loss does with its inputs before the maths: shapes, labels, ranges, ignored items."""

import contextlib
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from losses.arguments import Bounds, ClassCounts, ClassWeight, PerClass

if TYPE_CHECKING:
    from losses.core import Loss

IGNORE_INDEX = -100
IGNORING = ("index", "index or probabilities", "probabilities", "ordinal", "binary")
"""Kinds of targets in which an item can be marked as not counting."""
NUMBERS = ("binary", "real", "boxes", "place")
"""Kinds of targets that are numbers, of whatever dtype."""

BITS = {torch.float32: torch.int32, torch.float64: torch.int64}
COMPARED_AS = {  # torch finds no smallest and largest of these
    torch.bool: torch.uint8,
    torch.uint16: torch.int32,
    torch.uint32: torch.int64,
    torch.uint64: torch.int64,
}
AUTOCAST_DEVICES = ("cpu", "cuda", "mps", "xpu")  # to ask torch for them breaks compiling in 2.11


def check_shapes(entry: "Loss", output: Tensor, target: Tensor) -> None:
    """Raise ValueError, naming both shapes, unless output and target belong together."""
    shapes = f"got output {list(output.shape)} and target {list(target.shape)}"
    if not output.is_floating_point():
        raise ValueError(f"{entry.name} needs a floating-point output, got {output.dtype}")
    if entry.sum_classes and output.ndim < 2:
        raise ValueError(f"{entry.name} needs output and target [N, C, ...]; {shapes}")
    if entry.target == "boxes":
        if output.shape != target.shape or output.shape[-1:] != (4,) or output.ndim != 2:
            raise ValueError(f"{entry.name} needs boxes [N, 4] on both sides; {shapes}")
    elif entry.target == "labels":
        if output.ndim != 2 or target.shape != output.shape[:1] or target.is_floating_point():
            raise ValueError(f"{entry.name} needs output [N, D] and int target [N]; {shapes}")
    elif entry.heads > 1:
        if output.ndim < 2 or output.shape != (*target.shape[:1], entry.heads, *target.shape[1:]):
            raise ValueError(
                f"{entry.name} needs output [N, {entry.heads}, ...] and target [N, ...]; {shapes}"
            )
    elif entry.target in ("binary", "real"):
        if output.shape != target.shape:
            raise ValueError(f"{entry.name} needs output and target of one shape; {shapes}")
        if entry.region and not output.ndim:
            raise ValueError(f"{entry.name} needs output and target [N, ...]; {shapes}")
    elif target.is_floating_point() and entry.target != "place":
        if entry.target in ("index", "ordinal"):
            raise ValueError(f"{entry.name} needs class indices (int64), got {target.dtype}")
        if output.ndim < 2 or output.shape != target.shape:
            raise ValueError(f"{entry.name} needs probabilities of the output's shape; {shapes}")
    elif output.ndim < 2 or output.shape[:1] + output.shape[2:] != target.shape:
        columns = {"ordinal": "C - 1", "place": "K"}.get(entry.target, "C")
        raise ValueError(
            f"{entry.name} needs output [N, {columns}, ...] and target [N, ...]; {shapes}"
        )


def check_fields(entry: "Loss", inputs: tuple[Tensor, ...], own: dict[str, Tensor]) -> None:
    """Raise ValueError unless every input is there, of its declared kind, shape and range."""
    if len(inputs) != len(entry.inputs):
        raise ValueError(f"{entry.name} needs {', '.join(entry.inputs)}; got {len(inputs)} tensors")
    given = dict(zip(entry.inputs, inputs, strict=True)) | own
    shapes = ", ".join(f"{name} {list(field.shape)}" for name, field in given.items())
    if len({field.shape[:1] for field in inputs}) > 1:
        raise ValueError(f"{entry.name} needs one row per item in each of its inputs; got {shapes}")
    sizes: dict[str, Any] = {}
    for name, declared in entry.fields.items():
        kind, *axes = declared.split()
        kind, _, axis = kind.partition("<")
        if _kind(given[name]) != kind:
            raise ValueError(f"{entry.name} needs {kind} values in {name}, got {given[name].dtype}")
        if not _fits(given[name].shape, axes, sizes):
            wanted = ", ".join(f"{n} [{', '.join(d.split()[1:])}]" for n, d in entry.fields.items())
            raise ValueError(f"{entry.name} needs {wanted}; got {shapes}")
        if axis:  # `C` for indices into it, `=T` for lengths along it
            size = sizes[axis.lstrip("=")]
            highest = size if axis.startswith("=") else size - 1
            what = f"{name} from 0 to {highest} ({axis.lstrip('=')} is {size})"
            _check_range(entry, given[name], Bounds(0, highest), what)
    for name, bounds in entry.limits.items():
        _check_range(entry, given[name], bounds, f"{name} {bounds}")


def _fits(shape: torch.Size, axes: list[str], sizes: dict[str, Any]) -> bool:
    """Whether a shape has these axes, given the sizes seen so far, to which its own are added."""
    named = axes[:-1] if axes[-1] == "..." else axes
    found: dict[str, Any] = dict(zip(named, shape, strict=False))
    if (named is axes and len(shape) != len(axes)) or len(shape) < len(named):
        return False
    if named is not axes:
        found["..."] = shape[len(named) :]
    return all(sizes.setdefault(axis, size) == size for axis, size in found.items())


def _kind(tensor: Tensor) -> str:
    if tensor.dtype is torch.bool:
        return "bool"
    return "float" if tensor.is_floating_point() else "int"


def as_field(tensor: Tensor) -> Tensor:
    """Half precision as float32, integers as int64."""
    return tensor.long() if _kind(tensor) == "int" else upcast(tensor)


def like(own: Tensor, tensor: Tensor) -> Tensor:
    """A tensor of the loss's own in another's dtype, on its own device; integers as they are."""
    return own.to(tensor.dtype) if own.is_floating_point() else own


def upcast(tensor: Tensor) -> Tensor:
    """Half precision as float32; all else as it is."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def as_declared(
    entry: "Loss",
    output: Tensor,
    target: Tensor,
    kept: Tensor | None,
    extremes: tuple[float, float] | None = None,
) -> Tensor:
    """Target in the encoding the author's function expects; values are checked.

    Its dtype is left to :func:`as_numbers`. `extremes` are the target's, where they are known.
    """
    if entry.output_within:
        counted = output if kept is None else torch.where(over_classes(kept, output), output, 0)
        _check_range(entry, counted, entry.output_within, f"outputs {entry.output_within}")
    if entry.target == "labels":
        return target.long()
    if entry.target in ("real", "boxes"):
        if entry.within:
            _check_range(entry, target, entry.within, f"targets {entry.within}")
        return target
    if entry.target == "binary":
        _check_range(entry, target, Bounds(0, 1), "targets in [0, 1]", extremes)
        return target
    if entry.target == "place":
        last = output.shape[1] - 1
        _check_range(entry, target, Bounds(0, last), f"places from 0 to {last}")
        return target
    if target.is_floating_point():
        _check_range(entry, target, Bounds(0, 1), "probabilities in [0, 1]")
        if _readable(target):
            sums = target.sum(1)
            _check_range(entry, sums, Bounds(0.99, 1.01), "probabilities that sum to 1 over C")
        return target
    classes = output.shape[1] + (entry.target == "ordinal")
    within, what = Bounds(0, classes - 1), f"class indices below {classes}"
    _check_range(entry, target, within, what, extremes)
    target = target.long()
    if entry.target == "probabilities":
        return F.one_hot(target, classes).movedim(-1, 1).to(output.dtype)
    return target


def as_numbers(entry: "Loss", target: Tensor, output: Tensor) -> Tensor:
    """A target, or a piece of one, in the output's dtype, unless it holds indices."""
    numbers = entry.target in NUMBERS or target.is_floating_point()
    return target.to(output.dtype) if numbers else target


def fitted(entry: "Loss", key: str, value: Any, output: Tensor) -> Any:
    """A factor per class in the output's dtype and on its device, its shape checked.

    A tensor of the loss's own stays on its device, for the optimiser knows it there.
    """
    if key in entry.own:
        return value.to(output.dtype)
    per_class = entry.parameters[key].annotation in (ClassWeight, ClassCounts, PerClass)
    if not (per_class and isinstance(value, Tensor)):
        return value
    if value.shape != output.shape[1:2]:
        raise ValueError(
            f"{entry.name}.{key} needs one number per class, {output.shape[1]} of them; "
            f"got shape {list(value.shape)}"
        )
    return value.to(output)


def check_own(entry: "Loss", output: Tensor, target: Tensor, given: dict[str, Any]) -> None:
    """Raise ValueError unless what there is per class, if any, fits the embeddings and labels."""
    for name in entry.own:
        shape = given[name].shape
        if len(shape) != 1 and (len(shape) != 2 or shape[1] != output.shape[1]):
            raise ValueError(
                f"{entry.name} needs {name} [C, D] for its output [N, D]; "
                f"got {name} {list(shape)} and output {list(output.shape)}"
            )
        classes = Bounds(0, shape[0] - 1)
        _check_range(entry, target, classes, f"class indices below {shape[0]}")


def check_counts(path: str, counts: Any) -> None:
    """Raise ValueError unless there are items of some class; tensors on the CPU are looked at."""
    if isinstance(counts, str):
        raise ValueError(f"{path}: pass the number of items of each class")
    if isinstance(counts, Tensor) and not _readable(counts):
        return
    numbers = torch.as_tensor(counts)
    if not bool(((numbers >= 0) & numbers.isfinite()).all() & (numbers > 0).any()):
        raise ValueError(f"{path} must be finite, >= 0, and above 0 somewhere, got {counts!r}")


def _check_range(
    entry: "Loss",
    tensor: Tensor,
    bounds: Bounds,
    what: str,
    extremes: tuple[float, float] | None = None,
) -> None:
    """Raise if a value lies outside, where values can be read."""
    if tensor.numel() == 0 or not _readable(tensor):
        return
    if extremes is None:
        extremes = _extremes(tensor) if bounds.low > -math.inf else _highest(tensor)
    smallest, largest = extremes
    if smallest not in bounds or largest not in bounds:
        raise ValueError(
            f"{entry.name} needs {what}, got values from {smallest:g} to {largest:g} "
            f"in shape {list(tensor.shape)}"
        )


def _highest(tensor: Tensor) -> tuple[float, float]:
    highest = tensor.amax().item()
    return highest, highest


def _extremes(tensor: Tensor) -> tuple[float, float]:
    if tensor.dtype in BITS:  # of integers torch finds both in one quick pass
        low, high = tensor.view(BITS[tensor.dtype]).aminmax()
        largest = high.view(tensor.dtype).item()
        if low >= 0 and not math.isnan(largest):  # numbers from 0 on are in the order of their bits
            return low.view(tensor.dtype).item(), largest
    if tensor.is_floating_point():
        return tensor.amin().item(), tensor.amax().item()
    low, high = tensor.to(COMPARED_AS.get(tensor.dtype, tensor.dtype)).aminmax()
    return low.item(), high.item()


def _readable(tensor: Tensor) -> bool:
    """Whether looking at values is free of synchronisation and allowed (not in vmap or compile)."""
    plain = tensor.device.type == "cpu" and not torch.compiler.is_compiling()
    return plain and torch._C._functorch.maybe_get_level(tensor) == -1


def kept_items(
    entry: "Loss", target: Tensor, ignore_index: int
) -> tuple[Tensor | None, tuple[float, float] | None]:
    """Which items count, or None where all do; and the extremes if all do and one had to look."""
    if entry.target not in IGNORING or target.is_floating_point():
        return None, None
    if _readable(target) and target.numel():
        extremes = _extremes(target)
        if not extremes[0] <= ignore_index <= extremes[1]:
            return None, extremes
    if target.dtype is not torch.bool:  # a bool becomes int64, a uint8 would wrap -100 to 156
        held = torch.iinfo(target.dtype)
        if not held.min <= ignore_index <= held.max:
            return None, None
    return target != ignore_index, None


def over_classes(kept: Tensor, output: Tensor) -> Tensor:
    """The mask with a class axis, where the output has one that targets lack."""
    return kept if kept.ndim == output.ndim else kept.unsqueeze(1)


def autocast_off(output: Tensor) -> contextlib.AbstractContextManager[object]:
    """A context in which the maths runs in the dtype it is given."""
    device = output.device.type
    if device in AUTOCAST_DEVICES and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return contextlib.nullcontext()
