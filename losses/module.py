"""A loss as an `nn.Module`, with its parameters and the tensors it learns itself."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from losses import fused
from losses.arguments import check_arguments, convert
from losses.calls import Reduction, checked
from losses.core import Fraction, Loss, check_reduction, get, names, reduce


class LossModule(nn.Module):
    """A loss with its parameters, usable wherever `nn.CrossEntropyLoss` is, made by :func:`build`.

    Takes an output and a target as its loss does, see :data:`Target`, and returns a scalar (values
    per item for `reduction="none"`).
    """

    def __init__(
        self,
        entry: Loss,
        parameters: dict[str, Any],
        reduction: Reduction = "mean",
        own: Mapping[str, Tensor] | None = None,
        *,
        compiled: bool = False,
    ) -> None:
        super().__init__()
        self.entry, self.compiled = entry, compiled
        self.reduction: Reduction = reduction
        self.settings = {k: v for k, v in parameters.items() if not isinstance(v, Tensor)}
        self.tensors = [k for k, v in parameters.items() if isinstance(v, Tensor)]
        for key in self.tensors:
            self.register_buffer(key, parameters[key])
        for key, tensor in (own or {}).items():
            self.tensors.append(key)
            if tensor.is_floating_point():
                self.register_parameter(key, nn.Parameter(tensor))
            else:
                self.register_buffer(key, tensor)

    def _given(self) -> dict[str, Any]:
        return self.settings | {key: getattr(self, key) for key in self.tensors}

    def forward(self, *inputs: Tensor) -> Tensor:
        """Reduce the loss of the output against the target."""
        if not self.compiled:
            return reduce(self.entry, self.reduction, inputs, self._given())
        with fused.compiling():
            return reduce(self.entry, self.reduction, inputs, self._given())

    def fraction(self, *inputs: Tensor) -> Fraction:
        """Numerator and denominator of the mean, undivided."""
        if not self.compiled:
            return self.entry.fraction(*inputs, **self._given())
        with fused.compiling():
            return self.entry.fraction(*inputs, **self._given())

    def extra_repr(self) -> str:
        """Name and parameters."""
        given = {**self.settings, **dict.fromkeys(self.tensors, "tensor")}
        settings = [f"{key}={value}" for key, value in given.items()]
        return ", ".join([self.entry.name, *settings, *["compiled"] * self.compiled])


def build(
    name: str,
    *,
    reduction: Reduction = "mean",
    generator: torch.Generator | None = None,
    compiled: bool = False,
    **parameters: Any,
) -> LossModule:
    """Make a module of a registered loss; numbers per class become buffers.

    A loss with tensors of its own also takes the sizes they need, `classes=10, features=64`, and
    draws them from the generator. They are parameters of the module, for the optimiser to move.

    With `compiled` a loss whose derivative is known by hand is evaluated, from some 16,000 scores
    on, by one kernel that torch's compiler makes at the first call, in seconds, with the C++
    compiler that it needs on a CPU; the sums of a loss of regions and their gradient by one each.
    That pays where a loss does much arithmetic for each score (focal, asymmetric) and for losses of
    regions; scripts/bench_losses has the figures.

    Raises:
        ValueError: unknown loss or parameter, wrong type, a value out of bounds, or `compiled` for
            a loss without such a derivative.
    """
    entry = get(name)
    convert("compiled", bool, compiled)
    if compiled and not (entry.derivative or entry.sums):
        known = ", ".join(each for each in names() if get(each).derivative or get(each).sums)
        raise ValueError(f"{name} has no derivative by hand to compile; these have: {known}")
    check_reduction(entry, reduction)
    settings = {key: value for key, value in parameters.items() if key not in entry.sizes}
    sizes = {key: value for key, value in parameters.items() if key in entry.sizes}
    given = checked(entry, settings)
    own = entry.make_own(given | check_arguments(name, entry.sizes, sizes), generator)
    return LossModule(entry, given, reduction, own, compiled=compiled)
